"""The hash of a clean object, by which the ledger says for ever what a result was made from.

BLAKE3, four times as fast as SHA-256: it is found for each instance before Success. Written ``blake3:`` and 64
hexadecimal digits; objects that came before ledger version 15 have a SHA-256 of 64 digits alone.
"""

from __future__ import annotations

import hashlib
import hmac

from blake3 import blake3

from edge_node.domain.body import Buffer

_NAME = "blake3:"


class Digest:
    """A hash that grows with what is written."""

    __slots__ = ("_engine",)

    def __init__(self) -> None:
        self._engine = blake3()

    def update(self, data: Buffer) -> None:
        """Take in what comes next."""
        self._engine.update(data)

    @property
    def text(self) -> str:
        """The hash of all that was taken in, as the ledger has it."""
        return _NAME + self._engine.hexdigest()


def digest_of(data: Buffer) -> str:
    """The hash of bytes in memory, as the ledger has it."""
    return _NAME + blake3(data).hexdigest()


def is_of(text: str, data: Buffer) -> bool:
    """Whether `text`, a hash of the ledger, is that of `data`."""
    other = digest_of(data) if text.startswith(_NAME) else hashlib.sha256(data).hexdigest()
    return hmac.compare_digest(other, text)
