"""Finds text in pictures with RapidOCR's detector model (the optional extra `ocr`). This room's door to onnxruntime.

Only the detector's ONNX file is used, out of the installed wheel: nothing is downloaded, nothing else of the package is
imported, and nothing is read, so no text ever exists outside the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edge_node.deid.pixels import Bytes8, Mask

PROBABILITY = 0.25  # of a pixel to belong to text
# Mean probability of a whole box that is a line, at least LONG_LINE times as long as thick, and of any other box. Of
# 600 drawn lines one in a hundred scored below 0.74; on images without text most of what the model marks is below 0.55.
# What is thicker than lines mostly are must be surer still: the fan of an ultrasound scored 0.67.
SCORE, SPOT_SCORE, THICK_SCORE = 0.55, 0.65, 0.7
LEAST_CONTRAST = 8  # grey levels in a box; where the model has nothing to go by it marks empty ground
# The trap: the outline of a skull or of an ultrasound fan is "one text box". A box thicker than this part of the
# picture is dropped, unless it is as long as lines of text are.
SHORT_SIDE, LONG_LINE, THICKEST = 0.12, 2.0, 0.4
LEAST_SHORT_SIDE = 24  # px: but never call this "thick"
MIN_SIDE, MAX_SIDE = 512, 1536
COARSE_SIDE = 256  # the model misses letters of more than about 40 px: it looks again at a small picture
_GROWTH = 2.0  # the model marks the core of a line; a box grows by area x growth / perimeter, as its authors do


@dataclass(frozen=True, slots=True)
class TextBox:
    """Pixel rectangle, right and bottom outside, with the mean probability 0..1 of what is in it."""

    left: int
    top: int
    right: int
    bottom: int
    score: float


def model_path() -> Path | None:
    """The detector's ONNX file in the installed `rapidocr`; None without the extra."""
    try:
        folder = Path(str(distribution("rapidocr").locate_file("rapidocr/models")))
    except PackageNotFoundError:
        return None
    return next(iter(sorted(folder.glob("*_det_*.onnx"))), None)


class TextDetector:
    """The detector, loaded once a process; `find` may be called from one thread."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # beside triage, which must not wait for it
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def find(self, picture: Bytes8) -> list[TextBox]:
        """Boxes of text in a picture (rows, columns, 3), 8 bits."""
        rows, columns = picture.shape[:2]
        fine = min(max(1.0, MIN_SIDE / min(rows, columns)), MAX_SIDE / max(rows, columns))
        coarse = COARSE_SIDE / min(rows, columns)
        return [box for scale in (fine, coarse) for box in self._at(picture, scale)]

    def _at(self, picture: Bytes8, scale: float) -> list[TextBox]:
        rows, columns = picture.shape[:2]
        height, width = (max(32, round(side * scale / 32) * 32) for side in (rows, columns))
        values = _resized(picture, height, width) * np.float32(2 / 255) - np.float32(1)
        [out] = self._session.run(None, {self._input: np.ascontiguousarray(values.transpose(2, 0, 1))[None]})
        chance: NDArray[np.float32] = out[0, 0]
        found = []
        for top, bottom, left, right, score in _blobs(chance):
            grow = (bottom - top) * (right - left) * _GROWTH / (2 * (bottom - top + right - left))
            y, x = rows / height, columns / width
            box = TextBox(
                max(0, int((left - grow) * x)),
                max(0, int((top - grow) * y)),
                min(columns, int(np.ceil((right + grow) * x))),
                min(rows, int(np.ceil((bottom + grow) * y))),
                score,
            )
            if _may_be_text(box, min(rows, columns)) and _shows(box, picture):
                found.append(box)
        return found

    def area(self, picture: Bytes8) -> Mask:
        """The same as a mask (rows, columns)."""
        mask = np.zeros(picture.shape[:2], bool)
        for box in self.find(picture):
            mask[box.top : box.bottom, box.left : box.right] = True
        return mask


def _may_be_text(box: TextBox, side: int) -> bool:
    short, long = sorted((box.right - box.left, box.bottom - box.top))
    if box.score < (SCORE if long >= LONG_LINE * short else SPOT_SCORE):
        return False
    if short <= max(SHORT_SIDE * side, LEAST_SHORT_SIDE):
        return True
    return box.score >= THICK_SCORE and long >= LONG_LINE * short and short <= THICKEST * side


def _shows(box: TextBox, picture: Bytes8) -> bool:
    """Whether anything can be seen in the box."""
    low, high = np.percentile(picture[box.top : box.bottom, box.left : box.right], (2, 98), axis=(0, 1))
    return bool((high - low).max() >= LEAST_CONTRAST)


def _resized(picture: Bytes8, height: int, width: int) -> NDArray[np.float32]:
    """Bilinear, with means over areas where the picture shrinks to half or less."""
    values = picture.astype(np.float32)
    for axis, wanted in ((0, height), (1, width)):
        factor = values.shape[axis] // wanted
        if factor >= 2:
            keep = values.shape[axis] // factor * factor
            values = np.moveaxis(values, axis, 0)[:keep]
            values = np.moveaxis(values.reshape(-1, factor, *values.shape[1:]).mean(axis=1), 0, axis)
        size = values.shape[axis]
        if size != wanted:
            at = ((np.arange(wanted) + 0.5) * size / wanted - 0.5).clip(0, size - 1)
            low = np.floor(at).astype(np.intp)
            part = (at - low).astype(np.float32).reshape((-1,) + (1,) * (2 - axis))
            values = (
                np.take(values, low, axis) * (1 - part) + np.take(values, np.minimum(low + 1, size - 1), axis) * part
            )
    return values


def _blobs(chance: NDArray[np.float32]) -> list[tuple[int, int, int, int, float]]:
    """(top, bottom, left, right, mean) of the connected areas above PROBABILITY, by runs of pixels in each row."""
    above = np.zeros((chance.shape[0], chance.shape[1] + 2), np.int8)
    above[:, 1:-1] = chance > PROBABILITY
    edges = np.diff(above, axis=1)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    sums = np.concatenate([np.zeros((len(chance), 1)), np.cumsum(chance, axis=1, dtype=np.float64)], axis=1)
    weights = sums[rows, ends] - sums[rows, starts]
    parent = list(range(len(rows)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first = 0  # the first run of the row above that may still touch
    for i in range(len(rows)):
        while first < i and (rows[first] < rows[i] - 1 or (rows[first] == rows[i] - 1 and ends[first] < starts[i])):
            first += 1
        j = first
        while j < i and rows[j] == rows[i] - 1 and starts[j] <= ends[i]:
            parent[root(j)] = root(i)
            j += 1
    blobs: dict[int, list[float]] = {}
    for i in range(len(rows)):
        blob = blobs.setdefault(root(i), [rows[i], rows[i] + 1, starts[i], ends[i], 0.0, 0.0])
        blob[0], blob[1] = min(blob[0], rows[i]), max(blob[1], rows[i] + 1)
        blob[2], blob[3] = min(blob[2], starts[i]), max(blob[3], ends[i])
        blob[4] += weights[i]
        blob[5] += ends[i] - starts[i]
    return [
        (int(t), int(b), int(x0), int(x1), w / n) for t, b, x0, x1, w, n in blobs.values() if min(b - t, x1 - x0) >= 2
    ]
