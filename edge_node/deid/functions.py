"""What ``func:`` and ``var:`` mean in a recipe. A function gives the new value, or None to remove the element.

======================  ==============================================================================================
func:pseudonym_uid      keyed UID; UIDs of the standard stay
func:pseudonym_patient  the patient's pseudonym, the same wherever the patient's ID and issuer are the same
func:pseudonym_id       keyed identifier (12 base32 characters) of this value, per attribute; empty stays empty
func:shift_date         DA/DT shifted by the patient's whole weeks; TM as it is; what is no date becomes empty
func:clean_text         only vocabulary words and measures survive
func:dummy              a fixed value that fits the value representation
func:keep_age           an age; over 89 years becomes 090Y; removed if it is no age
func:keep_sex           M, F or O; else empty
func:keep_size          metres between 0.1 and 2.6; else removed
func:keep_weight        kilograms between 0.2 and 450; else removed
func:code_value         the code if its coding scheme is a public one; else a fixed dummy
func:code_meaning       the standard's own words for a code that it lists; else like clean_content
func:clean_content      cleaned text; UNSPECIFIED if nothing is left, where a value is needed
var:patient_shift       for JITTER: the same as func:shift_date
var:patient_pseudonym   the same as func:pseudonym_patient
var:recipe_name         the recipe's file name without suffix
======================  ==============================================================================================

Conditions, for ``REMOVE FIELD func:…`` (`PREDICATES`): ``is_name``, the text says a word of a person's name of this
object; ``has_digits``, it holds three digits in a row.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from edge_node.deid import wire
from edge_node.deid.codes import meaning_of
from edge_node.deid.dates import shift_da, shift_dt
from edge_node.deid.scene import Scene
from edge_node.deid.vocabulary import clean_text as clean
from edge_node.deid.wire import Element

Function = Callable[[Element, Scene], bytes | None]
Predicate = Callable[[Element, Scene], bool]

SCHEME, CODE = 0x00080102, 0x00080100
LOOKED_AT = (SCHEME, CODE)  # what functions look at beside the element that they are given
CODE_STRING = re.compile(rb"[A-Z0-9_ ]{0,16}(?:\\[A-Z0-9_ ]{0,16})*")  # CS (PS3.5 6.2)
_DUMMY = {"AE": b"ANON", "AS": b"000Y", "CS": b"ANON", "DA": b"19000101", "DS": b"0", "DT": b"19000101000000"}
_DUMMY |= {"IS": b"0", "TM": b"000000", "UI": b"", "UR": b"urn:anon"}
_DUMMY |= dict.fromkeys(("LO", "LT", "PN", "SH", "ST", "UC", "UT"), b"ANONYMIZED")
PUBLIC_SCHEMES = frozenset(
    re.findall(
        r"\S+",
        """
    DCM SCT SRT SNM3 99SDM UCUM LN RADLEX FMA MA UMLS NCIt ICD10 I10 I9C ISO639_1 ISO639_2 ISO3166_1 RFC3066
    RFC5646 BI UNS PUBCHEM_CID NEU UBERON RADELEMENT ACR ITIS_TSN IBSI MDC NICIP CPT4 C4 SNOMED
    """,
    )
)
# Compiled here: the cache of the re module is small, and shared with whoever else uses it.
_WORD = re.compile(r"[^\W_]+")
# Times (PS3.5 6.2 TM), also as ACR-NEMA wrote them (10:15:00) and as ranges; other digits are a number of something.
_HOUR = r"(?:[01]\d|2[0-3])(?::?[0-5]\d(?::?(?:[0-5]\d|60)(?:\.\d{1,6})?)?)?"
# Possessive: a blank is one time or none, and never tried as both.
_HOURS = rf"(?: *+(?:{_HOUR}(?: *+- *+(?:{_HOUR})?)?+|- *+{_HOUR})?+ *+)"
_TIME = re.compile(rf"{_HOURS}(?:\\{_HOURS})*+")
_CODE = re.compile(rb"[A-Za-z0-9.{}/%*^\[\]_-]{1,16}")
_NO_CODE = re.compile(r"[^A-Z0-9_ ]")
_MEASURE = re.compile(r"\d{1,3}(\.\d{1,6})?")
_THREE_DIGITS = re.compile(r"\d{3}")
_AGE = re.compile(r"(\d{3})([DWMY])")


def pseudonym_uid(element: Element, scene: Scene) -> bytes | None:
    olds = element.value.decode("latin-1").split("\\")
    return "\\".join(scene.pseudonyms.uid(old.strip(" \0")) for old in olds).encode("latin-1")


def pseudonym_patient(element: Element, scene: Scene) -> bytes | None:
    del element
    return scene.patient_pseudonym.encode()


def pseudonym_id(element: Element, scene: Scene) -> bytes | None:
    # The issuer of an accession number or study ID is nearly never sent: the patient keeps equal numbers of two
    # departments apart.
    text = scene.text(element).strip()
    return scene.pseudonyms.identifier(wire.tag_name(element.tag), scene.patient, text).encode()


def shift_date(element: Element, scene: Scene) -> bytes | None:
    kind = wire.dictionary_vr(element.tag) or element.vr
    text = element.value.decode("latin-1").strip(" \0")
    if kind == "TM":
        return element.value if _TIME.fullmatch(text) else b""
    shift = shift_da if kind == "DA" else shift_dt
    return "\\".join(shift(part, scene.shift_days) for part in text.split("\\")).encode("latin-1")


def shift_private(element: Element, scene: Scene) -> bytes | None:
    """Like `shift_date`; a time stays, and what is no date goes."""
    return shift_date(element, scene) or None


def clean_text(element: Element, scene: Scene) -> bytes | None:
    return "\\".join(clean(part, scene.names) for part in scene.text(element).split("\\")).encode()


def dummy(element: Element, scene: Scene) -> bytes | None:
    if element.vr == "UI":
        return pseudonym_uid(element, scene)
    return _DUMMY.get(element.vr)


def keep_age(element: Element, scene: Scene) -> bytes | None:
    del scene
    match = _AGE.fullmatch(element.value.decode("latin-1").strip(" \0"))
    if not match:
        return None
    if match[2] == "Y":  # three digits of days, weeks or months are never ninety years
        return f"{min(int(match[1]), 90):03}Y".encode()
    return match[0].encode()


def keep_sex(element: Element, scene: Scene) -> bytes | None:
    del scene
    text = element.value.strip(b" \0")
    return text if text in (b"M", b"F", b"O") else b""


def _plausible(element: Element, low: float, high: float) -> bytes | None:
    text = element.value.decode("latin-1").strip(" \0")
    if not _MEASURE.fullmatch(text) or not low <= float(text) <= high:
        return None
    return text.encode()


def keep_size(element: Element, scene: Scene) -> bytes | None:
    del scene
    return _plausible(element, 0.1, 2.6)


def keep_weight(element: Element, scene: Scene) -> bytes | None:
    del scene
    return _plausible(element, 0.2, 450)


def code_value(element: Element, scene: Scene) -> bytes | None:
    scheme = wire.ascii_text(scene.node, SCHEME)
    text = element.value.strip(b" \0")
    public = scheme in PUBLIC_SCHEMES and _CODE.fullmatch(text)
    return text if public else b"ANON"


def code_meaning(element: Element, scene: Scene) -> bytes | None:
    known = meaning_of(wire.ascii_text(scene.node, SCHEME), wire.ascii_text(scene.node, CODE))
    return known.encode() if known else clean_content(element, scene)


def clean_content(element: Element, scene: Scene) -> bytes | None:
    return clean_text(element, scene) or b"UNSPECIFIED"


def upper_words(element: Element, scene: Scene) -> bytes | None:
    """A code string made of what vocabulary words are in the text; None if there are none."""
    parts = (clean(part, scene.names).upper()[:16].rstrip() for part in scene.text(element).split("\\"))
    return "\\".join(_NO_CODE.sub("", part) for part in parts).encode() or None


def keep_term(element: Element, scene: Scene) -> bytes | None:
    """What KEEP does to a code string: as it is if it is one, else what words of it are known."""
    value = element.value.rstrip(b" \0")
    return value if CODE_STRING.fullmatch(value) else upper_words(element, scene)


def keep_technical(element: Element, scene: Scene) -> bytes | None:
    """What KEEP does to text: as it is, unless a word of it is a name in this object; then it is cleaned."""
    text = scene.text(element).lower()
    if scene.names and not scene.names.isdisjoint(_WORD.findall(text)):
        return clean_text(element, scene)
    return element.value


def jitter(days: int) -> Function:
    """A function that shifts by `days`, whoever the patient is."""

    def shifted(element: Element, scene: Scene) -> bytes | None:
        patient, scene.shift_days = scene.shift_days, days
        try:
            return shift_date(element, scene)
        finally:
            scene.shift_days = patient

    return shifted


def deid_function(text: str) -> Function:
    """What ``deid_func:`` means here: `text` is name and options. All but jitter give keyed, stable values."""
    name, _, options = text.partition(" ")
    if name == "jitter":
        given = {key: int(number) for key, _, number in (pair.partition("=") for pair in options.split())}
        return jitter(given.get("days", 0 if "years" in given else 1) + 365 * given.get("years", 0))
    return _pseudonym


def _pseudonym(element: Element, scene: Scene) -> bytes | None:
    uid = element.vr == "UI" or wire.dictionary_vr(element.tag) == "UI"
    return pseudonym_uid(element, scene) if uid else pseudonym_id(element, scene)


def _is_name(element: Element, scene: Scene) -> bool:
    return not scene.names.isdisjoint(_WORD.findall(scene.text(element).lower()))


def _has_digits(element: Element, scene: Scene) -> bool:
    return _THREE_DIGITS.search(scene.text(element)) is not None


PREDICATES: dict[str, Predicate] = {"is_name": _is_name, "has_digits": _has_digits}
FUNCTIONS: dict[str, Function] = {
    f.__name__: f
    for f in (
        pseudonym_uid,
        pseudonym_patient,
        pseudonym_id,
        shift_date,
        clean_text,
        dummy,
        keep_age,
        keep_sex,
        keep_size,
        keep_weight,
        code_value,
        code_meaning,
        clean_content,
    )
}
