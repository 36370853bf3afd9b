"""`configs/recipes/basic.deid` is written from Table E.1-1 by this file: ``python -m edge_node.deid.basic > FILE``.

Options: Clean Descriptors, Retain Longitudinal Temporal Information with Modified Dates, Retain Patient Characteristics
(sex, age, size and weight only).
"""

from __future__ import annotations

import sys

from pydicom.datadict import keyword_for_tag

from edge_node.deid import wire
from edge_node.deid.e1_1 import Row, table

CLAIMS = "113100,113105,113107,113108"
_HEAD = """\
FORMAT dicom

# The shipped recipe: DICOM PS3.15 Annex E, Basic Application Level Confidentiality Profile with the options
#   Clean Descriptors · Retain Longitudinal Temporal Information with Modified Dates ·
#   Retain Patient Characteristics (sex, age, size, weight).
# Written from Table E.1-1 by `python -m edge_node.deid.basic`. Copy it to change it and set [deid] recipe.
#
# The language is deid's (https://pydicom.github.io/deid); the functions are explained by `edge-node docs privacy`.
# Rules hold at every depth of nesting. Whatever the rules say, private, unknown and unreadable elements, curves,
# overlays, icons, signatures and padding are removed, and text that no rule names is cleaned or removed.

%header
"""


def _names(text: str) -> list[str]:
    return text.split()


# Attributes with a meaning of their own; everything else follows from the table.
_SPECIAL = {
    0x00100010: "REPLACE {} func:pseudonym_patient",
    0x00100020: "REPLACE {} func:pseudonym_patient",
    0x00100040: "REPLACE {} func:keep_sex",
    0x00101010: "REPLACE {} func:keep_age",
    0x00101020: "REPLACE {} func:keep_size",
    0x00101030: "REPLACE {} func:keep_weight",
    0x00080050: "REPLACE {} func:pseudonym_id",
    0x00200010: "REPLACE {} func:pseudonym_id",
    0x00420011: "REMOVE {}",
    0x0040A730: "REMOVE {}",
    0x00700001: "REMOVE {}",
}
# Not in the table, technical, and useless when cleaned to dictionary words. A name of a person in them is still cut.
_TECHNICAL = _names("""
    Manufacturer ManufacturerModelName SoftwareVersions ConvolutionKernel FilterType SequenceName PulseSequenceName
    ReceiveCoilName TransmitCoilName ImagedNucleus Radionuclide RescaleType ModalityLUTType CodingSchemeDesignator
    CodingSchemeVersion MappingResourceName PixelSpacingCalibrationDescription AttenuationCorrectionMethod
    ReconstructionMethod ScatterCorrectionMethod AcquisitionMode DigitalImageFormatAcquired StackID TypeOfFilters
    PhosphorType PlateType CollimatorGridName TransducerData ProcessingFunction
""")
# Coded terms of fixed sets, which a person's name can only equal by chance.
_TERMS = _names("""
    ImageType Modality BodyPartExamined ViewPosition PatientPosition PhotometricInterpretation
    Laterality ImageLaterality PresentationIntentType LossyImageCompression LossyImageCompressionMethod
    BurnedInAnnotation RecognizableVisualFeatures RescaleType PresentationLUTShape ScanningSequence SequenceVariant
    ScanOptions MRAcquisitionType AngioFlag ConversionType CorrectedImage Units CountsSource SeriesType
""")


def recipe_text() -> str:
    """The recipe, one line per attribute of the table, in tag order, and what is kept beside it."""
    lines = [_HEAD]
    for tag, row in sorted(table().items()):
        if tag >> 16 < 8 or tag >> 16 >= 0xFFF0:
            continue  # command elements and padding are refused by code
        lines.append(_line(tag, row))
    lines.append("\n# Codes: public coding schemes keep their codes, meanings are cleaned.")
    lines.append("REPLACE CodeValue func:code_value\nREPLACE CodeMeaning func:code_meaning")
    lines.append("\n# Coded terms of fixed sets.")
    lines += [f"KEEP {name}" for name in sorted(set(_TERMS) - {"RescaleType"})]
    lines.append("\n# Technical text that is not in Table E.1-1.")
    lines += [f"KEEP {name}" for name in sorted(_TECHNICAL)]
    lines.append("\n# What (0012,0064) says was done (PS3.16 CID 7050).")
    lines.append(f"ADD DeidentificationMethodCodeSequence {CLAIMS}")
    return "\n".join(lines) + "\n"


def _line(tag: int, row: Row) -> str:
    field = keyword_for_tag(tag) or wire.tag_name(tag)
    if tag in _SPECIAL:
        return _SPECIAL[tag].format(field)
    vr = wire.dictionary_vr(tag)[:2]
    if vr == "SQ":
        return f"{_sequence(row)} {field}"
    if row.options.get("modified-dates") == "C" and vr in ("DA", "DT", "TM"):
        return f"JITTER {field} var:patient_shift"
    if row.options.get("descriptors") == "C" and vr in ("CS", "LO", "LT", "SH", "ST", "UT"):
        return f"REPLACE {field} func:clean_text"
    if row.basic == "U":
        return f"REPLACE {field} func:pseudonym_uid"
    if row.basic == "X" or vr in ("", "OB", "UN"):
        return f"REMOVE {field}"
    if row.basic in ("Z", "X/Z"):
        return f"BLANK {field}"
    return f"REPLACE {field} func:dummy"


def _sequence(row: Row) -> str:
    if "U" in row.basic or row.options.get("descriptors") == "C":
        return "KEEP"  # the items are de-identified like everything else
    return "REMOVE" if row.basic in ("X", "X/D") else "BLANK"


if __name__ == "__main__":
    sys.stdout.write(recipe_text())
