"""Studies and instances on their way through the node, before and after the wall of de-identification.

`IdentifiedInstance` and `DeidentifiedInstance` are different types on purpose: only `edge_node.deid` makes the
second, and the spool, triage and forwarding accept nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from edge_node.domain.body import Body, Source


class Role(StrEnum):
    """One process (systemd unit) each; see design of the three doors in docs/architecture.md."""

    DICOM = "dicom"
    COMPUTE = "compute"
    FORWARD = "forward"
    STATUS = "status"


class StudyState(StrEnum):
    """Where a study stands on the line."""

    RECEIVING = "RECEIVING"
    SETTLED = "SETTLED"
    TRIAGED = "TRIAGED"
    DELIVERED = "DELIVERED"
    CLOSED = "CLOSED"


class TaskState(StrEnum):
    """State of one step's work on one study revision."""

    READY = "READY"
    LEASED = "LEASED"
    DONE = "DONE"
    DEAD = "DEAD"


class DeliveryState(StrEnum):
    """State of one instance's way to one destination."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    WITHHELD = "WITHHELD"
    REJECTED = "REJECTED"


class KeyClass(StrEnum):
    """What a study data key seals; each class has its own key so that each can be destroyed on its own."""

    CLEAN = "clean"
    ENVELOPE = "envelope"
    QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True, repr=False)
class IdentifiedInstance:
    """One instance as received, identity and all: lives in memory for milliseconds, is never written.

    `source` is the encoded data set without a Part 10 header (PS3.5), where it landed: it can be read as long as the
    receiver holds it. `transfer_syntax` says how it is encoded.
    `sop_class` and `sop_instance` are the Affected UIDs of the C-STORE request (PS3.7 9.1.1).
    """

    source: Source
    transfer_syntax: str
    sop_class: str
    sop_instance: str
    calling_ae: str
    called_ae: str
    peer: str
    received_at: float  # seconds since the epoch, UTC

    @property
    def dataset(self) -> bytes:
        """All of it as one copy in memory: for what is small, and for tools."""
        return self.source.read(0, self.source.size)

    def __repr__(self) -> str:
        return f"<IdentifiedInstance {self.source.size} bytes>"


@dataclass(frozen=True, slots=True, repr=False)
class IdentityEnvelope:
    """What the write-back to the PACS needs, kept only sealed in the vault of the dicom role.

    `study` is DICOM JSON (PS3.18 F) of the patient, study and order attributes as received;
    `instance` is DICOM JSON of SOP Class/Instance UID, Series Instance UID, Instance Number, Frame of Reference UID,
    Body Part Examined, Laterality and (nothing else of) the image as received.
    """

    study: str
    instance: str

    def __repr__(self) -> str:
        return "<IdentityEnvelope>"


@dataclass(frozen=True, slots=True)
class RecipeId:
    """Which recipe judged an object: its name and the sha256 (hex) of the recipe text and compiled rules; `trial` is
    the label its pseudonyms were made with, "" for the site's own."""

    name: str
    sha256: str
    trial: str = ""


@dataclass(frozen=True)
class DeidentifiedInstance:
    """One clean, verified object. All UIDs are pseudonymous; nothing here identifies anyone.

    `body` is a complete DICOM file (PS3.10) in the transfer syntax it was received in; large pixel data in it is a
    reference to what was received, and can be read as long as that.
    `pixel_risk` is "" or the reason why pixels may still show identity (``secondary-capture``, ``ultrasound`` …):
    such an object never leaves before the pixel step cleaned it.
    `patient_key` is the keyed hash of Patient ID + issuer that consent lists are made of.
    `order_priority` is STAT, URGENT or ROUTINE as far as the object says, else "".
    """

    body: Body
    study_key: str
    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class: str
    transfer_syntax: str
    modality: str
    body_part: str
    pixel_risk: str
    patient_key: str
    order_priority: str
    recipe: RecipeId

    @property
    def sha256(self) -> str:
        """Hash (hex) of `body`."""
        return self.body.sha256

    @cached_property
    def part10(self) -> bytes:
        """`body` as one copy in memory, for tools that need it so."""
        return self.body.whole()


@dataclass(frozen=True, slots=True)
class Derivation:
    """How the pseudonyms of an object were made. `shift_days` undoes the shift of dates: it is kept sealed only."""

    key_id: str  # which site key, by its id
    label: str
    patient: str  # the patient's pseudonymous ID
    shift_days: int = field(repr=False)


@dataclass(frozen=True, slots=True)
class Deidentified:
    """What de-identification of one instance yields: the clean object and the identity it was parted from."""

    instance: DeidentifiedInstance
    identity: IdentityEnvelope = field(repr=False)
    source_digest: str  # scheme and keyed hash of the received bytes: tells a true duplicate from a conflicting one
    derivation: Derivation = field(default=Derivation("", "", "", 0), repr=False)
    instance_key: str = ""  # keyed hash of the SOP Instance UID as received: what announcements name it by


@dataclass(frozen=True, slots=True)
class CleanObject:
    """A sealed clean object as compute and forward see it. `read()` gives the Part 10 bytes, opened in memory.

    `pixel_work` is what the pixel step did with it, "" as long as that step did not judge it: ``looked``, ``masked``,
    ``defaced``, ``masked+defaced``, ``review:…`` (masked, a human decides), ``held:<why>``, or ``unlooked`` for objects
    from before there was a pixel step. `digest` is the hash of its bytes (`store/digest.py`), `recipe_sha256` that of
    the recipe it was de-identified with.
    """

    sop_uid: str
    series_uid: str
    sop_class: str
    transfer_syntax: str
    modality: str
    size: int
    digest: str
    pixel_risk: str
    read: Callable[[], bytes] = field(repr=False)
    pixel_work: str = ""
    recipe_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """What the pixel step made of one object.

    `pixel_risk` is "" when it may leave; `pixel_work` says what was done; `part10` holds the new bytes in
    `transfer_syntax`, None when the object stays as it is.
    """

    was: CleanObject
    pixel_risk: str
    pixel_work: str
    part10: bytes | None = field(default=None, repr=False)
    transfer_syntax: str = ""


@dataclass(frozen=True, slots=True)
class CleanStudy:
    """A settled study as compute sees it: pseudonymous throughout."""

    study_key: str
    study_uid: str
    revision: int
    modalities: tuple[str, ...]
    objects: tuple[CleanObject, ...]
