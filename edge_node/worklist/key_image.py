"""The key image as an RGB Secondary Capture with the finding and the advisory drawn in."""

from __future__ import annotations

import re

from pydicom.dataset import Dataset

from edge_node.domain.errors import Quarantine
from edge_node.domain.finding import ADVISORY, Finding, KeyImage, Verdict
from edge_node.worklist.header import Making, code_item, put_header, shown_image
from edge_node.worklist.identity import InstanceReference

# Body parts (PS3.16 Annex L) that come once or are imaged as one: they must not carry Laterality.
# fmt: off
UNPAIRED = frozenset({
    "ABDOMEN", "ABDOMENPELVIS", "AORTA", "BACK", "BLADDER", "BRAIN", "CEREBELLUM", "CERVIX", "CHEST", "CHESTABDOMEN",
    "CHESTABDPELVIS", "CIRCLEOFWILLIS", "COCCYX", "COLON", "CORONARYARTERY", "CSPINE", "CTSPINE", "DUODENUM",
    "ESOPHAGUS", "FACE", "GALLBLADDER", "HEAD", "HEADNECK", "HEART", "ILEUM", "ILIUM", "JAW", "JEJUNUM", "LARYNX",
    "LIVER", "LSPINE", "LSSPINE", "MAXILLA", "MEDIASTINUM", "MOUTH", "NECK", "NECKCHEST", "NECKCHESTABDOMEN",
    "NECKCHESTABDPELV", "NOSE", "PANCREAS", "PELVIS", "PENIS", "PHARYNX", "PROSTATE", "RECTUM", "SCALP", "SKULL",
    "SPINE", "SPLEEN", "SSPINE", "STERNUM", "STOMACH", "THYMUS", "THYROID", "TLSPINE", "TONGUE", "TRACHEA", "TSPINE",
    "URETER", "URETHRA", "UTERUS", "VAGINA", "VULVA", "WHOLEBODY"
})
# fmt: on


def key_image(making: Making, finding: Finding, image: KeyImage) -> Dataset:
    """Secondary Capture Image (PS3.3 A.8.1) of a key image derived from one original image.

    Raises Quarantine ``worklist.key-image-malformed`` when the pixels are not rows x columns x 3 bytes.
    """
    if image.rows < 1 or image.columns < 1 or len(image.rgb) != image.rows * image.columns * 3:
        raise Quarantine(
            "worklist.key-image-malformed",
            f"the key image has {len(image.rgb)} bytes, its size says {image.rows} x {image.columns} x 3",
            hint="edge-node study retry STUDY",
        )
    source, frames = shown_image(making.identity, finding)
    target = Dataset()
    put_header(making, target, "sc", finding.model)
    put_body_part(target, source)
    target.ConversionType = "SYN"
    target.ImageType = ["DERIVED", "SECONDARY"]
    target.PatientOrientation = None
    target.BurnedInAnnotation = "YES"
    target.DerivationDescription = f"{ADVISORY} Key image with the model's finding drawn in. {_said(finding)}"[:1024]
    target.ImageComments = ADVISORY
    reference = source.item()
    if frames:
        reference.ReferencedFrameNumber = frames
    reference.PurposeOfReferenceCodeSequence = [
        code_item("121322", "DCM", "Source image for image processing operation")
    ]
    target.SourceImageSequence = [reference]
    target.SamplesPerPixel = 3
    target.PhotometricInterpretation = "RGB"
    target.PlanarConfiguration = 0
    target.Rows, target.Columns = image.rows, image.columns
    target.BitsAllocated = target.BitsStored = 8
    target.HighBit = 7
    target.PixelRepresentation = 0
    target.PixelData = image.rgb + b"\0" * (len(image.rgb) % 2)
    target["PixelData"].VR = "OB"
    return target


def put_body_part(target: Dataset, source: InstanceReference) -> None:
    """Copy both from the source; Laterality (type 2C) is empty where a paired or unknown part leaves the side open."""
    body_part = source.body_part.strip().upper()
    if re.fullmatch(r"[A-Z0-9_ ]{1,16}", body_part):  # CS of PS3.5 6.2: scanners also write what is none
        target.BodyPartExamined = body_part
    if body_part not in UNPAIRED:
        target.Laterality = source.laterality if source.laterality in ("L", "R") else None


def _said(finding: Finding) -> str:
    words = {
        Verdict.FLAGGED: "flagged",
        Verdict.NOT_FLAGGED: "not flagged",
        Verdict.CANNOT_JUDGE: "could not be judged",
    }
    return f"{finding.code.meaning}: {words[finding.verdict]}. {finding.model.name} {finding.model.version}."
