"""Studies with a finding to send, as many as a benchmark needs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import generate_uid

from edge_node.demo.headct import head_ct

_FLAGGED = 5011  # the seed of one with a finding that no model misses


def head(slices: int, rows: int) -> list[Dataset]:
    """The slices of a head CT with a finding."""
    return head_ct(_FLAGGED, "epidural", slices=slices, rows=rows)


def thin(slices: Sequence[Dataset], count: int) -> list[Dataset]:
    """The same head in `count` slices: each is the nearest of those given, at a place of its own."""
    first, last = (ds.ImagePositionPatient for ds in (slices[0], slices[-1]))
    made = []
    for index in range(count):
        ds = copy.deepcopy(slices[index * len(slices) // count])
        share = index / (count - 1)
        ds.ImagePositionPatient = [f"{a + share * (b - a):.4f}" for a, b in zip(first, last, strict=True)]
        ds.SliceThickness = f"{abs(last[2] - first[2]) / (count - 1):.4f}"
        made.append(ds)
    return made


def another(slices: Sequence[Dataset], folder: Path, name: str, **values: str) -> list[Path]:
    """Files of the same study under other UIDs, of another patient, with these values of attributes."""
    folder = folder / name
    folder.mkdir(parents=True)
    study, series, place = (generate_uid() for _ in range(3))
    files = []
    for index, ds in enumerate(slices):
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, place
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.PatientID = ds.AccessionNumber = name
        ds.PatientName = f"Patient^{name}"
        for keyword, value in values.items():
            setattr(ds, keyword, value)
        files.append(folder / f"{index:04}.dcm")
        ds.save_as(files[-1], enforce_file_format=True)
    return files
