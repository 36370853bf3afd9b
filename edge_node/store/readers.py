"""Whether a human reads a study already, or has reported it: whichever door says so first, for all writers to know."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, insert, select, update

from edge_node.store.tables import reader


class Reading(StrEnum):
    """CLAIMED: somebody has the study open (a workitem was taken). REPORTED: a final report exists."""

    CLAIMED = "CLAIMED"
    REPORTED = "REPORTED"


@dataclass(frozen=True, slots=True)
class Reader:
    """What is known of it, since when (seconds since the epoch), and from which door."""

    state: Reading
    source: str
    at: float


def note(connection: Connection, study_key: str, state: Reading, source: str, at: float) -> bool:
    """Remember it; the first word counts, but a report outranks a claim. False when nothing was new."""
    known = of(connection, study_key)
    if known is None:
        connection.execute(insert(reader).values(study_key=study_key, state=state, source=source, at=at))
        return True
    if known.state is state or known.state is Reading.REPORTED:
        return False
    # When reading began is what makes a result late: the time of the claim stays.
    connection.execute(update(reader).where(reader.c.study_key == study_key).values(state=state, source=source))
    return True


def of(connection: Connection, study_key: str) -> Reader | None:
    """What is known of a study's reading."""
    row = connection.execute(select(reader).where(reader.c.study_key == study_key)).one_or_none()
    return None if row is None else Reader(Reading(row.state), row.source, float(row.at))
