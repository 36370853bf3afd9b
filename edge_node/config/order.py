"""The table [order] of the configuration: where it is asked how urgent a study was ordered; part of the schema."""

from __future__ import annotations

from pydantic import Field

from edge_node.config.section import Section


class Order(Section):
    """Order priority and patient class, beyond what the images say; both can only bring a study forward."""

    peer: str = Field(
        default="",
        description="The peer ([peers.NAME]) with the modality worklist (RIS) that is asked for the order of each"
        " study, by its accession number; empty: what images say is all.",
    )
    wait_s: float = Field(
        default=3, gt=0, le=60, description="Results wait at most so long for its answer; then the images decide."
    )
    emergency: list[str] = Field(
        default=["ED", "ER", "A&E", "EMERGENCY"],
        description="Words of Requesting Service or Current Patient Location that mean an emergency patient.",
    )
    inpatient: list[str] = Field(
        default=[], description="Words of Requesting Service or Current Patient Location that mean an inpatient."
    )
