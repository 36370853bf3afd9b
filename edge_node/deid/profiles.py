"""Recipes written from Table E.1-1 (PS3.15) for any combination of its options; the shipped ones are some of them.

``edge-node deid recipe --profile basic --option clean-descriptors …`` prints one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pydicom.datadict import keyword_for_tag

from edge_node.deid import wire
from edge_node.deid.e1_1 import Row, table
from edge_node.domain.errors import Stop


@dataclass(frozen=True, slots=True)
class Option:
    """An option of PS3.15 E.3: `column` of the table ("" for none), `code` of CID 7050, `title`."""

    column: str
    code: str
    title: str


OPTIONS = {
    "clean-graphics": Option("graphics", "113103", "Clean Graphics"),
    "clean-structured-content": Option("structured", "113104", "Clean Structured Content"),
    "clean-descriptors": Option("descriptors", "113105", "Clean Descriptors"),
    "retain-full-dates": Option("full-dates", "113106", "Retain Longitudinal Temporal Information with Full Dates"),
    "retain-modified-dates": Option(
        "modified-dates", "113107", "Retain Longitudinal Temporal Information with Modified Dates"
    ),
    "retain-patient-characteristics": Option("patient", "113108", "Retain Patient Characteristics"),
    "retain-device-identity": Option("device", "113109", "Retain Device Identity"),
    "retain-uids": Option("uids", "113110", "Retain UIDs"),
    "retain-safe-private": Option("", "113111", "Retain Safe Private"),
    "retain-institution-identity": Option("institution", "113112", "Retain Institution Identity"),
}
_CLEAN = ("clean-graphics", "clean-structured-content")
_SITE = (*_CLEAN, "clean-descriptors", "retain-modified-dates")
# What ships. `basic` is what a node without a recipe of its own uses: the Basic Profile with intervals between studies
# and the words of anatomy and technique, which say nothing of a person; the two Clean options stand for its dummies
# (D) of graphics and report content. Sex, age, size and weight need somebody who asks for them: `basic+research`.
# `strict` is the Basic Profile without any option.
PROFILES: dict[str, tuple[str, ...]] = {
    "basic": _SITE,
    "basic+research": (
        *_SITE,
        "retain-patient-characteristics",
        "retain-device-identity",
        "retain-safe-private",
    ),
    "strict": (),
}
SAFE_PRIVATE = (
    # Numbers and coded terms of acquisition (after PS3.15 E.3.10); a name cannot stand in them.
    '(0019,"GEMS_ACQU_01",23)',
    '(0019,"GEMS_ACQU_01",24)',
    '(0019,"GEMS_ACQU_01",27)',
    '(0025,"GEMS_SERS_01",07)',
    '(0043,"GEMS_PARM_01",27)',
    '(0043,"GEMS_PARM_01",39)',
    '(0043,"GEMS_PARM_01",6F)',
    '(0045,"GEMS_HELIOS_01",01)',
    '(0045,"GEMS_HELIOS_01",02)',
    '(0019,"SIEMENS MR HEADER",0C)',
    '(0019,"SIEMENS MR HEADER",0D)',
    '(0019,"SIEMENS MR HEADER",0E)',
    '(0019,"SIEMENS MR HEADER",27)',
    '(2001,"Philips Imaging DD 001",03)',
    '(2001,"Philips Imaging DD 001",04)',
    '(7053,"Philips PET Private Group",00)',
    '(7053,"Philips PET Private Group",09)',
    '(00E1,"ELSCINT1",21)',
    '(01F1,"ELSCINT1",01)',
    '(01F1,"ELSCINT1",07)',
    '(01F1,"ELSCINT1",26)',
    '(01F1,"ELSCINT1",27)',
)


def _names(text: str) -> list[str]:
    return text.split()


# Attributes with a meaning of their own; everything else follows from the table.
_SPECIAL = {
    0x00100010: "REPLACE {} func:pseudonym_patient",
    0x00100020: "REPLACE {} func:pseudonym_patient",
    0x00080050: "REPLACE {} func:pseudonym_id",
    0x00200010: "REPLACE {} func:pseudonym_id",
    0x00420011: "REMOVE {}",
}
_PATIENT = {
    0x00100040: "REPLACE {} func:keep_sex",
    0x00101010: "REPLACE {} func:keep_age",
    0x00101020: "REPLACE {} func:keep_size",
    0x00101030: "REPLACE {} func:keep_weight",
}
_CONTENT, _GRAPHICS = 0x0040A730, 0x00700001
_VERIFYING, _PERFORMED = 0x0040A073, 0x00081111  # required in reports; of UIDs only, once their items are cleaned
# Not in the table, technical, and useless when cleaned to dictionary words. A name of a person in them is still cut.
_TECHNICAL = _names("""
    Manufacturer ManufacturerModelName SoftwareVersions ConvolutionKernel FilterType SequenceName PulseSequenceName
    ReceiveCoilName TransmitCoilName ImagedNucleus Radionuclide RescaleType ModalityLUTType CodingSchemeDesignator
    CodingSchemeVersion MappingResourceName PixelSpacingCalibrationDescription AttenuationCorrectionMethod
    ReconstructionMethod ScatterCorrectionMethod AcquisitionMode DigitalImageFormatAcquired StackID TypeOfFilters
    PhosphorType PlateType CollimatorGridName TransducerData ProcessingFunction
    SegmentAlgorithmName
""")
# Coded terms of fixed sets, which a person's name can only equal by chance.
_TERMS = _names("""
    ImageType Modality BodyPartExamined ViewPosition PatientPosition PhotometricInterpretation
    Laterality ImageLaterality PresentationIntentType LossyImageCompression LossyImageCompressionMethod
    BurnedInAnnotation RecognizableVisualFeatures RescaleType PresentationLUTShape ScanningSequence SequenceVariant
    ScanOptions MRAcquisitionType AngioFlag ConversionType CorrectedImage Units CountsSource SeriesType
""")
_HEAD = """\
FORMAT dicom

# {title}: DICOM PS3.15 Annex E, Basic Application Level Confidentiality Profile
# {options}
# Written from Table E.1-1 by `edge-node deid recipe {arguments}`. Copy it to change it and set [deid] recipe.
#
# The language is deid's (https://pydicom.github.io/deid); `edge-node docs recipes` says what each word means here.
# Rules hold at every depth of nesting. Whatever the rules say, unknown and unreadable elements, private ones that no
# rule keeps by creator, curves, overlays, icons, signatures and padding are removed; text that no rule names is
# cleaned or removed.

%header
"""


def profile_text(name: str) -> str:
    """A shipped recipe by its name. Raises Stop("deid.unknown-profile")."""
    if name not in PROFILES:
        raise Stop(
            "deid.unknown-profile", f"{name!r} is no profile; there are {', '.join(PROFILES)}", hint="edge-node deid"
        )
    return recipe_text(PROFILES[name], name=name)


def recipe_text(options: Collection[str], *, name: str = "") -> str:
    """The recipe of the Basic Profile with `options` (keys of `OPTIONS`): one line per attribute of the table.

    `name` "strict" removes all text and dates that no rule keeps. Raises Stop("deid.unknown-option"),
    Stop("deid.conflicting-options") for two ways with dates.
    """
    for option in options:
        if option not in OPTIONS:
            raise Stop(
                "deid.unknown-option", f"{option!r} is no option; there are {', '.join(OPTIONS)}", hint="edge-node deid"
            )
    if {"retain-full-dates", "retain-modified-dates"} <= set(options):
        raise Stop("deid.conflicting-options", "dates stay in full or are shifted, not both", hint="choose one")
    return _Writer([o for o in OPTIONS if o in options], name).text()


def line_for(tag: int) -> str:
    """The Basic Profile's line for one attribute of the table."""
    return _Writer([], "basic").line(tag, table()[tag])


class _Writer:
    def __init__(self, options: list[str], name: str) -> None:
        self.name = name
        self.options = options
        self.columns = {OPTIONS[o].column for o in options}
        self.strict = name == "strict"

    def text(self) -> str:
        said = " · ".join(OPTIONS[o].title for o in self.options)
        known = self.name in PROFILES
        words = f"--profile {self.name}" if known else " ".join(f"--option {o}" for o in self.options)
        options = f"with the options {said}." if said else "without options."
        lines = [_HEAD.format(title=self.name or "Generated", options=options, arguments=words or "--profile basic")]
        lines += self._ground()
        own = (0x0040A160, 0x00700006) if {"structured", "graphics"} & self.columns else ()
        lines += [
            self.line(tag, row) for tag, row in sorted(table().items()) if 8 <= tag >> 16 < 0xFFF0 and tag not in own
        ]
        lines.append("\n# Codes: public coding schemes keep their codes, meanings are cleaned.")
        lines.append("REPLACE CodeValue func:code_value\nREPLACE CodeMeaning func:code_meaning")
        if {"structured", "graphics"} & self.columns:
            lines.append("\n# Text of report items and of graphics, which may not be empty.")
            lines.append("REPLACE TextValue func:clean_content\nREPLACE UnformattedTextValue func:clean_content")
        lines.append("\n# Coded terms of fixed sets.")
        lines += [f"KEEP {name}" for name in sorted(set(_TERMS) - {"RescaleType"})]
        if not self.strict:
            lines.append("\n# Technical text that is not in Table E.1-1.")
            lines += [f"KEEP {name}" for name in sorted(_TECHNICAL)]
        if "retain-safe-private" in self.options:
            lines.append("\n# Private attributes of known makers: numbers and coded terms.")
            lines += [f"KEEP {field}" for field in SAFE_PRIVATE]
        lines.append("\n# What (0012,0064) says was done (PS3.16 CID 7050).")
        codes = ",".join(["113100", *(OPTIONS[o].code for o in self.options)])
        lines.append(f"ADD DeidentificationMethodCodeSequence {codes}")
        return "\n".join(lines) + "\n"

    def _ground(self) -> list[str]:
        """Expanders, for attributes that the table does not name."""
        lines = []
        if "full-dates" in self.columns:
            lines += [f"KEEP select:VR:{vr}" for vr in ("DA", "DT", "TM")]
        elif "modified-dates" not in self.columns:
            lines += [f"BLANK select:VR:{vr}" for vr in ("DA", "DT", *(("TM",) if self.strict else ()))]
        if "uids" in self.columns:
            lines.append("KEEP select:VR:UI")
        if self.strict:
            lines += [f"BLANK select:VR:{vr}" for vr in ("LO", "LT", "SH", "ST", "UC", "UT")]
        return ["# Attributes that the table does not name.", *lines, ""] if lines else []

    def line(self, tag: int, row: Row) -> str:
        field = keyword_for_tag(tag) or wire.tag_name(tag)
        if tag in _SPECIAL:
            return _SPECIAL[tag].format(field)
        if tag in _PATIENT and "patient" in self.columns:
            return _PATIENT[tag].format(field)
        vr = wire.dictionary_vr(tag)[:2]
        asked = {row.options[c] for c in self.columns & row.options.keys()}
        if vr == "SQ":
            return f"{self._sequence(tag, row, asked)} {field}"
        if vr in ("DA", "DT", "TM") and "C" in asked:
            return f"JITTER {field} var:patient_shift"
        if "C" in asked and vr in ("CS", "LO", "LT", "SH", "ST", "UT"):
            return f"REPLACE {field} func:clean_text"
        if asked == {"K"} and vr not in ("", "OB", "UN"):
            return f"KEEP {field}"
        if row.basic == "U":
            return f"REPLACE {field} func:pseudonym_uid"
        if row.basic == "X" or vr in ("", "OB", "UN"):
            return f"REMOVE {field}"
        if row.basic in ("Z", "X/Z"):
            return f"BLANK {field}"
        return f"REPLACE {field} func:dummy"

    def _sequence(self, tag: int, row: Row, asked: set[str]) -> str:
        if tag in (_CONTENT, _GRAPHICS) and not asked:
            return "REMOVE"
        if asked or "U" in row.basic or tag in (_VERIFYING, _PERFORMED):
            return "KEEP"  # the items are de-identified like everything else
        return "REMOVE" if "X" in row.basic else "BLANK"  # an empty sequence is often not allowed
