"""The ledger's tables about earlier studies of a patient: what is wished for, and which studies came as priors."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, String, Table, Text

from edge_node.store.tables import metadata

prior_wish = Table(
    "prior_wish",
    metadata,
    Column("study_key", String(16), primary_key=True),  # of the study that is to be judged
    Column("asks", Text, nullable=False),  # JSON: what the cards ask for
    Column("speaks", Boolean, nullable=False),  # whether a model asks for whom somebody waits
    Column("wished_at", Float, nullable=False),
    Column("job", String(16), nullable=False, default=""),  # the pull that brings them; "" not asked for yet
    Column("wait_until", Float),  # triage waits no longer; empty until the study has settled
    Column("ended_at", Float),
    Column("code", String(64), nullable=False, default=""),  # what came of it
)

prior = Table(
    "prior",
    metadata,
    Column("study_key", String(16), primary_key=True),
    Column("job", String(16), nullable=False),
    Column("wanted_by", String(16), nullable=False),  # study key; "" an administrator
    Column("marked_at", Float, nullable=False),
)
