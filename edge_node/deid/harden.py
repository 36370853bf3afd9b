"""What no recipe can say: default deny. Every function here answers for an element that no rule speaks of, or that no
rule may save."""

from __future__ import annotations

import re

from pydicom.charset import python_encoding

from edge_node.deid import functions, wire
from edge_node.deid.e1_1 import table
from edge_node.deid.functions import Function
from edge_node.deid.scene import CHARACTER_SET, Scene
from edge_node.deid.wire import Element
from edge_node.domain.errors import Quarantine

# Icon image, documents; MAC, signatures and encrypted copies of what was removed; attributes replaced earlier.
# fmt: off
_REFUSED = frozenset([
    0x00880200, 0x00420011, 0x4FFE0001, 0x04000500, 0x04000510, 0x04000520, 0x04000550, 0x04000561,
    0x04000600, 0x04020010,
])
# fmt: on
# Bulk values that mean something without text in them. Anything else in OB, OW … goes.
# fmt: off
_BULK = frozenset([
    wire.PIXEL_DATA, 0x7FE00001, 0x7FE00002, 0x7FE00008, 0x7FE00009, 0x54001010, 0x5400100A, 0x56000020,
    0x56000010, 0x00281201, 0x00281202, 0x00281203, 0x00281204, 0x00281221, 0x00281222, 0x00281223, 0x00281224,
    0x00283006, 0x00660016, 0x00660021, 0x00660023, 0x00660040, 0x00660041, 0x00660042, 0x00660043, 0x00660129,
    0x00640009, 0x54000110, 0x54000112, 0x00282000, 0x00281408,
])
# fmt: on
# UIDs that name a kind of thing, not a thing.
# fmt: off
_CLASS_UIDS = frozenset([
    0x00080016, 0x0008001A, 0x0008001B, 0x00080062, 0x00081150, 0x0008115A, 0x00080117, 0x00080118, 0x0008010C,
    0x00083002, 0x04000010, 0x04000510, 0x00041510, 0x00041512,
])
# fmt: on
_TEXT = frozenset({"LO", "SH", "ST", "LT", "UT", "UC"})
_STRINGS = _TEXT | {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "PN", "TM", "UI", "UR"}
_NUMBERS = frozenset({"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"})
_WIDTHS = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "AT": 4, "UV": 8, "SV": 8, "FD": 8}
_BINARY = frozenset({"OB", "OW", "OF", "OD", "OL", "OV"})
_WORD = re.compile(r"[^\W_]+")
_UIDS = re.compile(rb"[0-9.\\\0 ]*")
_NUMERIC_STRING = re.compile(rb"[0-9+\-.eE \\]*")
_REPORTS = "1.2.840.10008.5.1.4.1.1.88."
# What stands for "replace by a dummy" in sequences that are content, not description: without a rule they go.
_CONTENT = frozenset([0x0040A730, 0x00700001])
# Encapsulated documents say identity in running text; audio says it aloud.
_UNSUPPORTED = (
    "1.2.840.10008.5.1.4.1.1.104.",
    "1.2.840.10008.5.1.4.1.1.9.4.",
    "1.2.840.10008.1.3.10",
)


def refuse_object(sop_class: str, *, structured: bool) -> None:
    """Raise Quarantine("deid.unsupported-content") for classes whose content is a document, not an image.

    `structured`: the recipe keeps ContentSequence, so that reports are cleaned item by item (PS3.15 E.3.9). A document
    inside an image is refused as an element.
    """
    if sop_class.startswith(_UNSUPPORTED):
        raise Quarantine(
            "deid.unsupported-content",
            "encapsulated documents, audio and directories are withheld: what they say cannot be cleaned",
            hint="edge-node study show",
        )
    if sop_class.startswith(_REPORTS) and not structured:
        raise Quarantine(
            "deid.unsupported-content",
            "the recipe has no rule that keeps the content of structured reports, so they are withheld",
            hint="KEEP ContentSequence, or the option clean-structured-content",
        )


def refused(tag: int, vr: str, depth: int) -> bool:
    """True for what leaves whatever the recipe says.

    Private, unknown and UN elements, command, file-meta and group-length elements, curves, overlays, icons,
    signatures, encrypted and earlier attributes, padding; elements sent under a VR of another kind than the
    dictionary's; and patient attributes inside sequences, where the options that keep them do not reach.
    """
    group = tag >> 16
    if group & 1 or group < 8 or tag in _REFUSED or vr == "UN":
        return True
    if group & 0xFF00 in (0x5000, 0x6000) or group >= 0xFFF0:
        return True
    known = wire.dictionary_vr(tag)  # "" for group lengths and whatever is unknown: no kind is the same
    if depth and group == 0x7FE0:  # pixels inside a sequence: nobody checks how long they ought to be
        return True
    if depth and group == 0x0010 and tag in table() and known != "SQ":
        return True
    return not _same_kind(vr, known)


def _same_kind(vr: str, known: str) -> bool:
    if vr in known.split():
        return True
    if vr in _STRINGS and known in _STRINGS:
        return True
    if vr in _NUMBERS or vr in ("DS", "IS"):
        return any(k in _NUMBERS or k in ("DS", "IS") for k in known.split())
    return vr in _BINARY and any(k in _BINARY for k in known.split())


def default_action(tag: int, vr: str) -> str | Function:
    """What happens to an element without a rule: "remove", "blank", "descend", or a function.

    Attributes of Table E.1-1 get the action of the Basic Profile; of the others only what cannot hold text survives
    unseen.
    """
    row = table().get(tag)
    if tag in _CONTENT:
        return "remove"
    if row is not None:
        return basic_action(row.basic, vr, "modified-dates" in row.options)
    known = wire.dictionary_vr(tag)
    if tag == CHARACTER_SET:
        return _character_set
    if vr == "SQ":
        return "descend"
    if vr in _BINARY:
        return _keep if tag in _BULK else "remove"
    if vr in _WIDTHS:
        return _whole_numbers
    if known in ("PN", "AE", "UR", "AS"):
        return "remove"
    if known == "UI":
        return _keep_uid if tag in _CLASS_UIDS else functions.pseudonym_uid
    return _BY_VR.get(known, functions.clean_text)


def basic_action(basic: str, vr: str, date: bool) -> str | Function:
    """The Basic Profile's action (PS3.15 E.2) in our words; of several, the first that an IOD of any kind can bear."""
    if vr == "SQ":
        return "remove" if basic == "X" else "descend" if "U" in basic else "blank"
    if basic == "U":
        return functions.pseudonym_uid
    if basic == "X":
        return "remove"
    if date or basic in ("Z", "X/Z"):
        return "blank"
    return functions.dummy


def _keep(element: Element, scene: Scene) -> bytes | None:
    del scene
    return element.value


def _whole_numbers(element: Element, scene: Scene) -> bytes | None:
    """What is not as long as numbers are is something else."""
    del scene
    return element.value if len(element.value) % _WIDTHS[element.vr] == 0 else None


def _keep_uid(element: Element, scene: Scene) -> bytes | None:
    del scene
    return element.value if _UIDS.fullmatch(element.value) else None


def _code_string(element: Element, scene: Scene) -> bytes | None:
    value = element.value.rstrip(b" \0")
    words = [w for w in _WORD.findall(value.decode("latin-1").lower()) if len(w) > 2]
    if functions.CODE_STRING.fullmatch(value) and scene.names.isdisjoint(words):
        return value
    return functions.upper_words(element, scene)


def _character_set(element: Element, scene: Scene) -> bytes | None:
    del scene
    terms = element.value.decode("latin-1").strip(" \0").split("\\")
    return element.value if all(term.strip() in python_encoding for term in terms) else None


def _numeric_string(element: Element, scene: Scene) -> bytes | None:
    del scene
    value = element.value.rstrip(b" \0")
    return value if _NUMERIC_STRING.fullmatch(value) else None


_BY_VR: dict[str, Function] = {
    "CS": _code_string,
    "DA": functions.shift_date,
    "DT": functions.shift_date,
    "TM": functions.shift_date,
    "DS": _numeric_string,
    "IS": _numeric_string,
}
