"""The reading list entry over the web: Create, Retrieve and Update Workitem of UPS-RS (PS3.18 11)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from edge_node.domain.errors import Quarantine, Retry
from edge_node.worklist.identity import as_received
from edge_node.worklist.ups import ASKED, UpsOutcome, Workitem
from edge_node.worklist.web import Answer, WebServer

MEDIA_TYPE = "application/dicom+json"
PASSING = {
    HTTPStatus.UNAUTHORIZED: "does not accept our credentials",
    HTTPStatus.NOT_FOUND: "has no such workitem, or no UPS-RS service at the configured path",
    HTTPStatus.METHOD_NOT_ALLOWED: "has no UPS-RS service at the configured path",
}


def push_rs(item: Workitem, server: WebServer, uid_parameter: str) -> UpsOutcome:
    """Put the workitem on the worklist of `server`, or raise the one that is there; it is never lowered.

    `uid_parameter` is the name under which the address of the creation carries our UID, "none" for the UID alone.
    Raises Retry ``worklist.ups-rs-unavailable`` and Quarantine ``worklist.ups-rs-refused``; pushing again is harmless.
    """
    query = item.uid if uid_parameter == "none" else {uid_parameter: item.uid}
    body = [_json(item.attributes())]
    created = server.ask("POST", "/workitems", query=query, body=body, media_type=MEDIA_TYPE)
    if created.success:
        _must_be_ours(created, item.uid, server)
        return UpsOutcome.CREATED
    if created.status != HTTPStatus.CONFLICT:
        raise _failed(created, "creation", server)
    there = _retrieve(item.uid, server)
    if _taken(there):
        return UpsOutcome.BEING_READ
    if not item.more_urgent_than(there):
        return UpsOutcome.ALREADY_THERE
    change = [_json(item.urgency())]
    changed = server.ask("POST", f"/workitems/{item.uid}", body=change, media_type=MEDIA_TYPE)
    if changed.success:
        return UpsOutcome.RAISED
    # "May no longer be updated" and "locked" have no status of their own (PS3.18 11.6.3): the state tells.
    if changed.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT) and _taken(_retrieve(item.uid, server)):
        return UpsOutcome.BEING_READ
    raise _failed(changed, "update", server)


def _json(attributes: Dataset) -> dict[str, Any]:
    """DICOM JSON (PS3.18 F)."""
    try:
        with as_received():
            made: dict[str, Any] = attributes.to_json_dict()
            return made
    except Exception:  # whatever it says, it may quote a value
        raise Quarantine(
            "worklist.cannot-encode",
            "the workitem cannot be encoded as DICOM JSON with the identity as received",
            hint="edge-node study show STUDY",
        ) from None


def _must_be_ours(created: Answer, uid: str, server: WebServer) -> None:
    """A server that made a UID of its own would make a second workitem of a resend."""
    if created.location and created.location.rstrip("/").rpartition("/")[2] != uid:
        raise Quarantine(
            "worklist.ups-rs-refused",
            f"the UPS-RS server at {server} created the workitem under another UID than ours",
            hint="set ups_rs.uid_parameter to what the server's conformance statement says",
        )


def _retrieve(uid: str, server: WebServer) -> dict[str, str]:
    """State, priority and due time of a workitem, by keyword; "" for what the server leaves out."""
    answer = server.ask("GET", f"/workitems/{uid}", media_type=MEDIA_TYPE)
    if not answer.success:
        raise _failed(answer, "retrieval", server)
    said = answer.content[0] if isinstance(answer.content, list) and answer.content else answer.content
    if not isinstance(said, dict):
        raise Retry(
            "worklist.ups-rs-unavailable",
            f"the UPS-RS server at {server} does not answer with a workitem",
            hint="edge-node doctor",
        )
    return {keyword: _value(said, keyword) for keyword in ASKED}


def _value(said: dict[str, Any], keyword: str) -> str:
    element = said.get(f"{tag_for_keyword(keyword):08X}")
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]) if isinstance(values, list) and values else ""


def _taken(there: dict[str, str]) -> bool:
    return (there["ProcedureStepState"] or "SCHEDULED") != "SCHEDULED"


def _failed(answer: Answer, operation: str, server: WebServer) -> Retry | Quarantine:
    if answer.status in PASSING:
        said = f"the UPS-RS server at {server} {PASSING[HTTPStatus(answer.status)]}"
        return Retry("worklist.ups-rs-unavailable", said, hint="edge-node doctor")
    said = f"the UPS-RS server at {server} answers {answer.name} to the {operation} of the workitem"
    if answer.status == HTTPStatus.CONFLICT:
        return Retry("worklist.ups-rs-unavailable", said, hint="edge-node doctor")
    return Quarantine("worklist.ups-rs-refused", said, hint="edge-node worklist show STUDY")
