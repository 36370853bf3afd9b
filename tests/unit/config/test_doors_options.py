"""Options of the doors (TLS, STOW-RS, folder) that contradict each other are told before a listener starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_node.config.load import ConfigInvalid, load

PEER = {"peers.pacs.ae_title": "PACS", "peers.pacs.host": "h", "peers.pacs.port": "104"}


def problems(**flags: object) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        load(environ={}, flags={key.replace("__", "."): value for key, value in flags.items()})
    return caught.value.message


def test_a_tls_port_needs_certificate_and_key() -> None:
    told = problems(tls__port=2762)
    assert "[tls] cert: is needed when tls.port is set" in told
    assert "[tls] key: is needed when tls.port is set" in told


def test_a_node_that_would_listen_nowhere_is_told_so() -> None:
    assert "[receive] plain: nothing would listen" in problems(receive__plain=False)


def test_one_port_does_not_speak_both(tmp_path: Path) -> None:
    assert "[tls] port: is receive.port already" in problems(tls__port=11112)


def test_a_key_that_others_may_read_is_told(tmp_path: Path) -> None:
    key = tmp_path / "our.key"
    key.write_text("x")
    key.chmod(0o644)
    assert f"[tls] key: {key}: other users may read this secret" in problems(tls__port=2762, tls__key=str(key))


@pytest.mark.parametrize("client", ["ct1", "CN=", "00:11", "g" * 64])
def test_an_allowed_client_is_a_name_or_a_fingerprint(client: str) -> None:
    assert "CN=name or the SHA-256 fingerprint" in problems(tls__allowed_clients=client)


def test_a_list_of_clients_without_a_ca_would_admit_nobody_honestly() -> None:
    assert "[tls] allowed_clients: needs client_ca" in problems(tls__port=2762, tls__allowed_clients="CN=ct1")


def test_certificates_of_a_peer_without_tls_are_an_error_not_a_wish(tmp_path: Path) -> None:
    told = problems(**PEER, **{"peers.pacs.ca_file": str(tmp_path / "ca.pem")})
    assert "[peers.pacs] ca_file: has no effect without tls = true" in told


def test_paths_of_a_peer_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    file = tmp_path / "edge-node.toml"
    file.write_text("[peers.pacs]\nae_title = 'P'\nhost = 'h'\nport = 1\ntls = true\nca_file = 'ca.pem'\n")
    assert load(file, environ={}).config.peers["pacs"].ca_file == tmp_path / "ca.pem"


def test_stow_beyond_loopback_needs_tls_and_a_secret() -> None:
    told = problems(stow__port=8080, stow__host="0.0.0.0")
    assert "[stow] host: would take studies unencrypted over the network" in told
    assert "[stow] host: would take studies from anybody" in told
    assert load(environ={}, flags={"stow.port": 8080}).config.stow.host == "127.0.0.1"


def test_stow_has_a_port_of_its_own_and_one_secret(tmp_path: Path) -> None:
    assert "[stow] port: is receive.port already" in problems(stow__port=11112)
    assert "[stow] port: is status.port already" in problems(stow__port=8093)
    assert "[stow] user: needs password_file" in problems(stow__port=8080, stow__user="pacs")


def test_the_watched_folder_lies_apart_from_the_data(tmp_path: Path) -> None:
    (tmp_path / "data" / "in").mkdir(parents=True)
    data = str(tmp_path / "data")
    for inner in ("", "data", "data/in"):
        told = problems(node__data_dir=data, inbox__folder=str(tmp_path / inner))
        assert "[inbox] folder: must not lie in node.data_dir" in told
    assert "no such folder" in problems(inbox__folder=str(tmp_path / "nowhere"))
