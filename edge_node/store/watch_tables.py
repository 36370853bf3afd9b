"""The tables of the watch over models: what each result was like, what was measured, looks at drift. No PHI."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, Index, Integer, String, Table, Text, UniqueConstraint

from edge_node.store.tables import metadata

observation = Table(
    "observation",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("study_key", String(16), nullable=False),
    Column("package", String(64), nullable=False),
    Column("variant", String(16), nullable=False),
    Column("finding", String(16), nullable=False),  # value of its code
    Column("verdict", String(16), nullable=False),
    Column("probability", Float, nullable=False),
    Column("threshold", Float, nullable=False),
    Column("seen", Text, nullable=False),  # JSON: facts of the input by name
    UniqueConstraint("study_key", "package", "finding"),  # a study that is judged again counts once
)
Index("observation_by_stream", observation.c.package, observation.c.finding, observation.c.id)

model_record = Table(
    "model_record",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("package", String(64), nullable=False),
    Column("variant", String(16), nullable=False),
    Column("finding", String(16), nullable=False),
    Column("kind", String(16), nullable=False),  # validation, parity, baseline
    Column("who", String(64), nullable=False),
    Column("figures", Text, nullable=False),  # JSON
)
Index("model_record_by_package", model_record.c.package, model_record.c.kind)

drift_look = Table(
    "drift_look",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("package", String(64), nullable=False),
    Column("variant", String(16), nullable=False),
    Column("finding", String(16), nullable=False),
    Column("record", Integer, nullable=False),  # the reference: a row of model_record
    Column("last", Integer, nullable=False),  # the last observation of the window
    Column("results", Integer, nullable=False),
    Column("full", Boolean, nullable=False),  # False: an alarm of the flag rate before the window was full
    Column("alarm", Boolean, nullable=False),
    Column("tests", Text, nullable=False),  # JSON
)
Index("drift_look_by_stream", drift_look.c.package, drift_look.c.finding, drift_look.c.id)
