"""The key image: the slice as a radiologist windows it, with the finding, the advisory and where it came from."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from edge_node.domain.errors import Stop
from edge_node.domain.finding import ADVISORY, Finding, KeyImage, Verdict
from edge_node.triage.prepare import Floats, Shorts

LARGEST: Final = 512
SMALLEST: Final = 384
WINDOW: Final = (-5.0, 85.0)  # HU: level 40, width 90
_AMBER: Final = (255, 176, 0)
_BOX: Final = (255, 220, 60)


def draw(
    image: Shorts,
    finding: Finding,
    short: str,
    heat: Floats | None,
    letters: tuple[str, str, str, str],
    pixel_aspect: float = 1.0,
    window: tuple[float, float] = WINDOW,
) -> KeyImage:
    """Draw one stored slice in HU (rows, columns), or what `window` is for, with box, heat and banners.

    `heat` is 0..1 on the stored matrix or None; `finding.box` in stored pixels; `letters` are the patient directions
    at the left, right, top and bottom edge; `pixel_aspect` is row spacing / column spacing. The picture is at most
    `LARGEST` wide or high below the banners.
    """
    gray = np.clip((image.astype(np.float32) - window[0]) / (window[1] - window[0]), 0, 1) * 255
    rgb = np.repeat(gray[..., None], 3, axis=2)
    if heat is not None:
        # Translucent and never opaque: what lies under the mark must remain readable.
        alpha = (0.42 * np.clip(heat, 0, 1))[..., None]
        rgb = rgb * (1 - alpha) + np.array([255, 70, 0], np.float32) * alpha
    rows, columns = image.shape
    height = rows * pixel_aspect
    longest = max(height, columns)
    scale = LARGEST / longest if longest > LARGEST else max(1.0, SMALLEST / longest)
    size = (max(1, round(columns * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(rgb.astype(np.uint8)).resize(size, Image.Resampling.LANCZOS)
    if finding.box is not None:
        _frame(picture, finding.box, scale, scale * pixel_aspect)
    _letters(picture, letters)
    return _with_banners(picture, finding, short)


def _frame(picture: Image.Image, box: tuple[int, int, int, int], sx: float, sy: float) -> None:
    top, left, bottom, right = box
    edges = (left * sx - 3, top * sy - 3, right * sx + 2, bottom * sy + 2)
    pen = ImageDraw.Draw(picture)
    pen.rectangle([edges[0] - 1, edges[1] - 1, edges[2] + 1, edges[3] + 1], outline=(0, 0, 0), width=4)
    pen.rectangle(edges, outline=_BOX, width=2)


def _letters(picture: Image.Image, letters: tuple[str, str, str, str]) -> None:
    pen = ImageDraw.Draw(picture)
    w, h = picture.size
    places = ((8, h / 2, "lm"), (w - 8, h / 2, "rm"), (w / 2, 8, "mt"), (w / 2, h - 8, "mb"))
    for letter, (x, y, anchor) in zip(letters, places, strict=True):
        pen.text(
            (x, y), letter, font=_font(16), fill=(230, 230, 230), anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0)
        )


def _with_banners(picture: Image.Image, finding: Finding, short: str) -> KeyImage:
    w, h = picture.size
    model = finding.model
    first = ADVISORY.split(". ", 1)
    flagged = finding.verdict is Verdict.FLAGGED
    verdict = f"{short}: flagged" if flagged else f"{short}: not flagged"
    above = [(first[0] + ".", 14, _AMBER), *((line, 13, _AMBER) for line in first[1:])]
    below = [
        (f"{verdict}   score {finding.probability:.2f}   threshold {finding.threshold:.2f}", 15, (255, 255, 255)),
        (f"{model.name} {model.version} ({model.variant})", 12, (200, 200, 200)),
        (model.label, 12, _AMBER),
    ]
    above_font, below_font = ([_fitting(t, s, w - 16) for t, s, _ in part] for part in (above, below))
    top, bottom = (8 + sum(f.size + 6 for f in fonts) for fonts in (above_font, below_font))
    canvas = Image.new("RGB", (w, int(top + h + bottom)), (0, 0, 0))
    canvas.paste(picture, (0, int(top)))
    pen = ImageDraw.Draw(canvas)
    for part, fonts, y0 in ((above, above_font, 6.0), (below, below_font, top + h + 6.0)):
        y = y0
        for (text, _, colour), font in zip(part, fonts, strict=True):
            pen.text((w / 2, y), text, font=font, fill=colour, anchor="mt")
            y += font.size + 6
    pen.line([(0, top - 1), (w, top - 1)], fill=_AMBER)
    pen.line([(0, top + h), (w, top + h)], fill=_AMBER)
    return KeyImage(canvas.height, canvas.width, canvas.tobytes())


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    if isinstance(font, ImageFont.FreeTypeFont):
        return font
    # A Pillow built without FreeType has one bitmap font of no given size.
    raise Stop("triage.no-font", "Pillow was built without FreeType", hint="pip install --force-reinstall pillow")


def _fitting(text: str, size: int, width: int) -> ImageFont.FreeTypeFont:
    """The largest font up to `size` in which `text` fits `width`: the advisory is never cut off."""
    while size > 6 and _font(size).getlength(text) > width:
        size -= 1
    return _font(size)


def edge_letters(
    along_row: tuple[float, float, float], along_column: tuple[float, float, float]
) -> tuple[str, str, str, str]:
    """Patient directions (PS3.3 C.7.6.1.1.1) at the left, right, top and bottom edge of a stored image."""

    def name(direction: tuple[float, float, float], sign: int) -> str:
        axis = int(np.argmax(np.abs(direction)))
        positive = (direction[axis] * sign) > 0
        return ("LR", "PA", "HF")[axis][0 if positive else 1]

    return name(along_row, -1), name(along_row, 1), name(along_column, -1), name(along_column, 1)


def smooth_heat(cells: Floats, weights_y: Floats, weights_x: Floats) -> NDArray[np.float32]:
    """Cell map (n, n) of 0..1 to canonical pixels (rows, columns) by bilinear weights (rows, n) and (columns, n)."""
    return np.asarray(weights_y @ cells @ weights_x.T, np.float32)


def linear_weights(
    n_pixels: int, pixel_mm: float, start_mm: float, n_cells: int, cell_mm: float, cells_start_mm: float
) -> Floats:
    """Weights (n_pixels, n_cells) that interpolate cell centres at pixel centres; zero outside the cells."""
    place = (start_mm + (np.arange(n_pixels) + 0.5) * pixel_mm - cells_start_mm) / cell_mm - 0.5
    return np.asarray(np.clip(1 - np.abs(place[:, None] - np.arange(n_cells)[None]), 0, 1), np.float32)
