"""Clean objects for tests: de-identified CT images as the spool would hand them out."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from io import BytesIO

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from edge_node.domain.study import CleanObject
from edge_node.store.digest import digest_of

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


def uid_of(*parts: object) -> str:
    """A deterministic pseudonymous UID (2.25. + UUID)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '|'.join(map(str, parts))).int}"


def clean_part10(
    number: int = 0,
    *,
    pixel_bytes: int = 512,
    syntax: UID = ExplicitVRLittleEndian,
    change: Callable[[Dataset], None] = lambda _: None,
) -> bytes:
    """A small de-identified CT image (`pixel_bytes` a multiple of 512); `change` may spoil it before it is encoded."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID(uid_of("sop", number))
    image = Dataset()
    image.file_meta, image.preamble = meta, b"\0" * 128
    image.SOPClassUID = CTImageStorage
    image.SOPInstanceUID = uid_of("sop", number)
    image.StudyDate = "20260105"
    image.Modality = "CT"
    image.PatientName = ""
    image.PatientID = "AB3DEFGHIJKLMNOP"
    image.PatientIdentityRemoved = "YES"
    image.DeidentificationMethod = "edge-node test"
    method = Dataset()
    method.CodeValue, method.CodingSchemeDesignator, method.CodeMeaning = "113100", "DCM", "Basic Profile"
    image.DeidentificationMethodCodeSequence = [method]
    image.StudyInstanceUID = uid_of("study")
    image.SeriesInstanceUID = uid_of("series")
    image.InstanceNumber = number + 1
    image.Rows, image.Columns = pixel_bytes // 512, 256
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    image.PixelData = bytes((number + at) % 251 for at in range(512)) * (pixel_bytes // 512)
    image["PixelData"].VR = "OW"
    change(image)
    file = BytesIO()
    image.save_as(file, enforce_file_format=True)
    return file.getvalue()


def clean_object(
    number: int = 0,
    *,
    part10: bytes | None = None,
    syntax: UID = ExplicitVRLittleEndian,
    pixel_bytes: int = 512,
    pixel_risk: str = "",
) -> CleanObject:
    """The `number`th object of one study; `part10` replaces its bytes (and the ledger's size and hash with them)."""
    content = clean_part10(number, syntax=syntax, pixel_bytes=pixel_bytes) if part10 is None else part10
    return CleanObject(
        sop_uid=uid_of("sop", number),
        series_uid=uid_of("series"),
        sop_class=CTImageStorage,
        transfer_syntax=syntax,
        modality="CT",
        size=len(content),
        digest=digest_of(content),
        pixel_risk=pixel_risk,
        read=lambda: content,
    )
