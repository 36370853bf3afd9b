"""The model's mark on the key image as a binary segmentation (PS3.3 A.51), one frame on the original image."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from edge_node.domain.errors import Quarantine
from edge_node.domain.finding import ADVISORY, Finding, Mask
from edge_node.worklist.header import Making, code_item, put_header, shown_image
from edge_node.worklist.source_image import Plane, SourceImage
from edge_node.worklist.words import about


def segmentation(making: Making, finding: Finding, mask: Mask, source: SourceImage) -> Dataset | None:
    """None when the image does not say where it lies, has frames of its own, or is not of the size of the mask.

    Raises Quarantine ``worklist.mask-malformed`` when the bits are not rows x columns.
    """
    image, frames = shown_image(making.identity, finding)
    plane, size = source.plane, mask.rows * mask.columns
    if plane is None or frames or source.frames > 1 or not image.frame_of_reference:
        return None
    if (mask.rows, mask.columns) != (source.rows, source.columns):
        return None
    if len(mask.bits) != (size + 7) // 8:
        raise Quarantine(
            "worklist.mask-malformed",
            f"the mask has {len(mask.bits)} bytes, its size says {mask.rows} x {mask.columns} bits",
            hint="edge-node study retry STUDY",
        )
    target = Dataset()
    put_header(making, target, "seg", finding.model)
    target.FrameOfReferenceUID = image.frame_of_reference
    target.PositionReferenceIndicator = None
    target.DeviceSerialNumber = making.node[:64]
    target.ImageType = ["DERIVED", "PRIMARY"]
    target.ContentLabel = "AI_TRIAGE"
    target.ContentDescription = "ADVISORY AI mark - not for diagnosis"
    target.ContentCreatorName = None
    target.DerivationDescription = f"{ADVISORY} {about(finding)}"[:1024]
    target.LossyImageCompression = "00"
    target.SegmentationType = "BINARY"
    target.SegmentSequence = [_segment(finding)]
    target.SamplesPerPixel = 1
    target.PhotometricInterpretation = "MONOCHROME2"
    target.Rows, target.Columns = mask.rows, mask.columns
    target.BitsAllocated = target.BitsStored = 1
    target.HighBit = target.PixelRepresentation = 0
    target.NumberOfFrames = 1
    series, item = Dataset(), image.item()
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = image.series_uid, [item]
    target.ReferencedSeriesSequence = [series]
    _put_dimensions(making, target)
    target.SharedFunctionalGroupsSequence = [_shared(plane)]
    target.PerFrameFunctionalGroupsSequence = [_frame(plane, image.item())]
    target.PixelData = mask.bits + b"\0" * (len(mask.bits) % 2)
    target["PixelData"].VR = "OB"
    return target


def _segment(finding: Finding) -> Dataset:
    segment, algorithm = Dataset(), Dataset()
    segment.SegmentNumber = 1
    segment.SegmentLabel = f"AI: {finding.code.meaning}"[:64]
    segment.SegmentDescription = f"Probability {finding.probability:.2f}, not a contour of a lesion"
    segment.SegmentAlgorithmType = "AUTOMATIC"
    segment.SegmentAlgorithmName = finding.model.name[:64]
    segment.SegmentedPropertyCategoryCodeSequence = [code_item("49755003", "SCT", "Morphologically Abnormal Structure")]
    segment.SegmentedPropertyTypeCodeSequence = [
        code_item(finding.code.value, finding.code.scheme, finding.code.meaning)
    ]
    algorithm.AlgorithmFamilyCodeSequence = [code_item("123109", "DCM", "Artificial Intelligence")]
    algorithm.AlgorithmName = finding.model.name[:64]
    algorithm.AlgorithmVersion = finding.model.version[:64]
    algorithm.AlgorithmParameters = f"sha256={finding.model.sha256}"
    segment.SegmentationAlgorithmIdentificationSequence = [algorithm]
    return segment


def _put_dimensions(making: Making, target: Dataset) -> None:
    organization = Dataset()
    organization.DimensionOrganizationUID = making.uid("dimensions")
    target.DimensionOrganizationSequence = [organization]
    target.DimensionIndexSequence = []
    for pointer, group, label in (
        (0x0062000B, 0x0062000A, "Segment"),
        (0x00200032, 0x00209113, "Image Position"),
    ):
        index = Dataset()
        index.DimensionOrganizationUID = organization.DimensionOrganizationUID
        index.DimensionIndexPointer, index.FunctionalGroupPointer = pointer, group
        index.DimensionDescriptionLabel = label
        target.DimensionIndexSequence.append(index)


def _shared(plane: Plane) -> Dataset:
    groups, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [format_number_as_ds(value) for value in plane.spacing]
    measures.SliceThickness = format_number_as_ds(plane.thickness or 1.0)
    orientation.ImageOrientationPatient = [format_number_as_ds(value) for value in plane.orientation]
    groups.PixelMeasuresSequence, groups.PlaneOrientationSequence = [measures], [orientation]
    return groups


def _frame(plane: Plane, source: Dataset) -> Dataset:
    groups, content, position, segment, derivation = (Dataset() for _ in range(5))
    content.DimensionIndexValues = [1, 1]
    position.ImagePositionPatient = [format_number_as_ds(value) for value in plane.position]
    segment.ReferencedSegmentNumber = 1
    source.SpatialLocationsPreserved = "YES"
    source.PurposeOfReferenceCodeSequence = [code_item("121322", "DCM", "Source image for image processing operation")]
    derivation.SourceImageSequence = [source]
    derivation.DerivationCodeSequence = [code_item("113076", "DCM", "Segmentation")]
    groups.FrameContentSequence, groups.PlanePositionSequence = [content], [position]
    groups.SegmentIdentificationSequence, groups.DerivationImageSequence = [segment], [derivation]
    return groups
