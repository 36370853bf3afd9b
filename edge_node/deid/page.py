"""`edge-node deid report`: one self-contained page that a privacy officer can read. Holds no value of any header."""

from __future__ import annotations

import base64
import html
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import dcmread

from edge_node.deid.method import CODE_MEANINGS
from edge_node.deid.survey import ACTIONS, Survey

_SIDE = 320  # pixels of a sample picture
_MEANS = {
    "X": "remove",
    "Z": "empty, or a dummy value",
    "D": "a dummy value",
    "U": "a new UID",
    "K": "keep",
    "C": "clean",
}
_STYLE = """
:root{color-scheme:light}body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;
color:#1b1f24}
h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2rem 0 .5rem}table{border-collapse:collapse;width:100%}
td,th{padding:.25rem .6rem;border-bottom:1px solid #e3e6ea;text-align:left;vertical-align:top}th{font-weight:600}
td:first-child{overflow-wrap:anywhere}th.n,td.n{text-align:right;font-variant-numeric:tabular-nums}.z{color:#b8bec6}.bad{color:#a4161a}.good{color:#1b6e3c}
.cards{display:flex;gap:1rem;flex-wrap:wrap;margin:1rem 0}
.card{border:1px solid #d5d9de;border-radius:.5rem;padding:.6rem 1rem}
.card b{display:block;font-size:1.5rem}
.pair{display:flex;gap:1rem}figure{margin:.5rem 0;flex:0 1 20rem}figcaption{color:#57606a}
img{max-width:100%;background:#000}code{font-size:.9em}@media print{h2{break-after:avoid}tr{break-inside:avoid}}
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """One object before and after: PNG bytes, "" where the pixels cannot be shown; what the pixel step did, "" where
    it did nothing; whether the stored pixel values are equal; errors that dciodvfy finds, None without it."""

    modality: str
    pixels: str
    before: bytes
    after: bytes
    equal: bool
    errors_before: int | None
    errors_after: int | None


def sample_of(path: Path, part10: bytes, pixels: str) -> Sample:
    """Look at one object on both sides of the wall."""
    before, after = path.read_bytes(), part10
    old, new = dcmread(BytesIO(before), force=True), dcmread(BytesIO(after))
    equal = _values(old) == _values(new)
    return Sample(
        str(new.get("Modality", "")), pixels, _png(old), _png(new), equal, iod_errors(before), iod_errors(after)
    )


def _values(ds: object) -> bytes:
    data = getattr(ds, "PixelData", b"")
    size = getattr(ds, "Rows", 0) * getattr(ds, "Columns", 0)
    try:
        return bytes(ds.pixel_array.tobytes()) if data and size else b""  # type: ignore[attr-defined]
    except Exception:  # no decoder, or pixels that none can read: compare what is stored
        return bytes(data)


def _png(ds: object) -> bytes:
    try:
        array = np.asarray(ds.pixel_array)  # type: ignore[attr-defined]
    except Exception:
        return b""
    colour = array.ndim > 2 and array.shape[-1] == 3
    while array.ndim > (3 if colour else 2):
        array = array[len(array) // 2]
    low, high = np.percentile(array, (1, 99.5))
    scaled = np.clip((array.astype(np.float32) - low) / max(float(high - low), 1), 0, 1) * 255
    picture = Image.fromarray(scaled.astype(np.uint8))
    picture.thumbnail((_SIDE, _SIDE))
    out = BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def iod_errors(part10: bytes) -> int | None:
    """Errors that dciodvfy finds in a DICOM file; None if it is not installed.

    It reads memory without a name: an object that is held back may show identity, and never lies on a disk for this.
    """
    program = shutil.which("dciodvfy")
    if program is None:
        return None
    memory = os.memfd_create("validated", os.MFD_CLOEXEC)
    with os.fdopen(memory, "wb") as file:
        file.write(part10)
        file.flush()
        words = [program, f"/proc/self/fd/{memory}"]
        done = subprocess.run(words, capture_output=True, check=False, timeout=60, pass_fds=(memory,))
    return sum(line.startswith(b"Error") for line in (done.stderr + done.stdout).splitlines())


def page(seen: Survey, samples: Sequence[Sample], *, recipe: str, sha256: str, claims: Sequence[str]) -> str:
    """The page as HTML: what was held back first, then what left, by class and attribute; pixels; validity."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>De-identification report</title><style>{_STYLE}</style>",
        "<h1>De-identification report</h1>",
        f"<p>Recipe <b>{html.escape(recipe)}</b>, sha256 <code>{sha256[:32]}…</code>. "
        "No value of any header is in this page.</p>",
        _cards(seen),
        _held(seen),
        "<h2>What the recipe claims (PS3.16 CID 7050)</h2><ul>",
        *(f"<li>{code} {html.escape(CODE_MEANINGS[code])}</li>" for code in claims),
        "</ul>",
        _classes(seen),
        _samples(samples),
        _attributes(seen),
    ]
    return "\n".join(parts) + "\n</html>\n"


def _cards(seen: Survey) -> str:
    private = sum(n for a, c in seen.counts.items() if a.kind == "private" for k, n in c.items() if k == "removed")
    cards = (
        (seen.files, "files looked at"),
        (seen.clean, "came out clean"),
        (len(seen.held), "held back"),
        (sum(n for done, n in seen.pixels.items() if "masked" in done or "defaced" in done), "with masked pixels"),
        (sum(seen.risks.values()), "whose pixels hint at text"),
        (private, "private elements removed"),
    )
    return "<div class=cards>" + "".join(f"<div class=card><b>{n}</b>{what}</div>" for n, what in cards) + "</div>"


def _held(seen: Survey) -> str:
    if not seen.held:
        return "<h2>Residual findings</h2><p class=good>None: every object passed the independent check.</p>"
    count = Counter((one.code, one.reason) for one in seen.held)
    rows = [[html.escape(code), html.escape(reason), n] for (code, reason), n in count.most_common()]
    return "<h2 class=bad>Residual findings and what else was held back</h2>" + _table(
        ("code", "reason", "objects"), rows
    )


def _classes(seen: Survey) -> str:
    total: dict[str, Counter[str]] = {}
    for attribute, counts in seen.counts.items():
        total.setdefault(attribute.kind, Counter()).update(counts)
    rows = [[kind, *(counts[action] for action in ACTIONS)] for kind, counts in sorted(total.items())]
    return "<h2>By class of attribute</h2>" + _table(("class", *ACTIONS), rows)


def _samples(samples: Sequence[Sample]) -> str:
    if not samples:
        return ""
    checked = [s for s in samples if s.errors_before is not None and s.errors_after is not None]
    worse = sum((s.errors_after or 0) > (s.errors_before or 0) for s in checked)
    said = (
        f"{len(checked)} objects were validated with dciodvfy: in {worse} there were more errors after than before."
        if checked
        else "dciodvfy is not installed; IOD validity was not checked."
    )
    pairs = []
    for one in samples:
        figures = []
        for when, png in (("before", one.before), ("after", one.after)):
            if png:
                url = "data:image/png;base64," + base64.b64encode(png).decode()
                same = "pixel values equal" if one.equal else "pixel values differ"
                name = html.escape(one.modality)
                done = f"; {html.escape(_said(one.pixels))}" if when == "after" and one.pixels else ""
                caption = f"<figcaption>{name}, {when}; {same}{done}</figcaption>"
                figures.append(f"<figure><img alt='{name} {when}' src='{url}'>{caption}</figure>")
        pairs.append(f"<div class=pair>{''.join(figures)}</div>")
    return f"<h2>Pixels and validity</h2><p>{said}</p>" + "".join(pairs)


def _said(pixels: str) -> str:
    """``review:masked+defaced`` in words."""
    kind, _, done = pixels.rpartition(":")
    return done.replace("+", " and ") + (", waits for a human" if kind == "review" else ", held back" if kind else "")


def _attributes(seen: Survey) -> str:
    rows = []
    for attribute, counts in seen.rows():
        asked = attribute.basic
        meant = ", ".join(_MEANS[letter] for letter in asked.split("/") if letter in _MEANS)
        rows.append(
            [html.escape(attribute.name), attribute.kind, asked, meant, *(counts[action] for action in ACTIONS)]
        )
    head = ("attribute", "class", "E.1-1", "which means", *ACTIONS)
    return "<h2>Every attribute that was there</h2>" + _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    def cell(value: object) -> str:
        if isinstance(value, int):
            return f"<td class='n{'' if value else ' z'}'>{value}"
        return f"<td>{value}"

    counted = (*ACTIONS, "objects")
    top = "".join(f"<th class=n>{name}" if name in counted else f"<th>{name}" for name in head)
    return f"<table><tr>{top}" + "".join("<tr>" + "".join(map(cell, row)) for row in rows) + "</table>"
