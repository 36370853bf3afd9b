"""The same over DICOMweb: QIDO-RS for what is there (PS3.18 10.6), WADO-RS into our own door (PS3.18 10.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from edge_node.config.schema import Config
from edge_node.domain.errors import Quarantine, Retry
from edge_node.domain.pull import Kind, Match, Retrieved, Wanted
from edge_node.domain.status import Status
from edge_node.receive.multipart import MultipartError, MultipartReader, boundary_of
from edge_node.service.pull_dimse import StillWanted
from edge_node.service.pull_match import Matches
from edge_node.service.stow_door import TOO_LARGE, Door
from edge_node.worklist.web import WebServer

CALLING_AE = "PULL"
PAGE = 200
JSON = "application/dicom+json"
OBJECTS = 'multipart/related; type="application/dicom"; transfer-syntax=*'
STUDY_UID, COUNT, MODALITIES, ISSUER = "0020000D", "00201208", "00080061", "00100021"
DATE, DESCRIPTION = "00080020", "00081030"
_SAID = {Kind.STUDY: STUDY_UID, Kind.ACCESSION: "00080050", Kind.DAY: "00080020", Kind.PRIORS: "00100020"}
_FIELDS = f"{COUNT},{MODALITIES},{ISSUER},{DATE},{DESCRIPTION}"


class WebArchive:
    """The server of `[pull_web]`. Safe for several threads. Raises Stop for an address or TLS files of no use."""

    def __init__(self, config: Config) -> None:
        self._server = WebServer("pull_web", config.pull_web, "pull", config.pull.timeout_s)
        self._door = Door(config, CALLING_AE)

    def find(self, wanted: Wanted) -> list[Match]:
        """The studies that fit `wanted`.

        Raises Retry ``pull.unavailable``, ``pull.query-failed``; Quarantine ``pull.patient-ambiguous``. A server may
        answer fewer at once than it is asked for (PS3.18 8.3.4.4): it is asked on as long as it says something new.
        """
        query = {_SAID[wanted.kind]: wanted.value, "includefield": _FIELDS, "limit": str(PAGE)}
        if wanted.modality:
            query["ModalitiesInStudy"] = wanted.modality
        found = Matches(wanted, str(self._server))
        while True:
            with self._translated():
                offset = {"offset": str(found.answers)}
                answer = self._server.ask("GET", "/studies", query={**query, **offset}, media_type=JSON)
            if answer.status == HTTPStatus.NOT_FOUND and found.answers:
                return found.fitting()  # so some say that there is no more
            if not answer.success:
                raise Retry("pull.query-failed", f"{self._server} answers {answer.name} to a search")
            page = answer.content if isinstance(answer.content, list) else []
            fresh = [_add(found, wanted.kind, item) for item in page]
            # A server that knows no offset says the same again; of a study there is one.
            if not any(fresh) or (wanted.kind is Kind.STUDY and found.fitting()):
                return found.fitting()

    def retrieve(self, match: Match, wanted: StillWanted, breathe: Callable[[], None]) -> Retrieved:
        """Fetch the study, object by object into the receiver.

        Raises Retry ``pull.unavailable``, ``pull.retrieve-failed``, ``pull.cancelled``; Quarantine
        ``pull.object-too-large``.
        """
        sent = failed = 0
        with (
            self._translated(lambda: sent + failed > 0),
            self._server.fetch(f"/studies/{match.study_uid}", OBJECTS) as answer,
        ):
            if not 200 <= answer.status < 300:
                raise Retry("pull.retrieve-failed", f"{self._server} answers {answer.status} to a retrieval")
            try:
                for part in MultipartReader(answer, boundary_of(answer.content_type)):
                    if not wanted():
                        raise Retry("pull.cancelled", "the retrieval was cancelled", counts=False)
                    breathe()
                    taken, word = self._door.taken(part.chunks(), "", match.study_uid)
                    if word == TOO_LARGE:
                        raise Quarantine(
                            "pull.object-too-large",
                            f"{self._server} sends an object over [receive] max_object_mb or [stow] memory_mb;"
                            " it was cut off",
                            hint="raise the smaller of the two; or pull.method = move, which needs less memory",
                        )
                    safe = taken.status is Status.SUCCESS
                    sent, failed = sent + safe, failed + (not safe)
            except MultipartError:
                raise Retry("pull.retrieve-failed", f"{self._server} broke off, or sent no multipart answer") from None
        return Retrieved(sent, failed)

    @contextmanager
    def _translated(self, begun: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Our codes. What breaks off after it has begun is this study's failure, not an archive that is away."""
        try:
            yield
        except Retry as error:
            if error.code != "worklist.pull-unavailable":
                raise
            if begun():
                raise Retry("pull.retrieve-failed", error.message, hint=error.hint) from None
            raise Retry("pull.unavailable", error.message, hint=error.hint, after=error.after, counts=False) from None


def _add(found: Matches, kind: Kind, item: Any) -> bool:
    said = item if isinstance(item, dict) else {}
    return found.add(
        _first(said, STUDY_UID),
        _first(said, _SAID[kind]),
        issuer=_first(said, ISSUER),
        modalities={str(one) for one in _values(said, MODALITIES)},
        instances=_first(said, COUNT),
        date=_first(said, DATE),
        description=_first(said, DESCRIPTION),
    )


def _values(item: dict[str, Any], tag: str) -> list[Any]:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _first(item: dict[str, Any], tag: str) -> str:
    values = _values(item, tag)
    return str(values[0]).strip() if values and values[0] is not None else ""
