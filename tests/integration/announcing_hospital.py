"""A receiver on a real socket that is told of steps and of what an archive has, and who tells it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, InstanceAvailabilityNotification, ModalityPerformedProcedureStep
from sqlalchemy import select

from edge_node.config.schema import Config, Receive, Settle
from edge_node.domain.announcement import CLASSES
from edge_node.domain.errors import EdgeNodeError
from edge_node.domain.status import Status
from edge_node.domain.study import Role
from edge_node.receive.landing import Arrival
from edge_node.receive.scp import StorageSCP
from edge_node.service import intake_worker
from edge_node.service.compute_steps import settle_due
from edge_node.service.node import open_node, spool_path
from edge_node.store import tables
from edge_node.store.receipt import Receipt
from tests.unit.service.site import Site, image

STEP = "1.2.826.0.1.3680043.8.498.900.1"
STUDY = "1.2.826.0.1.3680043.8.498.1"


class Hospital:
    """A receiver on a real socket with one worker in this process, and who sends to it."""

    def __init__(self, site: Site, *, mb_per_s: float = 0.0, **settle: Any) -> None:
        self.site = site
        config = site.config.model_copy(update={"settle": Settle(**settle)})
        self.config: Config = config
        work = intake_worker.make_intake(config)
        self.refuse: EdgeNodeError | None = None
        self.free = 1 << 40

        def accept(arrival: Arrival) -> Receipt:
            if self.refuse is not None:
                raise self.refuse
            with arrival.opened() as landed:
                [answer] = work([arrival.signal() if arrival.command else landed])
            if isinstance(answer, EdgeNodeError):
                raise answer
            return answer

        self.scp = StorageSCP(
            Receive(host="127.0.0.1", port=0, sender_mb_per_s=mb_per_s),
            accept,
            spool_path(config),
            free_bytes=lambda: self.free,
            low=1 << 20,
            signals=[CLASSES[name] for name in CLASSES if str(name) in config.settle.signals],
        )
        self.scp.start()
        self.compute = open_node(config, Role.COMPUTE)

    @contextmanager
    def association(self, *classes: str) -> Iterator[Any]:
        entity = AE("CT1")
        for one in classes:
            entity.add_requested_context(one)
        association = entity.associate("127.0.0.1", self.scp.port, ae_title="EDGENODE")
        assert association.is_established
        try:
            yield association
        finally:
            association.release()

    def send(self, *numbers: int, study: int = 1, **changes: object) -> None:
        with self.association(CTImageStorage) as association:
            for number in numbers:
                assert association.send_c_store(encoded(image(number, study=study, **changes))).Status == Status.SUCCESS

    def create(self, *, step: str | None = STEP, study: str = STUDY, **changes: object) -> Dataset:
        attributes = Dataset()
        attributes.PerformedProcedureStepStatus = "IN PROGRESS"
        scheduled = Dataset()
        scheduled.StudyInstanceUID = study
        scheduled.AccessionNumber = "ACC-774411"
        attributes.ScheduledStepAttributesSequence = [scheduled]
        attributes.PatientName, attributes.PatientID = "Beeblebrox^Zaphod", "PAT-420042"
        attributes.PerformedSeriesSequence = []
        attributes.update(changes)
        with self.association(ModalityPerformedProcedureStep) as association:
            status, _ = association.send_n_create(attributes, ModalityPerformedProcedureStep, step)
        return Dataset() if status is None else status

    def set(self, state: str | None, *numbers: int, step: str = STEP, study: int = 1, lists: bool = True) -> Dataset:
        attributes = Dataset()
        if state is not None:
            attributes.PerformedProcedureStepStatus = state
        if lists:
            series = Dataset()
            series.SeriesInstanceUID = f"1.2.826.0.1.3680043.8.498.{study}.9"
            series.ReferencedImageSequence = [reference(number, study) for number in numbers]
            attributes.PerformedSeriesSequence = [series]
        with self.association(ModalityPerformedProcedureStep) as association:
            status, _ = association.send_n_set(attributes, ModalityPerformedProcedureStep, step)
        return status

    def notify(self, *numbers: int, uid: str = "1.2.3.4.1", gone: tuple[int, ...] = (), study: int = 1) -> Dataset:
        attributes, series = Dataset(), Dataset()
        attributes.StudyInstanceUID = f"1.2.826.0.1.3680043.8.498.{study}"
        attributes.ReferencedPerformedProcedureStepSequence = []
        series.SeriesInstanceUID = "1.2.3"
        series.ReferencedSOPSequence = [reference(number, study) for number in (*numbers, *gone)]
        for item, number in zip(series.ReferencedSOPSequence, (*numbers, *gone), strict=True):
            item.InstanceAvailability = "UNAVAILABLE" if number in gone else "ONLINE"
            item.RetrieveAETitle = "PACS"
        attributes.ReferencedSeriesSequence = [series]
        with self.association(InstanceAvailabilityNotification) as association:
            status, _ = association.send_n_create(attributes, InstanceAvailabilityNotification, uid)
        return status

    def settle(self) -> tuple[str, str, bool]:
        """State, reason and completeness of the study after one look."""
        settle_due(self.compute)
        with self.compute.database.read() as connection:
            row = connection.execute(select(tables.study)).one()
        return row.state, row.settle_reason, row.complete

    def close(self) -> None:
        self.scp.stop(2.0)
        self.compute.database.close()


def encoded(one: Dataset) -> Dataset:
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return one


def reference(number: int, study: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = CTImageStorage
    item.ReferencedSOPInstanceUID = f"1.2.826.0.1.3680043.8.498.{study}.9.{number}"
    return item
