"""The options of our own reading list, of quality alerts and of routing to readers; part of the schema."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from edge_node.config.section import AeTitle, Networks, Port, Section

ROUTE = r"(modality|body|finding):[^\s:]+( (modality|body|finding):[^\s:]+)*"
PERFORMER = r"[^\\^~&|]{1,16}"


class ReadingList(Section):
    """The node's own reading list, for a viewer or dashboard that asks (UPS Pull, Watch, Query; Modality Worklist)."""

    port: Port = Field(default=0, description="TCP port of the list; 0: off. It needs worklist.mode = live.")
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    ae_title: AeTitle = Field(default="EDGELIST", description="AE title of the list, which callers must call.")
    calling_ae_titles: list[AeTitle] = Field(
        default=[], description="Calling AE titles that may ask; empty: any, on this machine only."
    )
    allowed_addresses: Networks = Field(
        default=[], description="Addresses or networks that may connect; empty: any, on this machine only."
    )
    hours: float = Field(
        default=72,
        gt=0,
        description="An entry leaves the list, and the reading order of the status page, so long after its result.",
    )
    search_identity: bool = Field(
        default=False,
        description="Answer queries by name or with wildcards in identity too; for that every envelope is opened.",
    )
    most_entries: int = Field(default=500, ge=1, description="At most so many entries in one answer, the first ones.")
    max_associations: int = Field(default=16, ge=1, description="Simultaneous associations.")
    timeout_s: float = Field(default=30, gt=0, description="An association silent for so long is aborted.")


class QualityAlerts(Section):
    """Workitems for the technologist when a study came incomplete or unusable; none while worklist.mode is shadow."""

    peer: str = Field(
        default="", description="The peer ([peers.NAME]) with the technologists' UPS worklist; empty: no alerts."
    )
    faults: list[Literal["missing", "gap", "unreadable", "geometry", "clipping", "body-part"]] = Field(
        default=["missing", "gap", "unreadable", "geometry", "clipping"],
        description="What is worth an alert: missing (announced or required and not sent), gap (between slices),"
        " unreadable (images), geometry (no or mixed), clipping (at the edge of the field), body-part (not stated).",
    )


class Routing(Section):
    """Who should read what: the human performer in workitems, and the recipient of HL7 results."""

    routes: dict[str, str] = Field(
        default={},
        description="Reader code by what a study is; all words of a route must fit, the first route that fits counts,"
        ' such as "modality:CT body:HEAD" = "NEURO" or "finding:1386000" = "STROKE".',
    )
    names: dict[str, str] = Field(default={}, description="Meaning of a reader code, such as NEURO = Neuroradiology.")
    scheme: str = Field(default="99EDGENODE", description="Coding scheme of the reader codes.")
    organization: str = Field(default="", description="Organization of the readers; empty: the meaning of the code.")

    @field_validator("routes")
    @classmethod
    def _routes(cls, value: dict[str, str]) -> dict[str, str]:
        for text, performer in value.items():
            if not re.fullmatch(ROUTE, text):
                raise ValueError('a route is written as "modality:CT body:HEAD finding:1386000", one or more of these')
            if not re.fullmatch(PERFORMER, performer):
                raise ValueError("a reader code has 1 to 16 characters without \\ ^ ~ & |")
        return value

    @field_validator("scheme")
    @classmethod
    def _scheme(cls, value: str) -> str:
        if not re.fullmatch(PERFORMER, value):
            raise ValueError("a coding scheme has 1 to 16 characters without \\ ^ ~ & |")
        return value

    @field_validator("names")
    @classmethod
    def _names(cls, value: dict[str, str]) -> dict[str, str]:
        for meaning in value.values():
            if not re.fullmatch(r"[^\\^~&|\r\n=]{1,64}", meaning):
                raise ValueError("the meaning of a reader code has 1 to 64 characters without \\ ^ ~ & | =")
        return value
