"""Which pixels may show identity, by every attribute that hints at it."""

from __future__ import annotations

import pytest

from edge_node.deid.risk import pixel_risk
from edge_node.deid.wire import PIXEL_DATA, Element, Node

IMAGES = "1.2.840.10008.5.1.4.1.1."
CT, EXPLICIT, MPEG = IMAGES + "2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.100"
KIND, BURNED, CONVERSION, COLOURS = 0x00080008, 0x00280301, 0x00080064, 0x00280004
OVERLAY_ROWS, OVERLAY, OVERLAY_DATA = 0x60000010, 0x60000100, 0x60003000


def risk(sop_class: str = CT, syntax: str = EXPLICIT, pixels: int = PIXEL_DATA, **changes: bytes | None) -> str:
    given: dict[str, bytes | None] = {"kind": b"ORIGINAL\\PRIMARY\\AXIAL", "colours": b"MONOCHROME2 ", **changes}
    tags = {"kind": KIND, "burned": BURNED, "conversion": CONVERSION, "colours": COLOURS, "rows": OVERLAY_ROWS,
            "overlay": OVERLAY, "data": OVERLAY_DATA, "other": 0x60020010, "others": 0x60023000}  # fmt: skip
    node: Node = {tags[name]: Element(tags[name], "CS", value) for name, value in given.items() if value is not None}
    if pixels:
        node[pixels] = Element(pixels, "OW", b"ab")
    return pixel_risk(node, sop_class, syntax)


@pytest.mark.parametrize("pixels", [PIXEL_DATA, 0x7FE00008, 0x7FE00009])
def test_what_has_pixels_of_any_kind_is_judged_and_what_has_none_is_not(pixels: int) -> None:
    assert risk(pixels=pixels, burned=b"YES ") == "burned-in-annotation"
    assert risk(pixels=pixels) == ""
    assert risk(pixels=0, burned=b"YES ") == ""


@pytest.mark.parametrize(
    ("sop_class", "reason"),
    [
        *((IMAGES + s, "") for s in ("1", "1.1", "1.1.1", "1.2", "1.2.1", "2", "2.1", "2.2", "4", "4.1", "4.3", "4.4")),
        *((IMAGES + s, "") for s in ("20", "128", "128.1", "130", "13.1.3")),
        *((IMAGES + s, "ultrasound") for s in ("3", "3.1", "6", "6.1", "6.2", "6.3")),
        *((IMAGES + s, "secondary-capture") for s in ("7", "7.1", "7.2", "7.3", "7.4")),
        *((IMAGES + s, "other-class") for s in ("77.1.4", "77.1.6", "12.1", "12.2", "5", "4.2", "88.11", "2.3")),
        ("1.2.3", "other-class"),
    ],
)
def test_a_class_is_plain_or_says_why_it_is_not(sop_class: str, reason: str) -> None:
    assert risk(sop_class) == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"burned": b"YES "}, "burned-in-annotation"),
        ({"burned": b"yes"}, "burned-in-annotation"),
        ({"burned": b"NO"}, ""),
        ({"kind": b"DERIVED\\PRIMARY\\SCREEN SAVE"}, "screen-save"),
        ({"kind": b"derived\\secondary\\screen save"}, "screen-save"),
        ({"kind": b"ORIGINAL\\SECONDARY"}, ""),
        ({"kind": b"original \\ primary"}, ""),
        ({"kind": b"DERIVED\\PRIMARY"}, ""),
        ({"kind": b"DERIVED\\PRIMARY\\MPR"}, ""),
        ({"kind": b"DERIVED\\\\PRIMARY"}, ""),
        ({"kind": b"DERIVED\\SECONDARY\\PRIMARY"}, "derived-image"),
        ({"kind": b"DERIVED"}, "derived-image"),
        ({"kind": b"MIXED\\SECONDARY"}, "derived-image"),
        ({"kind": b""}, "image-type-missing"),
        ({"kind": b" \\ "}, "image-type-missing"),
        ({"kind": None}, "image-type-missing"),
        ({"conversion": b"DF"}, "secondary-capture"),
        ({"conversion": b""}, "secondary-capture"),
        ({"colours": b"MONOCHROME1"}, ""),
        ({"colours": b"monochrome1"}, ""),
        ({"colours": b"RGB "}, "colour-rendering"),
        ({"colours": b"PALETTE COLOR "}, "colour-rendering"),
        ({"colours": None}, "colour-rendering"),
        ({"rows": b"ab"}, "embedded-overlay"),
        ({"rows": b"ab", "data": b"ab"}, ""),
        ({"overlay": b"ab"}, ""),
        ({"rows": b"ab", "data": b"ab", "other": b"ab"}, "embedded-overlay"),
        ({"rows": b"ab", "others": b"ab"}, "embedded-overlay"),
    ],
)
def test_attributes_hint_at_text_in_the_pixels(changes: dict[str, bytes | None], reason: str) -> None:
    assert risk(**changes) == reason  # type: ignore[arg-type]


def test_a_radiograph_needs_no_image_type_and_a_film_is_a_video() -> None:
    for one in ("1", "1.1", "1.1.1", "1.2", "1.2.1"):
        assert risk(IMAGES + one, kind=None) == ""
    assert risk(IMAGES + "4", kind=None) == "image-type-missing"
    assert risk(syntax=MPEG) == "video"
    assert risk(IMAGES + "3.1", MPEG) == "ultrasound"
