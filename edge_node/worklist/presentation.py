"""The model's box and verdict over the original image: a Grayscale Softcopy Presentation State (PS3.3 A.33.1)."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from edge_node.domain.finding import ADVISORY, Finding
from edge_node.worklist.header import Making, put_header, shown_image
from edge_node.worklist.key_image import put_body_part
from edge_node.worklist.source_image import SourceImage
from edge_node.worklist.words import about

LAYER = "AI_TRIAGE"


def presentation_state(making: Making, finding: Finding, source: SourceImage) -> Dataset | None:
    """None for a finding without a box, and for an image in colour: it has no grey scale to present."""
    if finding.box is None or not source.photometric.startswith("MONOCHROME"):
        return None
    image, frames = shown_image(making.identity, finding)
    target = Dataset()
    put_header(making, target, "gsps", finding.model)
    put_body_part(target, image)
    target.PresentationCreationDate, target.PresentationCreationTime = target.ContentDate, target.ContentTime
    del target.ContentDate, target.ContentTime
    target.ContentLabel = "AI_TRIAGE"
    target.ContentDescription = "ADVISORY AI mark - not for diagnosis"
    target.ContentCreatorName = None
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedImageSequence = image.series_uid, [_image(image.item(), frames)]
    target.ReferencedSeriesSequence = [series]
    target.DisplayedAreaSelectionSequence = [_area(source, _image(image.item(), frames))]
    target.GraphicAnnotationSequence = [_annotation(finding, _image(image.item(), frames))]
    layer = Dataset()
    layer.GraphicLayer, layer.GraphicLayerOrder = LAYER, 1
    layer.GraphicLayerDescription = "Advisory AI mark"
    target.GraphicLayerSequence = [layer]
    if source.rescale is not None:
        slope, intercept, kind = source.rescale
        target.RescaleSlope, target.RescaleIntercept = format_number_as_ds(slope), format_number_as_ds(intercept)
        target.RescaleType = kind
    if source.window is not None:
        window = Dataset()
        window.WindowCenter, window.WindowWidth = (format_number_as_ds(value) for value in source.window)
        target.SoftcopyVOILUTSequence = [window]
    # A presentation state replaces the image's own polarity: what is inverted in the file stays inverted on screen.
    target.PresentationLUTShape = "INVERSE" if source.photometric == "MONOCHROME1" else "IDENTITY"
    return target


def _image(item: Dataset, frames: list[int] | None) -> Dataset:
    if frames:
        item.ReferencedFrameNumber = frames
    return item


def _area(source: SourceImage, image: Dataset) -> Dataset:
    area = Dataset()
    area.ReferencedImageSequence = [image]
    area.DisplayedAreaTopLeftHandCorner = [1, 1]
    area.DisplayedAreaBottomRightHandCorner = [source.columns, source.rows]
    area.PresentationSizeMode = "SCALE TO FIT"
    if source.plane is not None:
        area.PresentationPixelSpacing = [format_number_as_ds(value) for value in source.plane.spacing]
    else:
        area.PresentationPixelAspectRatio = [1, 1]
    return area


def _annotation(finding: Finding, image: Dataset) -> Dataset:
    """Box in pixels, the corner of the image being 0\\0 (PS3.3 C.10.5.1.2)."""
    assert finding.box is not None
    top, left, bottom, right = finding.box
    annotation, box, text = Dataset(), Dataset(), Dataset()
    annotation.ReferencedImageSequence = [image]
    annotation.GraphicLayer = LAYER
    low, high = (float(left), float(top)), (float(right), float(bottom))
    box.GraphicAnnotationUnits, box.GraphicDimensions = "PIXEL", 2
    box.GraphicType, box.GraphicFilled = "POLYLINE", "N"
    corners = [low, (high[0], low[1]), high, (low[0], high[1]), low]
    box.NumberOfGraphicPoints = len(corners)
    box.GraphicData = [value for corner in corners for value in corner]
    text.AnchorPointAnnotationUnits = "PIXEL"
    text.AnchorPoint, text.AnchorPointVisibility = [low[0], low[1]], "N"
    text.BoundingBoxAnnotationUnits = "DISPLAY"
    text.BoundingBoxTopLeftHandCorner, text.BoundingBoxBottomRightHandCorner = [0.02, 0.02], [0.98, 0.12]
    text.BoundingBoxTextHorizontalJustification = "LEFT"
    text.UnformattedTextValue = f"{ADVISORY}\r\n{about(finding)}"[:1024]
    annotation.GraphicObjectSequence, annotation.TextObjectSequence = [box], [text]
    return annotation
