"""Writer "fhir": the result as one transaction to a FHIR R4 server (FHIR R4 3.1.0.11)."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, ClassVar

from edge_node.config.destinations import Fhir
from edge_node.domain.errors import Quarantine, Retry
from edge_node.domain.finding import TriageOutcome
from edge_node.worklist import fhir
from edge_node.worklist.fhir import Resource, Subject
from edge_node.worklist.web import Answer, WebServer
from edge_node.worklist.words import ranked, standing, told_of_earlier, withdrawn
from edge_node.worklist.writer import Site, WriteBack, WriteReport, no_address

PASSING = {
    HTTPStatus.UNAUTHORIZED: "does not accept our credentials",
    HTTPStatus.NOT_FOUND: "has no FHIR service at the configured path",
    HTTPStatus.METHOD_NOT_ALLOWED: "has no FHIR service at the configured path",
    HTTPStatus.CONFLICT: "was changing the same resource",
    HTTPStatus.PRECONDITION_FAILED: "has a newer task than the one we read",
}
MEDIA_TYPE = "application/fhir+json"


class FhirWriter:
    """One set of resources a study; a later revision updates it. The task re-orders reading.

    Outcomes: ``written``; ``late`` when somebody had taken the task before: the result is marked so, the task left
    alone; ``nothing-to-say``.
    """

    reorders: ClassVar[bool] = True

    def __init__(self, site: Site) -> None:
        self._options = site.fhir or Fhir()
        self._evidence = site.evidence
        self._server = server_of(self._options, site.timeout_s)

    def write(self, order: WriteBack) -> WriteReport:
        """Raises what `WebServer.ask` raises, Quarantine ``worklist.fhir-refused`` when the server does not want the
        transaction, and ``worklist.identity-incomplete`` without a certain patient and order."""
        judged = order.result.outcome is TriageOutcome.FINDING and order.result.top is not None
        if not judged and order.replaces is None:
            return WriteReport("fhir", str(self._server), "nothing-to-say")
        subject = Subject.of(order.identity, self._options)
        named = fhir.identifier(order, "task")
        there = self._task(named) if order.revision > 1 else None
        late = order.late or (there is not None and there.get("status") not in fhir.OPEN)
        entries = _entries(order, subject, judged, late, self._evidence)
        if there is None:
            entries.append(_create(fhir.task(order, subject)))
        elif not late and fhir.more_urgent(order, there):
            entries.append(_change(there, {**there, **fhir.urgency(order)}))
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        self._must_be_done(self._server.ask("POST", body=bundle, media_type=MEDIA_TYPE), len(entries))
        uid = fhir.identifier(order, "report")["value"].removeprefix("urn:oid:")
        return WriteReport("fhir", str(self._server), "late" if late else "written", (("fhir", uid),))

    def _task(self, named: Resource) -> Resource | None:
        query = {"identifier": f"{named['system']}|{named['value']}"}
        answer = self._server.ask("GET", "/Task", query=query, media_type=MEDIA_TYPE)
        if not answer.success:
            raise self._refused(answer)
        said = _object(answer.content)
        if said.get("resourceType") != "Bundle":
            raise self._unreadable()
        found = [_object(entry.get("resource")) for entry in _objects(said.get("entry"))]
        return next((one for one in found if one.get("resourceType") == "Task"), None)

    def _must_be_done(self, answer: Answer, count: int) -> None:
        """A transaction is done when its response says so for each entry; the HTTP status alone is not believed."""
        if not answer.success:
            raise self._refused(answer)
        said = _object(answer.content)
        statuses = [str(_object(entry.get("response")).get("status") or "") for entry in _objects(said.get("entry"))]
        if said.get("type") != "transaction-response" or len(statuses) != count:
            raise self._unreadable()
        if not all(re.match(r"20\d|304", status) for status in statuses):
            raise self._refused(answer)

    def _refused(self, answer: Answer) -> Quarantine | Retry:
        if answer.status in PASSING:
            said = f"the FHIR server at {self._server} {PASSING[HTTPStatus(answer.status)]}"
            return Retry("worklist.fhir-unavailable", said, hint="edge-node doctor")
        codes = {str(issue.get("code")) for issue in _objects(_object(answer.content).get("issue"))}
        named = ", ".join(sorted(code for code in codes if re.fullmatch(r"[a-z-]{1,32}", code)))
        return Quarantine(
            "worklist.fhir-refused",
            f"the FHIR server at {self._server} refuses the result: {answer.name}" + (f" ({named})" if named else ""),
            hint="edge-node worklist show STUDY",
        )

    def _unreadable(self) -> Retry:
        return Retry(
            "worklist.fhir-unavailable",
            f"the FHIR server at {self._server} does not answer as FHIR R4 says",
            hint="edge-node doctor",
        )


def server_of(options: Fhir, timeout_s: float) -> WebServer:
    """The server of the section [fhir]. Raises Stop ``worklist.no-address`` and what `WebServer` raises."""
    if not options.url:
        raise no_address("fhir.url")
    return WebServer("fhir", options, "fhir", timeout_s)


def _entries(order: WriteBack, subject: Subject, judged: bool, late: bool, evidence: bool) -> list[Resource]:
    """Devices, observations and the report. The first revision creates if there is none yet; a later one updates."""
    now = ranked(order.result) if judged else []
    missing = order.result.unavailable
    gone, kept = withdrawn(order.earlier, now, missing), standing(order.earlier, now, missing)
    models = {one.model.sha256 + one.model.name: one.model for one in [*now, *gone]}
    write = _create if order.revision == 1 else _replace
    return [
        *(_create(fhir.device(order, model)) for model in models.values()),
        *(write(fhir.observation(order, subject, one)) for one in now),
        *(write(fhir.observation(order, subject, one, withdrawn=True)) for one in gone),
        write(fhir.report(order, subject, now, told_of_earlier(gone, kept), evidence=evidence, late=late)),
    ]


def _object(said: object) -> dict[str, Any]:
    return said if isinstance(said, dict) else {}


def _objects(said: object) -> list[dict[str, Any]]:
    return [one for one in said if isinstance(one, dict)] if isinstance(said, list) else []


def _query(resource: Resource) -> str:
    named = resource["identifier"][0]
    return f"identifier={named['system']}|{named['value']}"


def _create(resource: Resource) -> Resource:
    kind = resource["resourceType"]
    return {
        "fullUrl": fhir.full_url(resource["identifier"][0]),
        "resource": resource,
        "request": {"method": "POST", "url": kind, "ifNoneExist": _query(resource)},
    }


def _replace(resource: Resource) -> Resource:
    kind = resource["resourceType"]
    return {
        "fullUrl": fhir.full_url(resource["identifier"][0]),
        "resource": resource,
        "request": {"method": "PUT", "url": f"{kind}?{_query(resource)}"},
    }


def _change(there: Resource, changed: Resource) -> Resource:
    request = {"method": "PUT", "url": f"Task/{there.get('id')}"}
    version = _object(there.get("meta")).get("versionId")
    if version:
        request["ifMatch"] = f'W/"{version}"'
    return {"resource": changed, "request": request}
