"""Rotation of node keys, rehearsed: killed anywhere, every object still opens, and the next attempt finishes."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from edge_node.config.key_files import KeyGuard
from edge_node.config.secrets import keys_dir, load_key, load_old_key
from edge_node.deid import key_id_of
from edge_node.domain.errors import Quarantine, Stop
from edge_node.domain.study import Role
from edge_node.service import rekey
from edge_node.service.node import open_node
from edge_node.store.keyring import Keyring
from edge_node.store.receipt import Received
from edge_node.store.studies import Vault
from tests.unit.service.site import Site, image, site

__all__ = ["site"]
STEPS = ("rotate", "exchange", "rewrap", "drop_old", "exchanged")


def _killed_at(step: int, site: Site, name: str) -> bool:
    """Rotate in a child that is killed (-9) at its n-th line within the steps; False when it got to the end."""
    child = os.fork()
    if child == 0:
        left = step

        def trace(frame: FrameType, event: str, _argument: Any) -> Any:
            nonlocal left
            if frame.f_code.co_name not in STEPS:
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        try:
            sys.settrace(trace)
            rekey.rotate(site.config, name)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize(("name", "stride"), [("vault", 1), ("clean", 5), ("quarantine", 5)])
def test_a_rotation_killed_at_any_line_leaves_every_object_open_and_the_next_one_finishes(
    site: Site, name: str, stride: int, tmp_path: Path
) -> None:
    site.take(image(1), image(2), image(1, study=2))
    site.hold()
    before = site.opened()
    assert len(before) == 3 + 2 + 1
    data, copy = site.config.node.data_dir, tmp_path / "copy"
    old = load_key(name, site.config, environ={})
    shutil.copytree(data, copy)
    step, seen = 0, set()
    while _killed_at(step, site, name):
        there = load_old_key(name, site.config, environ={}) is not None
        seen.add((there, load_key(name, site.config, environ={}) == old))
        assert site.opened() == before, f"killed at line {step}"
        rekey.rotate(site.config, name)
        assert site.opened() == before, f"killed at line {step}, then finished"
        assert load_old_key(name, site.config, environ={}) is None
        assert load_key(name, site.config, environ={}) != old
        shutil.rmtree(data)
        shutil.copytree(copy, data)
        step += stride
    assert step > 25
    # it was killed with the old key alone, with both under two names, with the new one first, and when it was done
    assert stride > 1 or seen == {(False, True), (True, True), (True, False), (False, False)}


def test_after_a_rotation_the_old_key_opens_nothing_and_the_new_one_all(site: Site) -> None:
    site.take(image())
    before = site.opened()
    old = {name: load_key(name, site.config, environ={}) for name in ("clean", "vault", "quarantine")}
    done = rekey.rotate(site.config, "vault")
    assert (done.key, done.was, done.rewrapped, done.resumed) == ("vault", key_id_of(old["vault"]), 1, False)
    assert site.opened() == before
    node = open_node(site.config, Role.DICOM)
    [key] = site.rows("study")
    with pytest.raises(Quarantine, match=r"store\.seal-broken"):
        Vault(node.database, Keyring(node.database, old)).open(str(key["study_key"]))
    assert [entry.detail for entry in site.audited("key.rotated")] == [
        {"key": "vault", "from": done.was, "to": done.now, "rewrapped": 1}
    ]
    ledger = site.config.node.data_dir / "ledger.sqlite3"
    assert old["vault"] not in ledger.read_bytes()


def test_nothing_is_rotated_while_somebody_holds_the_keys(site: Site) -> None:
    node = open_node(site.config, Role.COMPUTE)
    with pytest.raises(Stop, match=r"keys\.in-use"):
        rekey.rotate(site.config, "clean")
    assert not site.audited("key.rotation-begun")
    node.database.close()
    del node
    assert rekey.rotate(site.config, "clean").rewrapped == 0


def test_a_role_that_starts_during_a_rotation_waits_for_its_end(site: Site) -> None:
    guard = KeyGuard(site.config, exclusive=True)
    waiting = (
        "import sys; from pathlib import Path; from edge_node.config.key_files import KeyGuard;"
        "from edge_node.config.schema import Config, Node;"
        "config = Config(node=Node(data_dir=Path(sys.argv[1]))); print('asks', flush=True); KeyGuard(config)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", waiting, str(site.config.node.data_dir)], stdout=subprocess.PIPE, text=True
    ) as role:
        assert role.stdout is not None
        assert role.stdout.readline() == "asks\n"
        with pytest.raises(subprocess.TimeoutExpired):
            role.wait(0.3)
        guard.release()
        assert role.wait(10) == 0


def test_a_data_key_that_no_key_opens_stops_the_rotation_and_changes_nothing(site: Site) -> None:
    site.take(image())
    before = site.opened()
    path = keys_dir(site.config) / "vault.key"
    right = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(bytes(32))
    path.chmod(0o400)
    with pytest.raises(Stop, match=r"keys\.unopened"):
        rekey.rotate(site.config, "vault")
    (keys_dir(site.config) / "vault.old.key").unlink()
    path.unlink()
    path.write_bytes(right)
    path.chmod(0o400)
    assert site.opened() == before


def test_a_rotation_that_cannot_be_recorded_does_not_begin(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_named: object) -> int:
        raise Stop("ledger.unusable", "the ledger cannot be used")

    monkeypatch.setattr(rekey.audit, "append", full)
    before = load_key("vault", site.config, environ={})
    with pytest.raises(Stop, match=r"ledger\.unusable"):
        rekey.rotate(site.config, "vault")
    assert load_key("vault", site.config, environ={}) == before
    assert load_old_key("vault", site.config, environ={}) is None


def test_there_is_no_other_key_to_rotate(site: Site) -> None:
    with pytest.raises(Stop, match=r"keys\.unknown"):
        rekey.rotate(site.config, "escrow")


def test_a_study_under_way_goes_on_under_the_site_key_that_began_it(site: Site) -> None:
    [first] = site.take(image(1))
    was = key_id_of(load_key("pseudonym", site.config, environ={}))
    done = rekey.rotate(site.config, "pseudonym")
    assert (done.was, done.now != was) == (was, True)
    late, again, other = site.take(image(2), image(1), image(1, study=2))
    assert (late.study_key, late.received) == (first.study_key, Received.STORED)
    assert again.received is Received.DUPLICATE
    studies = {row["study_key"]: row for row in site.rows("study")}
    assert {key: row["site_key_id"] for key, row in studies.items()} == {
        first.study_key: was,
        other.study_key: done.now,
    }
    assert len({row["series_uid"] for row in site.rows("instance") if row["study_key"] == first.study_key}) == 1


def test_a_site_key_is_kept_until_its_last_study_is_closed(site: Site) -> None:
    site.take(image(1))
    rekey.rotate(site.config, "pseudonym")
    with pytest.raises(Stop, match=r"keys\.old-still-there"):
        rekey.rotate(site.config, "pseudonym")
    with pytest.raises(Stop, match=r"keys\.still-open.*1 studies"):
        rekey.retire(site.config)
    node = open_node(site.config, Role.DICOM)
    with node.database.write() as connection:
        connection.exec_driver_sql("UPDATE study SET state = 'CLOSED'")
    node.database.close()
    del node
    old = load_old_key("pseudonym", site.config, environ={})
    assert old is not None
    assert rekey.retire(site.config) == key_id_of(old)
    assert load_old_key("pseudonym", site.config, environ={}) is None
    with pytest.raises(Stop, match=r"keys\.nothing-to-retire"):
        rekey.retire(site.config)
    assert rekey.rotate(site.config, "pseudonym").was == rekey.overview(site.config)[3]["old"]


def test_a_site_key_rotation_killed_at_any_line_is_finished_by_the_next(site: Site, tmp_path: Path) -> None:
    [first] = site.take(image(1))
    data, copy = site.config.node.data_dir, tmp_path / "copy"
    shutil.copytree(data, copy)
    was = key_id_of(load_key("pseudonym", site.config, environ={}))
    step = 0
    while _killed_at(step, site, "pseudonym"):
        finished = bool(site.audited("key.rotated"))
        if not finished:
            assert rekey.rotate(site.config, "pseudonym").was == was
        assert len(site.audited("key.rotated")) == 1
        [late] = site.take(image(2))
        assert late.study_key == first.study_key
        shutil.rmtree(data)
        shutil.copytree(copy, data)
        step += 1
    assert step > 20


def test_results_of_a_study_keep_their_uids_over_a_rotation(site: Site) -> None:
    from edge_node.service.dicom_steps import result_keys

    site.take(image(1))
    [study] = site.rows("study")
    before = result_keys(open_node(site.config, Role.DICOM).keys)
    rekey.rotate(site.config, "pseudonym")
    after = result_keys(open_node(site.config, Role.DICOM).keys)
    old, new = str(study["site_key_id"]), key_id_of(load_key("pseudonym", site.config, environ={}))
    assert before(old) == after(old) != after(new)


def test_a_ledger_restored_from_before_a_rotation_opens_with_the_key_of_its_day(site: Site, tmp_path: Path) -> None:
    site.take(image(1))
    before, data = site.opened(), site.config.node.data_dir
    was = load_key("vault", site.config, environ={})
    with (
        closing(sqlite3.connect(data / "ledger.sqlite3")) as ledger,
        closing(sqlite3.connect(tmp_path / "b")) as backup,
    ):
        ledger.backup(backup)
    now = rekey.rotate(site.config, "vault").now
    for path in data.glob("ledger.sqlite3*"):
        path.unlink()
    shutil.copy(tmp_path / "b", data / "ledger.sqlite3")
    with pytest.raises(Quarantine, match=r"store\.seal-broken"):
        site.opened()
    old = keys_dir(site.config) / "vault.old.key"
    old.write_bytes(was)
    old.chmod(0o400)
    done = rekey.rotate(site.config, "vault")
    assert (done.now, done.rewrapped, done.resumed) == (now, 1, True)
    assert site.opened() == before


def test_a_site_key_rotated_on_another_node_is_taken_over_and_recorded(site: Site) -> None:
    [first] = site.take(image(1))
    folder = keys_dir(site.config)
    (folder / "pseudonym.key").rename(folder / "pseudonym.old.key")
    (folder / "pseudonym.key").write_bytes(b"n" * 32)
    (folder / "pseudonym.key").chmod(0o400)
    done = rekey.rotate(site.config, "pseudonym")
    assert (done.now, done.resumed) == (key_id_of(b"n" * 32), True)
    late, other = site.take(image(2), image(1, study=2))
    assert late.study_key == first.study_key
    assert {row["site_key_id"] for row in site.rows("study") if row["study_key"] == other.study_key} == {done.now}


def test_a_rotation_makes_no_ledger_where_there_is_none(site: Site) -> None:
    for path in site.config.node.data_dir.glob("ledger.sqlite3*"):
        path.unlink()
    before = load_key("vault", site.config, environ={})
    with pytest.raises(Stop, match=r"ledger\.missing"):
        rekey.rotate(site.config, "vault")
    assert load_key("vault", site.config, environ={}) == before
    assert not (site.config.node.data_dir / "ledger.sqlite3").exists()
