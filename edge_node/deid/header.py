"""The executor's memory: what it read and made of stretches of headers that come again in the next object.

An answer is found by the bytes of the stretch and by all else that it depends on (`Scene.setting`), so that it is the
one that reading and cleaning the object by itself would give.
"""

from __future__ import annotations

from functools import partial

from edge_node.deid import wire
from edge_node.deid.charset import Charset
from edge_node.deid.stretches import Stretches
from edge_node.deid.wire import NEVER, Found, Node, Syntax

_LARGE = 1 << 14  # bytes of pixel data from which a copy is dearer than a view
_MOST_ANSWERS = 8  # of one kind about one stretch: the patients whose objects come in turns


class Run:
    """Consecutive top-level elements. Nobody may change them: they are part of many nodes."""

    __slots__ = ("_cleaned", "_words", "has_pixels", "node", "reserved_elsewhere")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.has_pixels = any(tag in node for tag in wire.PIXELS)
        private = (tag for tag in node if tag & 0x10000 and tag & 0xFFFF >= 0x1000)
        blocks = {tag & 0xFFFF0000 | tag >> 8 & 0xFF for tag in private}
        self.reserved_elsewhere = tuple(blocks - node.keys())  # private blocks whose creator, if any, is not in here
        self._cleaned: dict[object, Node] = {}
        self._words: dict[Charset, frozenset[str]] = {}

    def __repr__(self) -> str:
        return f"<Run of {len(self.node)} elements>"

    def cleaned(self, setting: object) -> Node | None:
        """What was kept as the clean form of its elements in that setting."""
        return self._cleaned.get(setting)

    def keep_cleaned(self, setting: object, clean: Node) -> None:
        if len(self._cleaned) >= _MOST_ANSWERS:
            self._cleaned.clear()
        self._cleaned[setting] = clean

    def words(self, charset: Charset) -> frozenset[str] | None:
        """What was kept as the words of names in it."""
        return self._words.get(charset)

    def keep_words(self, charset: Charset, words: frozenset[str]) -> None:
        if len(self._words) >= _MOST_ANSWERS:
            self._words.clear()
        self._words[charset] = words


class Header:
    """One data set as it was read: `runs` that came before, and all other elements.

    They are the whole data set, and no tag is in two of them; else there are no runs.
    """

    __slots__ = ("_headers", "rest", "runs")

    def __init__(self, headers: Headers) -> None:
        self._headers = headers
        self.runs: list[Run] = []
        self.rest: Node = {}

    def parse(self, data: bytes, syntax: Syntax) -> Node:
        """`wire.parse`."""
        return self._read(wire.inflate(data) if syntax.deflated else data, syntax)[0]

    def parse_up_to_pixels(self, data: bytes, syntax: Syntax, apart: int) -> tuple[Node, Found]:
        """`wire.parse_up_to_pixels`."""
        return self._read(data, syntax, apart)

    def completed(self, node: Node) -> None:
        """Take in what was read behind the pixels."""
        count = sum(len(run.node) for run in self.runs)
        covered = {tag for run in self.runs for tag, element in run.node.items() if node[tag] is element}
        if len(covered) != count:  # one of them came again
            self.runs = []
            covered = set()
        self.rest = {tag: element for tag, element in node.items() if tag not in covered}

    def _read(self, data: bytes, syntax: Syntax, apart: int = NEVER) -> tuple[Node, Found]:
        self.runs, self.rest = [], {}
        rest, elements = self.rest, 0
        reader = wire.Reader(data, syntax.big, 0, apart, _LARGE)
        read = partial(reader.node, end=len(data), implicit=syntax.implicit, delimited=False, depth=0, found=rest)

        def one(at: int) -> int:
            nonlocal elements
            behind = read(at)
            if reader.found is not None:
                return at
            elements += 1
            return behind

        last = self._headers.of(syntax).walk(data, 0, len(data), one, self.runs.append)
        node: Node = {}
        for run in self.runs:
            node.update(run.node)
            elements += len(run.node)
        node.update(rest)
        too_much = last < len(data) and reader.found is None
        if len(node) != elements or too_much or (apart < NEVER and any(run.has_pixels for run in self.runs)):
            # Of two elements with one tag the last counts; what is read one by one for long is read at once; and of a
            # large object it is to be said where its pixels are, however small.
            self.runs = []
            self.rest, found = wire.parse_up_to_pixels(data, syntax, apart)
            return self.rest, found
        return node, reader.found


class Headers:
    """What is remembered of headers. Safe to share between threads; small, and forgotten with its owner."""

    def __init__(self) -> None:
        self._of = {
            (implicit, big): Stretches(partial(_run, syntax=Syntax(implicit, big)))
            for implicit, big in ((True, False), (False, False), (False, True))
        }

    def of(self, syntax: Syntax) -> Stretches[Run]:
        """Stretches in an encoding: the same bytes say other things in another."""
        return self._of[syntax.implicit, syntax.big]


def _run(raw: bytes, elements: int, syntax: Syntax) -> Run | None:
    node = wire.parse(raw, syntax)
    return Run(node) if len(node) == elements else None
