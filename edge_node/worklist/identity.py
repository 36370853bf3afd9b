"""The identity a result is written back under, rebuilt in memory from the sealed envelopes of a study."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from threading import RLock

from pydicom import config as pydicom_config
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pydicom.valuerep import PersonName

from edge_node.domain.errors import Quarantine

# Patient, Patient Study and General Study modules (PS3.3 C.7.1.1, C.7.2.2, C.7.2.1). Type 2 attributes are written
# empty when the source lacked them, the others only when it had them.
TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
TYPE_3 = (
    "IssuerOfPatientID",
    "TypeOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "PatientBirthTime",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "StudyDescription",
    "IssuerOfAccessionNumberSequence",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "TimezoneOffsetFromUTC",
)
# The order behind the study: PS3.3 Table C.17-2 for the report, PS3.4 Table CC.2.5-3 for the workitem.
REQUEST_TYPE_2 = (
    "RequestedProcedureID",
    "RequestedProcedureDescription",
    "RequestedProcedureCodeSequence",
    "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest",
)
REQUEST_ISSUERS = ("IssuerOfAccessionNumberSequence", "OrderPlacerIdentifierSequence", "OrderFillerIdentifierSequence")
REQUEST_WORKITEM = ("RequestingPhysician", "RequestingService", "ReasonForTheRequestedProcedure")
_VALIDATION_SWITCH = RLock()


@dataclass(frozen=True, slots=True, repr=False)
class InstanceReference:
    """One original image: SOP Class, SOP Instance and Series UID as received, and what a derived image must copy."""

    sop_class: str
    sop_uid: str
    series_uid: str
    number: int
    body_part: str
    laterality: str
    frame_of_reference: str = ""

    @property
    def multi_frame(self) -> bool:
        """Whether a reference to one frame must name the frame (PS3.3 C.18.4, Referenced Frame Number)."""
        name = UID(self.sop_class).name
        return any(word in name for word in ("Multi-frame", "Enhanced", "Tomosynthesis", "Whole Slide"))

    def item(self) -> Dataset:
        """SOP Instance Reference macro (PS3.3 Table 10-11)."""
        item = Dataset()
        item.ReferencedSOPClassUID = self.sop_class
        item.ReferencedSOPInstanceUID = self.sop_uid
        return item

    def __repr__(self) -> str:
        return "<InstanceReference>"


@dataclass(frozen=True, slots=True, repr=False)
class WriteBackIdentity:
    """Patient, study and order as received, and the original image behind every pseudonymous SOP Instance UID.

    Lives in the dicom role, in memory, for one write-back. Nothing of it shows in `repr`.
    """

    study_uid: str
    _study: Dataset
    _instances: Mapping[str, InstanceReference]

    def __repr__(self) -> str:
        return f"<WriteBackIdentity of {len(self._instances)} instances>"

    @classmethod
    def of_study(cls, study_json: str) -> WriteBackIdentity:
        """Patient, study and order alone, without any image. Raises as `from_envelopes`."""
        with as_received():
            study = _read(study_json)
        study_uid = str(study.get("StudyInstanceUID") or "")
        if not study_uid:
            raise _incomplete("the envelope has no Study Instance UID")
        return cls(study_uid, study, {})

    @classmethod
    def from_envelopes(cls, study_json: str, instances: Mapping[str, str]) -> WriteBackIdentity:
        """Rebuild from `IdentityEnvelope.study` and {pseudonymous SOP Instance UID: `IdentityEnvelope.instance`}.

        Raises Quarantine ``worklist.identity-unreadable`` when an envelope is no DICOM JSON (PS3.18 F) and
        ``worklist.identity-incomplete`` when a UID that names study, series or instance is missing.
        """
        with as_received():
            study = _read(study_json)
            references = {pseudonym: _reference(_read(text)) for pseudonym, text in instances.items()}
        study_uid = str(study.get("StudyInstanceUID") or "")
        if not study_uid or not references:
            raise _incomplete("the envelope has no Study Instance UID" if references else "no instance has an envelope")
        return cls(study_uid, study, references)

    def original(self, pseudonym: str) -> InstanceReference:
        """The image as received behind a pseudonymous SOP Instance UID; Quarantine when there is none."""
        found = self._instances.get(pseudonym)
        if found is None:
            raise _incomplete("the finding names an image whose identity is not in the vault")
        return found

    @property
    def first(self) -> InstanceReference:
        """The first image of the study, for a result that names none."""
        return min(self._instances.values(), key=_position)

    def series(self) -> dict[str, list[InstanceReference]]:
        """All images by original Series Instance UID, each series in the order of Instance Number."""
        grouped: dict[str, list[InstanceReference]] = {}
        for reference in sorted(self._instances.values(), key=_position):
            grouped.setdefault(reference.series_uid, []).append(reference)
        return grouped

    def stamp(self, target: Dataset) -> None:
        """Write patient and study into `target`, in UTF-8 (ISO_IR 192), every spelling of the name kept."""
        with as_received():
            target.SpecificCharacterSet = "ISO_IR 192"
            target.StudyInstanceUID = self.study_uid
            for keyword in TYPE_2:
                _copy(self._study, target, keyword, empty=True)
            for keyword in TYPE_3:
                _copy(self._study, target, keyword)

    def copy(self, target: Dataset, *keywords: str) -> None:
        """Write further attributes into `target`, empty where the source lacked them."""
        with as_received():
            for keyword in keywords:
                _copy(self._study, target, keyword, empty=True)

    def request(self, *, workitem: bool = False) -> Dataset:
        """Item of the Referenced Request Sequence of a report (PS3.3 Table C.17-2) or of a `workitem`, where the
        issuers are type 2 and not type 3 (PS3.4 Table CC.2.5-3)."""
        item = Dataset()
        sources = [self._study, *(self._study.get("RequestAttributesSequence") or [])]
        keywords = ("AccessionNumber", *REQUEST_TYPE_2, *REQUEST_ISSUERS, *(REQUEST_WORKITEM if workitem else ()))
        with as_received():
            item.StudyInstanceUID = self.study_uid
            item.ReferencedStudySequence = []
            for keyword in keywords:
                stated = next((source for source in sources if source.get(keyword)), None)
                if stated is not None:
                    _copy(stated, item, keyword)
                elif keyword in ("AccessionNumber", *REQUEST_TYPE_2) or (workitem and keyword in REQUEST_ISSUERS):
                    setattr(item, keyword, None)
        return item

    def requested(self, keyword: str) -> list[str]:
        """What the study and each of its requests state under `keyword`, each value once, in order; a value with a
        control character counts as one that is not stated (`number_of`)."""
        with as_received():
            sources = [self._study, *(self._study.get("RequestAttributesSequence") or [])]
            return [one for one in dict.fromkeys(number_of(source, keyword) for source in sources) if one]

    @property
    def order(self) -> Dataset:
        """What the images say of the order: the attributes of their request, and for what it lacks their own."""
        stated = Dataset()
        with as_received():
            for source in (self._study, *(self._study.get("RequestAttributesSequence") or [])):
                for keyword in ("RequestedProcedurePriority", "RequestingService", "CurrentPatientLocation"):
                    if source.get(keyword):
                        _copy(source, stated, keyword)
        return stated

    @property
    def patient(self) -> Dataset:
        """Patient ID and who issued it, as received."""
        stated = Dataset()
        self.copy(stated, "PatientID", "IssuerOfPatientID")
        return stated

    def text(self, keyword: str) -> str:
        """A text attribute of the study as received, "" if it had none."""
        return str(self._study.get(keyword) or "")

    def local(self, moment: datetime) -> datetime:
        """`moment` on the clock of the study: its own time zone where it states one, else that of this node."""
        offset = self.text("TimezoneOffsetFromUTC")
        if len(offset) == 5 and offset[0] in "+-" and offset[1:].isdigit():
            minutes = int(offset[1:3]) * 60 + int(offset[3:])
            if minutes < 24 * 60:
                return moment.astimezone(timezone(timedelta(minutes=minutes if offset[0] == "+" else -minutes)))
        return moment.astimezone()


def text_of(item: Dataset, keyword: str) -> str:
    """A text attribute, "" if it is missing, empty or has several values: which one counts is not for us to guess."""
    value = item.get(keyword)
    several = isinstance(value, Iterable) and not isinstance(value, str | PersonName)
    stated = {str(one).strip() for one in value if one} if several else {str(value or "").strip()}
    return stated.pop() if len(stated) == 1 else ""


def number_of(item: Dataset, keyword: str) -> str:
    """The same for an identifier, "" as well if it has a control character: it would be another one without."""
    value = text_of(item, keyword)
    return "" if any(ord(letter) < 32 or ord(letter) == 127 for letter in value) else value


@contextmanager
def as_received() -> Iterator[None]:
    """Take odd values as they came: pydicom's complaint about one would print it.

    The switch is global to pydicom, so two threads must not restore it out of order.
    """
    with _VALIDATION_SWITCH, pydicom_config.disable_value_validation():
        yield


def _read(text: str) -> Dataset:
    try:
        return Dataset.from_json(text)
    except Exception:  # whatever it says, it may quote a value
        raise Quarantine(
            "worklist.identity-unreadable",
            "the identity envelope of this study cannot be read, so its result cannot be written back",
            hint="edge-node audit verify",
        ) from None


def _reference(instance: Dataset) -> InstanceReference:
    sop_class, sop_uid, series_uid = (
        str(instance.get(word) or "") for word in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID")
    )
    if not (sop_class and sop_uid and series_uid):
        raise _incomplete("an envelope lacks the SOP Class, SOP Instance or Series Instance UID of its image")
    number = str(instance.get("InstanceNumber") or "")
    return InstanceReference(
        sop_class,
        sop_uid,
        series_uid,
        number=int(number) if number.isascii() and number.isdigit() else 0,
        body_part=str(instance.get("BodyPartExamined") or ""),
        laterality=str(instance.get("ImageLaterality") or instance.get("Laterality") or ""),
        frame_of_reference=str(instance.get("FrameOfReferenceUID") or ""),
    )


def _position(reference: InstanceReference) -> tuple[str, int, str]:
    return (reference.series_uid, reference.number, reference.sop_uid)


def _copy(source: Dataset, target: Dataset, keyword: str, *, empty: bool = False) -> None:
    if keyword in source:
        target[keyword] = deepcopy(source[keyword])
    elif empty:
        setattr(target, keyword, None)


def _incomplete(why: str) -> Quarantine:
    return Quarantine(
        "worklist.identity-incomplete",
        f"{why}: the result cannot be written back under the right study",
        hint="edge-node study show STUDY",
    )
