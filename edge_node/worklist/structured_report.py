"""The result as a structured report after TID 1500: the only importer of highdicom in this room.

highdicom logs a patient name it finds odd, so it never sees one: it is given UIDs only, and the identity is written
into what it made.
"""

from __future__ import annotations

import math

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    EnhancedSR,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from edge_node.domain.finding import Code, Finding, TriageResult, Verdict
from edge_node.worklist.header import (
    MANUFACTURER,
    MODEL_NAME,
    Making,
    ReportReference,
    document_reference,
    put_header,
    series_uid,
    shown_image,
)
from edge_node.worklist.identity import InstanceReference
from edge_node.worklist.uids import result_uid
from edge_node.worklist.words import (
    ACR_CATEGORIES,
    CATEGORY,
    LOOKED_FOR,
    SCHEME,
    UNITS,
    VERDICT,
    VERDICTS,
    advised,
    radiomics,
    told_late,
)

# The content is the same in all of them: no coordinates, nothing by reference.
_DOCUMENTS = {"sr": Comprehensive3DSR, "sr-comprehensive": ComprehensiveSR, "sr-enhanced": EnhancedSR}


def structured_report(
    making: Making,
    result: TriageResult,
    predecessor: ReportReference | None,
    *,
    kind: str = "sr",
    late: bool = False,
) -> Dataset:
    """One SR of all findings of a result, the deciding one first: UNVERIFIED, PRELIMINARY, COMPLETE.

    `kind` is one of `header.REPORTS`; `late` says in it that reading had begun before the result.
    """
    top = result.top
    if top is None:
        raise ValueError("a result without a finding has no report")
    findings = [top, *(finding for finding in result.findings if finding is not top)]
    images = [shown_image(making.identity, finding) for finding in findings]
    groups = [
        _group(making, number, finding, image, frames, late)
        for number, (finding, (image, frames)) in enumerate(zip(findings, images, strict=True), start=1)
    ]
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer(making)),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    made = _DOCUMENTS[kind](
        evidence=_evidence(making, [image for image, _ in images]),
        content=report[0],
        series_instance_uid=series_uid(making.key, kind, making.identity.study_uid),
        series_number=1,
        sop_instance_uid=making.uid(kind),
        instance_number=making.revision,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
    # A plain data set with our own header: the moment, the identity and the UIDs come from us alone.
    written = Dataset()
    written.update(made)
    put_header(making, written, kind, top.model)
    written.ReferencedRequestSequence = [making.identity.request()]
    scheme = Dataset()
    scheme.CodingSchemeDesignator = SCHEME
    scheme.CodingSchemeName = "edge-node triage concepts"
    scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
    written.CodingSchemeIdentificationSequence = [scheme]
    if predecessor is not None:
        written.PredecessorDocumentsSequence = [document_reference(making.identity.study_uid, [predecessor])]
    return written


def _observer(making: Making) -> ObserverContext:
    return ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=result_uid(making.key, "device", making.node),
            name=making.node,
            manufacturer_name=MANUFACTURER,
            model_name=MODEL_NAME,
        ),
    )


def _group(
    making: Making, number: int, finding: Finding, image: InstanceReference, frames: list[int] | None, late: bool
) -> MeasurementsAndQualitativeEvaluations:
    """TID 1501 of one finding. Only a flagged one carries its code as Finding: a reader that looks for the code alone
    must not take "looked for and not flagged" for "found"."""
    code = _concept(finding.code)
    flagged = finding.verdict is Verdict.FLAGGED
    evaluations = [
        QualitativeEvaluation(_concept(LOOKED_FOR), code),
        QualitativeEvaluation(_concept(VERDICT), _concept(VERDICTS[finding.verdict])),
    ]
    if flagged and finding.category in ACR_CATEGORIES:
        evaluations.append(QualitativeEvaluation(_concept(CATEGORY), _concept(ACR_CATEGORIES[finding.category])))
    measurements = []
    if finding.verdict is not Verdict.CANNOT_JUDGE and math.isfinite(finding.probability):
        measurements.append(
            Measurement(codes.DCM.Probability, value=round(finding.probability, 4), unit=codes.UCUM.NoUnits)
        )
    for one in finding.radiomics:
        # Six digits: more would not fit a decimal string, and mean nothing.
        unit = CodedConcept(one.unit, "UCUM", UNITS[one.unit])
        measurements.append(Measurement(_concept(one.code), value=float(f"{one.value:.6g}"), unit=unit))
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=making.uid("finding", number), identifier=f"Finding {number}"),
        finding_type=code if flagged else _concept(VERDICTS[finding.verdict]),
        algorithm_id=AlgorithmIdentification(
            name=finding.model.name,
            version=finding.model.version,
            parameters=[
                f"sha256={finding.model.sha256}",
                f"variant={finding.model.variant}",
                f"threshold={finding.threshold:.4g}",
                f"provider={finding.provider}",
            ],
        ),
        measurements=measurements,
        qualitative_evaluations=evaluations,
        source_images=[
            SourceImageForMeasurementGroup(
                referenced_sop_class_uid=image.sop_class,
                referenced_sop_instance_uid=image.sop_uid,
                referenced_frame_numbers=frames,
            )
        ],
    )
    group[0].ContentSequence.append(
        TextContentItem(
            name=codes.DCM.Comment,
            value=told_late(advised(finding) + radiomics(finding), late),
            relationship_type=RelationshipTypeValues.CONTAINS,
        )
    )
    return group


def _concept(code: Code) -> CodedConcept:
    return CodedConcept(code.value, code.scheme, code.meaning)


def _evidence(making: Making, images: list[InstanceReference]) -> list[Dataset]:
    """What highdicom asks of the referenced images, without a word of identity."""
    evidence = []
    for image in {image.sop_uid: image for image in images}.values():
        source = Dataset()
        source.StudyInstanceUID = making.identity.study_uid
        source.SeriesInstanceUID = image.series_uid
        source.SOPClassUID, source.SOPInstanceUID = image.sop_class, image.sop_uid
        for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
            setattr(source, keyword, "")
        source.StudyDate = source.StudyTime = ""
        evidence.append(source)
    return evidence
