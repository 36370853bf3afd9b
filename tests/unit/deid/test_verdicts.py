"""The check's verdict on either side of each line it draws, to the byte."""

from __future__ import annotations

import struct
import zlib

import pytest

from edge_node.deid import verify as check
from edge_node.deid.verify import verify
from edge_node.domain.errors import Quarantine
from tests.unit.deid.checked import NOBODY, UIDS, Elements, a_file, said_of, verdict
from tests.unit.deid.elements import EXPLICIT, IMPLICIT, ITEM, REFERENCES, mark, sent

DEFLATED, JPEG, J2K = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90"
TEXT, NAME, NUMBER, PIXELS = 0x00204000, 0x00100010, 0x00100020, 0x7FE00010


def test_one_of_two_objects_that_cannot_be_read_is_no_verdict() -> None:
    whole = sent(EXPLICIT, TEXT, "LT", b"axial ")
    assert said_of(whole, a_file(whole)) == "passed"
    for source, part10 in (
        (whole[:-1], a_file(whole)),
        (whole, a_file(whole)[:-1]),
        (whole, b""),
        (b"\0", a_file(whole)),
    ):
        assert said_of(source, part10) == "unverifiable"
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(whole) + packer.flush()
    assert said_of(packed, a_file(packed), DEFLATED) == "passed"
    assert said_of(packed, a_file(packed + b"\0"), DEFLATED) == "passed"
    for wrong in (packed + b"\0\0", packed + b"K", packed[:-1], b""):
        assert said_of(packed, a_file(wrong), DEFLATED) == "unverifiable"
        assert said_of(whole, a_file(packed), DEFLATED) == "unverifiable"


@pytest.mark.parametrize(
    ("tag", "vr", "place"),
    [
        (0x00191001, "LO", "(0019,1001)"),
        (0x00190010, "LO", "(0019,0010)"),
        (0x00104444, "UN", "(0010,4444)"),
        (0x50000010, "US", "NumberOfPoints"),
        (0x50FE0010, "US", "NumberOfPoints"),
        (0x60000010, "US", "OverlayRows"),
        (0x00204000, "UN", "ImageComments"),
        (0x00000100, "US", "CommandField"),
        (0x00020100, "UI", "PrivateInformationCreatorUID"),
    ],
)
def test_what_has_no_place_is_named_by_its_keyword_or_number(tag: int, vr: str, place: str) -> None:
    assert verdict([], [(tag, vr, b"xy")]) == f"residual-private in {place}"
    what = "command or file meta information" if tag < 0x00030000 else "a private, unknown, curve or overlay element"
    with pytest.raises(Quarantine, match=f"^deid.residual-private: {what} of the received object"):
        verify(b"", UIDS[EXPLICIT], a_file(sent(EXPLICIT, tag, vr, b"xy")), NOBODY)


def test_the_preamble_is_empty_to_its_last_byte() -> None:
    data = sent(EXPLICIT, TEXT, "LT", b"axial ")
    for at in (0, 64, 127):
        preamble = bytes(at) + b"K" + bytes(127 - at)
        assert said_of(data, a_file(data, preamble=preamble)) == "residual-private in a binary value"
    with pytest.raises(Quarantine, match="the preamble of the received object"):
        verify(data, UIDS[EXPLICIT], a_file(data, preamble=b"X" * 128), NOBODY)


KEPT = frozenset([(0x0019, "VENDOR", 0x01)])


@pytest.mark.parametrize(
    ("elements", "said"),
    [
        ([(0x00190010, "LO", b"VENDOR"), (0x00191001, "US", b"\1\2")], "passed"),
        ([(0x00190010, "LO", b"VENDOR \0"), (0x00191001, "DS", b"1.5 ")], "passed"),
        ([(0x00190010, "LO", b"VENDOR"), (0x00191002, "US", b"\1\2")], "residual-private in (0019,1002)"),
        ([(0x00190010, "LO", b"VENDOR"), (0x00191101, "US", b"\1\2")], "residual-private in (0019,1101)"),
        ([(0x00190010, "LO", b"OTHER "), (0x00191001, "US", b"\1\2")], "residual-private"),
        ([(0x00191001, "US", b"\1\2")], "residual-private in (0019,1001)"),
        ([(0x00210010, "LO", b"VENDOR"), (0x00211001, "US", b"\1\2")], "residual-private"),
        ([(0x00190010, "LO", b"VENDOR"), (0x00191001, "UN", b"\1\2")], "residual-private in (0019,1001)"),
        ([(0x00190010, "LO", b"VENDOR"), (0x00191001, "SQ", b"")], "residual-private in (0019,1001)"),
        ([(0x001900FF, "LO", b"VENDOR"), (0x0019FF01, "US", b"\1\2")], "passed"),
        ([(0x00190010, "LO", b"VENDOR"), (0x00191002, "LO", b"xy")], "residual-private in (0019,1002)"),
        ([(0x00190010, "LO", b"VENDOR"), (0x00191001, "US", b"\1\2"), (0x00191002, "US", b"\1\2")], "residual-private"),
        ([(0x00190100, "LO", b"VENDOR")], "residual-private in (0019,0100)"),
        ([(0x00190010, "LO", b"VENDORX "), (0x00191001, "US", b"\1\2")], "residual-private"),
    ],
)
def test_a_private_element_may_stay_if_its_creator_and_number_are_kept(elements: Elements, said: str) -> None:
    assert verdict([], elements, private=KEPT).startswith(said)
    assert verdict([], elements).startswith("residual-private")


def test_a_private_element_in_an_item_belongs_to_a_creator_in_that_item() -> None:
    inside = sent(EXPLICIT, 0x00190010, "LO", b"VENDOR") + sent(EXPLICIT, 0x00191001, "US", b"\1\2")
    alone = sent(EXPLICIT, 0x00191001, "US", b"\1\2")
    for content, passed in ((inside, True), (alone, False)):
        items = mark(EXPLICIT, ITEM, len(content)) + content
        now: Elements = [(0x00190010, "LO", b"VENDOR"), (REFERENCES, "SQ", items)]
        assert (verdict([], now, private=KEPT) == "passed") is passed


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        (("DA", b"20240229"), ("DA", b"20240229"), "residual-date in DateOfLastCalibration"),
        (("DA", b"20240229"), ("DA", b"20240222"), "passed"),
        (("DA", b"20240229 "), ("DA", b"20240229\0"), "residual-date in DateOfLastCalibration"),
        (("DA", b"20240229\0"), ("DA", b"20240229 "), "residual-date in DateOfLastCalibration"),
        (("DA", b"20240229X "), ("DA", b"20240229"), "passed"),
        (("DA", b"20240229"), ("DA", b"20240229X "), "passed"),
        (("DA", b"202402"), ("DA", b"202402"), "passed"),
        (("DA", b"2024022"), ("DA", b"2024022"), "passed"),
        (("DA", b"20240101\\20240229"), ("DA", b"20231225\\20240229"), "residual-date in DateOfLastCalibration"),
        (("DA", b"20240229\\20240301"), ("DA", b"20240222"), "passed"),
        (("DT", b"20240229101500"), ("DT", b"20240229101500"), "residual-date in DateOfLastCalibration"),
        (("UN", b"20240229"), ("DA", b"20240229"), "residual-date in DateOfLastCalibration"),
        (("LO", b"20240229"), ("DA", b"20240229"), "passed"),
        (("DA", b"        "), ("DA", b"        "), "passed"),
        (("DA", b""), ("DA", b""), "passed"),
    ],
)
def test_a_date_of_eight_digits_has_moved(was: tuple[str, bytes], now: tuple[str, bytes], said: str) -> None:
    tag = 0x00181200
    assert verdict([(tag, *was)], [(tag, *now)]) == said
    assert verdict([(tag, *was)], [(tag, *now)], kept=frozenset([tag])) == "passed"
    later: Elements = [(0x00181203, "DA", b"20240229")]
    assert verdict([(tag, *was), *later], [(tag, *now), *later]).startswith("residual-date")


def test_a_date_is_compared_with_the_one_that_stood_in_its_place() -> None:
    def item(value: bytes) -> bytes:
        date = sent(EXPLICIT, 0x00181200, "DA", value)
        return mark(EXPLICIT, ITEM, len(date)) + date

    was: Elements = [(REFERENCES, "SQ", item(b"20240229") + item(b"20240301"))]
    assert verdict(was, [(REFERENCES, "SQ", item(b"20240222") + item(b"20240223"))]) == "passed"
    assert verdict(was, [(REFERENCES, "SQ", item(b"20240301") + item(b"20240229"))]) == "passed"
    assert verdict(was, [(REFERENCES, "SQ", item(b"20240222") + item(b"20240301"))]).startswith("residual-date")


FRAME, OTHER_FRAME, SOP, CLASS = 0x00200052, 0x00200200, 0x00080018, 0x00080016


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ([(FRAME, "UI", b"1.2.3.4\0")], [(FRAME, "UI", b"1.2.3.4\0")], "residual-uid in FrameOfReferenceUID"),
        ([(FRAME, "UI", b"1.2.3.4\0")], [(FRAME, "UI", b"1.2.3.5\0")], "passed"),
        ([(FRAME, "UI", b"1.2.3.4\0")], [(FRAME, "UI", b"1.2.3.4.5\0")], "passed"),
        ([(FRAME, "UI", b"1.2.3.4.5\0")], [(FRAME, "UI", b"1.2.3.4.5.6\0")], "residual-uid in FrameOfReferenceUID"),
        ([(FRAME, "UI", b"1.2\0")], [(FRAME, "UI", b"1.2\0")], "passed"),
        ([(FRAME, "UI", b"1.23")], [(FRAME, "UI", b"1.23")], "residual-uid in FrameOfReferenceUID"),
        ([(FRAME, "UI", b"1.2.840.10008.1.4\0")], [(FRAME, "UI", b"1.2.840.10008.1.4\0")], "passed"),
        ([(FRAME, "UI", b"1.2.3.4\\1.2.5.6\0")], [(SOP, "UI", b"1.9\\1.2.5.6\0")], "residual-uid in SOPInstanceUID"),
        ([(FRAME, "UN", b"1.2.3.4\0")], [(SOP, "UI", b"1.2.3.4\0")], "residual-uid in SOPInstanceUID"),
        ([(FRAME, "UI", b"1.2.3.4\0")], [(TEXT, "LT", b"1.2.3.4 ")], "passed"),
        ([(FRAME, "UI", b"1.2.3.4.5\0")], [(TEXT, "LT", b"to 1.2.3.4.5")], "residual-uid in ImageComments"),
        ([(FRAME, "UI", b"1.2.3.4.5\0")], [(0x00200013, "IS", b"1.2.3.4.5 ")], "residual-uid in InstanceNumber"),
        ([(FRAME, "UI", b"1.2.3.4.5\0")], [(0x00282000, "OB", b"xx1.2.3.4.5x")], "residual-uid in a binary value"),
        ([(FRAME, "UI", b"1.2.3.4\0")], [(0x00282000, "OB", b"xx1.2.3.4xx ")], "passed"),
        ([(CLASS, "UI", b"1.2.3.4\0")], [(CLASS, "UI", b"1.2.3.4\0")], "passed"),
        ([(FRAME, "UI", b" 1.2.3.4 ")], [(SOP, "UI", b"1.2.3.4\0")], "residual-uid in SOPInstanceUID"),
        ([(FRAME, "UI", b"1.2.3.4.5X")], [(SOP, "UI", b"1.2.3.4.5\0")], "passed"),
    ],
)
@pytest.mark.parametrize("many", [False, True])
def test_a_uid_is_gone_unless_it_is_short_or_the_standards_own(
    was: Elements, now: Elements, said: str, many: bool
) -> None:
    others: Elements = [(0x00081167, "UI", b"\\".join(b"1.7.7.7.%d" % n for n in range(70)))] if many else []
    assert verdict([*was, *others], now) == said


def test_a_uid_that_is_kept_under_one_tag_is_kept_wherever_it_stands() -> None:
    was: Elements = [(FRAME, "UI", b"1.2.3.4.5\0"), (OTHER_FRAME, "UI", b"1.2.3.4.5\0"), (SOP, "UI", b"1.2.3.4.6\0")]
    assert verdict(was, was[:2], kept=frozenset([FRAME])) == "passed"
    assert verdict(was[:1], was[:1], kept=frozenset([FRAME])) == "passed"
    assert verdict(was, was, kept=frozenset([FRAME])).startswith("residual-uid in SOPInstanceUID")
    assert verdict([(CLASS, "UI", b"1.2.3.4.5\0"), was[0]], was[:1], kept=frozenset([CLASS])) == "passed"


def test_more_than_sixty_four_uids_are_found_as_few_are() -> None:
    for count in (63, 64, 65, 66):
        was: Elements = [(0x00081167, "UI", b"\\".join(b"1.7.7.7.%d" % n for n in range(count)))]
        assert verdict(was, [(FRAME, "UI", b"1.7.7.7.5\0")]) == "residual-uid in FrameOfReferenceUID"
        assert verdict(was, [(0x00282000, "OB", b"xx1.7.7.7.5 x")]) == "residual-uid in a binary value"
        assert verdict(was, [(FRAME, "UI", b"1.7.7.7.99\0")]) == "passed"


def test_a_uid_is_found_in_a_private_element_of_implicit_syntax() -> None:
    was: Elements = [(FRAME, "UI", b"1.2.3.4.5\0")]
    for value, said in ((b"1.2.3.4.5 ", "residual-uid in a binary value"), (b"1.2.3.4.6 ", "passed")):
        now: Elements = [(0x00190010, "LO", b"VENDOR"), (0x00191001, "LO", value)]
        assert verdict(was, now, private=KEPT, syntax=UIDS[IMPLICIT]) == said


def test_the_message_names_the_attribute_that_came_through() -> None:
    for tag, value, what in ((FRAME, b"1.2.3.4.5\0", "FrameOfReferenceUID"), (NUMBER, b"ABC12345", "PatientID")):
        source = sent(EXPLICIT, tag, "UI" if tag == FRAME else "LO", value)
        binary = a_file(sent(EXPLICIT, 0x00282000, "OB", b"x" + value.rstrip(b"\0") + b"  "))
        with pytest.raises(
            Quarantine, match=f": {what} of the received object is still in a binary value of the clean"
        ):
            verify(source, UIDS[EXPLICIT], binary, NOBODY)


def test_a_uid_is_made_from_its_beginnings() -> None:
    assert list(check._beginnings("1.2.3")) == ["1.2.3", "1.2", "1"]


@pytest.mark.parametrize(
    ("number", "now", "said"),
    [
        (b"7744112 ", (0x00200013, "IS", b"7744112 "), "residual-identifier in InstanceNumber"),
        (b"7744112 ", (0x00200013, "IS", b"+007744112\0"), "residual-identifier in InstanceNumber"),
        (b"7744112 ", (0x00200013, "IS", b"1\\7744112"), "residual-identifier in InstanceNumber"),
        (b"7744112 ", (0x00180050, "DS", b"7744112.00"), "residual-identifier in SliceThickness"),
        (b"7744112 ", (0x00180050, "DS", b"7744112.10"), "passed"),
        (b"7744112 ", (0x00180050, "DS", b"77441120"), "passed"),
        (b"7744112 ", (0x00180050, "DS", b"1.7744112 "), "passed"),
        (b"0007744112", (0x00200013, "IS", b"7744112 "), "residual-identifier in InstanceNumber"),
        (b"7744112 ", (FRAME, "UI", b"1.7744112.1 "), "residual-identifier in FrameOfReferenceUID"),
        (b"7744112 ", (FRAME, "UI", b"1.2.7744112\0"), "residual-identifier in FrameOfReferenceUID"),
        (b"7744112 ", (FRAME, "UI", b"1.7744112\0"), "passed"),
        (b"7744112 ", (FRAME, "UI", b"7744112.1.2 "), "passed"),
        (b"7744112 ", (0x00189073, "FD", struct.pack("<d", 7744112)), "residual-identifier in AcquisitionDuration"),
        (b"7744112 ", (0x00189073, "FD", struct.pack(">d", 7744112)), "residual-identifier in AcquisitionDuration"),
        (b"7744112 ", (0x00189073, "FD", struct.pack("<d", 7744112.5)), "passed"),
        (b"7744112 ", (0x0018605A, "FL", struct.pack("<f", 7744112)), "residual-identifier in"),
        (b"16777215", (0x0018605A, "FL", struct.pack("<f", 16777215)), "residual-identifier in"),
        (b"16777217", (0x0018605A, "FL", struct.pack("<f", 16777217)), "passed"),
        (b"4294967295", (0x00186018, "UL", struct.pack("<L", 4294967295)), "residual-identifier in"),
        (b"9007199254740991", (0x00189073, "FD", struct.pack("<d", 2**53 - 1)), "residual-identifier in"),
        (b"18446744073709551615", (0x00720083, "UV", b"\xff" * 8), "residual-identifier in"),
        (b"18446744073709551616", (0x00720083, "UV", b"\xff" * 8), "passed"),
        (b"774411", (0x00200013, "IS", b"774411"), "passed"),
        (b"7744112 ", (FRAME, "UI", b"1.2.7744112X"), "passed"),
        (b"9007199254740993", (0x00189073, "FD", struct.pack("<d", 2**53)), "passed"),
    ],
)
def test_a_number_of_the_patient_is_found_as_a_number(number: bytes, now: tuple[int, str, bytes], said: str) -> None:
    assert verdict([(NUMBER, "LO", number)], [now]).startswith(said)
    assert verdict([(NUMBER, "LO", number)], [now], kept=frozenset([NUMBER])) == "passed"


@pytest.mark.parametrize(
    ("number", "text", "found"),
    [
        (b"9434765", b"943-4765", True),
        (b"9434765", b"1943-4765", False),
        (b"9434765", b"943-47651", False),
        (b"9434765", b"00943-4765", True),
        (b"9434765", b"100943-4765", False),
        (b"9434765", b"1943-4765 or 943-4765", True),
        (b"9434765", b"943-47651\\943-4765", True),
        (b"9434765", b"9434 7659434765 ", False),
        (b"9434765", b"19434765a943-4765b19434765", True),
        (b"PAT-42-0042", b"xPAT420042x ", True),
        (b"PAT-42-0042", b"1PAT4200421 ", True),
        (b"1234", b"1234", True),
        (b"1234", b"x\\1234 \\y", True),
        (b"1234", b"x\\1234\0", True),
        (b"1234", b"MRN 1234", False),
        (b"12345", b"MRN 12345 x", True),
        (b"12345", b"MRN123456 x", False),
        (b"AB12C", b"(AB12C)", True),
        (b"AB12C", b"xAB12C AB12CD", False),
        (b"AB12C", b"xAB12C AB12C", True),
        (b"AB12CD", b"xAB12CDx", True),
    ],
)
def test_a_number_of_the_patient_is_found_in_text(number: bytes, text: bytes, found: bool) -> None:
    said = verdict([(NUMBER, "LO", number)], [(TEXT, "LT", text)])
    assert said == ("residual-identifier in ImageComments" if found else "passed")


@pytest.mark.parametrize(
    ("was", "now", "found"),
    [
        ((0x00081010, "SH", b"ZORB CT"), (0x00081090, "LO", b"ZORB CT"), False),
        ((0x00080080, "LO", b"ZORB CT"), (0x00080070, "LO", b"ZORB CT"), False),
        ((0x00181000, "LO", b"ZORB CT"), (0x00181020, "LO", b"ZORB CT"), True),
        ((0x00081010, "SH", b"ZORB CT"), (0x00081030, "LO", b"ZORB CT"), True),
        ((NAME, "PN", b"Siemens^A"), (0x00080070, "LO", b"Siemens"), False),
        ((NAME, "PN", b"Siemens^A"), (0x00080008, "CS", b"SIEMENS"), False),
        ((NAME, "PN", b"Siemens^A"), (0x00081030, "LO", b"Siemens"), True),
        ((NAME, "PN", b"Zorblax^A"), (0x00080008, "CS", b"ZORBLAX"), True),
        ((NUMBER, "LO", b"Siemens "), (0x00080008, "CS", b"SIEMENS"), True),
        ((NAME, "PN", b"Kim^A "), (TEXT, "LT", b"kimkim kim_"), True),
        ((NAME, "PN", b"Kim^A "), (TEXT, "LT", b"kimkim xkim"), False),
        ((NAME, "PN", b"Kim^A "), (TEXT, "LT", b"xkim kim kimx "), True),
        ((NAME, "PN", b"Quint^A"), (TEXT, "LT", b"xxquintxx"), True),
        ((NAME, "PN", b"1234^A"), (TEXT, "LT", b"x1234 1234 "), False),
        ((NAME, "PN", b"1234^A"), (TEXT, "LT", b"1234\\x"), True),
        ((NAME, "PN", b"12345^A"), (TEXT, "LT", b"x 12345 "), True),
        ((NAME, "PN", b"Quincy"), (0x00282000, "OB", b"xxQuincy"), True),
        ((NUMBER, "LO", b"943476"), (0x00282000, "OB", b"x 943476"), False),
        ((NUMBER, "LO", b"9434765 "), (0x00282000, "OB", b"x9434765"), True),
        ((0x00100030, "DA", b"19500102"), (0x00282000, "OB", b"19500102"), True),
        ((0x00080020, "DA", b"20240229"), (0x00282000, "OB", b"20240229"), False),
    ],
)
def test_what_is_found_depends_on_what_it_was_and_where_it_is(
    was: tuple[int, str, bytes], now: tuple[int, str, bytes], found: bool
) -> None:
    assert verdict([was], [now]).startswith("residual-identifier") is found


def test_a_name_as_it_was_sent_is_found_in_text_of_another_character_set() -> None:
    was: Elements = [(0x00080005, "CS", b"ISO_IR 144"), (NAME, "PN", "Иванов".encode("iso8859_5"))]
    there: Elements = [(0x00080005, "CS", b"ISO_IR 100"), (TEXT, "LT", b"x" + "Иванов".encode("iso8859_5") + b" ")]
    assert verdict(was, there) == "residual-identifier in a binary value"
    source, clean = (b"".join(sent(EXPLICIT, *one) for one in elements) for elements in (was, there))
    with pytest.raises(Quarantine, match=": A person's name of the received object"):
        verify(source, UIDS[EXPLICIT], a_file(clean), NOBODY)
    assert verdict(was, there, kept=frozenset([NAME])) == "passed"
    assert verdict(was, [there[0], (TEXT, "LT", b"\xfc\xfc")]) == "passed"
