"""The byte-level readers against pydicom, on every file that pydicom brings and can read."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pydicom
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset

from edge_node.deid import bitstream, wire
from edge_node.deid.part10 import instance_from_file
from edge_node.deid.wire import Node
from edge_node.deid.witness import witness
from edge_node.domain.errors import Quarantine
from edge_node.domain.study import IdentifiedInstance
from tests.unit.deid.objects import RESEARCH

PIXELS = 0x7FE00010


def readable() -> list[Path]:
    found = []
    homes = [Path(pydicom.__file__).parent / "data" / "test_files"]
    data = find_spec("data_store")  # pydicom-data
    homes += [Path(home) for home in (data.submodule_search_locations or ())] if data else []
    for path in sorted(path for home in homes for path in home.rglob("*.dcm")):
        if path.stat().st_size > 2_000_000:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                wire.parse(*encoded(instance_from_file(path)))
                for element in dcmread(path).iterall():
                    assert element.VR
        except (Quarantine, wire.Malformed, Exception):
            continue
        found.append(path)
    return found


def encoded(instance: IdentifiedInstance) -> tuple[bytes, wire.Syntax]:
    syntax = bitstream.syntax_of(instance.transfer_syntax)
    data = wire.inflate(instance.dataset) if syntax.deflated else instance.dataset
    return data, wire.Syntax(syntax.implicit, syntax.big, False, syntax.encapsulated)


CORPUS = readable()


def by_pydicom(data: bytes, syntax: wire.Syntax) -> Dataset:
    stream = DicomBytesIO(data)
    stream.is_little_endian, stream.is_implicit_VR = not syntax.big, syntax.implicit
    return read_dataset(stream, syntax.implicit, not syntax.big)


def of_pydicom(ds: Dataset, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """(path, raw value) of everything at any depth; values that pydicom has converted already are left out."""
    for tag in ds.keys():  # noqa: SIM118
        raw = ds.get_item(tag)
        sequence = raw.VR == "SQ" or (raw.VR in (None, "UN") and raw.is_raw and ds[tag].VR == "SQ")
        if sequence:
            for number, item in enumerate(ds[tag].value or ()):
                yield from of_pydicom(item, (*path, int(tag), number))
        elif raw.is_raw:
            yield (*path, int(tag)), raw.value or b""


def of_wire(node: Node, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], bytes]]:
    for tag, element in node.items():
        if element.items is not None:
            for number, item in enumerate(element.items):
                yield from of_wire(item, (*path, tag, number))
        elif element.fragments is None:
            yield (*path, tag), element.value


def test_the_corpus_is_there() -> None:
    assert len(CORPUS) > 80


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_both_readers_see_what_pydicom_sees(path: Path) -> None:
    data, syntax = encoded(instance_from_file(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = dict(of_pydicom(by_pydicom(data, syntax)))
    ours = dict(of_wire(wire.parse(data, syntax)))
    told = witness(data, implicit=syntax.implicit, big=syntax.big)
    kinds = told.places.keys() - {"SQ"}
    seen = {(*place[3], place[0]): told.value(place) for place in told.of(kinds)}
    for place in theirs.keys() & ours.keys():
        assert theirs[place] == ours[place]
    missing = {place for place in theirs if place not in ours and place[-1] != PIXELS and theirs[place]}
    # what was sent as UN, or is private in implicit VR, is bytes to us where pydicom guesses a sequence: never leaves
    assert not {place for place in missing if not any(place[:end] in ours for end in range(1, len(place)))}
    assert {place: value for place, value in seen.items() if place[-1] >> 16 != 0x7FE0} == {
        place: value for place, value in ours.items() if place[-1] >> 16 != 0x7FE0
    }


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_what_is_written_is_what_was_read(path: Path) -> None:
    data, syntax = encoded(instance_from_file(path))
    node = wire.parse(data, syntax)
    again = wire.parse(wire.encode(node, syntax), syntax)

    def even(node: Node) -> dict[tuple[int, ...], bytes]:
        return {place: value.rstrip(b" \0") for place, value in of_wire(node)}

    assert even(again) == even(node)


RETAINED = {
    "Modality": 1.0,
    "SOPClassUID": 1.0,
    "Rows": 1.0,
    "PixelSpacing": 1.0,
    "SliceThickness": 1.0,
    "ImagePositionPatient": 1.0,
    "ImageOrientationPatient": 1.0,
    "RescaleSlope": 1.0,
    "KVP": 1.0,
    "EchoTime": 1.0,
    "MagneticFieldStrength": 1.0,
    "Manufacturer": 1.0,
    "ManufacturerModelName": 1.0,
    "BodyPartExamined": 1.0,
    "ConvolutionKernel": 1.0,
    "InstanceNumber": 1.0,
    "PatientSex": 1.0,
    "StudyTime": 1.0,
}
GONE = ("PatientName", "PatientID", "StudyInstanceUID", "SOPInstanceUID", "StudyDate", "AccessionNumber")


def test_what_research_needs_is_kept_and_what_identifies_is_not() -> None:
    kept, present = dict.fromkeys((*RETAINED, *GONE), 0), dict.fromkeys((*RETAINED, *GONE), 0)
    for path in CORPUS:
        try:
            instance = instance_from_file(path)
            made = RESEARCH.deidentify(instance).instance
        except Quarantine:
            continue
        syntax = bitstream.syntax_of(instance.transfer_syntax)
        before = wire.parse(instance.dataset, syntax)
        end = 144 + int.from_bytes(made.part10[140:144], "little")
        after = wire.parse(made.part10[end:], syntax)
        for name in present:
            tag = wire_tag(name)
            sent = before.get(tag)  # what was sent as UN is denied, whatever it is
            was = sent.value.rstrip(b" \0") if sent is not None and sent.vr != "UN" else b""
            if was and was != b"anonymous":
                present[name] += 1
                kept[name] += tag in after and after[tag].value.rstrip(b" \0") == was
    assert sum(present.values()) > 500
    assert {name: kept[name] / present[name] for name in RETAINED if present[name]} == {
        name: share for name, share in RETAINED.items() if present[name]
    }
    assert {name: kept[name] for name in GONE} == dict.fromkeys(GONE, 0)


def wire_tag(keyword: str) -> int:
    from pydicom.datadict import tag_for_keyword

    return int(tag_for_keyword(keyword) or 0)
