"""Whether the archive keeps what it took: storage commitment as SCU (PS3.4 Annex J), else reading it back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pydicom.dataset import Dataset

from edge_node.domain.commitment import CommitmentReport, StoredReference
from edge_node.domain.worklist import Peer
from edge_node.worklist.association import COMMITMENT, STUDY_FIND, Line, line_to
from edge_node.worklist.statuses import Answer, Status

VERIFICATION = "1.2.840.10008.1.1"
LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Archive:
    """The archive on an open association: what it can prove, and how to ask."""

    line: Line

    @property
    def commits(self) -> bool:
        """Whether it took the context of storage commitment."""
        return self.line.takes(COMMITMENT)

    @property
    def answers_queries(self) -> bool:
        """Whether it took the context of Study Root C-FIND."""
        return self.line.takes(STUDY_FIND)

    def request(self, transaction_uid: str, objects: Sequence[StoredReference]) -> Status:
        """Ask for commitment of `objects`; the answer comes on this association, or on another one, at any time."""
        return self.line.request_commitment(transaction_uid, objects)

    def linger(self, answered: Callable[[], bool], seconds: float) -> None:
        """Keep the association open for an answer on it, as long as none came and the archive keeps it open."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.line.open and not answered():
            time.sleep(LOOK_S)

    def missing(self, study_uid: str, objects: Sequence[tuple[str, StoredReference]]) -> tuple[Status, set[str]]:
        """Ask for each (Series Instance UID, object) at IMAGE level; returns the SOP Instance UIDs it does not name."""
        gone: set[str] = set()
        status = Status("SUCCESS", Answer.DONE)
        for series_uid, one in objects:
            query = Dataset()
            query.QueryRetrieveLevel = "IMAGE"
            query.StudyInstanceUID, query.SeriesInstanceUID = study_uid, series_uid
            query.SOPInstanceUID, query.SOPClassUID = one.sop_uid, None
            status, found = self.line.find(query)
            if status.answer is not Answer.DONE:
                return status, set()
            if not any(str(match.get("SOPInstanceUID") or "") == one.sop_uid for match in found):
                gone.add(one.sop_uid)
        return status, gone


@contextmanager
def archive_at(
    peer: Peer, calling_ae: str, timeout_s: float, *, committed: Callable[[CommitmentReport], bool]
) -> Iterator[Archive]:
    """An association that proposes commitment and queries. `committed` records what is reported on it.

    Verification is proposed too, so that an archive without either is told from one that is not there. Raises what
    `line_to` raises for the service "pacs".
    """
    classes = (COMMITMENT, STUDY_FIND, VERIFICATION)
    with line_to(
        peer, classes, calling_ae=calling_ae, timeout_s=timeout_s, service="pacs", committed=committed
    ) as line:
        yield Archive(line)
