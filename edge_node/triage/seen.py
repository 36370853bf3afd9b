"""What the input of a result was like, in a few numbers and two words: for the watch over drift. No patient in it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from edge_node.triage.prepare import Shorts

Facts = tuple[tuple[str, str | float], ...]

WORDS: Final = ("scanner", "protocol")
_MOST_SLICES: Final = 16
_TAGS: Final = ["Manufacturer", "ManufacturerModelName", "ProtocolName", "ConvolutionKernel", "SliceThickness"]
_SOFT: Final = (-150, 250)  # HU


def seen_of(read: Callable[[], bytes], volume: Shorts) -> Facts:
    """Facts of one series: `read` gives a clean object of it, `volume` is HU, int16 (slices, rows, columns).

    Words: scanner (maker and model), protocol (a hash: it is free text, which has no place in the ledger).
    Numbers: see `numbers_of`, and the slice thickness in mm.
    """
    words, extra = _headers_of(read)
    return (*words, *numbers_of(volume), *extra)


def seen_of_film(read: Callable[[], bytes], image: NDArray[np.float32]) -> Facts:
    """Facts of a radiograph: `image` is float32 (rows, columns) in 0..1, dense bright. Words as above."""
    words, _ = _headers_of(read)
    few = image[:: max(1, image.shape[0] // 512), :: max(1, image.shape[1] // 512)]
    return (
        *words,
        ("film middle", round(float(np.median(few)), 4)),
        ("film spread", round(float(few.std()), 4)),
        ("film noise", round(float(np.median(np.abs(np.diff(few, axis=1)))), 5)),
    )


def _headers_of(read: Callable[[], bytes]) -> tuple[Facts, Facts]:
    try:
        ds = dcmread(BytesIO(read()), stop_before_pixels=True, specific_tags=list(_TAGS))
        thickness = ds.get("SliceThickness")
        extra = (("slice mm", float(thickness)),) if thickness not in (None, "") else ()
        return (("scanner", scanner_of(ds)), ("protocol", protocol_of(ds))), extra
    except Exception:  # the watch must never cost a result; pydicom's texts may print values
        return (("scanner", ""), ("protocol", "")), ()


def scanner_of(ds: Dataset) -> str:
    """Maker and model as far as the de-identification left them: letters, digits and dots."""
    text = " ".join(str(ds.get(name) or "") for name in ("Manufacturer", "ManufacturerModelName"))
    return " ".join(re.sub(r"[^A-Za-z0-9.+-]+", " ", text).split())[:48]


def protocol_of(ds: Dataset) -> str:
    """Protocol and kernel as a short hash, "" if the object says neither."""
    text = "\n".join(str(ds.get(name) or "").strip().upper() for name in ("ProtocolName", "ConvolutionKernel"))
    return f"p-{hashlib.sha256(text.encode()).hexdigest()[:8]}" if text.strip() else ""


def numbers_of(volume: Shorts) -> Facts:
    """Of soft tissue (-150 to 250 HU): mean, spread and noise; shares of air and of what is denser; the slices."""
    part = volume[:: -(-len(volume) // _MOST_SLICES)]
    low, high = _SOFT
    air = dense = count = total = squares = pairs = steps = 0
    for image in part:  # one by one: sums of whole numbers are exact, and a copy of all of them would be new memory
        soft = (image > low) & (image < high)
        values = image[soft].astype(np.int64)
        count, total, squares = count + values.size, total + int(values.sum()), squares + int(values @ values)
        air += int(np.count_nonzero(image < -700))
        dense += int(np.count_nonzero(image >= high))
        both = soft[:, 1:] & soft[:, :-1]
        between = np.minimum(np.abs(np.diff(image, axis=1)[both]), 60)  # HU fit: no step is too wide for int16
        pairs, steps = pairs + between.size, steps + int(between.sum(dtype=np.int64))
    told: list[tuple[str, str | float]] = [
        ("air share", round(air / part.size, 4)),
        ("dense share", round(dense / part.size, 4)),
        ("slices", float(len(volume))),
    ]
    if count >= 100:
        mean = total / count
        told += [
            ("soft HU", round(mean, 2)),
            ("soft spread HU", round(max(0.0, squares / count - mean * mean) ** 0.5, 2)),
            # The mean step between neighbours of white noise is 1.128 of its deviation; edges are cut off.
            ("noise HU", round(steps / pairs / 1.128, 2) if pairs else 0.0),
        ]
    return tuple(told)
