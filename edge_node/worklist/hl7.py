"""HL7 v2 as text: segments, escaping, the data types a result needs, and the acknowledgement (HL7 v2.5.1 chapter 2)."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset

from edge_node.domain.finding import Code
from edge_node.worklist.identity import text_of

ENCODING = "^~\\&"
TEXT_LENGTH = 199  # strict parsers reject longer lines in OBX-5
_ESCAPES = str.maketrans({"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"})
_GROUPS = ("A", "I", "P")  # table 0465: alphabetic, ideographic, phonetic
_MOMENT = re.compile(r"\d{4}(\d\d(\d\d)?)?")
_CLOCK = re.compile(r"\d\d(\d\d(\d\d(\.\d{1,4})?)?)?")


def escape(text: str) -> str:
    """Plain text for a field or component: delimiters as escape sequences (2.7.1), control characters as blanks."""
    return "".join(" " if ord(letter) < 32 or ord(letter) == 127 else letter for letter in text).translate(_ESCAPES)


def components(*parts: str, by: str = "^") -> str:
    """Parts that are encoded already, without the empty ones at the end."""
    return by.join(parts).rstrip(by)


def segment(name: str, fields: dict[int, str]) -> str:
    """One segment, without its terminator; `fields` by their number, encoded already. MSH counts from MSH-2 on."""
    last = max((number for number, value in fields.items() if value), default=0)
    first = 2 if name == "MSH" else 1
    return "|".join([name, *(fields.get(number, "") for number in range(first, last + 1))])


def coded(code: Code, alternate: Code | None = None) -> str:
    """CE, CWE: a code, and the same in the site's own words."""
    others = (alternate.value, alternate.meaning, alternate.scheme) if alternate else ()
    return components(*(escape(part) for part in (code.value, code.meaning, code.scheme, *others)))


def moment(when: datetime) -> str:
    """TS of an aware moment, to the second, with its time zone."""
    return when.strftime("%Y%m%d%H%M%S%z")


def dicom_moment(date: str, clock: str, offset: str) -> str:
    """TS of a DICOM DA and TM, as precise as they are; "" for a date that is none."""
    if not _MOMENT.fullmatch(date):
        return ""
    if len(date) < 8 or not _CLOCK.fullmatch(clock):
        return date
    return date + clock + (offset if re.fullmatch(r"[+-]\d{4}", offset) else "")


def authority(namespace: str, universal_id: str = "", universal_type: str = "", *, by: str = "&") -> str:
    """HD: who assigned an identifier, as a subcomponent."""
    return components(escape(namespace), escape(universal_id), escape(universal_type), by=by)


def issuer_of(item: Dataset) -> str:
    """HD of the issuer of the Patient ID in `item` (PS3.3 C.7.1.1), "" if it names none."""
    qualifiers = next(iter(item.get("IssuerOfPatientIDQualifiersSequence") or []), Dataset())
    return authority(text_of(item, "IssuerOfPatientID"), *universal(qualifiers))


def universal(issuer: Dataset) -> tuple[str, str]:
    """Universal ID and its type of an issuer (HL7v2 Hierarchic Designator macro, PS3.3 Table 10-17)."""
    return text_of(issuer, "UniversalEntityID"), text_of(issuer, "UniversalEntityIDType")


def entity(number: str, issuer: Dataset | None) -> str:
    """EI of an order number and the item of its issuer, if one is named."""
    if not number:
        return ""
    by = issuer if issuer is not None else Dataset()
    return components(escape(number), authority(text_of(by, "LocalNamespaceEntityID"), *universal(by), by="^"))


def person_names(value: str, *, numbered: bool = False) -> str:
    """XPN (or XCN without number, if `numbered`) of a DICOM PN: a repetition for each of its component groups.

    PN has family, given, middle, prefix, suffix (PS3.5 6.2.1.1); XPN has the suffix before the prefix.
    """
    spellings = []
    for group, representation in zip(value.split("="), _GROUPS, strict=False):
        family, given, middle, prefix, suffix = (group.split("^") + [""] * 5)[:5]
        name = [escape(part.strip()) for part in (family, given, middle, suffix, prefix)]
        if not any(name):
            continue
        # XPN-7 and XPN-8; XCN has number first, then the same five, degree, source, authority, type … representation
        spellings.append(
            components("", *name, "", "", "", "L", "", "", "", "", representation)
            if numbered
            else components(*name, "", "L", representation)
        )
    return "~".join(spellings)


def lines_of(words: str) -> list[str]:
    """`words` in lines that stay within 199 characters once they are escaped; the lines are not escaped yet."""
    plain = " ".join(words.split())
    # One character becomes three at most.
    width = TEXT_LENGTH if len(escape(plain)) == len(plain) else TEXT_LENGTH // 3
    return textwrap.wrap(plain, width, break_on_hyphens=False)


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """MSA of an answer: its code (table 0008), the control ID it speaks of, and the error number of ERR-3 if any;
    `controls` are the order control codes (ORC-1, table 0119) of an answer about orders.

    What the peer says in words is left out: it may repeat what we sent.
    """

    code: str
    control_id: str
    error: str
    controls: tuple[str, ...] = ()


def read_acknowledgement(block: bytes) -> Acknowledgement | None:
    """The acknowledgement in an MLLP block, None if there is none in it."""
    said = block.decode("utf-8", "replace").lstrip()
    if len(said) < 8 or not said.startswith("MSH"):
        return None
    by, part = said[3], said[4]
    rows = [row.split(by) for row in re.split(r"[\r\n]+", said)]
    about = next((row for row in rows if row[0] == "MSA"), None)
    if about is None or len(about) < 3 or not re.fullmatch(r"[AC][AER]", about[1]):
        return None
    trouble = next((row for row in rows if row[0] == "ERR"), [])
    number = trouble[3].split(part)[0] if len(trouble) > 3 else ""
    controls = tuple(row[1] for row in rows if row[0] == "ORC" and len(row) > 1 and re.fullmatch(r"[A-Z]{2}", row[1]))
    return Acknowledgement(about[1], about[2].strip(), number if re.fullmatch(r"\d{3}", number) else "", controls)
