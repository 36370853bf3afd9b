"""Evidence of a result as DICOM objects of the original study, and what to send where an archive takes less.

Everything is advisory and says so, in the series description and in the object itself. The same result, revision and
`made_at` give the same bytes, so that sending again is not sending twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from edge_node.domain.finding import WITHDRAWN_UNSAFE, Finding, KeyImage, TriageOutcome, Verdict
from edge_node.worklist.header import CLASSES, REPORTS, Making, ReportReference, series_uid
from edge_node.worklist.key_image import key_image
from edge_node.worklist.key_objects import Rejection, key_objects, rejection_note
from edge_node.worklist.presentation import presentation_state
from edge_node.worklist.segmentation import segmentation
from edge_node.worklist.source_image import SourceImage
from edge_node.worklist.writer import Standing, WriteBack


@dataclass(frozen=True, slots=True)
class Choice:
    """One way of telling: its kind (of `header.CLASSES`), and the object, made only when it is sent, for an archive
    that takes these kinds."""

    kind: str
    make: Callable[[Collection[str]], Dataset]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One thing to tell the archive: the first of `choices` that it takes is stored."""

    choices: tuple[Choice, ...]


def wanted(order: WriteBack, *, picture: bool, further: Collection[str] = ()) -> list[Wanted]:
    """What to store for a result, under the original study: report, key image, and what else the site wants of it.

    A result without a finding has none, unless it withdraws what an earlier revision left: then a rejection note.
    `picture` says whether the key image is shown; `further` is of kos, seg and gsps, made for flagged findings only and
    where the image allows it. Making raises Quarantine ``worklist.identity-incomplete`` when the finding names an image
    that has no identity.
    """
    making = Making(order.identity, order.key, order.revision, order.made_at, order.node, order.version)
    result, top = order.result, order.result.top
    if result.outcome is not TriageOutcome.FINDING or top is None:
        return _withdrawal(making, order)
    image = result.key_image
    things = [Wanted(tuple(Choice(kind, _report(making, order, kind)) for kind in REPORTS))]
    if picture and image is not None:
        things.append(Wanted((Choice("sc", lambda _: key_image(making, top, image)),)))
    if top.verdict is Verdict.FLAGGED:
        things += _further(making, order, top, image, shown=picture and image is not None, further=further)
    return things


def _report(making: Making, order: WriteBack, kind: str) -> Callable[[Collection[str]], Dataset]:
    def make(_: Collection[str]) -> Dataset:
        # highdicom takes a second to import: only who writes evidence pays for it.
        from edge_node.worklist.structured_report import structured_report

        return structured_report(making, order.result, predecessor(order), kind=kind, late=order.late)

    return make


def _further(
    making: Making,
    order: WriteBack,
    top: Finding,
    image: KeyImage | None,
    *,
    shown: bool,
    further: Collection[str],
) -> list[Wanted]:
    things = []
    if "kos" in further:
        picture = _ours(order, "sc", making.uid("sc")) if shown else None
        things.append(
            Wanted((Choice("kos", lambda taken: key_objects(making, top, picture if "sc" in taken else None)),))
        )
    header = order.header(top.key_sop_uid) if {"seg", "gsps"} & set(further) and top.key_sop_uid else None
    source = SourceImage.of(header) if header is not None else None
    if source is None:
        return things
    mask = image.mask if image is not None else None
    made = {
        "seg": segmentation(making, top, mask, source) if "seg" in further and mask is not None else None,
        "gsps": presentation_state(making, top, source) if "gsps" in further else None,
    }
    things += [Wanted((Choice(kind, _given(one)),)) for kind, one in made.items() if one is not None]
    return things


def _given(dataset: Dataset) -> Callable[[Collection[str]], Dataset]:
    return lambda _: dataset


def predecessor(order: WriteBack) -> ReportReference | None:
    """The report that this one replaces: the last of the earlier revisions, unless it was withdrawn meanwhile."""
    reports = [one for one in still_standing(order.standing) if one.kind in REPORTS]
    last = max(reports, key=lambda one: one.revision, default=None)
    return _ours(order, last.kind, last.uid) if last is not None else None


def still_standing(objects: Sequence[Standing]) -> list[Standing]:
    """Without the rejection notes, and without what they rejected: everything up to their revision."""
    rejected = max((one.revision for one in objects if one.kind == "rejection"), default=0)
    return [one for one in objects if one.revision > rejected]


def _withdrawal(making: Making, order: WriteBack) -> list[Wanted]:
    references = [_ours(order, one.kind, one.uid) for one in still_standing(order.standing)]
    if not references:
        return []
    why = Rejection.SAFETY if order.result.reason.startswith(WITHDRAWN_UNSAFE) else Rejection.QUALITY
    said = "The AI triage result of this study is withdrawn. It is not replaced by another one."
    return [Wanted((Choice("rejection", lambda _: rejection_note(making, references, why, said)),))]


def _ours(order: WriteBack, kind: str, uid: str) -> ReportReference:
    return ReportReference(CLASSES[kind], uid, series_uid(order.key, kind, order.identity.study_uid))
