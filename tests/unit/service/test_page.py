"""The status page: people, machines and probes get their answer from the ledger, on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_node.config.load import load
from edge_node.service.doctor import examine
from edge_node.service.setup import initialise
from tests.e2e.site import free_port


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "e.toml"
    path.write_text(
        f'[node]\nname = "page <test>"\ndata_dir = "data"\n[storage]\nreserve_mb = 16\n'
        f'[receive]\nhost = "127.0.0.1"\nport = {free_port()}\n[status]\nport = {free_port()}\n'
    )
    initialise(load(path).config)
    return path


@pytest.fixture
def page(config: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "edge_node", "--config", str(config), "run", "--role", "status"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{load(config).config.status.port}"
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(url + "/status.json", timeout=2).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield url
        process.terminate()
        assert process.wait(20) == 0


def test_the_page_the_json_the_probe_and_the_metrics_answer(page: str) -> None:
    html = urllib.request.urlopen(page + "/", timeout=5).read().decode()
    assert "page &lt;test&gt;" in html
    assert "<script" not in html
    shot = json.load(urllib.request.urlopen(page + "/status.json", timeout=5))
    assert shot["instances"] == 0
    assert urllib.request.urlopen(page + "/healthz", timeout=5).read() == b"ok\n"
    metrics = urllib.request.urlopen(page + "/metrics", timeout=5).read().decode()
    assert "edge_node_disk_free_bytes" in metrics


def test_an_unknown_path_is_not_found(page: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(page + "/etc/passwd", timeout=5)


def test_the_doctor_names_the_next_command_for_all_that_is_not_well(config: Path) -> None:
    checks = {check.name: check for check in examine(load(config))}
    assert checks["node keys"].result == "ok"
    assert checks["models"].result == "ok"
    assert checks["receiver"].result == "warn"
    assert "edge-node run" in checks["receiver"].hint
    assert all(check.hint for check in checks.values() if check.result != "ok")


def test_the_doctor_finds_missing_keys_and_a_peer_that_is_not_there(config: Path) -> None:
    for key in (config.parent / "data" / "keys").iterdir():
        key.unlink()
    text = config.read_text() + f'[peers.pacs]\nae_title = "GONE"\nhost = "127.0.0.1"\nport = {free_port()}\n'
    config.write_text(text)
    checks = {check.name: check for check in examine(load(config))}
    assert checks["node keys"].result == "fail"
    assert checks["node keys"].hint == "edge-node init"
    assert checks["peer pacs"].result == "fail"
