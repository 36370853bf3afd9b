"""The answer to a STOW-RS request (PS3.18 10.5.3): the HTTP status and the Store Instances Response (PS3.18 I.2)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from edge_node.domain.status import Status

_CLASS, _INSTANCE, _URL, _REASON = "00081150", "00081155", "00081190", "00081197"
_REFERENCED, _FAILED, _OTHER = "00081199", "00081198", "0008119A"


@dataclass(frozen=True, slots=True, repr=False)
class Answered:
    """What became of one part: SUCCESS or why not; without UIDs, if the part could not say what it is."""

    status: Status
    sop_class: str = ""
    sop_instance: str = ""


@dataclass(slots=True)
class StoreAnswer:
    """Collects what became of each part."""

    parts: list[Answered] = field(default_factory=list)

    def http_status(self) -> HTTPStatus:
        """200 all stored, 202 some, 409 none, 503 none for want of room (PS3.18 Table 10.5.3-1)."""
        stored = sum(part.status is Status.SUCCESS for part in self.parts)
        if self.parts and stored == len(self.parts):
            return HTTPStatus.OK
        if stored:
            return HTTPStatus.ACCEPTED
        full = bool(self.parts) and all(part.status is Status.OUT_OF_RESOURCES for part in self.parts)
        return HTTPStatus.SERVICE_UNAVAILABLE if full else HTTPStatus.CONFLICT

    def body(self) -> bytes:
        """DICOM JSON (PS3.18 F). No Retrieve URL: the node is not an archive."""
        referenced, failed, other = list[Any](), list[Any](), list[Any]()
        for part in self.parts:
            item = {}
            if part.sop_instance:
                item = {_CLASS: _value("UI", part.sop_class), _INSTANCE: _value("UI", part.sop_instance)}
            if part.status is Status.SUCCESS:
                referenced.append({**item, _URL: {"vr": "UR"}})
            else:
                (failed if item else other).append({**item, _REASON: _value("US", int(part.status))})
        answer: dict[str, Any] = {_URL: {"vr": "UR"}}
        for tag, items in ((_REFERENCED, referenced), (_FAILED, failed), (_OTHER, other)):
            if items:
                answer[tag] = {"vr": "SQ", "Value": items}
        return json.dumps(answer).encode()


def _value(vr: str, value: object) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]}
