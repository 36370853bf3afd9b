"""Deterministic UIDs of everything the node writes back, so that a resend is the same object and not a second one."""

from __future__ import annotations

import hashlib
import hmac
from uuid import UUID

MINIMUM_KEY_BYTES = 16


def result_uid(key: bytes, kind: str, *parts: str | int) -> str:
    """A UID below 2.25 (PS3.5 B.2), at most 44 characters, for `kind` ("sr", "workitem" …) of `parts`.

    The parts may be original UIDs: the keyed hash gives nothing of them away. Raises ValueError for a key of less
    than 16 bytes.
    """
    if len(key) < MINIMUM_KEY_BYTES:
        raise ValueError("the key of result UIDs needs at least 16 bytes")
    message = "\x1f".join(["edge-node.result", kind, *(str(part) for part in parts)])
    digest = hmac.new(key, message.encode(), hashlib.sha256).digest()
    return f"2.25.{UUID(bytes=digest[:16], version=4).int}"
