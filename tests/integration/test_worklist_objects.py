"""Every kind of evidence against judges nobody here wrote, for one kind of source image after the other."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, DigitalXRayImageStorageForPresentation, EnhancedCTImageStorage
from pynetdicom import evt

from edge_node.domain.finding import WITHDRAWN, WITHDRAWN_UNSAFE, Mask, TriageOutcome, TriageResult, Verdict
from edge_node.worklist.evidence import wanted
from edge_node.worklist.header import CLASSES, REPORTS, report_reference
from edge_node.worklist.writer import Site, Standing, WriteBack
from edge_node.worklist.writers import WRITERS
from tests.integration.needed_tools import need
from tests.integration.peers_commitment import Archive
from tests.integration.test_worklist_evidence import complaints
from tests.results_back import KEY, STUDY_UID, finding, identity, result, write_back

ROWS, COLUMNS = 64, 48
BOX = (10, 12, 20, 24)
SOURCES: dict[str, dict[str, Any]] = {
    "ct": {"SOPClassUID": CTImageStorage, "BodyPartExamined": "HEAD"},
    "dx": {"SOPClassUID": DigitalXRayImageStorageForPresentation, "BodyPartExamined": "CHEST"},
    "enhanced": {"SOPClassUID": EnhancedCTImageStorage, "BodyPartExamined": "HEAD"},
}


def marked() -> Mask:
    """The box as a mask."""
    bits = np.zeros((ROWS, COLUMNS), bool)
    bits[BOX[0] : BOX[2], BOX[1] : BOX[3]] = True
    return Mask(ROWS, COLUMNS, np.packbits(bits, bitorder="little").tobytes())


def header(source: str, **changes: Any) -> Dataset:
    """What the clean object says of itself."""
    made = Dataset()
    made.Rows, made.Columns, made.PhotometricInterpretation = ROWS, COLUMNS, "MONOCHROME2"
    if source == "ct":
        made.ImagePositionPatient, made.ImageOrientationPatient = [-12, -15.5, 40], [1, 0, 0, 0, 0.97, -0.243]
        made.PixelSpacing, made.SliceThickness = [0.5, 0.5], 5
        made.WindowCenter, made.WindowWidth = [40, 600], [80, 2800]
        made.RescaleSlope, made.RescaleIntercept, made.RescaleType = 1, -1024, "HU"
    elif source == "dx":
        made.PhotometricInterpretation = "MONOCHROME1"
        made.WindowCenter, made.WindowWidth = 2048, 4096
    else:
        made.NumberOfFrames = 12
    for keyword, value in changes.items():
        setattr(made, keyword, value)
    return made


def order(source: str = "ct", **change: Any) -> WriteBack:
    """A flagged result with a mark, on that kind of image."""
    image = {**SOURCES[source], "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.77"}
    flagged = result(finding(box=BOX, key_frame=5 if source == "enhanced" else 1))
    assert flagged.key_image is not None
    whole = {
        "identity": identity(image=image),
        "result": replace(flagged, key_image=replace(flagged.key_image, mask=marked())),
        "header": lambda _uid: header(source),
        **change,
    }
    return write_back(**whole)


def made(one: WriteBack, taken: Any = CLASSES) -> dict[str, Dataset]:
    """All that could be stored of it, by kind."""
    things = wanted(one, picture=True, further=("kos", "seg", "gsps"))
    return {choice.kind: choice.make(taken) for thing in things for choice in thing.choices}


@pytest.mark.parametrize("source", SOURCES)
def test_the_validators_find_no_error_in_any_kind_of_evidence(tmp_path: Path, source: str) -> None:
    objects = made(order(source))
    kinds = {*REPORTS, "sc", "kos", "gsps", *(["seg"] if source == "ct" else [])}
    assert set(objects) == kinds
    for kind, one in objects.items():
        file = tmp_path / f"{kind}.dcm"
        one.save_as(file, enforce_file_format=True)
        assert complaints(file) == [], kind
        if one.Modality in ("SR", "KO"):
            shown = subprocess.run([need("dsrdump"), str(file)], capture_output=True, check=True).stdout.decode()
            assert "ADVISORY ONLY" in shown


@pytest.mark.parametrize("reason", [WITHDRAWN, WITHDRAWN_UNSAFE])
def test_a_rejection_note_of_everything_is_valid_and_names_it_all(tmp_path: Path, reason: str) -> None:
    first = made(order())
    standing = tuple(Standing(1, kind, str(one.SOPInstanceUID)) for kind, one in first.items())
    gone = TriageResult(TriageOutcome.SKIPPED, f"{reason}: by hand")
    objects = made(order(result=gone, revision=2, standing=standing, replaces=1))
    assert list(objects) == ["rejection"]
    file = tmp_path / "rejection.dcm"
    objects["rejection"].save_as(file, enforce_file_format=True)
    assert complaints(file) == []
    subprocess.run([need("dsrdump"), str(file)], capture_output=True, check=True)
    note = dcmread(file)
    assert note.ConceptNameCodeSequence[0].CodeValue == {WITHDRAWN: "113001", WITHDRAWN_UNSAFE: "113037"}[reason]
    named = {
        (
            str(item.ReferencedSOPSequence[0].ReferencedSOPClassUID),
            str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID),
        )
        for item in note.ContentSequence
        if "ReferencedSOPSequence" in item
    }
    assert named == {(str(one.SOPClassUID), str(one.SOPInstanceUID)) for one in first.values()}


def test_the_segmentation_lies_where_the_box_is() -> None:
    one = made(order())["seg"]
    bits = np.unpackbits(np.frombuffer(one.PixelData, np.uint8), bitorder="little")[: ROWS * COLUMNS]
    rows, columns = np.nonzero(bits.reshape(ROWS, COLUMNS))
    assert (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1) == BOX
    place = one.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient
    assert [float(value) for value in place] == [-12, -15.5, 40]
    assert one.FrameOfReferenceUID == "1.2.826.0.1.3680043.8.498.77"


def test_the_presentation_state_frames_the_box_and_keeps_the_window() -> None:
    one = made(order())["gsps"]
    points = one.GraphicAnnotationSequence[0].GraphicObjectSequence[0].GraphicData
    assert (min(points[1::2]), min(points[::2]), max(points[1::2]), max(points[::2])) == BOX
    assert (one.SoftcopyVOILUTSequence[0].WindowCenter, one.SoftcopyVOILUTSequence[0].WindowWidth) == (40, 80)
    assert made(order("dx"))["gsps"].PresentationLUTShape == "INVERSE"


@pytest.mark.parametrize(
    "change",
    [{"ImagePositionPatient": None}, {"Rows": 32}, {"PixelSpacing": ["0.5"]}, {"NumberOfFrames": 3}],
)
def test_an_image_that_does_not_say_where_it_lies_gets_no_segmentation(change: dict[str, Any]) -> None:
    assert "seg" not in made(order(header=lambda _uid: header("ct", **change)))


def test_a_picture_the_archive_does_not_take_is_not_named_as_a_key_object() -> None:
    for taken, count in (({"sc"}, 2), ((), 1)):
        note = made(order(), taken)["kos"]
        assert sum("ReferencedSOPSequence" in item for item in note.ContentSequence) == count


def test_what_is_not_flagged_has_no_further_objects() -> None:
    assert set(made(order(result=result(finding(Verdict.NOT_FLAGGED))))) == {*REPORTS, "sc"}


PREFERENCES = [
    ({"sr", "sr-comprehensive", "sr-enhanced", "sc"}, ["sr", "sc"]),
    ({"sr-comprehensive", "sr-enhanced", "sc"}, ["sr-comprehensive", "sc"]),
    ({"sr-enhanced", "sc"}, ["sr-enhanced", "sc"]),
    ({"sc"}, ["sc"]),
    ({"sr"}, ["sr"]),
]


@pytest.mark.parametrize(("taken", "stored"), PREFERENCES)
def test_an_archive_gets_the_best_report_it_negotiates_and_the_outcome_tells_which(
    taken: set[str], stored: list[str]
) -> None:
    with Archive(classes={CLASSES[kind] for kind in taken}) as archive:
        writer = WRITERS["evidence"](Site(archive.peer, None, "EDGENODE", 5))
        first, again = writer.write(order()), writer.write(order())
        assert first == again
        assert [kind for kind, _ in first.objects] == stored
        assert {str(one.SOPClassUID) for one in archive.kept.values()} == {CLASSES[kind] for kind in stored}
        assert first.outcome == ("stored" if stored == ["sr", "sc"] else "stored-less")


def test_a_report_that_is_refused_for_good_is_told_in_an_older_kind() -> None:
    refused: list[str] = []
    with Archive() as archive:
        keep: Callable[[Any], int] = archive._store

        def picky(event: Any) -> int:
            if event.request.AffectedSOPClassUID == CLASSES["sr"]:
                refused.append(str(event.request.AffectedSOPInstanceUID))
                return 0x0122
            return keep(event)

        archive._server.bind(evt.EVT_C_STORE, picky)
        report = WRITERS["evidence"](Site(archive.peer, None, "EDGENODE", 5)).write(order())
    assert len(refused) == 1
    assert [kind for kind, _ in report.objects] == ["sr-comprehensive", "sc"]


def test_a_revision_names_the_report_it_replaces_whatever_kind_it_was() -> None:
    earlier = report_reference(KEY, STUDY_UID, 1, "sr-enhanced")
    standing = (Standing(1, "sr-enhanced", earlier.sop_uid), Standing(1, "sc", "1.2.3"))
    one = made(order(revision=2, replaces=1, standing=standing))["sr"]
    series = one.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == earlier.series_uid
    named = series.ReferencedSOPSequence[0]
    assert (named.ReferencedSOPClassUID, named.ReferencedSOPInstanceUID) == (earlier.sop_class, earlier.sop_uid)


def test_after_a_withdrawal_a_new_result_replaces_nothing_and_is_withdrawn_alone() -> None:
    standing = (Standing(1, "sr", "1.2.1"), Standing(2, "rejection", "1.2.2"))
    assert "PredecessorDocumentsSequence" not in made(order(revision=3, standing=standing))["sr"]
    gone = TriageResult(TriageOutcome.NOT_APPLICABLE, "triage.no-series")
    assert made(order(result=gone, revision=3, standing=standing)) == {}
    standing += (Standing(3, "sr", "1.2.3"),)
    [note] = made(order(result=gone, revision=4, standing=standing)).values()
    evidence = note.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in evidence] == ["1.2.3"]


def test_nothing_of_the_pseudonym_is_in_any_object() -> None:
    top = order().result.top
    assert top is not None
    for one in made(order()).values():
        text = str(one)
        assert top.key_sop_uid not in text
        assert top.series_uid not in text
