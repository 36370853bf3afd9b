"""A receiver with its local door on a real ledger, and what pulls into it, in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy import select

from edge_node.config.retrieval import Pull, PullWeb
from edge_node.config.schema import Config, PeerEntry, Receive, Storage
from edge_node.config.secrets import MemoryVault
from edge_node.domain.errors import EdgeNodeError
from edge_node.domain.pull import Wanted
from edge_node.domain.study import Role
from edge_node.receive.landing import Arrival
from edge_node.receive.local import LocalDoor
from edge_node.receive.scp import StorageSCP
from edge_node.service import intake_worker
from edge_node.service.node import open_node, spool_path
from edge_node.service.pull_requests import named
from edge_node.service.pulling import Puller, archive_of
from edge_node.store import pulls, tables
from edge_node.store.receipt import Receipt
from tests.integration.peers_orthanc import free_port
from tests.unit.service.site import Site, image

PATIENCE_S = 30.0


def part10(one: Dataset, folder: Path) -> Path:
    """The object as a DICOM file."""
    one.file_meta = FileMetaDataset()
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder / f"{one.SOPInstanceUID}.dcm"
    one.save_as(path, enforce_file_format=True)
    return path


def uid(study: int) -> str:
    """Study Instance UID of a study of `image`."""
    return f"1.2.826.0.1.3680043.8.498.{study}"


class PullingNode:
    """`port` is where the PACS moves to; `peer` is asked. `accept` may be replaced to refuse instances."""

    def __init__(self, site: Site, *, port: int | None = None, vault: MemoryVault | None = None) -> None:
        self.site = site
        self.port = port or free_port()
        self.config: Config = site.config
        self.work: Callable[..., Any] = intake_worker.make_intake(site.config, vault)
        self.refuse: EdgeNodeError | None = None
        self.received: list[tuple[str, str]] = []
        self.scp = StorageSCP(
            Receive(host="127.0.0.1", port=self.port),
            self._accept,
            spool_path(site.config),
            free_bytes=lambda: 1 << 40,
        )
        self.scp.start()
        self.door = LocalDoor(
            site.config.node.data_dir,
            self._accept,
            has_room=lambda: True,
            largest=100_000_000,
            tell=lambda _about, _facts: None,
        )
        self.door.start()
        self.node = open_node(site.config, Role.DICOM, vault)
        self.stop = threading.Event()
        self.threads: list[threading.Thread] = []

    def _accept(self, arrival: Arrival) -> Receipt:
        if self.refuse is not None:
            raise self.refuse
        with arrival.opened() as landed:
            [answer] = self.work([landed])
        if isinstance(answer, EdgeNodeError):
            raise answer
        self.received.append((arrival.calling_ae, arrival.transfer_syntax))
        return answer

    def asking(self, port: int, *, web: str = "", **options: Any) -> Puller:
        """A puller that asks a PACS on `port` of the loopback."""
        settings = {"studies_per_minute": 6000.0, "yield_s": 0.0, "timeout_s": 5.0, "study_timeout_s": 20.0, **options}
        config = self.site.config.model_copy(
            update={
                "peers": {"pacs": PeerEntry(ae_title="PACS", host="127.0.0.1", port=port)},
                "pull": Pull(**{"method": "move", **settings}),
                "pull_web": PullWeb(url=web),
                "storage": Storage(reserve_mb=16),
            }
        )
        return Puller(config, self.node, archive_of(config))

    def ask(self, puller: Puller, *wanted: Wanted, again: bool = False) -> str:
        key = self.node.keys.key("pseudonym")
        job, _ = puller.queue.ask([named(key, one) for one in wanted], "a test", again=again)
        return job

    def start(self, puller: Puller) -> None:
        thread = threading.Thread(target=puller.run, args=(self.stop,), daemon=True)
        thread.start()
        self.threads.append(thread)

    def job(self, name: str) -> dict[str, Any]:
        with self.node.database.read() as connection:
            told = pulls.job(connection, name)
        assert told is not None
        return told

    def until(self, what: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not what():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.05)

    def pull(self, puller: Puller, *wanted: Wanted, again: bool = False) -> dict[str, Any]:
        """Ask and work until the job has ended."""
        name = self.ask(puller, *wanted, again=again)
        self.start(puller)
        self.until(lambda: self.job(name)["state"] != "ACTIVE")
        return self.job(name)

    def rest(self) -> None:
        """No puller works any more, so that what is asked for now waits for whoever takes it."""
        self.stop.set()
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive()
        self.threads.clear()
        self.stop.clear()

    def studies(self) -> dict[str, int]:
        """Instances by study key."""
        with self.node.database.read() as connection:
            return {row.study_key: row.instances for row in connection.execute(select(tables.study))}

    def close(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(10)
        self.door.stop(1.0)
        self.scp.stop(1.0)
        self.node.database.close()


def fill(folder: Path, studies: dict[int, int], **changes: Any) -> list[Path]:
    """Files of studies: {number of the study: its instances}."""
    return [
        part10(image(number, study=study, AccessionNumber=f"ACC{study}", **changes), folder)
        for study, count in studies.items()
        for number in range(1, count + 1)
    ]
