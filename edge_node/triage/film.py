"""Projection radiographs: which images of a study are films, what their headers say, and how one becomes a tensor.

Conventions: dense is bright, whatever way the film is shown (MONOCHROME1 is turned round); rows run to the feet and
columns to the patient's left where Patient Orientation (0020,0020) tells; the whole film is fitted into a square, what
is left of it is 0; grey values from the darkest to the brightest percent of what is exposed become 0..1, so that
neither bits, exposure nor the window of the maker matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from edge_node.domain.errors import Quarantine
from edge_node.domain.study import CleanObject
from edge_node.triage.card_tables import FilmTable
from edge_node.triage.decode import Frames
from edge_node.triage.headers import SCREENS, attributes_of, texts
from edge_node.triage.places import Grid
from edge_node.triage.prepare import CannotJudge, Floats, Plane, area_weights
from edge_node.triage.rule import Values

FILMS: Final = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography Image Storage
        "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray Image Storage - For Presentation
    }
)
MIN_SIDE: Final = 256  # pixels: below, what a model looks for cannot be seen
MOST_PIXELS: Final = 64 << 20
MIN_STEPS: Final = 32  # grey values between the darkest and the brightest percent
DETAIL_GAIN: Final = 4.0
MIN_CONTRAST: Final = 0.08  # between lungs and mediastinum
MIN_UNEVEN: Final = 0.008  # of lungs on the way down: 0.07 in a real film, 0.016 in the evenest phantom; air 0.002
SIDES: Final = ((3, 10), (14, 21))  # where the lungs are, of 24 bands from left to right
MOST_CUT: Final = 0.45  # share of the exposed film at one end of the scale
_ORIENTED: Final = {"L": (0, 1), "R": (0, -1), "F": (1, 1), "H": (1, -1)}  # axis of the film, sign


@dataclass(frozen=True, slots=True)
class FilmHeader:
    """One radiograph: `plane` leads from stored to canonical pixels of size 1, `inverted` says that dense is dark as
    stored. `letters` are the patient's directions at the left, right, top and bottom edge as stored, " " unknown.
    `unfit` says why it is none to judge ("" if it is one), `notes` what is odd but bearable."""

    item: CleanObject
    attributes: dict[str, Values]
    plane: Plane
    inverted: bool
    letters: tuple[str, str, str, str]
    unfit: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """A radiograph ready for a model: `image` float32 (rows, columns) in 0..1, dense bright, canonical; `tensor`
    float32 (channels, size, size); `grid` places cells on canonical pixels once told how many there are."""

    header: FilmHeader
    image: Floats
    tensor: Floats
    side: float  # of the square, in canonical pixels
    start: tuple[float, float]  # (y, x) of its upper left corner

    def grid(self, cells: int) -> Grid:
        """Cells of a map of the whole square."""
        return Grid(self.start, (self.side / cells, self.side / cells))

    def inside(self, cells: int) -> NDArray[np.bool_]:
        """Cells (cells, cells) that lie on the film."""
        rows, columns = (
            np.abs((np.arange(cells) + 0.5) * self.side / cells + start - n / 2) < n / 2
            for start, n in zip(self.start, self.image.shape, strict=True)
        )
        return np.asarray(rows[:, None] & columns[None, :])


def read_films(objects: Iterable[CleanObject]) -> tuple[list[FilmHeader], int]:
    """Headers of all radiographs by their UID, and how many objects could not be parsed."""
    found: list[FilmHeader] = []
    unreadable = 0
    for item in sorted(objects, key=lambda one: (one.series_uid, one.sop_uid)):
        if item.sop_class not in FILMS:
            continue
        try:
            found.append(_header(item, dcmread(BytesIO(item.read()), stop_before_pixels=True)))
        except Exception:  # not shown: pydicom's texts may print values
            unreadable += 1
    return found, unreadable


def _header(item: CleanObject, ds: Dataset) -> FilmHeader:
    kinds = tuple(word.upper() for word in texts(ds.get("ImageType")))
    rows, columns = int(ds.Rows), int(ds.Columns)
    photometric = str(ds.get("PhotometricInterpretation") or "MONOCHROME2")
    slope = float(ds.get("RescaleSlope") or 1)
    orientation = tuple(word.upper() for word in texts(ds.get("PatientOrientation")))
    plane, letters, told = _oriented(orientation, rows, columns)
    notes = [] if told else ["film.orientation: the header does not say how the film lies; taken as shown"]
    if str(ds.get("LossyImageCompression") or "") == "01":
        notes.append("quality.lossy: the images were compressed with loss")
    unfit = ""
    if frozenset(kinds[2:]) & SCREENS:
        unfit = "select.screen"
    elif orientation[:1] and orientation[0][:1] in ("A", "P"):
        unfit = "select.lateral"
    elif int(ds.get("SamplesPerPixel") or 1) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        unfit = "select.colour"
    elif kinds[1:2] == ("SECONDARY",):
        unfit = "select.derived"  # DERIVED alone is what most plate readers write
    elif int(ds.get("NumberOfFrames") or 1) != 1:
        unfit = "select.frames-without-place"
    elif int(ds.get("BitsStored") or 16) <= 8:
        unfit = "select.8-bit"
    inverted = (photometric == "MONOCHROME1") != (slope < 0)
    return FilmHeader(item, attributes_of(ds, kinds), plane, inverted, letters, unfit, tuple(notes))


def _oriented(words: tuple[str, ...], rows: int, columns: int) -> tuple[Plane, tuple[str, str, str, str], bool]:
    """The way to canonical pixels, the letters at the edges, and whether the header told (PS3.3 C.7.6.1.1.1)."""
    along = [_ORIENTED.get(word[:1]) for word in words[:2]]
    if len(along) != 2 or along[0] is None or along[1] is None or along[0][0] == along[1][0]:
        return Plane(False, False, False, rows, columns, 1, 1), (" ", " ", " ", " "), False
    (axis, right), (_, down) = along[0], along[1]
    other = {"L": "R", "R": "L", "F": "H", "H": "F"}
    to_right, to_bottom = words[0][0], words[1][0]
    letters = (other[to_right], to_right, other[to_bottom], to_bottom)
    if axis == 0:
        return Plane(False, down < 0, right < 0, rows, columns, 1, 1), letters, True
    return Plane(True, right < 0, down < 0, columns, rows, 1, 1), letters, True


def made_of(header: FilmHeader, spec: FilmTable) -> Film:
    """Decode one film and fit it into the square of a model.

    Raises `CannotJudge` ``film.…`` or ``decode.undecodable``.
    """
    if min(header.plane.rows, header.plane.columns) < MIN_SIDE:
        raise CannotJudge(
            "film.too-small",
            f"a film of {header.plane.rows} x {header.plane.columns} pixels, at least {MIN_SIDE} each way are needed",
        )
    if header.plane.rows * header.plane.columns > MOST_PIXELS:
        raise CannotJudge("film.too-large", "the film is larger than the node judges")
    try:
        stored = Frames(dcmread(BytesIO(header.item.read()))).stored(1)
    except Quarantine as error:
        raise CannotJudge("decode.undecodable", "the film cannot be decoded") from error
    except Exception:  # not shown: pydicom's texts may print values
        raise CannotJudge("decode.undecodable", "the film cannot be parsed any more") from None
    if stored.shape != header.plane.stored(np.empty((header.plane.rows, header.plane.columns), np.bool_)).shape:
        raise CannotJudge("decode.undecodable", "the film is not of the size that its header says")
    values = header.plane.canonical(stored).astype(np.float32)
    if header.inverted:
        np.negative(values, out=values)
    return fitted(header, values, spec)


def fitted(header: FilmHeader, values: Floats, spec: FilmTable) -> Film:
    """As `made_of`, of canonical pixels (rows, columns) in which dense is bright; they become those of the film."""
    exposed = _exposed(values)
    low, high = (float(v) for v in np.percentile(exposed, (100 * spec.low, 100 * spec.high)))
    if len(np.unique(exposed[(exposed >= low) & (exposed <= high)])) < MIN_STEPS:
        raise CannotJudge("film.blank", "the film has hardly any grey values")
    cut = max(float((exposed <= exposed.min()).mean()), float((exposed >= exposed.max()).mean()))
    if cut > MOST_CUT:
        raise CannotJudge("film.clipped", f"{cut:.0%} of the film is at the end of the scale")
    # In place: a film of 20 million pixels must not lie in memory four times.
    image = values
    image -= np.float32(low)
    image /= np.float32(high - low)
    np.clip(image, 0, 1, out=image)
    rows, columns = image.shape
    side = float(max(rows, columns))
    start = ((rows - side) / 2, (columns - side) / 2)
    wy = area_weights(rows, 1, 0, spec.size, side / spec.size, start[0])
    wx = area_weights(columns, 1, 0, spec.size, side / spec.size, start[1])
    film = Film(header, image, channels(np.clip(wy @ image @ wx.T, 0, 1).astype(np.float32), spec), side, start)
    if spec.check == "chest":
        check_chest(film)
    return film


def channels(square: Floats, spec: FilmTable) -> Floats:
    """The film as the model takes it, float32 (channels, size, size), from its square (size, size) in 0..1."""
    if not spec.detail:
        return square[None]
    reach, size = spec.detail, 2 * spec.detail + 1
    padded = np.pad(square, ((reach + 1, reach), (reach + 1, reach)), mode="edge").astype(np.float64)
    total = padded.cumsum(0).cumsum(1)
    mean = (total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]) / size**2
    detail = np.clip(0.5 + DETAIL_GAIN * (square - mean), 0, 1)
    return np.stack((square, detail)).astype(np.float32)


def _exposed(values: Floats) -> Floats:
    """Pixels that are no collimator: lines of one value at the edges are left out; at most 200,000, evenly."""
    few = values[:: max(1, values.shape[0] // 512), :: max(1, values.shape[1] // 512)]
    for axis in (0, 1):
        flat = np.ptp(few, axis=1 - axis) < 1e-6 * max(1.0, float(np.ptp(few)))
        keep = np.flatnonzero(~flat)
        if not keep.size:
            return few.reshape(-1)
        few = np.take(few, range(keep[0], keep[-1] + 1), axis)
    return few.reshape(-1)


def check_chest(film: Film) -> None:
    """Two darker fields beside a brighter middle, each crossed by ribs, or it is no frontal view of a chest; the belly
    below where the header does not tell. Raises `CannotJudge` ``film.not-a-chest``, ``film.upside-down``."""
    rows = film.image.shape[0]
    bands = np.array_split(film.image[int(0.2 * rows) : int(0.6 * rows)], 24, axis=1)
    across = np.array([float(np.median(band)) for band in bands])
    dark = across[9:15].max() - across >= MIN_CONTRAST
    sides = [[band for band, is_dark in zip(bands[a:b], dark[a:b], strict=True) if is_dark] for a, b in SIDES]
    if not all(sides):
        raise CannotJudge("film.not-a-chest", "there are no two lungs beside a mediastinum")
    if any(np.median([_uneven(band) for band in side]) < MIN_UNEVEN for side in sides):
        raise CannotJudge("film.not-a-chest", "a field beside the middle is empty, as air beside a limb is")
    if film.header.letters[0] == " " and not _upright(film.image):
        raise CannotJudge("film.upside-down", "the film stands on its head, and its header does not say how it lies")


def _uneven(field: Floats) -> float:
    """How much a field changes on the way down, beside a steady slope."""
    down = np.array([float(np.median(part)) for part in np.array_split(field, 32)])
    x = np.arange(len(down))
    return float((down - np.polyval(np.polyfit(x, down, 1), x)).std())


def _upright(image: Floats) -> bool:
    """What lies below the lungs is denser than what lies above, beside the spine."""
    rows, columns = image.shape
    beside = np.r_[int(0.1 * columns) : int(0.38 * columns), int(0.62 * columns) : int(0.9 * columns)]
    above, below = (np.median(image[int(a * rows) : int(b * rows)][:, beside]) for a, b in ((0.05, 0.25), (0.75, 0.95)))
    return bool(below > above)
