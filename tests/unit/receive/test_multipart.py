from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.receive.multipart import ChunkedBody, MultipartError, MultipartReader, SizedBody, boundary_of

BOUNDARY = "edge-b"


def _encode(parts: list[bytes]) -> bytes:
    body = b"".join(b"--edge-b\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n" for part in parts)
    return body + b"--edge-b--\r\n"


def _chunked(body: bytes, sizes: list[int]) -> bytes:
    out, at = b"", 0
    while at < len(body):
        size = sizes[at % len(sizes)]
        piece = body[at : at + size]
        out += f"{len(piece):x};ext=1\r\n".encode() + piece + b"\r\n"
        at += size
    return out + b"0\r\nX-Trailer: yes\r\n\r\n"


# Contents that look like delimiters are the whole difficulty.
contents = st.lists(
    st.one_of(st.binary(max_size=60), st.sampled_from([b"\r\n--edge-", b"\r\n", b"--edge-b", b"\r\n--edge-a--", b"-"])),
    max_size=5,
).map(b"".join)


@given(
    st.lists(contents.filter(lambda c: b"\r\n--edge-b" not in b"\r\n" + c), min_size=1, max_size=4), st.integers(1, 50)
)
def test_any_parts_come_out_as_they_went_in_whatever_the_chunks(parts: list[bytes], chunk: int) -> None:
    body = _encode(parts)
    read = MultipartReader(SizedBody(BytesIO(body), len(body)), BOUNDARY, chunk)
    assert [b"".join(part.chunks()) for part in read] == parts


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=3), st.lists(st.integers(1, 70), min_size=1, max_size=4))
def test_chunked_bodies_are_read_like_others_and_to_their_end(parts: list[bytes], sizes: list[int]) -> None:
    raw = BytesIO(_chunked(_encode(parts), sizes) + b"NEXT REQUEST")
    assert [b"".join(p.chunks()) for p in MultipartReader(ChunkedBody(raw), BOUNDARY, 16)] == parts
    assert raw.read() == b"NEXT REQUEST"


def test_part_headers_are_given_and_unread_parts_are_skipped() -> None:
    body = _encode([b"one", b"two"])
    parts = list(MultipartReader(SizedBody(BytesIO(body), len(body)), BOUNDARY))
    assert [part.headers for part in parts] == [{"content-type": "application/dicom"}] * 2


@pytest.mark.parametrize("cut", [3, 20, 60, 70])
def test_a_body_that_breaks_off_is_an_error(cut: int) -> None:
    body = _encode([b"x" * 20])[:cut]
    with pytest.raises(MultipartError):
        list(MultipartReader(SizedBody(BytesIO(body), len(body)), BOUNDARY))


def test_a_connection_that_ends_early_is_an_error() -> None:
    with pytest.raises(MultipartError):
        list(MultipartReader(SizedBody(BytesIO(b"--edge-b\r\n"), 1000), BOUNDARY))
    with pytest.raises(MultipartError):
        list(MultipartReader(ChunkedBody(BytesIO(b"zz\r\n")), BOUNDARY))


@pytest.mark.parametrize("header", ["", "application/dicom", "multipart/related", 'multipart/mixed; boundary="b"'])
def test_only_multipart_related_with_a_boundary_is_taken(header: str) -> None:
    with pytest.raises(MultipartError):
        boundary_of(header)


def test_the_boundary_may_be_quoted() -> None:
    assert boundary_of('multipart/related; type="application/dicom"; boundary="a b=c"') == "a b=c"
