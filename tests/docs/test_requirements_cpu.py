"""The small install says the same versions as the lock, and has no second owner of `onnxruntime`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _pinned() -> dict[str, set[str]]:
    pins: dict[str, set[str]] = {}
    for line in (ROOT / "requirements-cpu.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, version = line.split(" ;")[0].split("==")
            pins.setdefault(name, set()).add(version)
    return pins


def test_every_pin_is_the_version_of_the_lock() -> None:
    locked: dict[str, set[str]] = {}
    for package in tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]:
        locked.setdefault(package["name"], set()).add(package.get("version", ""))
    wrong = {name: versions for name, versions in _pinned().items() if not versions <= locked.get(name, set())}
    assert wrong == {}


def test_every_dependency_is_pinned_and_onnxruntime_has_one_owner() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {match[0] for text in project["dependencies"] if (match := re.match(r"[A-Za-z0-9-]+", text))}
    assert wanted - set(_pinned()) == {"onnxruntime-gpu"}
    assert "onnxruntime" in _pinned()
