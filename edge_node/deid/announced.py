"""MPPS and Instance Availability requests as announcements: what they say of a patient is left as keyed hashes only."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from edge_node.deid import bitstream, wire
from edge_node.deid.pseudonym import instance_key_of, signal_key_of, study_key_of
from edge_node.deid.wire import Malformed, Node
from edge_node.domain.announcement import CLASSES, Announcement, Command, IdentifiedSignal, Kind, StepState
from edge_node.domain.errors import EdgeNodeError

STATUS = 0x00400252
SCHEDULED_STEPS, PERFORMED_SERIES = 0x00400270, 0x00400340
STUDY_UID, SOP_UID = 0x0020000D, 0x00081155
IMAGES, OTHERS = 0x00081140, 0x00400220  # Referenced Image, Referenced Non-Image Composite SOP Instance Sequence
SERIES, INSTANCES = 0x00081115, 0x00081199  # of a notification (PS3.4 Table R.3-1)
AVAILABILITY, GONE = 0x00080056, "UNAVAILABLE"
MOST_STUDIES, MOST_LISTED = 64, 10_000  # in one request; the receiver waits while they are taken down


def announced(signal: IdentifiedSignal, site_key: bytes) -> Announcement:
    """What `signal` announces (PS3.4 F.7.2, R.3.2).

    Raises EdgeNodeError ``announce.unreadable``, ``announce.missing-attribute``, ``announce.invalid-value``,
    ``announce.too-long``; only what the node needs is looked at. No message carries a value.
    """
    kind = next(kind for kind, uid in CLASSES.items() if uid == signal.sop_class)
    try:
        node = wire.parse(signal.dataset, bitstream.syntax_of(signal.transfer_syntax))
    except (EdgeNodeError, Malformed, RecursionError, ValueError, IndexError, struct.error):
        raise _wrong("unreadable", "the attribute list cannot be read") from None
    state, studies, listed = _notification(node) if kind is Kind.IAN else _step(node, signal.command)
    if len(set(studies)) > MOST_STUDIES:
        raise _wrong("too-long", f"more than {MOST_STUDIES} studies are named")
    if len(listed or ()) > MOST_LISTED:
        raise _wrong("too-long", f"more than {MOST_LISTED} instances are listed")
    return Announcement(
        kind,
        signal.command,
        signal_key_of(site_key, signal.sop_instance),
        tuple(dict.fromkeys(study_key_of(site_key, uid) for uid in studies)),
        state,
        None if listed is None else tuple(dict.fromkeys(instance_key_of(site_key, uid) for uid in listed)),
    )


def _step(node: Node, command: Command) -> tuple[StepState | None, list[str], list[str] | None]:
    said = wire.ascii_text(node, STATUS)
    if command is Command.CREATE:
        if STATUS not in node:
            raise _wrong("missing-attribute", f"{wire.tag_name(STATUS)} is missing")
        if said != StepState.IN_PROGRESS:
            raise _wrong("invalid-value", "a step is created IN PROGRESS (PS3.4 F.7.2.1)")
    elif said and said not in list(StepState):
        raise _wrong("invalid-value", f"{wire.tag_name(STATUS)} is no status of a performed procedure step")
    studies = [uid for item in _items(node, SCHEDULED_STEPS) if (uid := wire.ascii_text(item, STUDY_UID))]
    if command is Command.CREATE and not studies:
        raise _wrong("missing-attribute", f"{wire.tag_name(STUDY_UID)} of the scheduled step is missing")
    listed = [
        uid
        for series in _items(node, PERFORMED_SERIES)
        for tag in (IMAGES, OTHERS)
        for item in _items(series, tag)
        if (uid := wire.ascii_text(item, SOP_UID))
    ]
    return (StepState(said) if said else None), studies, listed if PERFORMED_SERIES in node else None


def _notification(node: Node) -> tuple[StepState | None, list[str], list[str] | None]:
    study = wire.ascii_text(node, STUDY_UID)
    if not study:
        raise _wrong("missing-attribute", f"{wire.tag_name(STUDY_UID)} is missing")
    if SERIES not in node:
        raise _wrong("missing-attribute", f"{wire.tag_name(SERIES)} is missing")
    listed = [
        uid
        for series in _items(node, SERIES)
        for item in _items(series, INSTANCES)
        if (uid := wire.ascii_text(item, SOP_UID)) and wire.ascii_text(item, AVAILABILITY) != GONE
    ]
    return StepState.COMPLETED, [study], listed


def _items(node: Node, tag: int) -> Iterator[Node]:
    element = node.get(tag)
    yield from (element.items or ()) if element is not None else ()


def _wrong(word: str, message: str) -> EdgeNodeError:
    return EdgeNodeError(f"announce.{word}", message, hint="check the sender's MPPS or IAN configuration")
