"""Burned-in text of one series: found frame by frame and in what stands still, masked, and looked for once more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_node.deid.pixels import Bytes8, Mask, Picture

FRAMES_LOOKED_AT = 24  # of one object, evenly spread; the brightest and darkest of all frames are looked at besides
FRAMES_IN_EQUAL_CONTRAST = 6  # of them, looked at in all views; the others only as displayed
ROUNDS = 3
STILL_FRAMES = 3  # fewer cannot tell an overlay from anatomy
_WINDOWS = ((0.5, 99.5), (0.0, 100.0))  # text in the middle greys, text at the very top of the range
# Of the views with equal contrast: how far "around" is, for lines and for strokes, in pixels of a picture of at most
# _REACH_SIDE; greys of 255 that may be noise; grey levels that one standard deviation becomes.
_REACHES, _REACH_SIDE, _NOISE, _GAIN = (12, 6), 960, 4.0, 48.0
_Picture = TypeVar("_Picture", NDArray[np.uint8], NDArray[np.float32])


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
        for index in _spread(picture.frames, FRAMES_LOOKED_AT):
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
    for shown in _views(picture, masked):
        area |= finder.area(shown)
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


def _spread(frames: int, most: int) -> Sequence[int]:
    if frames <= most:
        return range(frames)
    return sorted({round(i * (frames - 1) / (most - 1)) for i in range(most)})


def _bridged(shown: _Picture, masked: Mask) -> _Picture:
    """The picture (rows, columns, channels) with masked runs bridged from their left to their right end.

    The corners of a black box look like text to the model, and one box would bring the next.
    """
    if not masked.any():
        return shown
    out = shown.copy()
    columns = np.arange(shown.shape[1])
    for row in np.flatnonzero(masked.any(axis=1)):
        hidden = masked[row]
        for channel in range(shown.shape[2]):
            if hidden.all():
                out[row, :, channel] = shown[:, :, channel].mean()
            else:
                line = np.interp(columns[hidden], columns[~hidden], shown[row, ~hidden, channel])
                out[row, hidden, channel] = np.rint(line)
    return out


def _views(picture: Picture, masked: Mask) -> Iterable[Bytes8]:
    windows = _WINDOWS if picture.photometric.startswith("MONOCHROME") else _WINDOWS[:1]
    for index in _spread(picture.frames, FRAMES_LOOKED_AT):
        seen: list[Bytes8] = []
        for low, high in windows:
            shown = picture.look(index, low, high)
            if not any(np.array_equal(shown, other) for other in seen):
                seen.append(shown)
                yield _bridged(shown, masked)
    for index in _spread(picture.frames, FRAMES_IN_EQUAL_CONTRAST):
        grey = _bridged(_grey(picture, index), masked)
        for reach in _REACHES:
            yield _local(grey, reach)
    if picture.frames > FRAMES_LOOKED_AT:
        brightest = darkest = picture.look(0)
        for index in range(1, picture.frames):
            shown = picture.look(index)
            brightest, darkest = np.maximum(brightest, shown), np.minimum(darkest, shown)
        yield _bridged(brightest, masked)
        yield _bridged(darkest, masked)


def _grey(picture: Picture, index: int) -> NDArray[np.float32]:
    """One frame, (rows, columns, 1): the middle 99 % of its values in 0..255, others beyond; colours by their mean."""
    if not picture.photometric.startswith("MONOCHROME"):
        mean: NDArray[np.float32] = picture.look(index).mean(axis=2, keepdims=True, dtype=np.float32)
        return mean
    values = np.nan_to_num(picture.plane(index)[:, :, :1].astype(np.float32))
    floor, ceiling = np.percentile(values, (0.5, 99.5))
    if ceiling <= floor:
        floor, ceiling = values.min(), values.max()
    scaled: NDArray[np.float32] = (values - np.float32(floor)) * np.float32(255 / max(ceiling - floor, 1e-6))
    return scaled


def _local(grey: NDArray[np.float32], reach: int) -> Bytes8:
    """The picture (rows, columns, 3) with equal contrast everywhere: each pixel against the mean and the spread of what
    is around it. It brings out grey letters on grey that no window over the whole picture does."""
    values = grey[:, :, 0].astype(np.float64)
    reach = max(reach, round(min(values.shape) * reach / _REACH_SIDE))
    mean = _mean_around(values, reach)
    spread = np.sqrt(np.maximum(_mean_around(values * values, reach) - mean * mean, 0))
    even = (values - mean) / (spread + _NOISE) * _GAIN + 128
    return np.repeat(np.rint(even.clip(0, 255)).astype(np.uint8)[:, :, None], 3, axis=2)


def _mean_around(values: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Means over squares of `reach` pixels to each side; the picture's edge goes on outside."""
    side, (rows, columns) = 2 * reach + 1, values.shape
    sums = np.pad(values, ((reach + 1, reach), (reach + 1, reach)), mode="edge").cumsum(axis=0).cumsum(axis=1)
    low, high = sums[:rows], sums[side : side + rows]
    means: NDArray[np.float64] = (high[:, side : side + columns] - high[:, :columns]) - (
        low[:, side : side + columns] - low[:, :columns]
    )
    return means / side**2
