"""What the check remembers it has read itself, and it finds what came through in one of many objects."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from edge_node.deid import verify, witness
from edge_node.domain.errors import Quarantine
from tests.unit.deid.elements import EXPLICIT, sent
from tests.unit.deid.objects import RESEARCH, ct, encoded, received
from tests.unit.deid.remembering import BASIC, NAMES, SYNTAXES, forget


@pytest.mark.parametrize("syntax", SYNTAXES[:3])
def test_the_check_reads_the_same_whatever_it_has_read_before(syntax: str) -> None:
    kind = {"implicit": syntax == SYNTAXES[0], "big": syntax == SYNTAXES[2]}
    files, sources = [], []
    for number in range(12):
        ds = ct(SOPInstanceUID=f"1.2.826.0.1.3680043.8.498.77.{number + 1}", InstanceNumber=number)
        item = Dataset()
        item.PatientName = NAMES[number % len(NAMES)]
        ds.ReferencedPatientSequence = [item]
        ds.SpecificCharacterSet = "ISO_IR 192"
        sources.append(received(ds, syntax).dataset)
        files.append(RESEARCH.clean(received(ds, syntax)).part10)
    forget()
    again = [[witness.witness(one, **kind).places for one in sources] for _ in range(3)]
    made = [[witness.witness_file(one, **kind).places for one in files] for _ in range(3)]
    for number, (source, file) in enumerate(zip(sources, files, strict=True)):
        forget()
        fresh, fresh_made = witness.witness(source, **kind).places, witness.witness_file(file, **kind).places
        for turn in range(3):
            assert (again[turn][number], made[turn][number]) == (fresh, fresh_made)
            assert list(again[turn][number]) == list(fresh)


def code_of(source: bytes, file: bytes) -> str:
    try:
        verify.verify(source, SYNTAXES[1], file, frozenset())
    except Quarantine as error:
        return f"{error.code} {error.message}"
    return ""


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_check_finds_what_came_through_in_one_of_many_objects(data: st.DataObject) -> None:
    """Some are changed in a byte, or say a name, a number or a day where the others do not."""
    pairs = []
    for number in range(5):
        ds = ct(SOPInstanceUID=f"1.2.826.0.1.3680043.8.498.77.{number + 1}", InstanceNumber=number)
        one = received(ds)
        file, source = BASIC.clean(one).part10, one.dataset
        where = data.draw(st.sampled_from(["", "byte", "leak", "source"]))
        if where == "byte":
            at = data.draw(st.integers(0, len(file) - 1))
            file = file[:at] + bytes([data.draw(st.integers(0, 255))]) + file[at + 1 :]
        elif where == "leak":
            said = data.draw(st.sampled_from([b"Beeblebrox", b"PAT-420042", b"20240229", b"19500102", b"harmless!!"]))
            tag = data.draw(st.sampled_from([0x00081030, 0x00204000, 0x00102000]))
            pixels = file.index(b"\xe0\x7f\x10\0OW")
            file = file[:pixels] + sent(EXPLICIT, tag, "LT", said + b" " * (len(said) & 1)) + file[pixels:]
        elif where == "source":
            source = source.replace(
                b"Beeblebrox^Zaphod", data.draw(st.sampled_from([b"Axialis^Headbangr", b"GE^MEDICALSYSTEMS"]))
            )
        pairs.append((source, file))
    forget()
    remembering = [code_of(*pair) for pair in [*pairs, *pairs]]
    for number, pair in enumerate(pairs):
        forget()
        assert remembering[number] == remembering[number + 5] == code_of(*pair)


def test_the_check_remembers_by_what_it_reads_itself() -> None:
    """An object that leaks is refused the tenth time as the first, among clean ones of the same series."""
    forget()
    one = received(ct())
    good = BASIC.clean(one).part10
    at = good.index(b"\xe0\x7f\x10\0OW")
    bad = good[:at] + sent(EXPLICIT, 0x00204000, "LT", b"of Zaphod ") + good[at:]
    for _ in range(10):
        assert code_of(one.dataset, good) == ""
        assert code_of(one.dataset, bad).startswith("deid.residual-identifier")


def test_what_the_check_remembers_is_held_to_a_plain_reading_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness, "PLAINLY", 1)
    data = encoded(ct())
    forget()
    for _ in range(3):
        witness.witness(data, implicit=False, big=False)
    [stretch, *_] = [one for some in witness._received[False, False]._known.values() for one in some]
    stretch.made.append(("LO", [(0x00100020, b"another", 0, ())]))
    with pytest.raises(witness.Unreadable):
        witness.witness(data, implicit=False, big=False)
    forget()
