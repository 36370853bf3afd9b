"""Results on their way back to the PACS: envelopes, findings and key images as the node makes them, all invented."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from edge_node.domain.finding import Code, Finding, KeyImage, ModelIdentity, TriageOutcome, TriageResult, Verdict
from edge_node.domain.worklist import Priority
from edge_node.worklist.evidence import Choice, Wanted, wanted
from edge_node.worklist.header import CLASSES
from edge_node.worklist.identity import WriteBackIdentity
from edge_node.worklist.priority import decide
from edge_node.worklist.writer import WriteBack
from tests.clean_objects import uid_of

KEY = bytes(range(32))
MADE_AT = datetime(2026, 11, 21, 9, 31, 7, tzinfo=UTC)
STUDY_UID = "1.2.826.0.1.3680043.8.498.1001"
SERIES_UID = "1.2.826.0.1.3680043.8.498.2001"
PATIENT: dict[str, Any] = {
    "PatientName": "Żółć^Łucja",
    "PatientID": "MRN-77310",
    "IssuerOfPatientID": "HOSPITAL-A",
    "PatientBirthDate": "19570313",
    "PatientSex": "F",
    "PatientAge": "068Y",
    "StudyInstanceUID": STUDY_UID,
    "StudyDate": "20261121",
    "StudyTime": "101500",
    "StudyID": "S-551",
    "AccessionNumber": "ACC-551",
    "ReferringPhysicianName": "Kowalska^Anna",
    "StudyDescription": "CT HEAD WO",
    "AdmissionID": "VISIT-9",
    "PlacerOrderNumberImagingServiceRequest": "PLACER-3",
    "FillerOrderNumberImagingServiceRequest": "FILLER-4",
    "RequestingPhysician": "Nowak^Jan",
}
JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"
MODEL = ModelIdentity(
    "ref-ct-head-hyperdensity",
    "1.0.0",
    "ab" * 32,
    "int8",
    "reference model, synthetic training data, not for clinical use",
)


def original_uid(number: int) -> str:
    """SOP Instance UID as received of image `number`, counted from 1."""
    return f"1.2.826.0.1.3680043.8.498.3001.{number}"


def pseudonym(number: int) -> str:
    """The same image as triage knows it."""
    return uid_of("pseudonym", number)


def json_of(values: Mapping[str, Any]) -> str:
    """DICOM JSON of attributes by keyword."""
    dataset = Dataset()
    with disable_value_validation():
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        return dataset.to_json()


def envelopes(images: int = 3, *, image: Mapping[str, Any] | None = None, **study: Any) -> tuple[str, dict[str, str]]:
    """Study and instance envelopes of a CT head; `study` and `image` replace attributes, None takes one away."""
    request = Dataset()
    request.RequestedProcedureID = "RP-12"
    request.RequestedProcedureDescription = "CT head without contrast"
    whole = {**PATIENT, "RequestAttributesSequence": [request], **study}
    instances = {}
    for number in range(1, images + 1):
        one = {
            "SOPClassUID": CTImageStorage,
            "SOPInstanceUID": original_uid(number),
            "SeriesInstanceUID": SERIES_UID,
            "InstanceNumber": number,
            "BodyPartExamined": "HEAD",
            **(image or {}),
        }
        instances[pseudonym(number)] = json_of({k: v for k, v in one.items() if v is not None})
    return json_of({k: v for k, v in whole.items() if v is not None}), instances


def identity(images: int = 3, *, image: Mapping[str, Any] | None = None, **study: Any) -> WriteBackIdentity:
    """`WriteBackIdentity` of `envelopes`."""
    return WriteBackIdentity.from_envelopes(*envelopes(images, image=image, **study))


def finding(verdict: Verdict = Verdict.FLAGGED, **change: Any) -> Finding:
    """A finding on the second image."""
    whole: dict[str, Any] = {
        "verdict": verdict,
        "model": MODEL,
        "provider": "CPUExecutionProvider",
        "code": Code("1386000", "SCT", "Intracranial hemorrhage"),
        "probability": 0.93 if verdict is Verdict.FLAGGED else 0.11,
        "threshold": 0.5,
        "category": 1,
        "series_uid": uid_of("series"),
        "key_sop_uid": pseudonym(2),
        "key_frame": 1,
        "box": (10, 12, 20, 24),
        "seconds": 0.09,
        **change,
    }
    return Finding(**whole)


def result(*findings: Finding, picture: bool = True) -> TriageResult:
    """A FINDING result (of `finding()` when none is given), with a key image of 33 x 31 pixels."""
    pixels = bytes(at % 256 for at in range(33 * 31 * 3))
    return TriageResult(
        TriageOutcome.FINDING, "", findings or (finding(),), KeyImage(33, 31, pixels) if picture else None
    )


def priority(order: str = "ROUTINE", found: Finding | None = None) -> Priority:
    """The decision for a study that arrived two minutes before the result."""
    return decide(arrival=MADE_AT.timestamp() - 120, order=order, patient_class="O", finding=found)


def write_back(**change: Any) -> WriteBack:
    """A flagged result of revision 1, due in a quarter of an hour."""
    whole: dict[str, Any] = {
        "identity": identity(),
        "result": result(),
        "priority": priority(found=finding()),
        "key": KEY,
        "revision": 1,
        "made_at": MADE_AT,
        "ready_at": MADE_AT,
        "node": "edge-1",
        "version": "0.1.0",
        **change,
    }
    return WriteBack(**whole)


KIND_OF = {sop_class: kind for kind, sop_class in reversed(CLASSES.items())}


def things(*objects: Dataset) -> list[Wanted]:
    """Objects as things to store that have no second choice."""

    def thing(one: Dataset) -> Wanted:
        return Wanted((Choice(KIND_OF[str(one.SOPClassUID)], lambda _: one),))

    return [thing(one) for one in objects]


def build(identity: WriteBackIdentity, result: TriageResult, **order: Any) -> list[Dataset]:
    """The objects of a result for an archive that takes everything."""
    further = order.pop("further", ())
    whole = write_back(identity=identity, result=result, **order)
    return [thing.choices[0].make(CLASSES) for thing in wanted(whole, picture=True, further=further)]
