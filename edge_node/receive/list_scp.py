"""The listening side of the reading list: who may ask, what may be asked; the receiver's own upper layer and limits.

Nothing is ever stored here: whoever sends an object is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydicom.uid import UID
from pynetdicom import build_context, evt
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (
    ModalityWorklistInformationFind,
    UnifiedProcedureStepPull,
    UnifiedProcedureStepPush,
    UnifiedProcedureStepQuery,
    UnifiedProcedureStepWatch,
    Verification,
)

from edge_node.config.schema import Receive
from edge_node.domain.announcement import Command
from edge_node.domain.errors import Retry
from edge_node.domain.status import Status
from edge_node.receive.admission import Admission
from edge_node.receive.announce import SYNTAXES
from edge_node.receive.landing import Arrival
from edge_node.receive.scp import StorageSCP
from edge_node.receive.upper_layer import StorageAssociation
from edge_node.store.receipt import Receipt

MODALITY_WORKLIST = str(ModalityWorklistInformationFind)
UPS = str(UnifiedProcedureStepPush)
OFFERED = (
    MODALITY_WORKLIST,
    str(UnifiedProcedureStepPull),
    str(UnifiedProcedureStepWatch),
    str(UnifiedProcedureStepQuery),
)
EVENTS = {
    "find": evt.EVT_C_FIND,
    "get": evt.EVT_N_GET,
    "set": evt.EVT_N_SET,
    "action": evt.EVT_N_ACTION,
}
_REFUSED = (evt.EVT_N_CREATE, evt.EVT_N_EVENT_REPORT, evt.EVT_N_DELETE)
_ROOM = 1 << 40  # nothing is stored, so the disk is none of its concern


class _ListAdmission(Admission):
    """The door policy of `[reading_list]`, and its presentation contexts."""

    def contexts_for(self, proposed: Iterable[PresentationContext]) -> list[PresentationContext]:
        asked = {str(context.abstract_syntax) for context in proposed}
        wanted = [build_context(UID(one), list(SYNTAXES)) for one in OFFERED if one in asked]
        return [build_context(Verification), *wanted]


class ListSCP(StorageSCP):
    """SCP of UPS Pull, Watch and Query, and of Modality Worklist C-FIND; `handlers` by the keys of `EVENTS`.

    `config` is the door policy; each handler takes pynetdicom's event and answers as pynetdicom wants it.
    """

    def __init__(self, config: Receive, folder: Path, handlers: Mapping[str, Callable[..., Any]]) -> None:
        super().__init__(config, _nothing_is_taken, folder, free_bytes=lambda: _ROOM)
        self._admission = _ListAdmission(config)
        self._handlers = handlers

    def arrived(self, association: StorageAssociation) -> None:
        for event in _REFUSED:
            association.bind(event, _refuse)
        for name, handler in self._handlers.items():
            association.bind(EVENTS[name], handler)
        super().arrived(association)

    def begin(self, association: StorageAssociation) -> int | None:
        return self._refuse(association, "not-a-question", status=Status.SOP_CLASS_NOT_SUPPORTED)

    def announce(self, event: evt.Event, _command: Command) -> tuple[Any, None]:
        return _refuse(event)


def _refuse(_event: evt.Event) -> tuple[int, None]:
    return Status.UNRECOGNISED_OPERATION, None


def _nothing_is_taken(_arrival: Arrival) -> Receipt:
    raise Retry("receive.busy", "the reading list stores nothing")
