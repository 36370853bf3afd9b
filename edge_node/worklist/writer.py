"""What a writer of results is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal, Protocol

from pydicom.dataset import Dataset

from edge_node.config.destinations import Fhir, Hl7, Hl7Order, UpsRs
from edge_node.domain.errors import Stop
from edge_node.domain.finding import TriageResult
from edge_node.domain.reading_list import Performer
from edge_node.domain.worklist import Peer, Priority
from edge_node.worklist.header import ReportReference, report_reference
from edge_node.worklist.identity import WriteBackIdentity


@dataclass(frozen=True, slots=True)
class Site:
    """Where this site wants its results: archive, UPS worklist (None: not configured) and how we call them; `evidence`
    says whether a structured report is among them, for others to refer to; `further` are the kinds of objects that go
    with it (kos, seg, gsps)."""

    pacs: Peer | None
    ups: Peer | None
    calling_ae: str
    timeout_s: float
    key_image: Literal["always", "flagged", "never"] = "always"
    further: tuple[str, ...] = ()
    evidence: bool = True
    hl7: Hl7 | None = None
    hl7_order: Hl7Order | None = None
    fhir: Fhir | None = None
    ups_rs: UpsRs | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """An object of an earlier revision that the archive has: kind (of `header.CLASSES`) and SOP Instance UID."""

    revision: int
    kind: str
    uid: str


def _no_header(_pseudonym: str) -> None:
    return None


@dataclass(frozen=True, slots=True, repr=False)
class WriteBack:
    """One result of one study revision on its way home. `made_at` and `ready_at` are aware and out of the ledger, so
    that a resend is the same; `key` (16 bytes or more) makes the UIDs; `replaces` is the last revision
    this writer told of, and `earlier` what it told (None as well when that is no longer known). `report` is the
    structured report of this revision as the archive has it, None when that is not known; `standing` are the objects of
    earlier revisions there; `late` says that somebody had begun to read before the result; `header` gives the clean
    header (geometry, window) of an image by its pseudonymous SOP Instance UID, None when it is not kept; `performer`
    is who should read it; `ordered` is how urgent it was ordered (STAT, URGENT, ROUTINE), "" when that is not known."""

    identity: WriteBackIdentity
    result: TriageResult
    priority: Priority
    key: bytes
    revision: int
    made_at: datetime
    ready_at: datetime
    node: str
    version: str
    replaces: int | None = None
    earlier: TriageResult | None = None
    report: ReportReference | None = None
    standing: tuple[Standing, ...] = ()
    late: bool = False
    header: Callable[[str], Dataset | None] = _no_header
    performer: Performer | None = None
    ordered: str = ""

    @property
    def structured_report(self) -> ReportReference:
        """The report that others refer to; when it is not stored yet, the one it will most likely be."""
        return self.report or report_reference(self.key, self.identity.study_uid, self.revision)

    def __repr__(self) -> str:
        return f"<WriteBack of revision {self.revision}>"


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What became of it: `outcome` is a stable code, `destination` an AE title or host and port, `objects` what was
    written by kind and UID (ours, a keyed hash), `left_out` what was wanted and not taken, with the answer by name."""

    writer: str
    destination: str
    outcome: str
    objects: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = ()


class WorklistWriter(Protocol):
    """One way of telling a site. `write` is idempotent; it raises Retry or Quarantine of its own destination only.

    `reorders` is True for a writer that changes the reading order. What stands in the `objects` of its reports tells
    the ledger that it told of a revision.
    """

    reorders: ClassVar[bool]

    def __init__(self, site: Site) -> None: ...

    def write(self, order: WriteBack) -> WriteReport: ...


def configured(peer: Peer | None, option: str) -> Peer:
    """The peer of a writer; Stop ``worklist.no-peer`` when the site names none."""
    if peer is None:
        raise Stop(
            "worklist.no-peer",
            f"the option worklist.{option} names a peer that is not configured",
            hint="add [peers.NAME] with ae_title, host and port, then edge-node config check",
        )
    return peer


def no_address(option: str) -> Stop:
    """Stop ``worklist.no-address`` of a writer whose destination is not configured."""
    return Stop("worklist.no-address", f"the option {option} is empty", hint="edge-node config check")
