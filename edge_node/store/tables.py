"""The ledger's tables: pseudonymous keys, states, timings, hashes; sealed blobs; never PHI in the clear.

SQLAlchemy Core only, nothing that SQLite or PostgreSQL alone could do. Times are seconds since the epoch (UTC).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    literal_column,
)

metadata = MetaData()

schema_version = Table(
    "schema_version",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("applied_at", Float, nullable=False),
)

study = Table(
    "study",
    metadata,
    Column("study_key", String(16), primary_key=True),
    Column("study_uid", String(64), nullable=False),
    Column("patient_key", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("complete", Boolean, nullable=False),
    Column("modalities", String(64), nullable=False),  # comma separated, sorted
    Column("body_part", String(16), nullable=False),
    Column("order_priority", String(16), nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("recipe", String(64), nullable=False),
    Column("recipe_sha256", String(64), nullable=False),  # of the first instance; each instance has its own
    Column("trial", String(32), nullable=False, default=""),  # whose pseudonyms the whole study has; "" the site's own
    Column("instances", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("first_received_at", Float, nullable=False),
    Column("opened_at", Float, nullable=False),  # when the current revision began
    Column("last_received_at", Float, nullable=False),
    Column("settled_at", Float),
    Column("settle_reason", String(64), nullable=False, default=""),
    Column("triaged_at", Float),
    Column("delivered_at", Float),
    Column("closed_at", Float),
    Column("site_key_id", String(8), nullable=False, default="", server_default=""),  # which site key made its names
    Column("patient_class", String(1), nullable=False, default="", server_default=""),  # E, I, O or not known
)
Index("study_in_state", study.c.state, study.c.instances, study.c.bytes)  # all that a total needs
Index("study_by_receipt", study.c.first_received_at)
Index("study_by_triage", study.c.triaged_at)

data_key = Table(
    "data_key",
    metadata,
    Column("key_id", String(16), primary_key=True),
    Column("owner", String(16), nullable=False),  # study key or quarantine id
    Column("class", String(16), nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    UniqueConstraint("owner", "class"),
)

instance = Table(
    "instance",
    metadata,
    Column("sop_uid", String(64), primary_key=True),
    Column("study_key", String(16), nullable=False),
    Column("series_uid", String(64), nullable=False),
    Column("sop_class", String(64), nullable=False),
    Column("transfer_syntax", String(64), nullable=False),
    Column("modality", String(16), nullable=False),
    Column("pixel_risk", String(64), nullable=False),
    Column("pixel_work", String(64), nullable=False, default=""),  # what the pixel step did; "" not judged yet
    Column("revision", Integer, nullable=False),
    Column("source_digest", String(64), nullable=False),
    Column("digest", String(72), nullable=False),  # of the clean object (`store/digest.py`)
    Column("size", BigInteger, nullable=False),
    Column("key_id", String(16), nullable=False),
    Column("segment", String(64), nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("kept", Boolean, nullable=False),
    Column("recipe_sha256", String(64), nullable=False),
    Column("received_at", Float, nullable=False),
    Column("instance_key", String(32), nullable=False, default="", server_default=""),  # as announcements name it
)
Index("instance_by_study", instance.c.study_key)
Index("instance_by_key", instance.c.instance_key)
Index("instance_by_segment", instance.c.segment)

envelope = Table(
    "envelope",
    metadata,
    Column("study_key", String(16), primary_key=True),
    Column("sop_uid", String(64), primary_key=True),  # "" for the study's own envelope
    Column("key_id", String(16), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)

lost_identity = Table(
    "lost_identity",  # studies whose envelopes were lost with the memory that held their key, and are needed
    metadata,
    Column("study_key", String(16), primary_key=True),
    Column("lost_at", Float, nullable=False),
    Column("looks", Integer, nullable=False),  # how often the PACS has answered
    Column("not_before", Float, nullable=False),
    Column("code", String(64), nullable=False),
    Column("message", Text, nullable=False),
)

escrow = Table(
    "escrow",
    metadata,
    Column("study_key", String(16), primary_key=True),
    Column("study_uid", String(64), primary_key=True),  # pseudonymous; another label of the same study has another
    Column("patient", String(64), nullable=False),  # pseudonymous Patient ID
    Column("label", String(32), nullable=False),
    Column("site_key_id", String(8), nullable=False),
    Column("escrow_key", String(8), nullable=False),  # name of the public key it is sealed to
    Column("sealed", LargeBinary, nullable=False),
    Column("made_at", Float, nullable=False),
)
Index("escrow_by_uid", escrow.c.study_uid)
Index("escrow_by_patient", escrow.c.patient)

quarantine = Table(
    "quarantine",
    metadata,
    Column("item", String(16), primary_key=True),
    Column("study_key", String(16)),
    Column("state", String(16), nullable=False),  # HELD, RELEASED, DISCARDED, EXPIRED
    Column("code", String(64), nullable=False),
    Column("message", Text, nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("source_digest", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("key_id", String(16), nullable=False),
    Column("segment", String(64), nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("received_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("closed_at", Float),
    Column("instance_key", String(32), nullable=False, default="", server_default=""),
)
Index("quarantine_by_digest", quarantine.c.source_digest)
Index("quarantine_by_key", quarantine.c.instance_key)
HELD = quarantine.c.state == literal_column("'HELD'")  # a few of all that ever were
Index("quarantine_held", quarantine.c.received_at, sqlite_where=HELD)

announcement = Table(
    "announcement",
    metadata,
    Column("signal_key", String(32), primary_key=True),  # keyed hash of the UID of the step or list
    Column("study_key", String(16), primary_key=True),  # a step may belong to several studies
    Column("kind", String(8), nullable=False),
    Column("state", String(16), nullable=False),
    Column("at", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
)
Index("announcement_by_study", announcement.c.study_key)

announced_instance = Table(
    "announced_instance",
    metadata,
    Column("signal_key", String(32), primary_key=True),
    Column("instance_key", String(32), primary_key=True),
)

pull_job = Table(
    "pull_job",
    metadata,
    Column("job", String(16), primary_key=True),
    Column("what", String(64), nullable=False),
    Column("again", Boolean, nullable=False),  # also studies that are here already
    Column("state", String(16), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float),
    Column("wanted_by", String(16), nullable=False, default="", server_default=""),  # a study that waits for priors
)

pull_item = Table(
    "pull_item",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("job", String(16), nullable=False),
    Column("number", Integer, nullable=False),
    Column("request_key", String(64), nullable=False),  # keyed hash: the same request stands in a job once
    Column("kind", String(16), nullable=False),
    Column("study_key", String(16), nullable=False),
    Column("key_id", String(16), nullable=False),
    Column("sealed", LargeBinary, nullable=False),  # what is asked for; empty once the job has ended
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("not_before", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("code", String(64), nullable=False, default=""),
    Column("message", Text, nullable=False, default=""),
    Column("instances", Integer, nullable=False, default=0),
    Column("prior", Boolean, nullable=False, default=False, server_default=false()),  # what comes of it is not read
    UniqueConstraint("job", "request_key"),
)
Index("pull_item_by_state", pull_item.c.state, pull_item.c.not_before)
Index("pull_item_by_study", pull_item.c.study_key)

task = Table(
    "task",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("study_key", String(16), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("step", String(16), nullable=False),
    Column("target", String(32), nullable=False),
    Column("urgency", Integer, nullable=False),  # smaller is taken first
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),  # how often it was claimed
    Column("failures", Integer, nullable=False),  # passing failures since the last progress: the back-off's exponent
    Column("created_at", Float, nullable=False),
    Column("not_before", Float, nullable=False),
    Column("lease_until", Float),
    Column("owner", String(64), nullable=False, default=""),
    Column("code", String(64), nullable=False, default=""),
    Column("message", Text, nullable=False, default=""),
    Column("finished_at", Float),
    UniqueConstraint("study_key", "revision", "step", "target"),
)
Index("task_to_claim", task.c.step, task.c.state, task.c.not_before)
# Of what is not done there is little, however many years the ledger holds; a condition is to have this very term.
UNDONE = task.c.state != literal_column("'DONE'")
Index("task_undone", task.c.state, task.c.step, task.c.target, task.c.created_at, sqlite_where=UNDONE)

finding = Table(
    "finding",
    metadata,
    Column("study_key", String(16), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("result", Text, nullable=False),  # JSON of TriageResult
    Column("key_id", String(16), nullable=False, default=""),
    Column("rows", Integer),
    Column("columns", Integer),
    Column("sealed_key_image", LargeBinary),
    Column("sealed_mask", LargeBinary),  # of the key image's source, with its size
    Column("at", Float, nullable=False),
)

reading = Table(
    "reading",
    metadata,
    Column("study_key", String(16), primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("tier", Integer, nullable=False),
    Column("due", Float, nullable=False),
    Column("target_minutes", Float, nullable=False),
    Column("level", String(8), nullable=False),
    Column("raised_by_ai", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("decided_at", Float, nullable=False),
    Column("written_at", Float),
)

result_object = Table(
    "result_object",
    metadata,
    Column("study_key", String(16), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("kind", String(32), primary_key=True),
    Column("target", String(32), primary_key=True),
    Column("uid", String(64), nullable=False),
    Column("at", Float, nullable=False),
)

commitment = Table(
    "commitment",
    metadata,
    Column("transaction_uid", String(64), primary_key=True),  # ours, a keyed hash
    Column("study_key", String(16), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("state", String(16), nullable=False),  # ASKED, COMMITTED, FAILED, UNHEARD
    Column("objects", Text, nullable=False),  # JSON: [[SOP class, SOP Instance UID (ours)], ...]
    Column("failures", Text, nullable=False, default=""),  # JSON: {SOP Instance UID (ours): reason by name}
    Column("via", String(16), nullable=False, default=""),  # on which association the answer came: same or new
    Column("asked_at", Float, nullable=False),
    Column("answered_at", Float),
)
Index("commitment_by_study", commitment.c.study_key)

reader = Table(
    "reader",
    metadata,
    Column("study_key", String(16), primary_key=True),
    Column("state", String(16), nullable=False),  # CLAIMED, REPORTED
    Column("source", String(32), nullable=False),  # which door told us
    Column("at", Float, nullable=False),
)

list_state = Table(
    "list_state",  # what readers did with an entry of our own list; without a row it is SCHEDULED
    metadata,
    Column("study_key", String(16), primary_key=True),
    Column("number", Integer, nullable=False),  # how often the study came onto the list
    Column("state", String(16), nullable=False),  # IN PROGRESS, COMPLETED, CANCELED
    Column("lock", String(64), nullable=False),  # keyed hash of the performer's Transaction UID
    Column("changed_at", Float, nullable=False),
)

list_subscriber = Table(
    "list_subscriber",
    metadata,
    Column("receiver", String(16), primary_key=True),  # AE title
    Column("entry", String(64), primary_key=True),  # UID of an entry (ours, a keyed hash); "" the whole list
    Column("since", Float, nullable=False),
    Column("until", Float),  # a suspended subscription tells nothing of entries from after that
)

delivery = Table(
    "delivery",
    metadata,
    Column("sop_uid", String(64), primary_key=True),
    Column("destination", String(32), primary_key=True),
    Column("study_key", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("code", String(64), nullable=False),
    Column("at", Float, nullable=False),
)
Index("delivery_by_study", delivery.c.study_key)

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("study_key", String(16), nullable=False),
    Column("detail", Text, nullable=False),  # JSON, sorted keys
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)
Index("audit_by_study", audit.c.study_key)

audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
)

heartbeat = Table(
    "heartbeat",
    metadata,
    Column("role", String(16), primary_key=True),
    Column("pid", Integer, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("at", Float, nullable=False),
    Column("state", String(16), nullable=False),  # starting, ready, stopping
    Column("detail", Text, nullable=False),  # JSON
)

setting = Table(
    "setting",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

model_package = Table(
    "model_package",
    metadata,
    Column("package", String(64), primary_key=True),  # hash of card and signature: the folder below models/
    Column("name", String(63), nullable=False),
    Column("version", String(32), nullable=False),
    Column("stage", String(16), nullable=False),
    Column("trust", String(64), nullable=False),  # whose word it had when it was added
    Column("code", String(64), nullable=False, default=""),  # why it is in quarantine
    Column("message", Text, nullable=False, default=""),
    Column("size", BigInteger, nullable=False),
    Column("added_at", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
    UniqueConstraint("name", "version"),
)

model_change = Table(
    "model_change",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("name", String(63), nullable=False),
    Column("kind", String(16), nullable=False),  # add, promote, retire, rollback, quarantine
    Column("before", Text, nullable=False),  # JSON: stage by package, of all versions of the name
    Column("after", Text, nullable=False),
    Column("who", String(64), nullable=False),
    Column("why", Text, nullable=False),
    Column("undone_by", Integer),  # the rollback that took it back
)
