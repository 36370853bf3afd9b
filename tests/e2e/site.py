"""A site for end-to-end tests: the installed command line, real processes, the toy hospital on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Select, select

from edge_node.demo.pacs import ToyPacs
from edge_node.demo.studies import DemoStudy
from edge_node.demo.trainer import ToyTrainer
from edge_node.domain.errors import Retry
from edge_node.domain.worklist import Peer
from edge_node.service.echo import echo
from edge_node.service.sender import SendReport, send_study
from edge_node.store.database import Database
from edge_node.store.tables import heartbeat, study
from tests.ports import free_port

PATIENCE_S = 90.0
MODEL = Path(__file__).resolve().parents[2] / "configs" / "models" / "ref-ct-head-hyperdensity"


class Site:
    """One node in `folder`, configured against `pacs` and `trainer`; sections of `extra` are merged into the TOML."""

    def __init__(
        self,
        folder: Path,
        pacs: ToyPacs | None,
        trainer: ToyTrainer | None,
        *,
        extra: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.config = folder / "edge-node.toml"
        self.process: subprocess.Popen[bytes] | None = None
        sections: dict[str, dict[str, Any]] = {
            "node": {"name": "site", "data_dir": "data", "log_format": "json"},
            "receive": {"host": "127.0.0.1", "port": self.port, "workers": 1},
            "settle": {"quiet_s": 1.0, "quiet_by_modality": {}},
            "storage": {"reserve_mb": 16},
            "status": {"port": 0},
            "triage": {"threads": 1, "packaged_stage": "live", "models_dir": "models"},
        }
        # One model of the shipped ones: each costs a start of seconds. The demo runs them all.
        shutil.copytree(MODEL, folder / "models" / MODEL.name)
        if pacs is not None:
            peer = {"ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.port}
            sections |= {"worklist": {"mode": "live"}, "peers.pacs": peer, "peers.ups": peer}
        if trainer is not None:
            sections |= {"forward": {"url": trainer.url}, "consent": {"source": "allow-all"}}
        for name, options in extra.items():
            sections[name] = {**sections.get(name, {}), **options}
        self.data = folder / str(sections["node"]["data_dir"])
        lines = []
        for name, options in sections.items():
            lines += [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in options.items()), ""]
        self.config.write_text("\n".join(lines))
        self.run("init")

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One call of the command line."""
        command = [sys.executable, "-m", "edge_node", "--config", str(self.config), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    def ask(self, *words: str) -> Any:
        """The JSON answer of a verb."""
        return json.loads(self.run("--json", *words, check=False).stdout)

    def start(self) -> None:
        """`edge-node run`, until the receiver answers C-ECHO and the models are proven."""
        began = time.time()
        with (self.folder / "node.log").open("ab") as log:
            command = [sys.executable, "-m", "edge_node", "--config", str(self.config), "run"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self.wait_for("the receiver", self._answers)
        ready = select(heartbeat.c.role).where(heartbeat.c.state == "ready", heartbeat.c.started_at >= began)
        self.wait_for("the models", lambda: "compute" in self._looked_up(ready))

    def _looked_up(self, query: Select[Any]) -> list[Any]:
        """The first column of a query, straight from the ledger: a command line for each look would slow the node."""
        with contextlib.closing(self._ledger()) as ledger, ledger.read() as connection:
            return list(connection.execute(query).scalars())

    def _ledger(self) -> Database:
        return Database(self.data / "ledger.sqlite3", read_only=True)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "node.log").read_text()
        try:
            echo(self.peer, "TEST", 1.0)
        except Retry:
            return False
        return True

    @property
    def peer(self) -> Peer:
        return Peer("EDGENODE", "127.0.0.1", self.port)

    def kill(self) -> None:
        """kill -9 of every process of the node at once."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM and the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def send(self, one: DemoStudy, files: list[Path] | None = None) -> SendReport:
        return send_study(files or one.files, self.peer, calling_ae=one.calling_ae)

    def wait_for(self, what: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not ready():
            assert time.monotonic() < deadline, (
                f"{what} did not come:\n{(self.folder / 'node.log').read_text()[-3000:]}"
            )
            time.sleep(0.1)

    def wait_for_state(self, state: str, count: int = 1) -> list[dict[str, Any]]:
        there = select(study.c.study_key).where(study.c.state == state)
        self.wait_for(f"{count} studies {state}", lambda: len(self._looked_up(there)) >= count)
        return [row for row in self.ask("study", "list") if row["state"] == state]

    def log(self) -> str:
        return (self.folder / "node.log").read_text()


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value)
