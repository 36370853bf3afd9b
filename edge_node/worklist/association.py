"""Associations towards the PACS and the UPS worklist: the only importer of pynetdicom in this room.

Nothing of pynetdicom's own logging leaves it: it prints identifiers and quotes exceptions that print values.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import (
    ModalityWorklistInformationFind,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
    UnifiedProcedureStepPull,
    UnifiedProcedureStepPush,
)

from edge_node.config.tls import tls_arguments
from edge_node.domain.commitment import CommitmentReport, StoredReference, read_report
from edge_node.domain.errors import EdgeNodeError, Quarantine, Retry
from edge_node.domain.status import Status as Wire
from edge_node.domain.worklist import Peer
from edge_node.worklist.statuses import NO_CONTEXT, Status, storage_status, workitem_status

_config.LOG_HANDLER_LEVEL = "none"
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False
logging.getLogger("pynetdicom").propagate = False

UPS_PUSH = str(UnifiedProcedureStepPush)
UPS_PULL = str(UnifiedProcedureStepPull)
COMMITMENT = str(StorageCommitmentPushModel)
MODALITY_WORKLIST = str(ModalityWorklistInformationFind)
STUDY_FIND = str(StudyRootQueryRetrieveInformationModelFind)
REQUEST_COMMITMENT = 1  # Action Type ID, PS3.4 J.3.2.1
REQUEST_CANCEL = 2  # Action Type ID, PS3.4 Table CC.2.2-1
SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


_PENDING = (Wire.PENDING, Wire.PENDING_WARNING)


class Line:
    """An established association. Every method answers with a named status, never with an exception of the network."""

    def __init__(self, association: Any) -> None:
        self._association = association

    def takes(self, sop_class: str) -> bool:
        """Whether the peer accepted a presentation context for `sop_class`."""
        return any(context.abstract_syntax == sop_class for context in self._association.accepted_contexts)

    @property
    def no_delay(self) -> bool:
        """Whether small packets leave at once; with Nagle on, an image waits 40 ms for an acknowledgement."""
        return bool(self._association.dul.socket.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def store(self, dataset: Dataset) -> Status:
        """C-STORE (PS3.7 9.1.1) of a data set with file meta."""
        if not self.takes(str(dataset.SOPClassUID)):
            return NO_CONTEXT
        answer = self._send(lambda line: line.send_c_store(dataset), "an object")
        return storage_status(_code(answer))

    def create_workitem(self, uid: str, attributes: Dataset) -> Status:
        """N-CREATE of a UPS (PS3.4 CC.2.5)."""
        if not self.takes(UPS_PUSH):
            return NO_CONTEXT
        answer = self._send(lambda line: line.send_n_create(attributes, UPS_PUSH, uid), "a workitem")
        return workitem_status(_code(answer and answer[0]))

    def get_workitem(self, uid: str, keywords: Sequence[str]) -> tuple[Status, Dataset]:
        """N-GET of some attributes of a UPS (PS3.4 CC.2.7); the data set is empty unless it worked."""
        tags = [Tag(keyword) for keyword in keywords]
        answer = self._send(lambda line: line.send_n_get(tags, UPS_PUSH, uid), "a question")
        status = workitem_status(_code(answer and answer[0]))
        return status, (answer[1] if answer and answer[1] is not None else Dataset())

    def set_workitem(self, uid: str, changes: Dataset) -> Status:
        """N-SET of a UPS (PS3.4 CC.2.6): the class is Push, the presentation context is Pull."""
        if not self.takes(UPS_PULL):
            return NO_CONTEXT
        answer = self._send(lambda line: line.send_n_set(changes, UPS_PUSH, uid, meta_uid=UPS_PULL), "a change")
        return workitem_status(_code(answer and answer[0]))

    def request_commitment(self, transaction_uid: str, objects: Sequence[StoredReference]) -> Status:
        """N-ACTION "Request Storage Commitment" (PS3.4 J.3.2)."""
        if not self.takes(COMMITMENT):
            return NO_CONTEXT
        asked = Dataset()
        asked.TransactionUID = transaction_uid
        asked.ReferencedSOPSequence = [_item(one) for one in objects]
        answer = self._send(
            lambda line: line.send_n_action(
                asked, REQUEST_COMMITMENT, COMMITMENT, str(StorageCommitmentPushModelInstance)
            ),
            "a request for commitment",
        )
        return storage_status(_code(answer and answer[0]))

    def find(self, query: Dataset, model: str = STUDY_FIND) -> tuple[Status, list[Dataset]]:
        """C-FIND in the Study Root model (PS3.4 C.4.1) or of a modality worklist (K.4.1): how it ended, the matches."""
        if not self.takes(model):
            return NO_CONTEXT, []

        def ask(line: Any) -> list[tuple[Any, Any]]:
            return list(line.send_c_find(query, model))

        answers = self._send(ask, "a query") or []
        found = [match for status, match in answers if _code(status) in _PENDING and match is not None]
        return storage_status(_code(answers[-1][0]) if answers else None), found

    @property
    def open(self) -> bool:
        """Whether the association still stands."""
        return bool(self._association.is_established)

    def cancel_workitem(self, uid: str, reason: str) -> Status:
        """N-ACTION "Request UPS Cancel" (PS3.4 CC.2.2)."""
        if not self.takes(UPS_PUSH):
            return NO_CONTEXT
        why = Dataset()
        why.ReasonForCancellation = reason
        answer = self._send(lambda line: line.send_n_action(why, REQUEST_CANCEL, UPS_PUSH, uid), "a withdrawal")
        return workitem_status(_code(answer and answer[0]))

    def _send(self, call: Callable[[Any], Any], what: str) -> Any:
        try:
            return call(self._association)
        except RuntimeError:  # the association is gone
            return None
        except Exception:  # whatever it says about the data set, it may quote a value
            raise Quarantine(
                "worklist.cannot-encode",
                f"{what} of the result cannot be encoded with the identity as received",
                hint="edge-node study show STUDY",
            ) from None


@contextmanager
def line_to(
    peer: Peer,
    sop_classes: Sequence[str],
    *,
    calling_ae: str,
    timeout_s: float,
    service: str,
    committed: Callable[[CommitmentReport], bool] | None = None,
) -> Iterator[Line]:
    """Open an association that proposes `sop_classes` and nothing else, and release it afterwards.

    `timeout_s` bounds connecting, negotiating and every answer. `service` ("pacs", "ups") begins the error codes:
    Retry ``worklist.SERVICE-unavailable`` when nobody answers, Retry ``worklist.SERVICE-rejects-us`` when the peer
    does not want this association, Quarantine ``worklist.SERVICE-refused`` when it takes none of the SOP classes.
    `committed` is told what the peer reports on this association about storage commitment; False: not ours.
    """
    entity = AE(ae_title=calling_ae)
    for sop_class in dict.fromkeys(sop_classes):
        entity.add_requested_context(UID(sop_class), SYNTAXES)
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = timeout_s
    association = entity.associate(
        peer.host,
        peer.port,
        ae_title=peer.ae_title,
        tls_args=tls_arguments(peer),
        evt_handlers=[(evt.EVT_CONN_OPEN, _send_at_once), *_listening(committed)],
    )
    if not association.is_established:
        raise _not_established(association, peer, service)
    try:
        yield Line(association)
    except BaseException:
        association.abort()
        raise
    if association.is_established:
        association.release()


def _send_at_once(event: Any) -> None:
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _listening(committed: Callable[[CommitmentReport], bool] | None) -> list[Any]:
    if committed is None:
        return []

    def heard(event: Any) -> tuple[int, None]:
        try:
            report = read_report(event.event_information, "same")
        except Exception:  # whatever a peer's data set makes pydicom raise
            report = None
        try:
            return (Wire.SUCCESS if report and committed(report) else Wire.INVALID_ARGUMENT_VALUE), None
        except EdgeNodeError:
            return Wire.PROCESSING_FAILURE, None

    return [(evt.EVT_N_EVENT_REPORT, heard)]


def _item(reference: StoredReference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference.sop_class, reference.sop_uid
    return item


def _code(answer: Any) -> int | None:
    return answer.Status if answer is not None and "Status" in answer else None


def _not_established(association: Any, peer: Peer, service: str) -> Retry | Quarantine:
    hint = f"edge-node echo {service}"
    if association.is_rejected:
        primitive = association.acceptor.primitive
        return Retry(
            f"worklist.{service}-rejects-us",
            f"{peer.ae_title} at {peer.host}:{peer.port} rejected the association: {primitive.reason_str}",
            hint=f"make our AE title known there, then {hint}",
        )
    if association.rejected_contexts and not association.accepted_contexts:
        return Quarantine(
            f"worklist.{service}-refused",
            f"{peer.ae_title} at {peer.host}:{peer.port} accepts none of the SOP classes of the result",
            hint=hint,
        )
    return Retry(
        f"worklist.{service}-unavailable",
        f"{peer.ae_title} at {peer.host}:{peer.port} does not answer",
        hint=hint,
    )
