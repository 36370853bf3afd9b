"""Query/Retrieve FIND over stored headers (PS3.4 C.4.1): Patient Root and Study Root, hierarchical."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset

from edge_node.worklist.matching import element_matches

_LEVELS = ("PATIENT", "STUDY", "SERIES", "IMAGE")
_UNIQUE = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
_OWN = frozenset({"SpecificCharacterSet", "QueryRetrieveLevel", "RetrieveAETitle", "TimezoneOffsetFromUTC"})


def _distinct(keyword: str) -> Callable[[list[Dataset]], list[str]]:
    return lambda group: sorted({str(header.get(keyword, "")) for header in group} - {""})


_COMPUTED: dict[str, Callable[[list[Dataset]], Any]] = {
    "ModalitiesInStudy": _distinct("Modality"),
    "SOPClassesInStudy": _distinct("SOPClassUID"),
    "NumberOfPatientRelatedStudies": lambda g: len(_distinct("StudyInstanceUID")(g)),
    "NumberOfPatientRelatedSeries": lambda g: len(_distinct("SeriesInstanceUID")(g)),
    "NumberOfPatientRelatedInstances": len,
    "NumberOfStudyRelatedSeries": lambda g: len(_distinct("SeriesInstanceUID")(g)),
    "NumberOfStudyRelatedInstances": len,
    "NumberOfSeriesRelatedInstances": len,
}


def answers(
    headers: Iterable[Dataset], query: Dataset, *, patient_root: bool, retrieve_ae: str
) -> list[Dataset] | None:
    """The response identifiers to `query`, or None if the identifier does not fit the model (level, unique keys)."""
    level = str(query.get("QueryRetrieveLevel", ""))
    if level not in _LEVELS or (level == "PATIENT" and not patient_root):
        return None
    above = _LEVELS[0 if patient_root else 1 : _LEVELS.index(level)]
    if any(not query.get(_UNIQUE[upper]) for upper in above):
        return None  # hierarchical search needs the unique key of every level above (PS3.4 C.4.1.3.1.1)
    groups: dict[tuple[str, ...], list[Dataset]] = {}
    for header in headers:
        key = tuple(str(header.get(_UNIQUE[name], "")) for name in (*above, level))
        groups.setdefault(key, []).append(header)
    rows = (_row(group, query, level, retrieve_ae) for group in groups.values())
    return [row for row in rows if row is not None]


def _row(group: list[Dataset], query: Dataset, level: str, retrieve_ae: str) -> Dataset | None:
    """One response from the headers of one entity, or None if a key does not match."""
    first = group[0]
    row = Dataset()
    row.SpecificCharacterSet = "ISO_IR 192"
    row.QueryRetrieveLevel = level
    row.RetrieveAETitle = retrieve_ae
    for key in query:
        if key.keyword in _OWN or key.tag.element == 0:
            continue
        if key.keyword in _COMPUTED:
            setattr(row, key.keyword, _COMPUTED[key.keyword](group))
        elif key.tag in first:
            row.add_new(key.tag, first[key.tag].VR, first[key.tag].value)
        else:
            row.add_new(key.tag, dictionary_VR(key.tag) if key.keyword else key.VR, None)
        if not element_matches(row[key.tag], key):
            return None
    return row
