"""Body part and side of every series, from the headers: also of series that no model is made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Final

from pydicom import Dataset, dcmread

from edge_node.domain.quality import InputQuality, Score
from edge_node.domain.study import CleanObject
from edge_node.triage.measures import score

MODALITIES: Final = frozenset({"CT", "MR", "CR", "DX", "MG", "XA", "RF", "PX", "NM", "PT"})
SIDED: Final = frozenset({"CR", "DX", "MG"})
# Body parts of which there are two (PS3.16 CID 2, L and R).
PAIRED: Final = frozenset(
    [
        "ANKLE",
        "ARM",
        "BREAST",
        "CALF",
        "CLAVICLE",
        "ELBOW",
        "EXTREMITY",
        "EYE",
        "FEMUR",
        "FINGER",
        "FOOT",
        "FOREARM",
        "HAND",
        "HIP",
        "HUMERUS",
        "KNEE",
        "LEG",
        "RADIUS",
        "SCAPULA",
        "SHOULDER",
        "THIGH",
        "THUMB",
        "TIBIA",
        "TOE",
        "ULNA",
        "WRIST",
        "UPPERARM",
    ]
)
_TAGS: Final = [
    "Modality",
    "BodyPartExamined",
    "AnatomicRegionSequence",
    "Laterality",
    "ImageLaterality",
    "SharedFunctionalGroupsSequence",
]


def header_quality(
    objects: Sequence[CleanObject], limits: Mapping[str, float] | None = None
) -> dict[str, InputQuality]:
    """Quality of each image series by its UID. Body part and side are said once for a series (PS3.3 C.7.3.1), so one
    object of it is read; one that cannot be parsed says nothing."""
    firsts: dict[str, CleanObject] = {}
    for item in objects:
        if item.modality in MODALITIES:
            known = firsts.get(item.series_uid)
            if known is None or item.sop_uid < known.sop_uid:
                firsts[item.series_uid] = item
    found = {}
    for uid, item in sorted(firsts.items()):
        try:
            ds = dcmread(BytesIO(item.read()), stop_before_pixels=True, specific_tags=list(_TAGS))
            scores = _scores(ds, item.modality, limits or {})
        except Exception:  # noqa: S112  not shown: pydicom's texts may print values
            continue
        found[uid] = InputQuality(uid, item.modality, pixels=False, scores=scores)
    return found


def _scores(ds: Dataset, modality: str, limits: Mapping[str, float]) -> tuple[Score, ...]:
    shared = (ds.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    anatomy = (shared.get("FrameAnatomySequence") or [Dataset()])[0]
    part = str(ds.get("BodyPartExamined") or "").strip().upper()
    named = bool(part or ds.get("AnatomicRegionSequence") or anatomy.get("AnatomicRegionSequence"))
    scores = [score("body-part", 0 if named else 1, limits)]
    if modality in SIDED and (modality == "MG" or part in PAIRED):
        sides = (ds.get("Laterality"), ds.get("ImageLaterality"), anatomy.get("FrameLaterality"))
        scores.append(score("laterality", 0 if any(sides) else 1, limits))
    return tuple(scores)
