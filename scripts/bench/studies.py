"""Studies with a finding to send, as many as a benchmark needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from edge_node.demo.studies import make_studies

_FLAGGED = 12  # of the demo's studies, by arrival


def head(folder: Path, slices: int, rows: int) -> list[Dataset]:
    """The slices of a head CT with a finding."""
    [study] = [one for one in make_studies(folder, 5, slices=slices, rows=rows) if one.arrival == _FLAGGED]
    return [dcmread(path) for path in study.files]


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
        ds.save_as(files[-1])
    return files
