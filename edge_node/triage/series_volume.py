"""Series of a study as volumes in HU: each decoded once for all models, in parallel, and bounded in memory."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from edge_node.domain.errors import Quarantine
from edge_node.domain.quality import Score
from edge_node.domain.study import CleanObject
from edge_node.triage.ahead import Ready
from edge_node.triage.decode import NATIVE, Frames
from edge_node.triage.headers import SliceHeader
from edge_node.triage.hounsfield import to_hu
from edge_node.triage.picture import WINDOW
from edge_node.triage.prepare import CannotJudge, Shorts, Stack, order
from edge_node.triage.runner import OutOfTime
from edge_node.triage.select import Series

MAX_LOST: Final = 0.2  # so many slices of a series may be undecodable; more and it cannot be judged
MOST_BYTES: Final = 384 << 20  # of one volume, and of all that are kept: 730 slices of 512 x 512
MAX_AIR_SHIFT_HU: Final = 300.0
_Key = tuple[str, int]


@dataclass(slots=True, eq=False)
class SeriesVolume:
    """One series as it was measured.

    `hu` is int16 (slices, rows, columns), canonical, in the order of `stack`; when the stored matrix would not fit
    `MOST_BYTES` each of its pixels is the mean of `binning` x `binning` stored ones, and `coarse` is the stack with
    that plane. `notes` say what was odd but bearable. `image(k)` gives slice k as stored, in full. A radiograph is one
    slice that has no place: its values are shares of 1000, `window` is how they are shown, `letters` what its header
    says of left, right, top and bottom.
    """

    stack: Stack
    coarse: Stack
    hu: Shorts
    binning: int
    notes: tuple[str, ...]
    image: Callable[[int], Shorts] = field(repr=False)
    scores: tuple[Score, ...] | None = None  # input quality, once somebody measured it
    window: tuple[float, float] = WINDOW
    letters: tuple[str, str, str, str] | None = None


class Volumes:
    """The volumes of one study. Not thread-safe: one study, one thread."""

    def __init__(
        self,
        workers: int,
        most_bytes: int = MOST_BYTES,
        ready: Ready | None = None,
        give_way: Callable[[], None] = lambda: None,
    ) -> None:
        """`workers` threads decode what is encoded and not `ready`: the codecs of imagecodecs give up the interpreter
        lock. `give_way` is called before each slice."""
        self._workers = workers
        self.give_way = give_way
        self._ready = ready
        self._most = most_bytes
        self._held: OrderedDict[tuple[_Key, ...], SeriesVolume | CannotJudge] = OrderedDict()
        self.decoded = 0  # slices, over all series

    def of(self, series: Series, deadline: float) -> SeriesVolume:
        """The volume of a series; `deadline` is monotonic. Raises `CannotJudge`, `OutOfTime`."""
        key = _key(series)
        held = self._held.get(key)
        if held is None:
            try:
                held = self._made(series, deadline)
            except CannotJudge as error:
                held = error
            self._held[key] = held
        self._held.move_to_end(key)
        if isinstance(held, CannotJudge):
            raise held
        return held

    def held(self, series: Series) -> SeriesVolume | None:
        """The volume of a series, if it was asked for before and is still here."""
        found = self._held.get(_key(series))
        return found if isinstance(found, SeriesVolume) else None

    def _made(self, series: Series, deadline: float) -> SeriesVolume:
        count = len(series.slices)
        scaled = [h for h in series.slices if h.rescale is not None]
        if len(scaled) < (1 - MAX_LOST) * count:
            raise CannotJudge(
                "rescale.missing", f"{count - len(scaled)} of {count} slices have no usable scale to Hounsfield units"
            )
        placed = {(h.item.sop_uid, h.frame): h for h in scaled if h.geometry is not None}
        if len(placed) < (1 - MAX_LOST) * count:
            raise CannotJudge("geometry.missing", "the slices do not say where they lie")
        stack = order([h.geometry for h in placed.values() if h.geometry is not None])
        notes = []
        if len(placed) < count:
            notes.append(f"geometry.missing: {count - len(placed)} slices without place or scale left out")
        hu, binning, good = self._decode(stack, placed, deadline)
        lost = len(good) - int(good.sum())
        if lost > MAX_LOST * len(good):
            raise CannotJudge("decode.undecodable", f"{lost} of {len(good)} slices cannot be decoded")
        if lost:
            notes.append(f"decode.undecodable: {lost} slices cannot be decoded and were left out")
        scales = [placed[s.sop_uid, s.frame].rescale for s in stack.slices]
        usual = Counter(scales).most_common(1)[0][0]
        shifted = _shifted(hu, good, np.array([scale != usual for scale in scales]))
        if shifted.sum() > MAX_LOST * len(good):
            raise CannotJudge("rescale.mixed", f"{shifted.sum()} of {len(good)} slices are on another scale")
        if shifted.any():
            notes.append(f"rescale.mixed: {shifted.sum()} slices on another scale were left out")
        good &= ~shifted
        if not good.all():
            stack = order([s for s, keep in zip(stack.slices, good, strict=True) if keep])
            hu = hu[good]
        coarse = stack
        if binning > 1:
            plane = stack.plane
            coarse = replace(
                stack,
                plane=replace(
                    plane, rows=hu.shape[1], columns=hu.shape[2], dy=plane.dy * binning, dx=plane.dx * binning
                ),
            )

        def image(index: int) -> Shorts:
            if binning == 1:
                return stack.plane.stored(hu[index])
            one = stack.slices[index]
            header = placed[one.sop_uid, one.frame]
            return _hu(Frames(_read(header.item)).stored(header.frame), header)

        return SeriesVolume(stack, coarse, hu, binning, (*notes, *stack.warnings), image)

    def _decode(
        self, stack: Stack, placed: dict[_Key, SliceHeader], deadline: float
    ) -> tuple[Shorts, int, NDArray[np.bool_]]:
        """Canonical slices in HU in stack order, how many pixels were averaged each way, and which were decoded."""
        plane, count = stack.plane, len(stack.slices)
        binning = 1
        while count * (plane.rows // binning) * (plane.columns // binning) * 2 > self._most:
            binning += 1
        size = (count, plane.rows // binning, plane.columns // binning)
        if min(size) < 1:
            raise CannotJudge("geometry.too-large", "the series is larger than the node judges")
        self._make_room(2 * int(np.prod(size)))
        # One volume, filled in place: 500 slices are 262 MB as int16 and must not exist twice.
        hu = np.empty(size, np.int16)
        good = np.zeros(count, np.bool_)

        def fill(frames: Frames | None, index: int) -> None:
            self.give_way()
            if time.monotonic() > deadline:
                raise OutOfTime
            one = stack.slices[index]
            header = placed[one.sop_uid, one.frame]
            try:
                stored = frames.stored(header.frame) if frames is not None else self._stored(header.item)
            except Quarantine:
                return
            if binning == 1:
                _hu(stored, header, plane.stored(hu[index]))
            else:
                hu[index] = _binned(plane.canonical(_hu(stored, header)), binning)
            good[index] = True

        singles, several = _by_object(stack)
        # Pixels that are not encoded cost Python more than a codec: more threads would only wait for each other.
        encoded = any(h.item.transfer_syntax not in NATIVE for h in placed.values())
        with ThreadPoolExecutor(self._workers if encoded else 1, "decode") as pool:
            _all(pool.map(lambda k: fill(None, k), singles))
            for indices in several:  # one multi-frame object in memory at a time
                one = stack.slices[indices[0]]
                try:
                    frames = Frames(_read(placed[one.sop_uid, one.frame].item))
                except Quarantine:
                    continue
                _all(pool.map(lambda k, f=frames: fill(f, k), indices))
        self.decoded += count
        return hu, binning, good

    def _stored(self, item: CleanObject) -> NDArray[np.generic]:
        """The only frame of an object, which may be decoded already. Raises Quarantine ``triage.undecodable``."""
        found = self._ready(item) if self._ready is not None else None
        return found if found is not None else Frames(_read(item)).stored(1)

    def _make_room(self, wanted: int) -> None:
        """Give up the volumes that were used longest ago."""
        for key, held in list(self._held.items()):
            size = sum(v.hu.nbytes for v in self._held.values() if isinstance(v, SeriesVolume))
            if size + wanted <= self._most:
                return
            if isinstance(held, SeriesVolume):
                del self._held[key]


def _key(series: Series) -> tuple[_Key, ...]:
    return tuple((h.item.sop_uid, h.frame) for h in series.slices)


def _by_object(stack: Stack) -> tuple[list[int], list[list[int]]]:
    """Indices of slices that are objects of their own, and those of each object with several."""
    objects: dict[str, list[int]] = {}
    for index, one in enumerate(stack.slices):
        objects.setdefault(one.sop_uid, []).append(index)
    several = [indices for indices in objects.values() if len(indices) > 1 or stack.slices[indices[0]].frame > 1]
    alone = {index for indices in several for index in indices}
    return [index for index in range(len(stack.slices)) if index not in alone], several


def _all(results: Iterable[None]) -> None:
    for _ in results:
        pass


def _read(item: CleanObject) -> Dataset:
    try:
        return dcmread(BytesIO(item.read()))
    except Exception:  # not shown: pydicom's texts may print values
        raise Quarantine("triage.undecodable", "one object cannot be parsed any more") from None


def _hu(stored: NDArray[np.generic], header: SliceHeader, out: Shorts | None = None) -> Shorts:
    slope, intercept = header.rescale or (1.0, 0.0)
    return to_hu(stored, slope, intercept, out)


def _binned(values: Shorts, by: int) -> Shorts:
    """Mean of squares of `by` pixels; what is left over at the far edges is cut off."""
    rows, columns = values.shape[0] // by, values.shape[1] // by
    squares = values[: rows * by, : columns * by].reshape(rows, by, columns, by)
    return np.asarray(np.rint(squares.mean((1, 3), dtype=np.float32)), np.int16)


def _shifted(hu: Shorts, good: NDArray[np.bool_], suspect: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Slices whose air is not where the air of the others is, among those with another rescale than most."""
    if not (good & suspect).any() or not (good & ~suspect).any():
        return np.zeros_like(good)
    air = np.array([np.percentile(image[::8, ::8], 10) if keep else 0 for image, keep in zip(hu, good, strict=True)])
    middle = float(np.median(air[good & ~suspect]))
    return np.asarray(good & suspect & (np.abs(air - middle) > MAX_AIR_SHIFT_HU))
