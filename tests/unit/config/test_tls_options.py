"""Options of TLS that contradict each other are told before a listener starts."""

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
