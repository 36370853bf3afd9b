"""The independent check of objects whose pixels are not in memory: `verify`, with the pixels read where they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge_node.deid.said import PIXELS, in_words
from edge_node.deid.samples import compare as compare_samples
from edge_node.deid.verify import UNVERIFIABLE, compare, unverifiable
from edge_node.deid.witness import Testimony, Unreadable, witness, witness_file
from edge_node.domain.body import Body


@dataclass(frozen=True, slots=True)
class Apart:
    """An object whose pixels are not in memory: the bytes before their value, the value, the bytes behind it."""

    before: bytes
    pixels: Body
    behind: bytes

    def told(self, read: Callable[..., Testimony], implicit: bool, big: bool) -> Testimony:
        """What it says beside the value of its pixels. Raises Unreadable."""
        gap, size = len(self.before), self.pixels.size
        return read(self.before + self.behind, implicit=implicit, big=big, gap=gap, gap_bytes=size)


def verify_apart(
    source: Apart,
    transfer_syntax: str,
    clean: Apart,
    kept: frozenset[int],
    kept_private: frozenset[tuple[int, str, int]] = frozenset(),
) -> None:
    """`verify` of objects whose pixels need not be in memory: they are read where they are, piece by piece."""
    implicit, big = transfer_syntax == "1.2.840.10008.1.2", transfer_syntax == "1.2.840.10008.1.2.2"
    try:
        was = source.told(witness, implicit, big)
        now = clean.told(witness_file, implicit, big)
        met = was.met
        if met is None or met != now.met or met[0] not in PIXELS:
            raise Unreadable

        def samples(due: int) -> list[bytes]:
            words = big and in_words(now, met[0])
            return compare_samples(source.pixels, clean.pixels, due, endless=met[1], words=words)

        compare(was, now, transfer_syntax, kept, kept_private, samples)
    except UNVERIFIABLE:
        raise unverifiable() from None
