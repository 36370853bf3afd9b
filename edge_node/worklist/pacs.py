"""Storing result objects in the PACS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import UID

from edge_node.domain.errors import Quarantine, Retry
from edge_node.domain.worklist import Peer
from edge_node.worklist.association import line_to
from edge_node.worklist.statuses import Answer


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object: its SOP class by name, its UID (ours, a keyed hash) and the PACS's answer by name."""

    sop_class: str
    sop_uid: str
    status: str


@dataclass(frozen=True, slots=True)
class StoreReport:
    """What the PACS `destination` (AE title) answered, object by object; all of them are there."""

    destination: str
    objects: tuple[StoredObject, ...]


def store(datasets: Sequence[Dataset], peer: Peer, calling_ae: str, timeout_s: float) -> StoreReport:
    """Store all data sets over one association; each is sent, whatever became of the one before.

    What the PACS has already counts as stored. Raises Retry ``worklist.pacs-unavailable`` (nobody there, connection
    lost, out of resources) and Quarantine ``worklist.pacs-refused`` when an object is refused for good; sending all
    again is harmless in both cases.
    """
    if not datasets:
        return StoreReport(peer.ae_title, ())
    classes = [str(dataset.SOPClassUID) for dataset in datasets]
    with line_to(peer, classes, calling_ae=calling_ae, timeout_s=timeout_s, service="pacs") as line:
        answers = [line.store(dataset) for dataset in datasets]
    objects = tuple(
        StoredObject(UID(dataset.SOPClassUID).name, str(dataset.SOPInstanceUID), answer.name)
        for dataset, answer in zip(datasets, answers, strict=True)
    )
    said = ", ".join(f"{item.sop_class}: {item.status}" for item in objects)
    # Refusals wait until nothing passing is in the way: a retry may still bring the other objects home.
    if any(answer.answer is Answer.LATER for answer in answers):
        raise Retry(
            "worklist.pacs-unavailable",
            f"{peer.ae_title} at {peer.host}:{peer.port} did not take all objects of the result ({said})",
            hint="edge-node echo pacs",
        )
    if any(answer.answer is not Answer.DONE for answer in answers):
        raise Quarantine(
            "worklist.pacs-refused",
            f"{peer.ae_title} at {peer.host}:{peer.port} refuses objects of the result for good ({said})",
            hint="edge-node worklist show STUDY",
        )
    return StoreReport(peer.ae_title, objects)
