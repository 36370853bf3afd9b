"""The body of one STOW-RS request: sealed objects opened, checked and sent one after the other.

Re-iterable, because a request that must be repeated (a fresh token) sends the same body again; of constant memory,
because only the object that is being sent is open.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence

from edge_node.domain.errors import Quarantine
from edge_node.domain.study import CleanObject
from edge_node.forward.parcel import verify_outgoing

_CHUNK = 1 << 18  # bytes handed to the socket at once; larger ones are copied over and over in the HTTP layers
_PART_HEADER = b"Content-Type: application/dicom\r\n\r\n"


class NotSent(Exception):
    """Object `sop_uid` must not leave (`code` says why); the request it was part of is broken off."""

    def __init__(self, sop_uid: str, code: str) -> None:
        super().__init__(sop_uid, code)
        self.sop_uid = sop_uid
        self.code = code


class StowBody:
    """Iterable of the bytes of a ``multipart/related; type="application/dicom"`` body (PS3.18 8.6.1.2).

    Iterating raises `NotSent` at the first object that the last gate stops or that the spool cannot open.
    """

    def __init__(self, objects: Sequence[CleanObject]) -> None:
        self._objects = objects
        self._boundary = secrets.token_hex(24).encode()

    @property
    def content_type(self) -> str:
        """The value of the Content-Type header."""
        return f'multipart/related; type="application/dicom"; boundary={self._boundary.decode()}'

    @property
    def length(self) -> int:
        """Bytes of the whole body, known before the first object is opened."""
        each = len(self._opening()) + len(b"\r\n")
        return sum(each + one.size for one in self._objects) + len(self._closing())

    def __iter__(self) -> Iterator[bytes]:
        for one in self._objects:
            yield self._opening()
            yield from _checked(one)
            yield b"\r\n"
        yield self._closing()

    def _opening(self) -> bytes:
        return b"--" + self._boundary + b"\r\n" + _PART_HEADER

    def _closing(self) -> bytes:
        return b"--" + self._boundary + b"--\r\n"


def _checked(one: CleanObject) -> Iterator[bytes]:
    try:
        part10 = one.read()
    except Quarantine as error:
        raise NotSent(one.sop_uid, error.code) from None
    if reason := verify_outgoing(part10, one):
        raise NotSent(one.sop_uid, f"forward.gate:{reason}")
    for start in range(0, len(part10), _CHUNK):
        yield part10[start : start + _CHUNK]
