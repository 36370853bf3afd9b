"""Storing result objects in the PACS: of each thing to tell, the best that it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.uid import UID

from edge_node.domain.errors import Quarantine, Retry
from edge_node.domain.worklist import Peer
from edge_node.worklist.association import Line, line_to
from edge_node.worklist.evidence import Choice, Wanted
from edge_node.worklist.header import CLASSES
from edge_node.worklist.statuses import NO_CONTEXT, Answer, Status


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object: its kind and SOP class by name, its UID (ours, a keyed hash) and the PACS's answer by name."""

    kind: str
    sop_class: str
    sop_uid: str
    status: str


@dataclass(frozen=True, slots=True)
class StoreReport:
    """What the PACS `destination` (AE title) took, and what it takes no context for, nor for anything in its place."""

    destination: str
    objects: tuple[StoredObject, ...]
    left_out: tuple[str, ...] = ()


def store(things: Sequence[Wanted], peer: Peer, calling_ae: str, timeout_s: float) -> StoreReport:
    """Store all things over one association; each is sent, whatever became of the one before.

    Of each thing the first choice is stored whose SOP class the PACS accepts, and that it does not refuse for good.
    What it has already counts as stored. Raises Retry ``worklist.pacs-unavailable`` (nobody there, connection lost, out
    of resources), and Quarantine ``worklist.pacs-refused`` when it refuses all choices of a thing by status, or takes
    nothing at all; sending all again is harmless in both cases.
    """
    if not things:
        return StoreReport(peer.ae_title, ())
    classes = [CLASSES[choice.kind] for thing in things for choice in thing.choices]
    with line_to(peer, classes, calling_ae=calling_ae, timeout_s=timeout_s, service="pacs") as line:
        taken = frozenset(kind for kind, sop_class in CLASSES.items() if line.takes(sop_class))
        tried = [_tell(line, thing, taken) for thing in things]
    said = ", ".join(f"{one.sop_class}: {one.status}" for thing in tried for one, _ in thing)
    answers = [thing[-1][1] for thing in tried]
    # Refusals wait until nothing passing is in the way: a retry may still bring the other objects home.
    if Answer.LATER in (status.answer for status in answers):
        raise Retry(
            "worklist.pacs-unavailable",
            f"{peer.ae_title} at {peer.host}:{peer.port} did not take all objects of the result ({said})",
            hint="edge-node echo pacs",
        )
    done = tuple(thing[-1][0] for thing in tried if thing[-1][1].answer is Answer.DONE)
    by_status = any(
        thing[-1][1].answer is not Answer.DONE and any(status is not NO_CONTEXT for _, status in thing)
        for thing in tried
    )
    if by_status or not done:
        raise Quarantine(
            "worklist.pacs-refused",
            f"{peer.ae_title} at {peer.host}:{peer.port} refuses objects of the result for good ({said})",
            hint="edge-node worklist show STUDY",
        )
    left_out = tuple(
        f"{one.kind}: {one.status}" for thing in tried for one, status in thing if status.answer is not Answer.DONE
    )
    return StoreReport(peer.ae_title, done, left_out)


def _tell(line: Line, thing: Wanted, taken: frozenset[str]) -> list[tuple[StoredObject, Status]]:
    """The choices in turn, until one is stored or must be tried again later; the last one decides."""
    tried = []
    for choice in thing.choices:
        one, status = _send(line, choice, taken)
        tried.append((one, status))
        if status.answer is not Answer.REFUSED:
            break
    return tried


def _send(line: Line, choice: Choice, taken: frozenset[str]) -> tuple[StoredObject, Status]:
    sop_class = UID(CLASSES[choice.kind])
    if choice.kind not in taken:
        return StoredObject(choice.kind, sop_class.name, "", NO_CONTEXT.name), NO_CONTEXT
    dataset = choice.make(taken)
    status = line.store(dataset)
    return StoredObject(choice.kind, sop_class.name, str(dataset.SOPInstanceUID), status.name), status
