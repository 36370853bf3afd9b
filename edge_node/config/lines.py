"""On which line of a TOML text a key stands (tomllib does not say).

The scanner runs after tomllib has accepted the text, so it may rely on valid TOML 1.0: it only follows strings,
comments and brackets closely enough never to mistake a value for a key.
"""

from __future__ import annotations

import tomllib
from bisect import bisect_right
from typing import cast

Key = tuple[str, ...]

_BLANK = " \t\r\n"


def key_lines(text: str) -> dict[Key, int]:
    """Line (1-based) of every key, table and array element of `text`, by path; elements are named "0", "1", …

    A table that is only implied (`[a.b]` implies `a`) gets the line of the header that implies it. `text` must have
    been accepted by tomllib.
    """
    return _Scanner(text.replace("\r\n", "\n")).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._starts = [0] + [i + 1 for i, character in enumerate(text) if character == "\n"]
        self._lines: dict[Key, int] = {}
        self._arrays: dict[Key, int] = {}

    def scan(self) -> dict[Key, int]:
        table: Key = ()
        while self._skip_blank():
            if self._text.startswith("[[", self._at):
                self._at += 2
                table = self._header(array=True)
                self._at += 2
            elif self._peek() == "[":
                self._at += 1
                table = self._header(array=False)
                self._at += 1
            else:
                self._pair(table)
        return self._lines

    def _header(self, *, array: bool) -> Key:
        line = self._line()
        path = self._inside_arrays(self._key())
        self._note((), path, line)
        if array:
            index = self._arrays.get(path, -1) + 1
            self._arrays[path] = index
            path = (*path, str(index))
            self._lines[path] = line
        return path

    def _inside_arrays(self, parts: Key) -> Key:
        """`[a.b]` after `[[a]]` belongs to the last element of `a`."""
        path: Key = ()
        for number, part in enumerate(parts):
            path = (*path, part)
            if path in self._arrays and number < len(parts) - 1:
                path = (*path, str(self._arrays[path]))
        return path

    def _pair(self, table: Key) -> None:
        self._skip_blank()
        line = self._line()
        parts = self._key()
        self._note(table, parts, line)
        self._at += 1  # the equals sign
        self._value(table + parts)

    def _note(self, table: Key, parts: Key, line: int) -> None:
        for length in range(1, len(parts) + 1):
            self._lines.setdefault(table + parts[:length], line)

    def _key(self) -> Key:
        parts: list[str] = []
        while True:
            self._skip_blank()
            if self._peek() in ('"', "'"):
                start = self._at
                self._string()
                quoted = self._text[start : self._at]
                parts.append(cast(str, tomllib.loads(f"key = {quoted}")["key"]))
            else:
                start = self._at
                while self._peek().isalnum() or self._peek() in ("-", "_"):
                    self._at += 1
                parts.append(self._text[start : self._at])
            self._skip_blank()
            if self._peek() != ".":
                return tuple(parts)
            self._at += 1

    def _value(self, path: Key) -> None:
        self._skip_blank()
        character = self._peek()
        if character in ("'", '"'):
            self._string()
        elif character == "[":
            self._at += 1
            index = 0
            while self._skip_blank() and self._peek() != "]":
                element = (*path, str(index))
                self._lines[element] = self._line()
                self._value(element)
                index += 1
                self._skip_comma()
            self._at += 1
        elif character == "{":
            self._at += 1
            while self._skip_blank() and self._peek() != "}":
                self._pair(path)
                self._skip_comma()
            self._at += 1
        else:
            while self._peek() not in ("", "\n", ",", "]", "}", "#"):
                self._at += 1

    def _string(self) -> None:
        quote = self._peek()
        triple = self._text.startswith(quote * 3, self._at)
        end = quote * 3 if triple else quote
        self._at += len(end)
        while not self._text.startswith(end, self._at):
            self._at += 2 if quote == '"' and self._peek() == "\\" else 1
        self._at += len(end)
        if triple:  # up to two more quotes may belong to the text itself: """say "x"""""
            while self._peek() == quote:
                self._at += 1

    def _skip_comma(self) -> None:
        self._skip_blank()
        if self._peek() == ",":
            self._at += 1

    def _skip_blank(self) -> bool:
        """Go past blanks, line ends and comments; False at the end of the text."""
        while self._at < len(self._text):
            if self._text[self._at] == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            elif self._text[self._at] in _BLANK:
                self._at += 1
            else:
                return True
        return False

    def _peek(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else ""

    def _line(self) -> int:
        return bisect_right(self._starts, self._at)
