"""The prioritised reading-list entry: one decision, written by several writers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Priority:
    """Where a study belongs in the reading order (smaller `tier`, then smaller `due` is read first).

    `due` is seconds since the epoch; `target_minutes` the time to read that gave it; `reason` is the one-line
    explanation shown to humans ("ICH 0.93, category 1, target 16 min, due 10:31"); `level` is the UPS priority
    HIGH, MEDIUM or LOW (PS3.3 C.30.1).
    """

    tier: int
    due: float
    target_minutes: float
    level: str
    raised_by_ai: bool
    reason: str


@dataclass(frozen=True, slots=True)
class PeerTls:
    """How a peer is met over TLS: `ca_file` None trusts the system's CAs; `name` is the one its certificate bears."""

    name: str
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """A DICOM application entity: AE title (1..16 characters), host, TCP port; `tls` None is plain DICOM."""

    ae_title: str
    host: str
    port: int
    tls: PeerTls | None = None
