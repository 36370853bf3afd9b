"""The systemd units as systemd's own tools see them."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from edge_node.config.secrets import NODE_KEYS, keys_for
from edge_node.domain.study import Role

UNITS = Path(__file__).resolve().parents[2] / "systemd"
EXPOSURE_MOST = 15  # tenths, as systemd-analyze counts it: 1.5

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def settings(role: Role) -> list[tuple[str, str]]:
    """(name, value) of every setting of the role's unit, in order."""
    lines = (UNITS / f"edge-node-{role}.service").read_text().splitlines()
    return [(name, value) for line in lines if line[:1] not in ("#", "[", "") for name, value in [line.split("=", 1)]]


def values(role: Role, name: str) -> list[str]:
    return [value for key, value in settings(role) if key == name]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units beside a command that exists."""
    for unit in [*UNITS.glob("*.service"), *UNITS.glob("*.target")]:
        (tmp_path / unit.name).write_text(unit.read_text().replace("/usr/bin/edge-node", "/bin/true"))
    return tmp_path


@pytest.mark.parametrize("role", list(Role))
def test_a_process_that_is_killed_for_its_memory_takes_its_role_with_it_nowhere(role: Role) -> None:
    assert values(role, "OOMPolicy") == ["continue"]


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_units(installed: Path) -> None:
    units = sorted(map(str, installed.iterdir()))
    assert len(units) == 5
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], check=False, capture_output=True, text=True
    )
    said = [line for line in done.stderr.splitlines() if "edge-node" in line]
    assert (done.returncode, said) == (0, [])


@needs_systemd
@pytest.mark.parametrize("role", list(Role))
def test_the_exposure_of_each_role_is_low(installed: Path, role: Role) -> None:
    done = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=yes",
            "--no-pager",
            f"--threshold={EXPOSURE_MOST}",
            str(installed / f"edge-node-{role}.service"),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert re.search(r"Overall exposure level.*: \d", done.stdout)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("role", list(Role))
def test_each_unit_runs_its_role_and_is_watched_and_restarted(role: Role) -> None:
    assert values(role, "ExecStart") == [f"/usr/bin/edge-node run --role {role}"]
    assert values(role, "Type") == ["notify"]
    assert values(role, "Restart") == ["always"]
    assert int(values(role, "WatchdogSec")[0]) > 0
    assert values(role, "User") == ["edge-node"]


@pytest.mark.parametrize("role", list(Role))
def test_identity_cannot_reach_the_disk_by_a_core_dump_or_swap(role: Role) -> None:
    assert values(role, "LimitCORE") == ["0"]
    assert values(role, "MemorySwapMax") == ["0"]


@pytest.mark.parametrize("role", list(Role))
def test_a_role_cannot_open_the_keys_it_may_not_load(role: Role) -> None:
    folder = "-/var/lib/edge-node/keys"
    hidden = values(role, "InaccessiblePaths")
    forbidden = [name for name in NODE_KEYS if name not in keys_for(role)]
    assert folder in hidden or {f"{folder}/{name}{old}.key" for name in forbidden for old in ("", ".old")} == set(
        hidden
    )
    if keys_for(role):
        assert folder not in hidden


def test_compute_has_no_network_at_all() -> None:
    assert values(Role.COMPUTE, "PrivateNetwork") == ["yes"]
    assert values(Role.COMPUTE, "RestrictAddressFamilies") == ["AF_UNIX"]


def test_the_status_page_talks_to_the_loopback_only() -> None:
    assert values(Role.STATUS, "IPAddressDeny") == ["any"]
    assert values(Role.STATUS, "IPAddressAllow") == ["localhost"]


@needs_systemd
@pytest.mark.parametrize("role", list(Role))
def test_a_role_may_ask_for_less_than_others_get_but_not_look_into_their_memory(role: Role) -> None:
    said = subprocess.run(
        ["systemd-analyze", "--no-pager", "syscall-filter"], check=True, capture_output=True, text=True
    )
    members: dict[str, list[str]] = {}
    for line in said.stdout.splitlines():
        if line.startswith("@"):
            found = members.setdefault(line.strip(), [])
        elif line.startswith(" ") and not line.strip().startswith("#"):
            found.append(line.strip())

    def calls(names: list[str]) -> set[str]:
        return set().union(*({name} if name not in members else calls(members[name]) for name in names))

    allowed: set[str] = set()
    for value in values(role, "SystemCallFilter"):
        named = calls(value.removeprefix("~").split())
        allowed = allowed - named if value.startswith("~") else allowed | named
    assert {"setpriority", "getpriority", "prlimit64", "read"} <= allowed
    assert not {"process_vm_readv", "process_vm_writev", "ptrace", "sched_setscheduler", "mount"} & allowed


def test_the_sandbox_is_the_same_in_every_unit() -> None:
    marker = "# The sandbox, the same in every edge-node unit\n"
    boxes = {(UNITS / f"edge-node-{role}.service").read_text().split(marker)[1] for role in Role}
    assert len(boxes) == 1


def test_the_target_wants_every_role() -> None:
    (wants,) = re.findall(r"^Wants=(.*)$", (UNITS / "edge-node.target").read_text(), re.MULTILINE)
    assert wants.split() == [f"edge-node-{role}.service" for role in Role]


@pytest.mark.skipif(
    os.geteuid() != 0 or not (shutil.which("systemd-sysusers") and shutil.which("systemd-tmpfiles")),
    reason="needs root, systemd-sysusers and systemd-tmpfiles",
)
def test_user_and_folders_are_made_with_narrow_rights(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    users, files = UNITS / "sysusers.d" / "edge-node.conf", UNITS / "tmpfiles.d" / "edge-node.conf"
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", str(users)], check=True, capture_output=True)
    assert "edge-node:" in (tmp_path / "etc" / "passwd").read_text()
    subprocess.run(["systemd-tmpfiles", f"--root={tmp_path}", "--create", str(files)], check=True, capture_output=True)
    modes = {
        name: stat.S_IMODE((tmp_path / name).stat().st_mode)
        for name in ("var/lib/edge-node", "var/lib/edge-node/spool", "var/lib/edge-node/keys", "etc/edge-node")
    }
    assert modes == {
        "var/lib/edge-node": 0o750,
        "var/lib/edge-node/spool": 0o750,
        "var/lib/edge-node/keys": 0o700,
        "etc/edge-node": 0o750,
    }
