"""What identifies in an object as received, as the check looks for it: names, numbers, days, in all their spellings.

A list of its own, on purpose: nothing here comes from a recipe or from Table E.1-1.
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import keyword_for_tag

from edge_node.deid.remembered import remembered
from edge_node.deid.witness import Place, Testimony, vr_of

# Values that name one person, order or device: the whole value must be gone.
# fmt: off
_IDS = frozenset([
    0x00080050, 0x00100020, 0x00101000, 0x00101001, 0x00101090, 0x00181000, 0x00200010, 0x00321032, 0x00380010,
    0x00380060, 0x00400009, 0x00400253, 0x00401001, 0x00402016, 0x00402017, 0x00102154, 0x00102155, 0x00080094,
    0x00100050, 0x00081010, 0x00400242, 0x00080080, 0x00081070, 0x0008009C, 0x00321031,
])
# Places and circumstances: only values that are more than one plain word, or a clinic's word would stop its studies.
_PLACES = frozenset([
    0x00080081, 0x00081040, 0x00080092, 0x00100021, 0x00101040, 0x00101080, 0x00102150, 0x00102152, 0x00102180,
    0x001021F0, 0x00104000, 0x00321033, 0x00380300, 0x00380400, 0x00400241, 0x00400243,
])
# Days on which something was done to the patient: study, series, acquisition, content, procedure.
_DAYS = frozenset([0x00080020, 0x00080021, 0x00080022, 0x00080023, 0x0008002A, 0x00400002, 0x00400244])
# fmt: on
_BIRTH_DATE = 0x00100030
_TELLING = frozenset([_BIRTH_DATE, *_IDS, *_PLACES, *_DAYS, *(tag for tag in DicomDictionary if vr_of(tag) == "PN")])
# Values of these are not read as text, whatever stands under their tags.
_MUTE = frozenset(["AT", "FD", "FL", "OD", "OF", "OL", "OV", "SL", "SQ", "SS", "SV", "UL", "US", "UV"])
_LONGEST = 10_240  # bytes of a value that can name somebody
_WORD = re.compile(r"[^\W_]+")
_IDEOGRAPHS = re.compile(r"[\u3005\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]+")
# Parts of a name as sent: what one escape sequence begins and the next ends, or what no divider is in.
_SENT = re.compile(rb"\x1b\$\(?[@bd].*?(?=\x1b\([bj])|(\x1b\$\)[a-z]|\x1b-[a-z])?([^\^=\\ \x1b]+)", re.DOTALL)
_NO_DIGIT = re.compile(r"\D")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_NO_ONE = frozenset(
    re.findall(
        r"\S+",
        """
    anonymized anonymous anonymised anon none unknown nobody removed hidden test demo noname null
    """,
    )
)
# Letters that Unicode does not take apart, and what stands for umlauts where there are none.
_LETTERS = str.maketrans({"ı": "i", "ø": "o", "đ": "d", "ł": "l", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d"})
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe"})
_MONTHS = re.findall(r"\S+", "january february march april may june july august september october november december")
# Brackets, points, strokes, spaces: what people put into numbers. Line ends and backslashes divide values.
_BETWEEN = str.maketrans("", "", " \t\0-_./,:;()[]{}#+*'\"")


class Needle(NamedTuple):
    """`text` is folded (`fold`), `spelled` only in lower case; `anywhere`: also inside a longer word.

    `bare` is a number without what people put between its digits; "" if it is too short to be told from chance.
    """

    attribute: str
    text: str
    spelled: str
    anywhere: bool
    person: bool = False
    day: bool = False
    bare: str = ""

    @property
    def forms(self) -> frozenset[bytes]:
        """As it may stand in binary values whose ASCII letters are lower case."""
        return _forms(self.text) if self.text == self.spelled else _forms(self.text) | _forms(self.spelled)


@cache
def name_of(tag: int) -> str:
    """Keyword of a tag, "" if there is none."""
    return str(keyword_for_tag(tag))


def fold(text: str) -> str:
    """Lower case, without accents, widths and characters that do not show: what looks alike is alike."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return _NOT_ASCII.sub(_visible, text).translate(_LETTERS)


def _visible(found: re.Match[str]) -> str:
    return "".join(one for one in found[0] if unicodedata.category(one) not in ("Mn", "Cf"))


def squeezed(text: str) -> str:
    """Without what people put between letters and digits of a number."""
    return text.translate(_BETWEEN)


def telling(was: Testimony) -> list[tuple[bool, Place]]:
    """Values that may identify, and whether it is by a person's name."""
    found: list[tuple[bool, Place]] = []
    for vr, places in was.places.items():
        if vr == "PN":
            found += [(True, place) for place in places if 0 < len(place[1]) <= _LONGEST]
        elif vr not in _MUTE:
            some = [place for place in places if place[0] in _TELLING and 0 < len(place[1]) <= _LONGEST]
            found += [(vr_of(place[0]) == "PN", place) for place in some]
    return found


def needles(was: Testimony, told: list[tuple[bool, Place]], kept: frozenset[int]) -> dict[str, Needle]:
    """What to look for, by its folded text, out of what is `telling`. What stands in an attribute that is kept on
    purpose is not looked for."""
    found: dict[str, Needle] = {}
    spared: set[str] = set()
    days: set[tuple[str, bool]] = set()  # a study has one day under many tags
    for person, place in told:
        tag, text = place[0], was.text(place)
        if tag in _DAYS and not person:
            if (text, tag in kept) in days:
                continue
            days.add((text, tag in kept))
        for needle in _needles_of(tag, person, text):
            if tag not in kept:
                found.setdefault(needle.text, needle)
            elif needle.day:  # the same day kept under one tag is kept
                spared.add(needle.text)
    for text in spared:
        if text in found and found[text].day:
            del found[text]
    return found


def names_as_sent(was: Testimony, told: list[tuple[bool, Place]], kept: frozenset[int]) -> set[bytes]:
    """Parts of names that are not in ASCII, byte for byte but for the case: in binary values and in text of another
    character set they stand as they were sent, with escape sequences or without."""
    found: set[bytes] = set()
    for person, place in told:
        if person and place[0] not in kept:
            value = was.value(place)
            if b"\x1b" in value or not value.isascii():
                for part in _SENT.finditer(value.lower()):
                    found.add(part[2] or part[0])
    return {part for part in found if len(part) >= 5 or (len(part) >= 4 and min(part) >= 0x80)}


@remembered(256)  # the same in all instances of a series
def _needles_of(tag: int, person: bool, value: str) -> tuple[Needle, ...]:
    if person:
        return tuple(_names(name_of(tag), value))
    if tag == _BIRTH_DATE or tag in _DAYS:
        return tuple(_days(tag, value))
    return tuple(_numbers(tag, value))


def _names(attribute: str, value: str) -> Iterator[Needle]:
    if not value.isascii():
        value = unicodedata.normalize("NFC", _NOT_ASCII.sub(_shown, value))
    for group in value.split("="):
        words = [word.lower() for word in _WORD.findall(group)]
        ideographs = [word for word in words if _IDEOGRAPHS.fullmatch(word)]
        if ideographs:  # written without spaces: any two of them in a row, and the whole name
            for word in (*ideographs, "".join(ideographs)):
                if len(word) >= 2:
                    yield Needle(attribute, fold(word), word, True, True)
        if len(words) == 2 and all(len(word) == 2 and word.isascii() and word.isalpha() for word in words):
            one, two = words  # too short to be told from chance each by itself
            for both in (f"{one} {two}", f"{two} {one}", f"{one}^{two}", f"{one}, {two}"):
                yield Needle(attribute, both, both, False, True)
        for word in words:
            for text in {fold(word), fold(word.translate(_UMLAUTS))}:
                if len(text) < 3 or text in _NO_ONE or (text.isdigit() and len(text) < 4) or word in ideographs:
                    continue
                yield Needle(attribute, text, word, len(text) >= 5 and not text.isdigit(), True)


def _shown(found: re.Match[str]) -> str:
    return "".join(one for one in found[0] if unicodedata.category(one) != "Cf")


def _days(tag: int, value: str) -> Iterator[Needle]:
    for part in value.split("\\"):
        digits = _NO_DIGIT.sub("", part[:10] if tag == _BIRTH_DATE else part[:8])
        if len(digits) == 8:
            born = tag == _BIRTH_DATE
            for form in _written(digits[:4], digits[4:6], digits[6:], born):
                yield Needle(name_of(tag), form, form, False, day=not born)


def _written(y: str, m: str, d: str, born: bool) -> set[str]:
    forms = {y + m + d, f"{y}-{m}-{d}", f"{d}.{m}.{y}", f"{m}/{d}/{y}", f"{d}/{m}/{y}"}
    if born:
        forms |= {d + m + y, m + d + y}
        short_m, short_d = m.lstrip("0"), d.lstrip("0")
        for mark in "-./ ":
            forms |= {mark.join(x) for x in ((y, m, d), (d, m, y), (m, d, y))}
            forms |= {mark.join(x) for x in ((y, short_m, short_d), (short_d, short_m, y), (short_m, short_d, y))}
        if "01" <= m <= "12":
            month = _MONTHS[int(m) - 1]
            for word in {month, month[:3]}:
                for day in {d, short_d}:
                    forms |= {f"{day} {word} {y}", f"{day}-{word}-{y}", f"{day}{word}{y}", f"{word} {day}, {y}"}
                    forms |= {f"{word} {day} {y}", f"{day}. {word} {y}"}
    return forms


def _numbers(tag: int, value: str) -> Iterator[Needle]:
    for part in value.lower().split("\\"):
        spelled = part.strip(" \0")
        text = fold(spelled)
        plain = tag in _PLACES and text.isalpha()
        if len(text) < 3 or text in _NO_ONE or plain or (text.isdigit() and len(text) < 4):
            continue
        yield Needle(name_of(tag), text, spelled, len(text) >= 6 and not text.isdigit(), bare=_bare(text))


def _bare(text: str) -> str:
    bare = squeezed(text)
    if bare.isdigit():
        bare = bare.lstrip("0")
        return bare if len(bare) >= 7 else ""
    return bare if len(bare) >= 6 and any(map(str.isdigit, bare)) else ""


_CODINGS = re.findall(
    r"\S+",
    """
    utf-8 utf-16-le utf-16-be latin-1 iso8859_2 iso8859_3 iso8859_4 iso8859_5 iso8859_6 iso8859_7 iso8859_8 iso8859_9
    tis_620 cp1251 shift_jis euc_jp euc_kr gb18030
    """,
)


@remembered(1024)
def _forms(text: str) -> frozenset[bytes]:
    plain = text.encode("utf-8")
    forms = {plain.lower()}
    if len(plain) == len(text):
        forms.add(plain.lower().decode().encode("utf-16-le")[:-1])  # what both orders of UTF-16 have in common
    else:
        for cased in (text, text.upper(), text.title()):
            for coding in _CODINGS:
                with contextlib.suppress(UnicodeEncodeError):
                    forms.add(cased.encode(coding).lower())
    swapped = bytearray(plain + b" " * (len(plain) & 1))
    swapped[::2], swapped[1::2] = swapped[1::2], swapped[::2]
    forms.add(bytes(swapped).strip())
    return frozenset(form for form in forms if len(form) >= 5)
