"""A receiver on a free port whose acceptance the test decides."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edge_node.config.schema import Receive
from edge_node.domain.body import Memory
from edge_node.domain.study import IdentifiedInstance
from edge_node.receive.landing import Arrival
from edge_node.receive.scp import StorageSCP
from edge_node.store.receipt import Receipt, Received
from tests.integration.needed_tools import need

QUICK = {**os.environ, "TCP_NODELAY": "1"}
STORED = Receipt(Received.STORED, "S")
RESERVE, LOW = 1 << 20, 2 << 20


class Door:
    """`received` is what came whole; `free` the bytes free on its disk, which was asked for them `asked` times."""

    def __init__(self, **options: object) -> None:
        self.received: list[IdentifiedInstance] = []
        self.accept: Callable[[IdentifiedInstance], Receipt] = lambda _instance: STORED
        self.free = 1 << 40
        self.asked = 0
        self.folder = tempfile.TemporaryDirectory()
        config = Receive(host="127.0.0.1", port=0, **options)  # type: ignore[arg-type]
        self.scp = StorageSCP(
            config,
            self._accept,
            Path(self.folder.name),
            free_bytes=self._ask,
            reserve=RESERVE,
            low=LOW,
            further_ae_titles=("LUNG",),
        )
        self.scp.start()

    def _ask(self) -> int:
        self.asked += 1
        return self.free

    def _accept(self, arrival: Arrival) -> Receipt:
        with arrival.opened() as landed:
            instance = replace(landed, source=Memory(landed.dataset))
        self.received.append(instance)
        return self.accept(instance)

    def refused(self) -> dict[tuple[str, str], int]:
        """{(calling AE title, reason): count}."""
        return {(row["from"], row["reason"]): row["count"] for row in self.scp.refused.rows()}

    def dcmtk(
        self, tool: str, *words: str, called: str = "EDGENODE", calling: str = "CT1"
    ) -> subprocess.CompletedProcess:
        command = [need(tool), "-v", "-aet", calling, "-aec", called, "127.0.0.1", str(self.scp.port), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, env=QUICK, check=False)

    def close(self) -> None:
        self.scp.stop(1.0)
        self.folder.cleanup()
