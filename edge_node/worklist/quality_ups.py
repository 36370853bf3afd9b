"""A quality alert as a workitem for the technologist, with the code (110002, DCM, Quality Control) of CID 9231."""

from __future__ import annotations

from datetime import datetime

from pydicom.dataset import Dataset

from edge_node.domain.errors import Quarantine, Retry
from edge_node.domain.worklist import Peer, Priority
from edge_node.worklist.association import UPS_PUSH, line_to
from edge_node.worklist.header import code_item
from edge_node.worklist.identity import WriteBackIdentity
from edge_node.worklist.quality import Fault
from edge_node.worklist.statuses import Answer, Status
from edge_node.worklist.uids import result_uid
from edge_node.worklist.ups import Workitem

LABEL = "Image quality"
MENDED = "mended: the study is as it should be now"


def alert_uid(key: bytes, study_key: str, kind: str, number: int) -> str:
    """UID of the workitem: once a study, fault and time that it came up (`number` from 1), however often it is sent."""
    return result_uid(key, "quality", study_key, kind, number)


def alert(
    identity: WriteBackIdentity, uid: str, fault: Fault, priority: Priority, found_at: datetime, retrieve_ae: str
) -> Dataset:
    """The attribute list of the N-CREATE. Nothing of triage's result is in it."""
    made = Workitem(identity, uid, priority, found_at, retrieve_ae, report=None).attributes()
    made.ScheduledWorkitemCodeSequence = [code_item("110002", "DCM", "Quality Control")]
    made.ScheduledProcedureStepPriority = "HIGH"  # the patient may still be there
    made.ProcedureStepLabel = f"Check images: {fault.reason}"[:64]
    made.WorklistLabel = LABEL
    made.CommentsOnTheScheduledProcedureStep = fault.reason
    del made.ExpectedCompletionDateTime
    return made


def tell(
    raised: dict[str, Dataset], mended: list[str], peer: Peer, calling_ae: str, timeout_s: float
) -> tuple[list[str], list[str]]:
    """Create workitems (by UID) and ask for others to be cancelled; what is there or gone already counts as done.

    Returns the UIDs that were created, and those that a human had begun, which stay. Raises Retry
    ``worklist.quality-unavailable`` and Quarantine ``worklist.quality-refused``; telling again is harmless.
    """
    created, left = [], []
    with line_to(peer, (UPS_PUSH,), calling_ae=calling_ae, timeout_s=timeout_s, service="quality") as line:
        for uid, attributes in raised.items():
            status = line.create_workitem(uid, attributes)
            if status.answer is not Answer.EXISTS:
                _must_be_done(status, "N-CREATE", peer)
                created.append(uid)
        for uid in mended:
            status = line.cancel_workitem(uid, MENDED)
            if status.name == "NO_SUCH_UPS":
                continue
            if status.answer is Answer.TAKEN:
                left.append(uid)
            else:
                _must_be_done(status, "N-ACTION", peer)
    return created, left


def _must_be_done(status: Status, operation: str, peer: Peer) -> None:
    if status.answer is Answer.DONE:
        return
    said = f"{peer.ae_title} at {peer.host}:{peer.port} answers {status.name} to the {operation} of a quality alert"
    if status.answer is Answer.LATER:
        raise Retry("worklist.quality-unavailable", said, hint="edge-node echo quality")
    raise Quarantine("worklist.quality-refused", said, hint="edge-node study show STUDY")
