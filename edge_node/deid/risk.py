"""May the pixels still show identity? A reason code, or "" where nothing hints at it (PS3.15 E.3.1)."""

from __future__ import annotations

from edge_node.deid import wire
from edge_node.deid.bitstream import is_video
from edge_node.deid.wire import PIXEL_DATA, Node

_IMAGES = "1.2.840.10008.5.1.4.1.1."
_ULTRASOUND = tuple(_IMAGES + s for s in ("3", "3.1", "6", "6.1", "6.2", "6.3"))
_PLAIN = frozenset(
    _IMAGES + s
    for s in (
        *("1", "1.1", "1.1.1", "1.2", "1.2.1"),  # CR, DX, MG for presentation and processing
        *("2", "2.1", "2.2"),  # CT, enhanced CT and its converted legacy form
        *("4", "4.1", "4.3", "4.4"),  # MR, enhanced MR, enhanced colour MR, converted legacy MR
        *("20", "128", "128.1", "130"),  # NM, PT, converted legacy PT, enhanced PT
        "13.1.3",  # breast tomosynthesis
    )
)
_RADIOGRAPHS = frozenset(_IMAGES + s for s in ("1", "1.1", "1.1.1", "1.2", "1.2.1"))


def pixel_risk(node: Node, sop_class: str, transfer_syntax: str) -> str:
    """Reason code for an object as received: ``burned-in-annotation``, ``screen-save``, ``secondary-capture``,
    ``ultrasound``, ``video``, ``other-class``, ``embedded-overlay``, ``colour-rendering``, ``derived-image``,
    ``image-type-missing``; "" when the pixels came out of the examination itself, or there are none.
    """
    if PIXEL_DATA not in node and 0x7FE00008 not in node and 0x7FE00009 not in node:
        return ""
    kind = [part.strip().upper() for part in wire.ascii_text(node, 0x00080008).split("\\") if part.strip()]
    if wire.ascii_text(node, 0x00280301).upper() == "YES":
        return "burned-in-annotation"
    if any("SCREEN" in part for part in kind):
        return "screen-save"
    if sop_class.startswith(_IMAGES + "7") and not sop_class.startswith(_IMAGES + "77."):
        return "secondary-capture"
    if 0x00080064 in node:  # Conversion Type: digitised or captured, whatever the class says
        return "secondary-capture"
    if sop_class in _ULTRASOUND:
        return "ultrasound"
    if is_video(transfer_syntax):
        return "video"
    if sop_class not in _PLAIN:
        return "other-class"
    overlays = [tag for tag in node if tag >> 24 == 0x60]
    if any(tag & 0xFFFF == 0x0010 and (tag & 0xFFFF0000 | 0x3000) not in node for tag in overlays):
        return "embedded-overlay"
    if wire.ascii_text(node, 0x00280004).upper() not in ("MONOCHROME1", "MONOCHROME2"):
        return "colour-rendering"
    if not kind:
        return "" if sop_class in _RADIOGRAPHS else "image-type-missing"
    # A derived image that is still PRIMARY came out of the examination itself, like every processed radiograph
    # (PS3.3 C.7.6.1.1.2); SECONDARY ones are made afterwards, and may carry what somebody wrote on them.
    return "" if kind[0] == "ORIGINAL" or kind[1:2] == ["PRIMARY"] else "derived-image"
