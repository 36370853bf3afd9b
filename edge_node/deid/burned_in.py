"""Burned-in text of one series: found frame by frame and in what stands still, masked, and looked for once more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from edge_node.deid.pixels import Bytes8, Mask, Picture

FRAMES_LOOKED_AT = 24  # of one object, evenly spread; the brightest and darkest of all frames are looked at besides
ROUNDS = 3
STILL_FRAMES = 3  # fewer cannot tell an overlay from anatomy
_WINDOWS = ((0.5, 99.5), (0.0, 100.0))  # text in the middle greys, text at the very top of the range


class TextFinder(Protocol):
    """What finds text in a picture (rows, columns, 3): the ONNX detector, or a known one in tests."""

    def area(self, picture: Bytes8) -> Mask: ...


class Overlay:
    """What does not change over the frames of a series: annotation drawn by the machine, with the anatomy gone.

    Constant memory: the lowest and highest displayed value of every pixel so far.
    """

    def __init__(self) -> None:
        self._low: Bytes8 | None = None
        self._high: Bytes8 | None = None
        self._count = 0

    def add(self, picture: Picture) -> None:
        """Take the frames of one object in."""
        for index in _spread(picture.frames):
            shown = picture.look(index, 0.0, 100.0)
            if self._low is None or self._high is None:
                self._low, self._high = shown, shown
            elif shown.shape != self._low.shape:
                return
            else:
                self._low, self._high = np.minimum(self._low, shown), np.maximum(self._high, shown)
            self._count += 1

    def still(self) -> Bytes8 | None:
        """The unchanging picture on black, (rows, columns, 3); None when there were too few frames, or all is still."""
        if self._low is None or self._high is None or self._count < STILL_FRAMES:
            return None
        moving: Mask = np.any(self._high.astype(np.int16) - self._low > 8, axis=2)
        if not moving.any():
            return None
        return np.where(moving[:, :, None], 0, self._high).astype(np.uint8)


def find_text(picture: Picture, finder: TextFinder, masked: Mask) -> Mask:
    """Where text is in any frame of one object outside what is `masked`, (rows, columns)."""
    area = np.zeros((picture.rows, picture.columns), bool)
    for shown in _views(picture):
        area |= finder.area(_bridged(shown, masked))
    return area & ~masked


def mask_text(picture: Picture, finder: TextFinder, known: Iterable[Mask] = ()) -> tuple[int, bool]:
    """Mask what is `known` and what the finder sees, look again, up to `ROUNDS` times.

    Returns how many pixels of the object are masked by text, and whether the last look found nothing more.
    """
    total = np.zeros((picture.rows, picture.columns), bool)
    for area in known:
        if area.shape == total.shape:
            total |= area
    picture.mask(total)
    for _ in range(ROUNDS):
        found = find_text(picture, finder, total)
        if not found.any():
            return int(total.sum()), True
        total |= found
        picture.mask(found)
    return int(total.sum()), not find_text(picture, finder, total).any()


def _spread(frames: int) -> Sequence[int]:
    if frames <= FRAMES_LOOKED_AT:
        return range(frames)
    return sorted({round(i * (frames - 1) / (FRAMES_LOOKED_AT - 1)) for i in range(FRAMES_LOOKED_AT)})


def _bridged(shown: Bytes8, masked: Mask) -> Bytes8:
    """The picture with masked runs bridged from their left to their right end.

    The corners of a black box look like text to the model, and one box would bring the next.
    """
    if not masked.any():
        return shown
    out = shown.copy()
    columns = np.arange(shown.shape[1])
    for row in np.flatnonzero(masked.any(axis=1)):
        hidden = masked[row]
        for channel in range(3):
            if hidden.all():
                out[row, :, channel] = shown[:, :, channel].mean()
            else:
                line = np.interp(columns[hidden], columns[~hidden], shown[row, ~hidden, channel])
                out[row, hidden, channel] = np.rint(line).astype(np.uint8)
    return out


def _views(picture: Picture) -> Iterable[Bytes8]:
    windows = _WINDOWS if picture.photometric.startswith("MONOCHROME") else _WINDOWS[:1]
    for index in _spread(picture.frames):
        seen: list[Bytes8] = []
        for low, high in windows:
            shown = picture.look(index, low, high)
            if not any(np.array_equal(shown, other) for other in seen):
                seen.append(shown)
                yield shown
    if picture.frames > FRAMES_LOOKED_AT:
        brightest = darkest = picture.look(0)
        for index in range(1, picture.frames):
            shown = picture.look(index)
            brightest, darkest = np.maximum(brightest, shown), np.minimum(darkest, shown)
        yield brightest
        yield darkest
