"""Every option of the node, once: its type, its default and one sentence for the administrator.

The commented `configs/edge-node.toml`, `edge-node config schema` and the documentation are generated from here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, field_validator

from edge_node.config.destinations import Fhir, Hl7, Hl7Order, UpsRs, WebPeer
from edge_node.config.lists import QualityAlerts, ReadingList, Routing
from edge_node.config.models import Triage
from edge_node.config.order import Order
from edge_node.config.retrieval import Priors, Pull, PullWeb
from edge_node.config.section import AeTitle, Networks, Port, Section
from edge_node.config.write_back import Worklist


def _modality(value: str) -> str:
    if not re.fullmatch(r"[A-Z0-9][A-Z0-9_ ]{0,15}", value):
        raise ValueError("a modality is written as in (0008,0060): 1 to 16 capitals and digits, such as CT")
    return value


def _trial(value: str) -> str:
    if value and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,15}", value):
        raise ValueError("a trial's label has 1 to 16 letters, digits and dashes and begins with a letter or digit")
    return value


def _variables(values: dict[str, str]) -> dict[str, str]:
    for name, value in values.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError("the name of a variable has letters, digits and _ and does not begin with a digit")
        if name in BUILT_IN_VARIABLES:
            raise ValueError(f"the node itself says what var:{name} is; choose another name")
        if not 0 < len(value) <= 64 or not value.isascii() or not value.isprintable() or "\\" in value:
            raise ValueError(f"the value of {name} must have 1 to 64 printable ASCII characters without backslash")
    return values


BUILT_IN_VARIABLES = ("patient_shift", "patient_pseudonym", "recipe_name")
SHIPPED_RECIPES = ("basic", "basic+research", "strict")  # what `recipe` may name instead of a file
Modality = Annotated[str, AfterValidator(_modality)]
Trial = Annotated[str, AfterValidator(_trial)]
Variables = Annotated[dict[str, str], AfterValidator(_variables)]


class Node(Section):
    """The node itself."""

    name: str = Field(default="edge-node", description="Name of this node in logs, audit entries and result objects.")
    data_dir: Path = Field(
        default=Path("/var/lib/edge-node"), description="Ledger, sealed spool and node keys live below it."
    )
    keys_dir: Path | None = Field(
        default=None, description="Where the node keys are; default: systemd credentials, else `keys` below data_dir."
    )
    identity: Literal["disk", "memory"] = Field(
        default="disk",
        description="Where the key of identity envelopes is: disk: the node key vault; memory: nowhere but in the dicom"
        " role, and after a restart the PACS is asked for the identities that are still needed ([pull]).",
    )
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="json for machines, text for people, auto: text on a terminal."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is logged."
    )


class Storage(Section):
    """Room on disk."""

    reserve_mb: int = Field(
        default=1024, ge=16, description="New instances are refused with OUT_OF_RESOURCES when less than this is free."
    )
    low_mb: int = Field(
        default=0, ge=0, description="New associations are rejected below this; 0: one and a half times `reserve_mb`."
    )
    segment_mb: int = Field(default=64, ge=1, description="A sealed spool segment is closed at this size.")
    large_object_mb: int = Field(default=32, ge=1, description="Objects from this size on get a segment of their own.")


class Receive(Section):
    """The C-STORE SCP."""

    ae_title: AeTitle = Field(default="EDGENODE", description="Our AE title.")
    host: str = Field(default="0.0.0.0", description="Address to listen on.")  # noqa: S104  a DICOM destination must be reachable
    port: Port = Field(default=11112, description="TCP port to listen on.")
    plain: bool = Field(
        default=True,
        description="Take unencrypted DICOM on `port`; switch it off when every sender speaks TLS ([tls]).",
    )
    require_called_ae_title: bool = Field(
        default=True, description="Reject associations that call neither this AE title nor one that a deid rule names."
    )
    calling_ae_titles: list[AeTitle] = Field(default=[], description="Calling AE titles that may send; empty: any.")
    allowed_addresses: Networks = Field(default=[], description="Addresses or networks that may connect; empty: any.")
    private_sop_classes: list[str] = Field(default=[], description="Private storage SOP Class UIDs to accept as well.")
    max_associations: int = Field(
        default=32, ge=1, description="Simultaneous associations; one more is rejected, not hung."
    )
    max_associations_per_sender: int = Field(
        default=0,
        ge=0,
        description="Simultaneous associations of one calling AE title and host; 0: no limit of its own.",
    )
    max_object_mb: int = Field(default=2048, ge=1, description="Larger objects are refused with OUT_OF_RESOURCES.")
    sender_mb_per_s: float = Field(
        default=0, ge=0, description="A sender that is faster than this waits for its answers; 0: no limit."
    )
    memory_mb: int = Field(
        default=512, ge=16, description="Memory for objects on their way in; beyond it they wait sealed in the spool."
    )
    network_timeout_s: float = Field(default=60, gt=0, description="An association silent for so long is aborted.")
    workers: int = Field(default=0, ge=0, description="De-identifying worker processes; 0: one per core, at most 8.")


class Tls(Section):
    """DICOM over TLS 1.2 and later (PS3.15 B.12, BCP 195), on a port of its own beside `receive.port`."""

    port: Port = Field(default=0, description="TCP port for DICOM over TLS (2762 is the registered one); 0: off.")
    cert: Path | None = Field(default=None, description="Our certificate, its chain behind it (PEM).")
    key: Path | None = Field(default=None, description="Key of the certificate (PEM, 0400, without a passphrase).")
    client_ca: Path | None = Field(
        default=None, description="CA of the senders' certificates (PEM); when set, a sender without one is refused."
    )
    allowed_clients: list[str] = Field(
        default=[],
        description="Senders' certificates that may connect: SHA-256 fingerprints or CN=name; empty: any of client_ca.",
    )
    handshake_s: float = Field(default=10, gt=0, description="A TLS handshake that takes longer is given up.")

    @field_validator("allowed_clients")
    @classmethod
    def _clients(cls, value: list[str]) -> list[str]:
        for item in value:
            if not re.fullmatch(r"CN=.+|(?:[0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}", item):
                raise ValueError("a client is CN=name or the SHA-256 fingerprint of its certificate (64 hex digits)")
        return value


class Inbox(Section):
    """A watched folder: a file that lies still is taken in and removed."""

    folder: Path | None = Field(default=None, description="The folder to watch; unset: none.")
    still_s: float = Field(default=10, gt=0, description="Seconds without a change after which a file is whole.")


class Stow(Section):
    """STOW-RS (PS3.18 10.5), for a PACS that pushes by HTTP. Beyond loopback it needs TLS and a way to know senders."""

    port: Port = Field(default=0, description="TCP port for POST …/studies; 0: off.")
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    cert: Path | None = Field(default=None, description="Our certificate, its chain behind it (PEM); unset: no TLS.")
    key: Path | None = Field(default=None, description="Key of the certificate (PEM, 0400, without a passphrase).")
    client_ca: Path | None = Field(default=None, description="CA of the senders' certificates; when set, all need one.")
    user: str = Field(default="", description="User that senders must name (HTTP basic authentication); empty: none.")
    password_file: Path | None = Field(default=None, description="File (0400) with the password of `user`.")
    token_file: Path | None = Field(
        default=None, description="File (0400) with the bearer token that senders must show."
    )
    connections: int = Field(default=16, ge=1, le=48, description="Simultaneous connections; one more is answered 503.")
    max_request_mb: int = Field(default=4096, ge=1, description="A larger request is answered 413.")
    memory_mb: int = Field(default=512, ge=1, description="Memory for all objects on their way in; beyond it: 503.")
    timeout_s: float = Field(default=60, gt=0, description="A sender silent for so long is cut off.")


class Settle(Section):
    """When a study is complete."""

    quiet_s: float = Field(
        default=30, ge=0.1, description="Seconds without a new instance after which a study has settled."
    )
    quiet_by_modality: dict[str, float] = Field(
        default={"CT": 10, "CR": 5, "DX": 5}, description="Quiet seconds by modality; the longest of a study's counts."
    )
    hard_cap_s: float = Field(
        default=1800, gt=0, description="A study that never falls quiet is settled as incomplete then."
    )
    signals: list[Literal["mpps", "ian"]] = Field(
        default=["mpps", "ian"],
        description="What may call a study complete before it falls quiet: mpps (the modality's performed procedure"
        " step), ian (the archive's availability notification).",
    )
    missing_s: float = Field(
        default=120,
        ge=0,
        description="A study that lacks what was announced or is required here is settled as incomplete after so long"
        " without a new instance or word.",
    )
    in_progress_s: float = Field(
        default=0,
        ge=0,
        description="Quiet seconds of a study whose step is still in progress, if they are more than the usual ones.",
    )
    notice_s: float = Field(
        default=2, ge=0, description="Quiet seconds after which a study is complete that an archive listed whole."
    )
    required_instances: dict[str, float] = Field(
        default={}, description="Fewest instances of a modality that make a study of it complete, such as MG = 4."
    )
    required_series: dict[str, str] = Field(
        default={},
        description="Series that a study with a modality needs, as MODALITY:FEWEST_INSTANCES with spaces between, such"
        ' as CT = "CT:20 CT:20 SR:1".',
    )

    @field_validator("required_series")
    @classmethod
    def _series(cls, value: dict[str, str]) -> dict[str, str]:
        for text in value.values():
            if not re.fullmatch(r"[A-Z0-9_]{1,16}:[1-9][0-9]{0,5}( [A-Z0-9_]{1,16}:[1-9][0-9]{0,5})*", text):
                raise ValueError('series are written as MODALITY:FEWEST_INSTANCES, such as "CT:20 SR:1"')
        return value


class DeidRule(Section):
    """Another recipe, or a trial's own pseudonyms, for some objects. Of several rules the first that fits counts."""

    calling_ae_titles: list[AeTitle] = Field(default=[], description="For these calling AE titles; empty: any.")
    called_ae_titles: list[AeTitle] = Field(
        default=[], description="For associations that call these AE titles, to which the node answers too; empty: any."
    )
    modalities: list[Modality] = Field(default=[], description="For objects of these modalities; empty: any.")
    recipe: Path | None = Field(
        default=None, description="The recipe, a file or the name of a shipped one; unset: that of [deid]."
    )
    trial: Trial = Field(
        default="", description="Label of the trial whose pseudonyms the objects get; empty: the site's own pseudonyms."
    )
    variables: Variables = Field(default={}, description="What var:NAME stands for, on top of those of [deid].")


PixelRisk = Literal[
    "ultrasound",
    "secondary-capture",
    "screen-save",
    "burned-in-annotation",
    "other-class",
    "embedded-overlay",
    "colour-rendering",
    "derived-image",
    "image-type-missing",
]
PIXEL_RISKS: tuple[str, ...] = get_args(PixelRisk)


class Deid(Section):
    """De-identification on entry."""

    recipe: Path | None = Field(
        default=None,
        description="The recipe: a file, or the name of a shipped one (basic, basic+research, strict); unset: basic.",
    )
    variables: Variables = Field(default={}, description="What var:NAME stands for in the recipes.")
    rules: list[DeidRule] = Field(default=[], description="Which objects get another recipe; see [[deid.rules]].")
    quarantine_days: float = Field(
        default=14, gt=0, description="What could not be de-identified is destroyed after this."
    )
    vendor_boxes: bool = Field(
        default=True, description="Black out where vendors burn identity in, as the filters of the deid package say."
    )
    pixels_may_leave: list[PixelRisk] = Field(
        default=[],
        description="Risky images of these kinds may leave once masked and looked at again; others wait for a human.",
    )
    escrow: Path | None = Field(
        default=None,
        description="Public key (PEM) that each study's identity is sealed to, for good; default: nothing is kept.",
    )
    deface: bool = Field(
        default=False, description="Remove faces from head CT, and withhold head series that no method applies to."
    )


class Forward(WebPeer):
    """The way to the central trainer."""

    url: str = Field(default="", description="STOW-RS endpoint (…/studies); empty: nothing is forwarded.")
    batch_instances: int = Field(default=16, ge=1, le=256, description="At most so many instances in one request.")
    batch_mb: float = Field(
        default=16, gt=0, description="At most so many MB in one request (one instance may exceed it)."
    )
    in_flight: int = Field(default=2, ge=1, le=8, description="Requests under way at once.")
    timeout_s: float = Field(
        default=60, gt=0, description="Seconds without an answer after which a request is given up."
    )
    max_age_days: float = Field(default=14, gt=0, description="Deliveries that fail for so long wait for a human.")


class Consent(Section):
    """Whether a patient's studies may leave."""

    source: Literal["deny-all", "csv", "allow-all"] = Field(
        default="deny-all",
        description="deny-all: nothing leaves; csv: the list below decides; allow-all: consent is held elsewhere.",
    )
    csv_file: Path | None = Field(default=None, description="CSV with the columns patient_key,consent (allow or deny).")


class Retention(Section):
    """How long what is kept."""

    envelope_hours: float = Field(
        default=72, ge=0, description="Identity is destroyed so long after the last write-back."
    )
    clean_days: float = Field(
        default=7, ge=0, description="Clean objects are destroyed so long after the last delivery."
    )
    escrow_days: float = Field(
        default=0, ge=0, description="Escrow records are deleted so long after they were made; 0: never."
    )


class Status(Section):
    """Status page and metrics (loopback only)."""

    host: str = Field(default="127.0.0.1", description="Address of the status page and /metrics.")
    port: Port = Field(default=8093, description="Port of the status page and /metrics; 0: off.")


class PeerEntry(Section):
    """A DICOM peer."""

    ae_title: AeTitle = Field(description="The peer's AE title.")
    host: str = Field(description="The peer's host name or address.")
    port: Port = Field(description="The peer's TCP port.")
    tls: bool = Field(default=False, description="Speak TLS with the peer.")
    tls_name: str = Field(default="", description="Name that the peer's certificate bears; empty: the host.")
    ca_file: Path | None = Field(
        default=None, description="CA that signed the peer's certificate; default: the system's."
    )
    client_cert: Path | None = Field(default=None, description="Our certificate for the peer (PEM), for mutual TLS.")
    client_key: Path | None = Field(default=None, description="Key of `client_cert` (PEM, 0400, without a passphrase).")


class Config(Section):
    """The whole file."""

    node: Node = Node()
    storage: Storage = Storage()
    receive: Receive = Receive()
    tls: Tls = Tls()
    inbox: Inbox = Inbox()
    stow: Stow = Stow()
    settle: Settle = Settle()
    deid: Deid = Deid()
    triage: Triage = Triage()
    worklist: Worklist = Worklist()
    hl7: Hl7 = Hl7()
    hl7_order: Hl7Order = Hl7Order()
    fhir: Fhir = Fhir()
    ups_rs: UpsRs = UpsRs()
    reading_list: ReadingList = ReadingList()
    order: Order = Order()
    quality_alerts: QualityAlerts = QualityAlerts()
    routing: Routing = Routing()
    pull: Pull = Pull()
    pull_web: PullWeb = PullWeb()
    priors: Priors = Priors()
    forward: Forward = Forward()
    consent: Consent = Consent()
    retention: Retention = Retention()
    status: Status = Status()
    peers: dict[str, PeerEntry] = Field(default={}, description="DICOM peers by name.")
