"""Query and retrieve as SCU (PS3.4 C): C-FIND for what is there, C-MOVE to ourselves or C-GET into our own door."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pydicom.dataset import Dataset

from edge_node.config.schema import Config
from edge_node.config.tls import peer_of, tls_arguments
from edge_node.domain.errors import EdgeNodeError, Quarantine, Retry
from edge_node.domain.pull import Kind, Match, Retrieved, Wanted
from edge_node.domain.status import Status, status_name
from edge_node.receive.admission import storage_sop_classes
from edge_node.receive.local import LocalSender, Offer, nameless_memory
from edge_node.service.dimse import (
    AE,
    MAX_PDU,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    build_context,
    build_role,
    evt,
    no_delay,
)
from edge_node.service.pull_limits import LONGEST_PDU, MOST_ANSWERS, Meter
from edge_node.service.pull_match import Matches

MOST_CONTEXTS = 126  # of 128, with the query's own
NATIVE = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
COMPRESSED = tuple(
    f"1.2.840.10008.1.2.{one}"
    for one in ("4.50", "4.51", "4.57", "4.70", "4.80", "4.81", "4.90", "4.91", "4.201", "4.202", "4.203", "5")
)
_PENDING = (Status.PENDING, Status.PENDING_WARNING)
StillWanted = Callable[[], bool]


class DicomArchive:
    """The PACS of `[pull]`, asked by DIMSE. One association a question; safe for several threads."""

    def __init__(self, config: Config) -> None:
        self._peer = peer_of(config.peers[config.pull.pacs])
        self._options = config.pull
        self._destination = config.pull.destination or config.receive.ae_title
        self._called = config.receive.ae_title
        self._data_dir = config.node.data_dir
        self._largest = config.receive.max_object_mb * 1_000_000

    def find(self, wanted: Wanted) -> list[Match]:
        """The studies that fit `wanted`, by C-FIND at the study level.

        Raises Retry ``pull.unavailable`` (nobody there, no association), ``pull.query-failed``; Quarantine
        ``pull.patient-ambiguous``.
        """
        found = Matches(wanted, self._where)
        with self._association([(StudyRootQueryRetrieveInformationModelFind, NATIVE)], self._options.timeout_s) as line:
            for status, item in line.send_c_find(_query(wanted), StudyRootQueryRetrieveInformationModelFind):
                code = _code(status)
                if code in _PENDING:
                    if item is not None:
                        _add(found, wanted.kind, item)
                elif code != Status.SUCCESS:
                    raise self._failed("query-failed", f"answered C-FIND with {_word(code)}")
        return found.fitting()

    def retrieve(self, match: Match, wanted: StillWanted, breathe: Callable[[], None]) -> Retrieved:
        """Let the study come to us. `wanted` says whether to go on, `breathe` waits when others receive.

        Raises Retry ``pull.unavailable``, ``pull.retrieve-failed``, ``pull.destination-unknown``, ``pull.cancelled``;
        Quarantine ``pull.object-too-large``.
        """
        if self._options.method == "get":
            return self._get(match, wanted, breathe)
        model = StudyRootQueryRetrieveInformationModelMove
        with self._association([(model, NATIVE)], self._options.study_timeout_s) as line:
            answers = line.send_c_move(_study(match), self._destination, model)
            return self._outcome(line, answers, model, wanted)

    def _get(self, match: Match, wanted: StillWanted, breathe: Callable[[], None]) -> Retrieved:
        model, sender, refused = StudyRootQueryRetrieveInformationModelGet, LocalSender(self._data_dir), list[str]()
        meter = Meter(self._largest + LONGEST_PDU)

        def take(event: Any) -> int:
            meter.taken()
            breathe()
            try:
                self._hand_in(event, sender)
            except EdgeNodeError as error:
                refused.append(error.code)
                full = isinstance(error, Retry)
                return Status.OUT_OF_RESOURCES if full else Status.PROCESSING_FAILURE
            return Status.SUCCESS

        classes = self._classes_of(match)
        contexts: list[tuple[str, tuple[str, ...]]] = [(model, NATIVE)]
        contexts += [(one, NATIVE) for one in classes]
        if len(classes) * (1 + len(COMPRESSED)) <= MOST_CONTEXTS:  # a context each, so that they come as they are kept
            contexts += [(one, (syntax,)) for one in classes for syntax in COMPRESSED]
        try:
            with self._association(contexts, self._options.study_timeout_s, classes, take, meter) as line:
                outcome = self._outcome(line, line.send_c_get(_study(match), model), model, wanted)
        except Retry:
            if not meter.cut:
                raise
            raise Quarantine(
                "pull.object-too-large",
                f"{self._where} sends an object larger than [receive] max_object_mb; the retrieval was cut off",
                hint="raise receive.max_object_mb; or pull.method = move, which needs less memory",
            ) from None
        finally:
            sender.close()
        return Retrieved(max(0, outcome.sent - len(refused)), max(outcome.failed, len(refused)))

    def _hand_in(self, event: Any, sender: LocalSender) -> None:
        request = event.request
        with nameless_memory() as memory:
            view = request.DataSet.getbuffer()
            while view:
                view = view[os.write(memory, view) :]
            offer = Offer(
                transfer_syntax=str(event.context.transfer_syntax),
                sop_class=str(request.AffectedSOPClassUID),
                sop_instance=str(request.AffectedSOPInstanceUID),
                calling_ae=self._peer.ae_title,
                called_ae=self._called,
                peer="",
                memory=memory,
            )
            sender.give(offer)

    def _classes_of(self, match: Match) -> list[str]:
        """SOP classes of the study's instances, as the archive names them; all that fit when it names none."""
        query = _study(match)
        query.QueryRetrieveLevel = "IMAGE"
        query.SeriesInstanceUID = query.SOPInstanceUID = query.SOPClassUID = ""
        found: set[str] = set()
        model = StudyRootQueryRetrieveInformationModelFind
        # Relational queries are an extension (PS3.4 C.4.1.2.2.1); who does not know them is offered every class.
        with self._association([(model, NATIVE)], self._options.timeout_s) as line:
            for status, item in line.send_c_find(query, model):
                if _code(status) in _PENDING and item is not None:
                    found.add(str(item.get("SOPClassUID", "")))
        known = sorted(found & storage_sop_classes())
        return known or sorted(storage_sop_classes())[:MOST_CONTEXTS]

    def _outcome(self, line: Any, answers: Iterator[Any], model: str, wanted: StillWanted) -> Retrieved:
        """The final answer's counts (PS3.4 C.4.2.1.6 and on)."""
        cancelled, last = False, Dataset()
        for status, _ in answers:
            last = status
            if _code(status) in _PENDING and not cancelled and not wanted():
                line.send_c_cancel(1, query_model=model)
                cancelled = True
        code = _code(last)
        if cancelled:
            raise Retry("pull.cancelled", "the retrieval was cancelled", counts=False)
        if code == Status.CANCEL:
            raise self._failed("retrieve-failed", "cancelled the retrieval, which nobody had asked for")
        if code == Status.MOVE_DESTINATION_UNKNOWN:
            raise Retry(
                "pull.destination-unknown",
                f"{self._where} does not know the AE title {self._destination}, to which it shall move",
                hint="let the PACS know our AE title, address and port; or set pull.destination; or pull.method = get",
                counts=False,
            )
        sent = int(last.get("NumberOfCompletedSuboperations") or 0) + int(last.get("NumberOfWarningSuboperations") or 0)
        failed = int(last.get("NumberOfFailedSuboperations") or 0)
        if code == Status.SUCCESS or (code is not None and (sent or failed)):
            return Retrieved(sent, failed)
        raise self._failed("retrieve-failed", f"answered {_word(code)}")

    @property
    def _where(self) -> str:
        return f"{self._peer.ae_title} at {self._peer.host}:{self._peer.port}"

    def _failed(self, word: str, what: str) -> Retry:
        return Retry(f"pull.{word}", f"{self._where} {what}", hint="see the log of the PACS; it is tried again")

    @contextmanager
    def _association(
        self,
        contexts: list[tuple[str, tuple[str, ...]]],
        answer_s: float,
        stored: list[str] | None = None,
        take: Callable[[Any], int] | None = None,
        meter: Meter | None = None,
    ) -> Iterator[Any]:
        entity = AE(self._options.calling_ae_title)
        entity.acse_timeout = entity.connection_timeout = self._options.timeout_s
        entity.dimse_timeout = entity.network_timeout = answer_s
        entity.maximum_pdu_size = MAX_PDU
        watch = (meter or Meter(MOST_ANSWERS)).watch
        handlers: list[Any] = [(evt.EVT_CONN_OPEN, no_delay), (evt.EVT_CONN_OPEN, watch)]
        # `add_requested_context` would make one context of several with the same class.
        entity.requested_contexts = [build_context(abstract, list(syntaxes)) for abstract, syntaxes in contexts]
        if take is not None:
            handlers.append((evt.EVT_C_STORE, take))
        line = entity.associate(
            self._peer.host,
            self._peer.port,
            ae_title=self._peer.ae_title,
            tls_args=tls_arguments(self._peer),
            ext_neg=[build_role(one, scp_role=True) for one in stored or ()],
            evt_handlers=handlers,
        )
        if not line.is_established:
            why = "rejects associations from" if line.is_rejected else "does not answer"
            raise Retry(
                "pull.unavailable",
                f"{self._where} {why}" + (f" {self._options.calling_ae_title}" if line.is_rejected else ""),
                hint=f"edge-node echo {self._options.pacs}",
                counts=False,
            )
        if contexts[0][0] not in {context.abstract_syntax for context in line.accepted_contexts}:
            line.release()
            raise Retry(
                "pull.not-offered",
                f"{self._where} does not offer us this query or retrieval",
                hint="allow our AE title to query and retrieve, or choose another pull.method",
                counts=False,
            )
        try:
            yield line
        except (RuntimeError, OSError, socket.gaierror):  # the association broke off in the middle
            raise Retry("pull.unavailable", f"{self._where} broke off", counts=False) from None
        finally:
            if line.is_established:
                line.release()


def _query(wanted: Wanted) -> Dataset:
    """The identifier of a study-level C-FIND (PS3.4 C.6.2.1)."""
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    if not (wanted.value + wanted.issuer).isascii():
        query.SpecificCharacterSet = "ISO_IR 192"  # else each such letter becomes a ?, which is a wildcard
    query.StudyInstanceUID = query.NumberOfStudyRelatedInstances = ""
    query.ModalitiesInStudy = wanted.modality
    query.StudyDate = query.StudyDescription = ""
    match wanted.kind:
        case Kind.STUDY:
            query.StudyInstanceUID = wanted.value
        case Kind.ACCESSION:
            query.AccessionNumber = wanted.value
        case Kind.DAY:
            query.StudyDate = wanted.value
        case Kind.PRIORS:
            query.PatientID, query.IssuerOfPatientID = wanted.value, ""
    return query


_SAID = {
    Kind.STUDY: "StudyInstanceUID",
    Kind.ACCESSION: "AccessionNumber",
    Kind.DAY: "StudyDate",
    Kind.PRIORS: "PatientID",
}


def _add(found: Matches, kind: Kind, item: Dataset) -> None:
    def said(keyword: str) -> str:
        return str(item.get(keyword, "") or "")

    names = item.get("ModalitiesInStudy") or ""
    found.add(
        said("StudyInstanceUID"),
        said(_SAID[kind]),
        issuer=said("IssuerOfPatientID"),
        modalities={names} if isinstance(names, str) else {str(one) for one in names},
        instances=said("NumberOfStudyRelatedInstances"),
        date=said("StudyDate"),
        description=said("StudyDescription"),
    )


def _study(match: Match) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.StudyInstanceUID = match.study_uid
    return query


def _code(status: Dataset) -> int | None:
    code = status.get("Status")
    return None if code is None else int(code)


def _word(code: int | None) -> str:
    return "nothing in time" if code is None else status_name(code)


def not_found(study_key: str) -> Quarantine:
    """The archive has no such study."""
    return Quarantine(
        "pull.not-found", "the PACS has no such study", hint="check the list, and whom we ask", study=study_key
    )
