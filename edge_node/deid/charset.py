"""Text of an element in the data set's Specific Character Set (PS3.3 C.12.1.1.2, PS3.5 6.1.2). Never raises."""

from __future__ import annotations

import re

from pydicom.charset import CODES_TO_ENCODINGS, python_encoding

from edge_node.deid.remembered import remembered

_ESCAPE = re.compile(rb"(\x1b(?:\$[()][A-Z]|\$[A-Z]|[()][A-Z0-9]|-[A-Z]))")
# Escape sequences that Python's codec wants to see itself.
_STATEFUL = ("iso2022_jp", "iso2022_jp_2", "iso-2022-jp")
DEFAULT = "latin-1"  # a superset of the default repertoire: senders that forget the attribute mostly mean this


class Charset:
    """Decoder for one data set; `terms` are the values of (0008,0005). They do not change."""

    __slots__ = ("_first", "declared")

    def __init__(self, terms: list[str]) -> None:
        named = [_encoding(term) for term in terms if term] or [DEFAULT]
        self._first = DEFAULT if terms and not terms[0] else named[0]
        self.declared = any(terms)

    def text(self, value: bytes) -> str:
        """Decode a whole value, before it is split at backslashes; trailing padding removed."""
        if b"\x1b" not in value:
            return _decode(value, self._first).rstrip(" \0")
        out = []
        encoding, escape = self._first, b""
        for piece in _ESCAPE.split(value):
            if _ESCAPE.fullmatch(piece):
                escape = piece
                encoding = CODES_TO_ENCODINGS.get(piece, self._first)
            elif encoding in _STATEFUL:
                out.append(_decode(escape + piece, encoding))
            else:
                out.append(_decode(piece, encoding))
        return "".join(out).rstrip(" \0")


@remembered(256)
def _encoding(term: str) -> str:
    wanted = re.sub(r"[^A-Z0-9]", "", term.upper())
    for known, encoding in python_encoding.items():
        if known and re.sub(r"[^A-Z0-9]", "", known) == wanted:
            return str(encoding)
    return DEFAULT


def _decode(value: bytes, encoding: str) -> str:
    try:
        return value.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return value.decode(DEFAULT)
