"""The SCP of MPPS (PS3.4 F.7) and Instance Availability Notification (PS3.4 R): requests go to a worker, a status back.

Nothing is parsed here: the attribute list goes to a worker as it came, as objects do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from pydicom.dataset import Dataset

from edge_node.domain.announcement import CLASSES, Command, Kind
from edge_node.domain.errors import EdgeNodeError, Retry
from edge_node.domain.status import ErrorId, Status
from edge_node.receive.landing import Arrival
from edge_node.store.receipt import Receipt

SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_STATUSES = {
    "announce.duplicate": Status.DUPLICATE_SOP_INSTANCE,
    "announce.unknown": Status.NO_SUCH_INSTANCE,
    "announce.final": Status.PROCESSING_FAILURE,
    "announce.missing-attribute": Status.MISSING_ATTRIBUTE,
    "announce.invalid-value": Status.INVALID_ATTRIBUTE_VALUE,
    "announce.too-long": Status.INVALID_ATTRIBUTE_VALUE,
    "announce.too-many-steps": Status.RESOURCE_LIMITATION,
    "announce.unreadable": Status.PROCESSING_FAILURE,
}
_COMMANDS = {CLASSES[Kind.MPPS]: tuple(Command), CLASSES[Kind.IAN]: (Command.CREATE,)}


def answer(
    event: Any, command: Command, accept: Callable[[Arrival], Receipt], refused: Callable[[str], None]
) -> tuple[Dataset, None]:
    """The status of one N-CREATE or N-SET request; `refused` hears the code of what was not taken down."""
    association, request = event.assoc, event.request
    kind, uid, attributes = _said(request, command)
    if kind != str(event.context.abstract_syntax) or command not in _COMMANDS.get(kind, ()):
        refused("no-such-sop-class")
        return _status(Status.NO_SUCH_SOP_CLASS), None
    if not uid or attributes is None:
        refused("announce.missing-attribute")
        return _status(Status.MISSING_ATTRIBUTE), None
    memory = os.memfd_create("announcement", os.MFD_CLOEXEC)
    try:
        encoded = attributes.getbuffer()
        size = encoded.nbytes
        while encoded:
            encoded = encoded[os.write(memory, encoded) :]
        arrival = Arrival(
            transfer_syntax=str(event.context.transfer_syntax),
            sop_class=kind,
            sop_instance=uid,
            calling_ae=association.sender,
            called_ae=str(association.requestor.primitive.called_ae_title).strip(),
            peer=str(association.requestor.address),
            received_at=time.time(),
            in_memory=size,
            memory=memory,
            command=command,
        )
        accept(arrival)
    except EdgeNodeError as error:
        refused(error.code)
        if isinstance(error, Retry):
            return _status(Status.RESOURCE_LIMITATION), None
        status = _status(_STATUSES.get(error.code, Status.PROCESSING_FAILURE))
        if error.code == "announce.final":
            status.ErrorID = int(ErrorId.STEP_NO_LONGER_UPDATABLE)
        return status, None
    finally:
        os.close(memory)
    return _status(Status.SUCCESS), None


def _said(request: Any, command: Command) -> tuple[str, str, Any]:
    """SOP class, SOP instance ("" when none is named) and the encoded attribute list (None without one)."""
    if command is Command.CREATE:
        names = request.AffectedSOPClassUID, request.AffectedSOPInstanceUID, request.AttributeList
    else:
        names = request.RequestedSOPClassUID, request.RequestedSOPInstanceUID, request.ModificationList
    return str(names[0] or ""), str(names[1] or ""), names[2]


def _status(code: Status) -> Dataset:
    status = Dataset()
    status.Status = int(code)
    return status
