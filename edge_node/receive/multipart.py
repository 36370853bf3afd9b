"""A streaming parser for multipart/related bodies (RFC 2046 5.1, RFC 2387), sized by its chunks, not by the body."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.message import Message
from typing import Protocol

LONGEST_BOUNDARY = 200  # RFC 2046 5.1.1 says 70; Orthanc sends 73
MOST_HEADERS = 32
LONGEST_HEADER = 4096
MOST_TRAILERS = 32


class Body(Protocol):
    """Anything that gives the request body piece by piece; empty bytes: the end."""

    def read(self, size: int, /) -> bytes: ...


class MultipartError(ValueError):
    """The body is not what its Content-Type says; the message names the rule, never the content."""


def boundary_of(content_type: str) -> str:
    """The boundary parameter of a multipart/related Content-Type; MultipartError if there is none."""
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_boundary()
    if message.get_content_type() != "multipart/related" or not boundary:
        raise MultipartError("Content-Type is not multipart/related with a boundary")
    if len(boundary) > LONGEST_BOUNDARY or not boundary.isascii() or not boundary.isprintable():
        raise MultipartError("the boundary is too long, or has others than RFC 2046 allows")
    return boundary


class ChunkedBody:
    """Transfer-Encoding chunked (RFC 9112 7.1) as a readable body."""

    def __init__(self, raw: Body) -> None:
        self._raw = raw
        self._left = 0
        self._over = False

    def read(self, size: int, /) -> bytes:
        if self._over:
            return b""
        if not self._left:
            self._left = self._next_size()
            if not self._left:
                self._over = True
                for _ in range(MOST_TRAILERS):
                    if not self._line():
                        return b""
                raise MultipartError("there are too many trailers")
        data = self._raw.read(min(size, self._left))
        if not data:
            raise MultipartError("the connection ended inside a chunk")
        self._left -= len(data)
        if not self._left and self._line():
            raise MultipartError("a chunk is longer than its size")
        return data

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            byte = self._raw.read(1)
            if not byte or len(line) > 256:
                raise MultipartError("a chunk header is broken")
            line += byte
        return line.strip()

    def _next_size(self) -> int:
        digits = self._line().partition(b";")[0].strip()
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", digits):  # int() would take signs and underscores
            raise MultipartError("a chunk size is not a number")
        return int(digits, 16)


class SizedBody:
    """Content-Length bytes of a connection as a readable body."""

    def __init__(self, raw: Body, length: int) -> None:
        self._raw = raw
        self._left = length

    def read(self, size: int, /) -> bytes:
        data = self._raw.read(min(size, self._left)) if self._left else b""
        if self._left and not data:
            raise MultipartError("the connection ended inside the body")
        self._left -= len(data)
        return data


class Part:
    """One part: its headers, and its content by `chunks()`, which must be used up before the next part."""

    def __init__(self, headers: dict[str, str], chunks: Iterator[bytes]) -> None:
        self.headers = headers
        self._chunks = chunks

    def chunks(self) -> Iterator[bytes]:
        return self._chunks


class MultipartReader:
    """`for part in MultipartReader(body, boundary)`; holds at most two chunks in memory."""

    def __init__(self, body: Body, boundary: str, chunk: int = 65536) -> None:
        self._body = body
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        self._chunk = chunk
        self._buffer = b"\r\n"  # so that the first delimiter looks like the others
        self._ended = False

    def _fill(self) -> bool:
        data = self._body.read(self._chunk)
        self._buffer += data
        return bool(data)

    def _content(self) -> Iterator[bytes]:
        """Everything up to the next delimiter, which stays in the buffer."""
        keep = len(self._delimiter) - 1
        while (end := self._buffer.find(self._delimiter)) < 0:
            if len(self._buffer) > keep:
                yield self._buffer[:-keep]
                self._buffer = self._buffer[-keep:]
            if not self._fill():
                raise MultipartError("the closing boundary is missing")
        if end:
            yield self._buffer[:end]
        self._buffer = self._buffer[end:]

    def _until(self, mark: bytes, limit: int = LONGEST_HEADER) -> bytes:
        while (end := self._buffer.find(mark)) < 0:
            if len(self._buffer) > limit or not self._fill():
                raise MultipartError("the headers of a part are broken")
        if end > limit:
            raise MultipartError("a header of a part is too long")
        found, self._buffer = self._buffer[:end], self._buffer[end + len(mark) :]
        return found

    def __iter__(self) -> Iterator[Part]:
        for _ in self._content():  # the preamble
            pass
        while True:
            self._buffer = self._buffer[len(self._delimiter) :]
            while len(self._buffer) < 2:
                if not self._fill():
                    raise MultipartError("the body ends inside a boundary")
            if self._buffer.startswith(b"--"):
                while self._body.read(self._chunk):  # the epilogue
                    pass
                return
            self._until(b"\r\n")
            # A part may have no headers at all: then the blank line follows at once.
            block = self._headers()
            content = self._content()
            yield Part(block, content)
            for _ in content:  # whatever the caller did not read
                pass

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        while line := self._until(b"\r\n"):
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon:
                raise MultipartError("a header line of a part has no colon")
            if len(headers) == MOST_HEADERS:
                raise MultipartError("a part has too many headers")
            headers[name.strip().lower()] = value.strip()
        return headers
