from __future__ import annotations

import tracemalloc
from dataclasses import replace
from email.parser import BytesParser
from pathlib import Path

import pytest

from edge_node.domain.errors import Quarantine
from edge_node.domain.study import CleanObject
from edge_node.forward.body import NotSent, StowBody
from tests.clean_objects import clean_object, clean_part10, uid_of


def from_file(path: Path, number: int, pixel_bytes: int) -> CleanObject:
    """An object that is in memory only while it is read."""
    path.write_bytes(clean_part10(number, pixel_bytes=pixel_bytes))
    return replace(clean_object(number, part10=path.read_bytes()), read=path.read_bytes)


def test_the_body_is_a_multipart_message_of_the_very_objects() -> None:
    objects = [clean_object(number) for number in range(3)]
    body = StowBody(objects)
    message = BytesParser().parsebytes(b"Content-Type: " + body.content_type.encode() + b"\r\n\r\n" + b"".join(body))
    parts = message.get_payload()
    assert isinstance(parts, list)
    assert message.get_content_type() == "multipart/related"
    assert message.get_param("type") == "application/dicom"
    assert [part.get_content_type() for part in parts] == ["application/dicom"] * 3
    assert all(one.read() in b"".join(body) for one in objects)


def test_the_length_is_known_before_an_object_is_opened() -> None:
    def read() -> bytes:
        raise AssertionError("opened")

    closed = [replace(clean_object(number), read=read) for number in range(4)]
    assert StowBody(closed).length == len(b"".join(StowBody([clean_object(number) for number in range(4)])))


def test_a_body_can_be_sent_twice() -> None:
    body = StowBody([clean_object(0), clean_object(1)])
    assert b"".join(body) == b"".join(body)


def test_memory_holds_one_object_however_many_are_sent(tmp_path: Path) -> None:
    size = 1 << 20
    body = StowBody([from_file(tmp_path / str(number), number, size) for number in range(12)])
    tracemalloc.start()
    sent = sum(map(len, body))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sent > 12 * size
    assert peak < 2.5 * size


def test_an_object_the_spool_gives_up_is_named_with_the_code_of_the_spool() -> None:
    def read() -> bytes:
        raise Quarantine("spool.key-destroyed", "the key of this study was destroyed")

    with pytest.raises(NotSent) as stopped:
        list(StowBody([clean_object(0), replace(clean_object(1), read=read)]))
    assert (stopped.value.sop_uid, stopped.value.code) == (uid_of("sop", 1), "spool.key-destroyed")


def test_not_a_byte_of_an_object_is_handed_on_before_the_gate_has_seen_all_of_it() -> None:
    content = clean_part10(1)
    wrong = replace(clean_object(1, part10=content), digest="0" * 64)
    handed: list[bytes] = []
    with pytest.raises(NotSent):
        handed.extend(StowBody([wrong]))
    assert b"DICM" not in b"".join(handed)
