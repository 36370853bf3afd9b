"""Node keys are made once, kept close, and handed only to the role whose work needs them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from edge_node.config.schema import Config, Node
from edge_node.config.secrets import (
    KEY_BYTES,
    NODE_KEYS,
    RoleKeys,
    create_keys,
    keys_dir,
    keys_for,
    load_key,
    read_secret_file,
    secret_file_problem,
)
from edge_node.domain.errors import Stop
from edge_node.domain.study import Role


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(node=Node(data_dir=tmp_path / "data"))


def _secret(path: Path, text: str = "s3cret\n", mode: int = 0o400) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_keys_are_private_files_of_32_random_bytes_in_a_private_folder(config: Config) -> None:
    folder = keys_dir(config)
    assert create_keys(folder) == NODE_KEYS
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.key" for name in NODE_KEYS)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o400}
    keys = {load_key(name, config, environ={}) for name in NODE_KEYS}
    assert len(keys) == len(NODE_KEYS)
    assert {len(key) for key in keys} == {KEY_BYTES}


def test_a_key_that_exists_is_never_overwritten(config: Config) -> None:
    folder = keys_dir(config)
    create_keys(folder)
    before = {name: load_key(name, config, environ={}) for name in NODE_KEYS}
    (folder / "clean.key").unlink()
    assert create_keys(folder) == ("clean",)
    assert create_keys(folder) == ()
    after = {name: load_key(name, config, environ={}) for name in NODE_KEYS}
    assert after["clean"] != before.pop("clean")
    assert {name: after[name] for name in before} == before


def test_what_a_crash_left_behind_does_not_become_a_key(config: Config) -> None:
    folder = keys_dir(config)
    folder.mkdir(parents=True, mode=0o700)
    (folder / f".clean.key.{os.getpid()}").write_bytes(b"half")
    create_keys(folder)
    assert len(load_key("clean", config, environ={})) == KEY_BYTES
    assert not list(folder.glob(".*"))


def test_keys_are_not_put_into_a_folder_that_others_may_enter(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(Stop) as caught:
        create_keys(tmp_path)
    assert caught.value.code == "secrets.dir-too-open"
    assert caught.value.hint == f"chmod 0700 {tmp_path}"
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    _secret(tmp_path / "file")
    with pytest.raises(Stop) as caught:
        create_keys(tmp_path / "file" / "keys")
    assert caught.value.code == "secrets.unwritable"


def test_a_missing_key_says_how_to_make_it(config: Config) -> None:
    with pytest.raises(Stop) as caught:
        load_key("vault", config, environ={})
    assert (caught.value.code, caught.value.hint) == ("secrets.missing-key", "edge-node init")


@pytest.mark.parametrize("mode", [0o440, 0o404, 0o600 | 0o040, 0o444])
def test_a_key_that_others_may_read_is_refused(config: Config, mode: int) -> None:
    create_keys(keys_dir(config))
    path = keys_dir(config) / "vault.key"
    path.chmod(mode)
    with pytest.raises(Stop) as caught:
        load_key("vault", config, environ={})
    assert (caught.value.code, caught.value.hint) == ("secrets.key-too-open", f"chmod 0400 {path}")


@pytest.mark.parametrize("size", [0, KEY_BYTES - 1, KEY_BYTES + 1, 4096])
def test_a_key_of_another_size_is_refused(config: Config, size: int) -> None:
    create_keys(keys_dir(config))
    path = keys_dir(config) / "vault.key"
    path.chmod(0o600)
    path.write_bytes(bytes(size))
    with pytest.raises(Stop) as caught:
        load_key("vault", config, environ={})
    assert caught.value.code == "secrets.key-wrong-size"


def test_a_folder_in_the_place_of_a_key_is_refused(config: Config) -> None:
    (keys_dir(config) / "vault.key").mkdir(parents=True)
    with pytest.raises(Stop) as caught:
        load_key("vault", config, environ={})
    assert caught.value.code == "secrets.unreadable"


def test_a_systemd_credential_comes_before_the_folder(config: Config, tmp_path: Path) -> None:
    create_keys(keys_dir(config))
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    credential = credentials / "edge-node-vault.key"
    credential.write_bytes(b"V" * KEY_BYTES)
    credential.chmod(0o440)  # as systemd shows it when it grants access by ACL
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)}
    assert load_key("vault", config, environ=environ) == b"V" * KEY_BYTES
    assert load_key("clean", config, environ=environ) == load_key("clean", config, environ={})
    credential.chmod(0o444)
    with pytest.raises(Stop) as caught:
        load_key("vault", config, environ=environ)
    assert caught.value.code == "secrets.key-too-open"


def test_only_the_dicom_role_can_open_an_identity(config: Config) -> None:
    create_keys(keys_dir(config))
    assert keys_for(Role.DICOM) == ("clean", "vault", "quarantine", "pseudonym")
    for role in (Role.COMPUTE, Role.FORWARD):
        keys = RoleKeys(role, config, environ={})
        assert keys.names == ("clean",)
        for name in ("vault", "quarantine", "pseudonym"):
            with pytest.raises(Stop) as caught:
                keys.key(name)
            assert caught.value.code == "secrets.not-this-role"
    assert RoleKeys(Role.STATUS, config, environ={}).names == ()


def test_a_role_does_not_need_the_keys_of_another(config: Config) -> None:
    create_keys(keys_dir(config))
    (keys_dir(config) / "vault.key").unlink()
    assert len(RoleKeys(Role.FORWARD, config, environ={}).key("clean")) == KEY_BYTES
    with pytest.raises(Stop):
        RoleKeys(Role.DICOM, config, environ={})


def test_keys_do_not_show_what_they_are(config: Config) -> None:
    create_keys(keys_dir(config))
    keys = RoleKeys(Role.DICOM, config, environ={})
    assert repr(keys) == "<RoleKeys dicom: clean, vault, quarantine, pseudonym>"
    assert repr(RoleKeys(Role.STATUS, config, environ={})) == "<RoleKeys status: none>"


@pytest.mark.parametrize("text", ["pa ss", "pa ss\n", "pa ss\r\n"])
def test_a_secret_is_the_line_without_its_end(tmp_path: Path, text: str) -> None:
    assert read_secret_file(_secret(tmp_path / "password", text), environ={}) == "pa ss"


@pytest.mark.parametrize("text", ["", "\n", "two\nlines\n", "x" * 70_000])
def test_a_file_that_is_no_single_line_is_no_secret(tmp_path: Path, text: str) -> None:
    with pytest.raises(Stop) as caught:
        read_secret_file(_secret(tmp_path / "password", text), environ={})
    assert caught.value.code == "secrets.file-invalid"


def test_a_secret_that_others_may_read_is_refused_without_being_told(tmp_path: Path) -> None:
    path = _secret(tmp_path / "password", mode=0o644)
    with pytest.raises(Stop) as caught:
        read_secret_file(path, environ={})
    assert caught.value.code == "secrets.file-too-open"
    assert "s3cret" not in str(caught.value)
    assert "chmod 0400" in secret_file_problem(path, environ={})


def test_a_missing_secret_is_told_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "password"
    with pytest.raises(Stop) as caught:
        read_secret_file(path, environ={})
    assert caught.value.code == "secrets.missing-file"
    assert str(path) in secret_file_problem(path, environ={})


def test_a_secret_file_is_judged_without_being_read(tmp_path: Path) -> None:
    assert secret_file_problem(_secret(tmp_path / "password"), environ={}) == ""
    assert "not a file" in secret_file_problem(tmp_path, environ={})
