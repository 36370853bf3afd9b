"""Where identity is burned in by rule: the boxes of `%filter` labels, and the areas of an image they give.

The labels are those of a recipe (`Recipe.filters`) and those that the deid package ships, in the one reading of
`edge_node.deid.filters`. Ours where deid's engine is wrong: the coordinates of a label never reach the next image; a
label that keeps an area (`keepcoordinates`) takes back only what labels of the same recipe masked. Labels are asked for
their conditions once a series and kind of image.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np

from edge_node.deid import wire
from edge_node.deid.charset import Charset
from edge_node.deid.fields import BadField
from edge_node.deid.filters import Box, Filter, FilterReader
from edge_node.deid.pixels import Mask
from edge_node.deid.scene import charset_of
from edge_node.deid.wire import Element, Node, Syntax
from edge_node.domain.errors import Stop

_MISSPELT = re.compile(r"\b(Manfacturer|Manufacture)\b(?= )")  # in the filters that deid ships
_SERIES_UID = 0x0020000E
_REGION = (0x00186018, 0x0018601A, 0x0018601C, 0x0018601E)  # Region Location Min X0, Min Y0, Max X1, Max Y1
_NUMBERS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d"}


def vendor_filters() -> tuple[Filter, ...]:
    """The labels that the deid package ships, read without importing it. Raises Stop("deid.filters-missing")."""
    try:
        path = Path(str(distribution("deid").locate_file("deid/data/deid.dicom")))
        return labels_in(path.read_text(encoding="utf-8"))
    except (PackageNotFoundError, OSError, BadField):
        raise Stop(
            "deid.filters-missing", "the filters of the deid package cannot be read", hint="pip install deid"
        ) from None


def labels_in(text: str) -> tuple[Filter, ...]:
    """The labels of the `%filter` sections of a text; other sections are passed over. Raises BadField."""
    reader, inside = FilterReader(), False
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.split(r"(?:^|\s)#", raw.strip())[0].strip()
        if line.startswith("%"):
            words = line.split()
            inside = words[0] == "%filter"
            reader.group(words[-1] if inside else "")
        elif inside and line:
            reader.line(_MISSPELT.sub("Manufacturer", line), number)
    reader.close()
    return tuple(reader.filters)


class Boxes:
    """Sets of labels, ready for many images; remembers what holds for a series and kind of image."""

    def __init__(self, sets: Iterable[Sequence[Filter]]) -> None:
        self._sets = [tuple(one for one in filters if one.boxes) for filters in sets]
        self._tags = sorted({tag for filters in self._sets for one in filters for tag in one.fields})
        self._known: dict[tuple[object, ...], list[tuple[Filter, ...]]] = {}

    def mask(self, image: Image) -> Mask:
        """What the labels say of one image, (rows, columns)."""
        area = np.zeros((image.rows, image.columns), bool)
        for filters in self._holding(image):
            own = np.zeros_like(area)
            for one in filters:
                for box in one.boxes:
                    _paint(own, box, image)
            area |= own
        return area

    def _holding(self, image: Image) -> list[tuple[Filter, ...]]:
        kind = (image.text(_SERIES_UID), *map(image.texts, self._tags))
        if kind not in self._known:
            if len(self._known) > 1000:
                self._known.clear()
            self._known[kind] = [tuple(one for one in filters if one.holds(image.texts)) for filters in self._sets]
        return self._known[kind]


class Image:
    """The header of one image as labels ask for it."""

    def __init__(self, node: Node, syntax: Syntax) -> None:
        self.node, self._order = node, ">" if syntax.big else "<"
        self._charset: Charset | None = None
        self.rows, self.columns = (wire.uint(node, tag, syntax) or 0 for tag in (0x00280010, 0x00280011))

    def texts(self, tag: int) -> tuple[str, ...] | None:
        """The values of a top-level attribute; None where it is absent."""
        element = self.node.get(tag)
        if element is None:
            return None
        code = _NUMBERS.get(element.vr[:2])
        if code is not None:
            return tuple(map(str, self.numbers(element, code)))
        return tuple(self.text(tag).split("\\")) if element.value else ()

    def text(self, tag: int) -> str:
        """The whole value; "" where it is absent."""
        if self._charset is None:
            self._charset = charset_of(self.node)
        return self._charset.text(self.node[tag].value) if tag in self.node else ""

    def numbers(self, element: Element, code: str) -> tuple[int | float, ...]:
        """Binary values, by `struct`'s letter for one of them."""
        count = len(element.value) // struct.calcsize(self._order + code)
        return struct.unpack_from(f"{self._order}{count}{code}", element.value)

    def regions(self, source: int) -> Iterator[tuple[int, ...]]:
        """(left, top, right, bottom), all inside, of the items of a sequence like that of ultrasound regions."""
        element = self.node.get(source)
        for item in (element.items if element is not None else None) or ():
            found = [self.numbers(item[tag], "L") for tag in _REGION if tag in item]
            if len(found) == len(_REGION) and all(found):
                yield tuple(int(values[0]) for values in found)


def _paint(mask: Mask, box: Box, image: Image) -> None:
    if box.source:
        for left, top, right, bottom in image.regions(box.source):
            mask[top : bottom + 1, left : right + 1] = not box.keep
    elif not box.area:
        mask[:] = not box.keep
    else:
        left, top, right, bottom = box.area
        mask[top:bottom, left:right] = not box.keep
