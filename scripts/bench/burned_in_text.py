"""How much burned-in text is masked, and how much is masked where none is. Prints a table; exit 1 below the floor.

Text of several fonts, sizes and contrasts is drawn into CT, MR, radiographs and ultrasound of pydicom's test files, as
MONOCHROME1, MONOCHROME2, RGB, YBR_FULL and PALETTE COLOR; each goes through the masking loop of the pixel step.
Coverage counts pixels of visible ink (at least 60 of 255 from the ground) that ended inside a mask; an image counts as
clean when at least 95 % of its ink did. False masks are the part of clean images that got masked.
Needs the extra `ocr` (or --model FILE) and pydicom-data; `--pictures DIR` writes before and after.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.pixels import convert_color_space
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from edge_node.deid.burned_in import mask_text
from edge_node.deid.pixels import Picture
from edge_node.deid.text_detector import TextDetector, model_path

GROUNDS = {
    "CT": ["CT_small.dcm", "693_UNCI.dcm", "J2K_pixelrep_mismatch.dcm"],
    "MR": ["MR2_UNCI.dcm", "MR_small.dcm"],
    "CR": ["RG1_UNCI.dcm", "RG3_UNCI.dcm"],
}
KINDS = ("MONOCHROME2", "MONOCHROME1", "RGB", "YBR_FULL", "PALETTE COLOR")
LINES = ("DOE^JOHN 12.03.1957", "St. Elsewhere Hospital", "MRN 4471120", "Müller, Anna  F", "2024-02-29 10:15")
SPOTS = ((0.02, 0.03), (0.52, 0.05), (0.03, 0.90), (0.40, 0.48))
SIZES, INKS = (10, 14, 20, 32, 56), (255, 190, 130)
FLOOR = 0.95


def fonts() -> list[Path | None]:
    """DejaVu faces where matplotlib brought them; Pillow's own (None) always."""
    try:
        import matplotlib as mpl

        folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    except ImportError:
        return [None]
    names = ("DejaVuSans.ttf", "DejaVuSansMono.ttf", "DejaVuSerif.ttf", "DejaVuSans-Bold.ttf")
    return [None, *(folder / name for name in names if (folder / name).exists())]


def ground(name: str) -> np.ndarray | None:
    """A clean image as displayed, 8 bits, at most 1024 and at least 256 pixels wide; None where it is not installed."""
    path = get_testdata_file(name, download=False)
    if path is None:
        return None
    ds = dcmread(str(path))
    values = ds.pixel_array.astype(np.float32)
    low, high = np.percentile(values, (0.5, 99.5))
    grey = ((values - low) / max(high - low, 1) * 255).clip(0, 255)
    grey = 255 - grey if ds.PhotometricInterpretation == "MONOCHROME1" else grey
    side = min(max(256, grey.shape[1]), 1024)
    image = Image.fromarray(grey.astype(np.uint8))
    return np.asarray(image.resize((side, round(side * grey.shape[0] / grey.shape[1])), Image.Resampling.BICUBIC))


def part10(shown: np.ndarray, kind: str) -> bytes:
    """A Part 10 object that displays as `shown` (rows, columns)."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.PhotometricInterpretation, ds.SamplesPerPixel = kind, 1
    ds.Rows, ds.Columns = shown.shape
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    stored = shown
    if kind == "MONOCHROME2":
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        stored = (shown.astype("<i2") - 100) * 9
    elif kind == "MONOCHROME1":
        stored = 255 - shown
    elif kind == "PALETTE COLOR":
        table = np.arange(255, -1, -1, dtype=np.uint8)
        for colour in ("Red", "Green", "Blue"):
            setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
            setattr(ds, f"{colour}PaletteColorLookupTableData", (table.astype("<u2") * 257).tobytes())
        stored = 255 - shown
    else:
        ds.SamplesPerPixel, ds.PlanarConfiguration = 3, 0
        stored = np.repeat(shown[:, :, None], 3, axis=2)
        if kind == "YBR_FULL":
            stored = convert_color_space(stored, "RGB", "YBR_FULL")
    data = np.ascontiguousarray(stored).tobytes()
    ds.add_new(0x7FE00010, "OW" if ds.BitsAllocated == 16 else "OB", data + b"\0" * (len(data) % 2))
    out = DicomBytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


def written_on(shown: np.ndarray, size: int, ink: int, font: Path | None, rng: np.random.Generator) -> np.ndarray:
    """The image with four lines of text."""
    face = ImageFont.load_default(size) if font is None else ImageFont.truetype(str(font), size)
    image = Image.fromarray(shown)
    draw = ImageDraw.Draw(image)
    for x, y in SPOTS:
        top = min(int(y * shown.shape[0]), shown.shape[0] - size - 8)
        draw.text((int(x * shown.shape[1]), top), LINES[rng.integers(len(LINES))], fill=ink, font=face)
    return np.asarray(image)


def main(arguments: list[str]) -> int:
    """Exit code: 0 coverage at or above the floor, 1 below, 2 no model or no images."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", type=Path, default=model_path())
    options.add_argument("--pictures", type=Path)
    options.add_argument("--every", type=int, default=1, help="take every n-th case")
    options.add_argument("--seed", type=int, default=1, help="other fonts, lines and kinds for the same sizes and inks")
    asked = options.parse_args(arguments)
    grounds = [(m, n, g) for m, names in GROUNDS.items() for n in names if (g := ground(n)) is not None]
    grounds.append(("screen", "black", np.zeros((480, 640), np.uint8)))
    if asked.model is None or len(grounds) < 2:
        print("needs the extra `ocr` (or --model) and pydicom-data", file=sys.stderr)
        return 2
    finder, rng, faces = TextDetector(asked.model), np.random.default_rng(asked.seed), fonts()
    false, told = {}, defaultdict(lambda: [0, 0, 0, 0])
    for modality, name, shown in grounds:
        picture = Picture(part10(shown, "MONOCHROME2"))
        pixels, _ = mask_text(picture, finder)
        false[f"{modality} {name}"] = pixels / shown.size
    number = 0
    for modality, _, shown in grounds:
        for size in SIZES:
            for ink in INKS:
                number += 1
                if number % asked.every:
                    continue
                kind, font = KINDS[(number + asked.seed) % len(KINDS)], faces[rng.integers(len(faces))]
                drawn = written_on(shown, size, ink, font, rng)
                visible = np.abs(drawn.astype(int) - shown) >= 60
                if not visible.any():
                    continue
                picture = Picture(part10(drawn, kind))
                _, checked = mask_text(picture, finder)
                hit, ink_pixels = int((visible & picture._touched).sum()), int(visible.sum())
                for key in ("all", modality, kind, f"{size} px", f"ink {ink}"):
                    row = told[key]
                    row[0] += hit
                    row[1] += ink_pixels
                    row[2] += hit >= 0.95 * ink_pixels
                    row[3] += 1
                if asked.pictures:
                    asked.pictures.mkdir(parents=True, exist_ok=True)
                    pair = np.hstack([drawn, picture.look(0, 0, 100)[:, :, 0]])
                    label = f"{number:03}-{modality}-{kind.split()[0]}-{size}-{ink}-{100 * hit // ink_pixels}"
                    Image.fromarray(pair).save(asked.pictures / f"{label}{'' if checked else '-held'}.png")
    print(f"{'':16} ink masked   images with 95 % of their ink masked")
    for key, (hit, ink_pixels, whole, images) in told.items():
        print(f"{key:16} {hit / ink_pixels:8.1%}   {whole} of {images}")
    print("\nfalse masks on clean images")
    for key, part in false.items():
        print(f"{key:36} {part:.2%}")
    return 0 if told["all"][0] >= FLOOR * told["all"][1] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
