"""Storage Commitment Push Model, SCP side (PS3.4 Annex J): say for each asked object whether it is kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from pydicom.dataset import Dataset

from edge_node.domain.status import Status
from edge_node.service.dimse import AE, StorageCommitmentPushModel, build_role, evt, no_delay

WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"
_REQUEST = 1  # Action Type ID, PS3.4 J.3.2.1
_ALL_KEPT, _SOME_MISSING = 1, 2  # Event Type IDs, PS3.4 J.3.3.1


class Commitment:
    """Answers N-ACTION at once and reports by N-EVENT-REPORT from a thread of its own.

    `class_of` gives the SOP Class kept for an instance or None; `note` logs (operation, status, **facts).
    """

    def __init__(
        self,
        ae_title: str,
        class_of: Callable[[str], str | None],
        known_peers: Mapping[str, tuple[str, int]],
        note: Callable[..., None],
    ) -> None:
        self._ae_title = ae_title
        self._class_of = class_of
        self._known_peers = known_peers
        self._note = note
        self._threads: list[threading.Thread] = []

    def requested(self, event: Any) -> Status:
        """Take an N-ACTION; the report follows when the response is out."""
        if event.action_type != _REQUEST:
            self._note("N-ACTION", Status.NO_SUCH_ACTION)
            return Status.NO_SUCH_ACTION
        asked = event.action_information
        if not asked.get("TransactionUID") or not asked.get("ReferencedSOPSequence"):
            self._note("N-ACTION", Status.MISSING_ATTRIBUTE)
            return Status.MISSING_ATTRIBUTE
        self._note("N-ACTION", Status.SUCCESS, asked=len(asked.ReferencedSOPSequence))
        caller = str(event.assoc.requestor.ae_title).strip()
        thread = threading.Thread(target=self._report, args=(asked, event.assoc, caller), daemon=True)
        self._threads.append(thread)
        thread.start()
        return Status.SUCCESS

    def finish(self, seconds: float = 5.0) -> None:
        """Wait for reports under way, at most so many seconds each."""
        for thread in self._threads:
            thread.join(seconds)

    def result(self, asked: Dataset) -> tuple[Dataset, int]:
        """The event information for a request and its Event Type ID."""
        kept, missing = [], []
        for item in asked.ReferencedSOPSequence:
            reference = Dataset()
            reference.ReferencedSOPClassUID = item.ReferencedSOPClassUID
            reference.ReferencedSOPInstanceUID = item.ReferencedSOPInstanceUID
            found = self._class_of(str(item.ReferencedSOPInstanceUID))
            if found == str(item.ReferencedSOPClassUID):
                kept.append(reference)
                continue
            reason = Status.NO_SUCH_INSTANCE if found is None else Status.CLASS_INSTANCE_CONFLICT
            reference.FailureReason = int(reason)
            missing.append(reference)
        report = Dataset()
        report.TransactionUID = asked.TransactionUID
        if kept:
            report.ReferencedSOPSequence = kept
        if missing:
            report.FailedSOPSequence = missing
        return report, _SOME_MISSING if missing else _ALL_KEPT

    def _report(self, asked: Dataset, association: Any, caller: str) -> None:
        report, kind = self.result(asked)
        if caller in self._known_peers:
            way, status = "new association", self._on_new_association(report, kind, caller)
        else:
            way, status = "same association", _deliver(association, report, kind)
        self._note(
            "N-EVENT-REPORT",
            status,
            way=way,
            kept=len(report.get("ReferencedSOPSequence") or []),
            missing=len(report.get("FailedSOPSequence") or []),
        )

    def _on_new_association(self, report: Dataset, kind: int, caller: str) -> Status:
        host, port = self._known_peers[caller]
        ae = AE(self._ae_title)
        ae.add_requested_context(StorageCommitmentPushModel)
        # We stay the provider although we open the association (PS3.4 J.3.3).
        role = build_role(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        association = ae.associate(
            host, port, ae_title=caller, ext_neg=[role], evt_handlers=[(evt.EVT_CONN_OPEN, no_delay)]
        )
        if not association.is_established:
            return Status.PROCESSING_FAILURE
        try:
            return _deliver(association, report, kind)
        finally:
            association.release()


def _deliver(association: Any, report: Dataset, kind: int) -> Status:
    """Send the report; PROCESSING_FAILURE if the peer has gone or does not confirm."""
    try:
        answer, _ = association.send_n_event_report(report, kind, StorageCommitmentPushModel, WELL_KNOWN_INSTANCE)
    except (RuntimeError, ValueError):  # released meanwhile, or the context was not accepted
        return Status.PROCESSING_FAILURE
    return Status.SUCCESS if answer and answer.Status == Status.SUCCESS else Status.PROCESSING_FAILURE
