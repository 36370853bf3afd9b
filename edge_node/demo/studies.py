"""The demo's patients' studies: synthetic head CTs and a chest film with known truth, real objects, one broken one.

The real objects come out of the pydicom package itself, so nothing is downloaded; they get fictional identities.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np
import pydicom
from pydicom import Dataset, dcmread
from pydicom.uid import JPEG2000Lossless, RLELossless, generate_uid

from edge_node.demo.chestfilm import chest_film
from edge_node.demo.headct import head_ct
from edge_node.demo.identities import Identity, identity

NOT_APPLICABLE: Final = "n/a"
_REAL_OBJECTS = Path(pydicom.__file__).parent / "data" / "test_files"
_DAY = date(2026, 3, 9)
_DICOM_PRIORITY = {"STAT": "STAT", "URGENT": "HIGH", "ROUTINE": "ROUTINE"}  # Requested Procedure Priority (0040,1003)


@dataclass(frozen=True, slots=True)
class DemoStudy:
    """One study as the hospital has it, identified, with the truth about it.

    `truth` is a phantom kind, None (nothing was put in) or ``n/a`` (no shipped model is meant for it); `expected` is
    triage, not-applicable or quarantine; `files` are in sending order; `arrival` counts from 1; `order_priority` is
    STAT, URGENT or ROUTINE; `note` says what is special about it.
    """

    arrival: int
    kind: str
    description: str
    truth: str | None
    expected: str
    modality: str
    calling_ae: str
    order_priority: str
    note: str
    study_uid: str
    files: tuple[Path, ...] = field(repr=False)
    patient: Identity = field(repr=False)
    needles: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Plan:
    kind: str
    description: str
    modality: str
    calling_ae: str
    priority: str = "ROUTINE"
    truth: str | None = NOT_APPLICABLE
    note: str = ""
    tilt: float = 0.0
    syntax: str = ""
    shuffled: bool = False
    sources: tuple[str, ...] = ()


# In arrival order: what is urgent comes late, as it does in life.
_PLANS: Final = (
    _Plan("head-ct", "CT head without contrast", "CT", "CT_ROOM1", truth=None),
    _Plan(
        "cr",
        "Cervical spine, 3 views",
        "CR",
        "CR_ROOM1",
        note="real object",
        sources=tuple(f"dicomdirtests/77654033/{n}" for n in ("CR1/6154", "CR2/6247", "CR3/6278")),
    ),
    _Plan("head-ct", "CT head, gantry tilted", "CT", "CT_ROOM2", truth=None, note="gantry tilt", tilt=12.0),
    _Plan("mr", "MR abdomen", "MR", "MR_ROOM1", note="real object with overlay", sources=("examples_overlay.dcm",)),
    _Plan("head-ct", "CT head after fall", "CT", "CT_ROOM1", "URGENT", None, "RLE lossless", syntax=str(RLELossless)),
    _Plan(
        "head-ct",
        "CT head, headache",
        "CT",
        "CT_ROOM2",
        truth="subdural",
        note="JPEG 2000 lossless, sent out of order",
        syntax=str(JPEG2000Lossless),
        shuffled=True,
    ),
    _Plan("us", "US abdomen", "US", "US_CART1", note="real object", sources=("examples_rgb_color.dcm",)),
    _Plan("malformed", "CT head, transfer broke off", "CT", "CT_ROOM1", note="pixel data cut off"),
    _Plan("head-ct", "CT head, confusion", "CT", "CT_ROOM1", truth="intraparenchymal", note="no priority on the order"),
    _Plan("head-ct", "CT head, follow-up", "CT", "CT_ROOM2", truth=None),
    _Plan("ct", "CT, single slice", "CT", "CT_ROOM2", note="real object", sources=("CT_small.dcm",)),
    _Plan("head-ct", "CT head after accident", "CT", "CT_ROOM1", "URGENT", "epidural"),
    _Plan("mr", "MR brain", "MR", "MR_ROOM1", note="real object", sources=("MR_small.dcm",)),
    _Plan("head-ct", "CT head, vomiting", "CT", "CT_ROOM2", truth="intraventricular"),
    _Plan("chest-film", "Chest PA, sudden dyspnoea", "CR", "CR_ROOM1", truth="pneumothorax", note="MONOCHROME1"),
)


def make_studies(out: Path, seed: int, *, slices: int = 24, rows: int = 256) -> list[DemoStudy]:
    """Write the demo's studies below `out`, one folder each, and say what they are, in arrival order.

    The same `seed` gives the same patients, UIDs and pixels. `slices` and `rows` are those of the head CTs; a film has
    three times the rows.
    """

    def make(number: int) -> DemoStudy:
        return _make(out / f"study-{number + 1:02d}", seed, number, slices, rows)

    with ThreadPoolExecutor(2) as pool:  # numpy lets go of the interpreter lock for most of a phantom
        return list(pool.map(make, range(len(_PLANS))))


def _make(folder: Path, seed: int, number: int, slices: int, rows: int) -> DemoStudy:
    plan, patient = _PLANS[number], identity(seed, number)
    folder.mkdir(parents=True, exist_ok=True)
    if plan.sources:
        objects = [dcmread(_REAL_OBJECTS / source) for source in plan.sources]
        for ds in objects:
            ds.decode()  # texts are in the file's character set, soon no longer named
        _renew_uids(objects, seed, number)
    elif plan.kind == "chest-film":
        objects = [chest_film(seed * 1000 + number, plan.truth, rows=3 * rows, inverted=True)]
    else:
        kind = plan.truth if plan.kind == "head-ct" else None
        count = 3 if plan.kind == "malformed" else slices
        objects = head_ct(seed * 1000 + number, kind, slices=count, rows=rows, tilt_degrees=plan.tilt)
        if plan.kind == "malformed":
            objects = objects[:1]
    for ds in objects:
        _identify(ds, plan, patient, number)
        if plan.syntax:
            ds.compress(plan.syntax, generate_instance_uid=False)
    files = []
    for index, ds in enumerate(objects):
        path = folder / f"{index:04d}.dcm"
        ds.save_as(path, enforce_file_format=True)
        files.append(path)
    if plan.kind == "malformed":
        raw = files[0].read_bytes()
        files[0].write_bytes(raw[: len(raw) * 6 // 10 // 2 * 2])
    if plan.shuffled:
        files = [files[i] for i in np.random.default_rng([seed, number]).permutation(len(files))]
    expected = {"head-ct": "triage", "chest-film": "triage", "malformed": "quarantine"}.get(plan.kind, "not-applicable")
    return DemoStudy(
        arrival=number + 1,
        kind=plan.kind,
        description=plan.description,
        truth=plan.truth,
        expected=expected,
        modality=plan.modality,
        calling_ae=plan.calling_ae,
        order_priority=plan.priority,
        note=plan.note,
        study_uid=str(objects[0].StudyInstanceUID),
        files=tuple(files),
        patient=patient,
        needles=(*patient.needles(), *_uids(objects)),
    )


def _renew_uids(objects: Iterable[Dataset], seed: int, number: int) -> None:
    """Give real objects fresh Study, Series, Instance and Frame of Reference UIDs, the same for the same old ones."""
    for ds in objects:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
            if keyword in ds:
                kind = keyword if keyword == "SOPInstanceUID" else keyword[:5]
                setattr(ds, keyword, generate_uid(entropy_srcs=[str(seed), str(number), kind, str(ds[keyword].value)]))
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID


def _uids(objects: Iterable[Dataset]) -> list[str]:
    keywords = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")
    return list(dict.fromkeys(str(ds[k].value) for k in keywords for ds in objects if ds.get(k)))


def _identify(ds: Dataset, plan: _Plan, patient: Identity, number: int) -> None:
    """Write patient, order, staff and place into the object, at the top, in sequences and in a private block."""
    hour, minute = 8 + (number * 7) // 60, (number * 7) % 60
    moment = f"{hour:02d}{minute:02d}12.250000"
    ds.SpecificCharacterSet = list(patient.charset) if len(patient.charset) > 1 else (patient.charset or ("",))[0]
    ds.PatientName, ds.PatientID, ds.IssuerOfPatientID = patient.name, patient.patient_id, patient.issuer
    ds.OtherPatientIDsSequence = [
        _item(PatientID=patient.other_id, IssuerOfPatientID=patient.issuer, TypeOfPatientID="TEXT")
    ]
    ds.PatientBirthDate, ds.PatientSex = patient.birth_date.strftime("%Y%m%d"), patient.sex
    ds.PatientAge = f"{(_DAY - patient.birth_date).days // 365:03d}Y"
    ds.PatientAddress, ds.PatientTelephoneNumbers = patient.address, patient.phone
    ds.PatientComments = f"Contact {patient.phone}, known as {patient.patient_id}"
    ds.AccessionNumber, ds.StudyID, ds.AdmissionID = patient.accession, patient.study_id, patient.admission_id
    ds.PlacerOrderNumberImagingServiceRequest = patient.placer_order
    ds.FillerOrderNumberImagingServiceRequest = patient.filler_order
    ds.RequestedProcedurePriority = _DICOM_PRIORITY[plan.priority]
    ds.ReferringPhysicianName, ds.RequestingPhysician = patient.referring, patient.requesting
    ds.ReferringPhysicianTelephoneNumbers = patient.phone
    ds.OperatorsName, ds.InstitutionName, ds.StationName = patient.operator, patient.institution, patient.station
    ds.InstitutionAddress, ds.InstitutionalDepartmentName = f"{patient.address}, Annex", "Radiology"
    ds.StudyDescription, ds.Modality = plan.description, plan.modality
    for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        setattr(ds, keyword, _DAY.strftime("%Y%m%d"))
    for keyword in ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"):
        setattr(ds, keyword, moment)
    ds.RequestAttributesSequence = [
        _item(
            AccessionNumber=patient.accession,
            RequestedProcedureID=patient.procedure_id,
            ScheduledProcedureStepID="SPS1",
            RequestedProcedureDescription=plan.description,
            StudyInstanceUID=ds.StudyInstanceUID,
            ReasonForTheRequestedProcedure=f"Asked for by {patient.requesting.split('^')[0]}",
        )
    ]
    ds.OriginalAttributesSequence = [
        _item(
            AttributeModificationDateTime=f"{_DAY:%Y%m%d}071500",
            ModifyingSystem=patient.station,
            SourceOfPreviousValues=patient.issuer,
            ReasonForTheAttributeModification="CORRECT",
            ModifiedAttributesSequence=[_item(PatientID=patient.other_id, PatientName=patient.name)],
        )
    ]
    block = ds.private_block(0x0099, "TOYSCANNER HEADER 01", create=True)
    block.add_new(0x10, "LO", patient.patient_id)
    block.add_new(0x11, "PN", patient.name)
    block.add_new(0x12, "LO", f"{patient.operator.split('^')[0]} {patient.phone}")
    block.add_new(0x20, "DS", "1.25")


def _item(**attributes: object) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item
