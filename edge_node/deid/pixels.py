"""The pixels of one clean object: looked at, masked, and written back without changing anything else.

Uncompressed samples are changed where they lie, so everything outside a mask stays bit for bit, whatever the byte
order, planar configuration or chroma subsampling. Compressed ones are decoded, masked and coded again without loss: in
the same syntax where an encoder exists, else in a near one or as explicit little endian. What is written is opened
again and compared before it counts. Masked means black as displayed (PS3.3 C.7.6.3.1.2): the highest stored value in
MONOCHROME1, the darkest entry of a palette.

The SOP Instance UID stays. It is a pseudonym that never named other pixels outside: an object leaves only after this
step, so one UID names one content (PS3.15 E.1.1 asks for a new UID, and the object has had one since it was received).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.pixels import get_decoder, get_encoder

from edge_node.deid import bitstream, offsets, wire
from edge_node.deid.wire import PIXEL_DATA, Element, Malformed, Node, Syntax
from edge_node.domain.errors import Quarantine

Mask = NDArray[np.bool_]
Bytes8 = NDArray[np.uint8]

CLEAN_PIXEL_DATA = "113101"
CLEAN_VISUAL_FEATURES = "113102"
_MEANINGS = {  # CID 7050 (PS3.16)
    CLEAN_PIXEL_DATA: "Clean Pixel Data Option",
    CLEAN_VISUAL_FEATURES: "Clean Recognizable Visual Features Option",
}
EXPLICIT = "1.2.840.10008.1.2.1"
_RLE, _JPEG_LS, _J2K = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
_4 = "1.2.840.10008.1.2.4."
# What is written for what was received: nothing encodes JPEG without loss or HTJ2K here, so a near syntax stands in.
_WRITTEN = {
    _RLE: _RLE,
    **dict.fromkeys((_4 + "50", _4 + "51", _4 + "57", _4 + "70", _4 + "80", _4 + "81"), _JPEG_LS),
    **dict.fromkeys((_4 + "90", _4 + "91", _4 + "92", _4 + "93", _4 + "201", _4 + "202", _4 + "203"), _J2K),
}
# Lossy syntaxes and the method of (0028,2114) (PS3.3 C.7.6.1.1.5.1). 91, 93 and 203 may be lossless: only what the
# header declares tells, and de-identification kept that.
_LOSSY = {_4 + "50": "ISO_10918_1", _4 + "51": "ISO_10918_1", _4 + "81": "ISO_14495_1"}
_COLOUR_KINDS = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422"})


@dataclass(frozen=True, slots=True)
class Masked:
    """A written object: Part 10 bytes, their transfer syntax, and whether that is not the one received."""

    part10: bytes
    transfer_syntax: str
    transcoded: bool


class Picture:
    """The pixels of one Part 10 object of ours. Raises Quarantine("pixels.…") for what cannot be opened.

    ``pixels.unsupported`` names a kind of image nothing here masks (video, unknown photometric interpretation);
    ``pixels.undecodable`` one whose code stream cannot be decoded.
    """

    def __init__(self, part10: bytes) -> None:
        self._meta, self._node, self.transfer_syntax = opened(part10)
        self._syntax = bitstream.syntax_of(self.transfer_syntax)
        self._big = self._syntax.big
        self.rows, self.columns = self._number(0x00280010), self._number(0x00280011)
        self.samples = self._number(0x00280002) or 1
        self.photometric = wire.ascii_text(self._node, 0x00280004).upper()
        self.frames = bitstream.frames_of(self._node)
        self._tag = next((t for t in (PIXEL_DATA, bitstream.FLOATS, bitstream.DOUBLES) if t in self._node), 0)
        if not self._tag or not self.rows or not self.columns:
            _unsupported("there are no pixels, or no size is given")
        if bitstream.is_video(self.transfer_syntax):
            _unsupported("video streams are not decoded")
        self._bits = self._number(0x00280100)
        self._chroma_pairs = False
        self._decoded = self._node[self._tag].fragments is not None
        self._stored = self._decode(part10) if self._decoded else self._native()
        self._touched: Mask = np.zeros((self.rows, self.columns), bool)
        self._before: NDArray[Any] | None = None  # as opened, from the first mask on
        self._finished: Node = self._node
        self._planes_cleared = False
        if self.photometric not in (*_COLOUR_KINDS, "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"):
            _unsupported("the photometric interpretation is not one that can be masked")

    def _number(self, tag: int) -> int:
        return wire.uint(self._node, tag, self._syntax) or 0

    # -- opening ------------------------------------------------------------------------------------------------

    def _native(self) -> NDArray[Any]:
        """(frames, rows, columns, samples) over a writable copy of the value; of YBR_FULL_422 (…, columns / 2, 4)."""
        element = self._node[self._tag]
        value = np.frombuffer(element.value, np.uint8).copy()
        size = self.frames * self.rows * self.columns
        if self._swapped():
            value = value[: len(value) // 2 * 2].reshape(-1, 2)[:, ::-1].reshape(-1).copy()
        if self._bits == 1 and self._tag == PIXEL_DATA:
            return np.unpackbits(value, bitorder="little")[:size].reshape(self.frames, self.rows, self.columns, 1)
        dtype = self._dtype()
        if self.photometric == "YBR_FULL_422" and self.samples == 3:
            if self.columns % 2 or self._bits != 8:
                _unsupported("subsampled colours in an odd number of columns")
            self._chroma_pairs = True
            return value[: size * 2].reshape(self.frames, self.rows, self.columns // 2, 4)
        flat = value[: size * self.samples * dtype.itemsize].view(dtype)
        if self.samples > 1 and self._number(0x00280006) == 1:
            return np.moveaxis(flat.reshape(self.frames, self.samples, self.rows, self.columns), 1, 3)
        return flat.reshape(self.frames, self.rows, self.columns, self.samples)

    def _swapped(self) -> bool:
        """Bytes of samples in OW of a big endian object stand in pairs, last first (PS3.5 8.1.1, 8.2, A.3)."""
        return self._big and self._bits in (1, 8) and self._node[self._tag].vr == "OW"

    def _dtype(self) -> np.dtype[Any]:
        order = ">" if self._big else "<"
        if self._tag != PIXEL_DATA:
            return np.dtype(order + ("f4" if self._tag == bitstream.FLOATS else "f8"))
        if self._bits not in (8, 16, 32):
            _unsupported("bits allocated are neither 1, 8, 16 nor 32")
        return np.dtype(f"{order}{'i' if self._number(0x00280103) else 'u'}{self._bits // 8}")

    def _decode(self, part10: bytes) -> NDArray[Any]:
        try:
            ds = dcmread(BytesIO(part10))
            array, told = get_decoder(self.transfer_syntax).as_array(ds, raw=False)
        except Exception:  # whatever a codec stumbles over; its words may print values
            raise Quarantine(
                "pixels.undecodable", "the compressed pixels cannot be decoded", hint="edge-node study show"
            ) from None
        self.photometric, self._bits = str(told["photometric_interpretation"]), int(told["bits_allocated"])
        shape = (self.frames, self.rows, self.columns, self.samples)
        if array.size != np.prod(shape):
            raise Quarantine("pixels.undecodable", "the decoded pixels are not as many as the header says")
        return np.array(array.reshape(shape), order="C")

    # -- looking ------------------------------------------------------------------------------------------------

    def plane(self, index: int) -> NDArray[Any]:
        """Stored values of one frame, (rows, columns, samples); subsampled colours give their luminance alone."""
        if self._chroma_pairs:
            luminance: NDArray[Any] = self._stored[index, :, :, :2].reshape(self.rows, self.columns, 1)
            return luminance
        frame: NDArray[Any] = self._stored[index]
        return frame

    def look(self, index: int, low: float = 0.5, high: float = 99.5) -> Bytes8:
        """One frame as displayed, (rows, columns, 3): the range between two percentiles; colours as they are."""
        if self.photometric == "PALETTE COLOR":
            table = self._palette()
            first, count = self._palette_range()
            indices = np.clip(self._stored[index, :, :, 0].astype(np.int64) - first, 0, count - 1)
            coloured: Bytes8 = table[indices]
            return coloured
        plane = self.plane(index)
        if self.photometric == "RGB":
            shift = max(self._number(0x00280101) - 8, 0) if self._bits > 8 else 0
            return (plane.astype(np.int64) >> shift).clip(0, 255).astype(np.uint8)
        one = plane[:, :, 0].astype(np.float32)
        if not self.photometric.startswith("YBR"):
            one = np.nan_to_num(one)
            floor, ceiling = np.percentile(one, (low, high))
            if ceiling <= floor:
                floor, ceiling = float(one.min()), float(one.max())
            one = (one - floor) * np.float32(255 / max(ceiling - floor, 1e-6))
        grey = np.rint(one.clip(0, 255)).astype(np.uint8)
        if self.photometric == "MONOCHROME1":
            grey = 255 - grey
        return np.repeat(grey[:, :, None], 3, axis=2)

    def _palette_range(self) -> tuple[int, int]:
        element = self._node.get(0x00281101)
        if element is None or len(element.value) < 6:
            _unsupported("a palette without descriptor")
        count, first, _bits = struct.unpack_from((">" if self._big else "<") + "HHH", element.value)
        return first, count or 65536

    def _palette(self) -> Bytes8:
        """(entries, 3)."""
        _, count = self._palette_range()
        columns = []
        for number in range(3):
            descriptor, data = self._node.get(0x00281101 + number), self._node.get(0x00281201 + number)
            if data is None or descriptor is None or len(descriptor.value) < 6:
                _unsupported("a palette without plain tables")  # segmented ones
            if len(data.value) >= 2 * count:
                words = np.frombuffer(data.value[: 2 * count], ">u2" if self._big else "<u2")
                wide = words.max(initial=0) > 255
                columns.append((words >> 8 if wide else words).astype(np.uint8))
            elif len(data.value) >= count:
                columns.append(np.frombuffer(data.value[:count], np.uint8))
            else:
                _unsupported("a palette shorter than its descriptor says")
        return np.stack(columns, axis=1)

    # -- masking ------------------------------------------------------------------------------------------------

    def clear_unused_bits(self) -> None:
        """Overlays in bits that the image does not use (PS3.5 8.1.2): those bits become zero, or the sign's."""
        stored, high = self._number(0x00280101), self._number(0x00280102)
        if self._stored.dtype.kind not in "iu" or not 0 < stored < self._bits or self.samples > 1 or self._bits == 1:
            return
        if high != stored - 1:
            _unsupported("the stored bits do not begin at bit 0")
        values = self._stored.astype(np.int64) & ((1 << stored) - 1)
        if self._stored.dtype.kind == "i":
            values = (values ^ (1 << (stored - 1))) - (1 << (stored - 1))
        self._planes_cleared = bool((self._stored != values).any())
        self._stored[...] = values

    def mask(self, area: Mask) -> None:
        """Black out `area` (rows, columns) in every frame."""
        if not area.any():
            return
        if self._before is None:
            self._before = self._stored.copy()
        if self._chroma_pairs:
            pairs = area.reshape(self.rows, -1, 2)
            self._stored[:, :, :, :2][:, pairs] = 0
            self._stored[:, :, :, 2:][:, pairs.any(axis=2)] = 128
        else:
            self._stored[:, area] = self._black()
        self._touched |= area

    def _black(self) -> Any:
        if self.photometric == "RGB":
            return 0
        if self.photometric.startswith("YBR"):
            return np.array([0, 128, 128], self._stored.dtype)
        if self.photometric == "PALETTE COLOR":
            first, _ = self._palette_range()
            return first + int(np.argmin(self._palette().astype(np.int64).sum(axis=1)))
        return self._stored.max() if self.photometric == "MONOCHROME1" else self._stored.min()

    # -- closing ------------------------------------------------------------------------------------------------

    def written(self, *, options: tuple[str, ...] = (), burned_in_checked: bool = False) -> Masked:
        """The object with what was masked, (0012,0064) saying `options`, and (0028,0301) NO if that was checked.

        Raises Quarantine("pixels.proof") when what was written is not what was meant.
        """
        node = self._finished = dict(self._node)
        for code in options:
            _say_option(node, code)
        if burned_in_checked:
            node[0x00280301] = Element(0x00280301, "CS", b"NO")
        if self._before is None and not self._planes_cleared:
            return Masked(_part10(self._meta, node, self.transfer_syntax), self.transfer_syntax, False)
        if self._decoded:
            part10, syntax_uid = self._recoded()
        else:
            syntax_uid = self.transfer_syntax
            node[self._tag] = Element(self._tag, self._node[self._tag].vr, self._native_bytes())
            part10 = _part10(self._meta, node, syntax_uid)
        if not self._proven(part10):
            raise Quarantine(
                "pixels.proof", "the masked object does not read back as it was meant", hint="edge-node study show"
            )
        return Masked(part10, syntax_uid, syntax_uid != self.transfer_syntax)

    def _native_bytes(self) -> bytes:
        if self._bits == 1 and self._tag == PIXEL_DATA:
            data = np.packbits(self._stored.reshape(-1), bitorder="little").tobytes()
        elif self.samples > 1 and not self._chroma_pairs and self._number(0x00280006) == 1:
            data = np.moveaxis(self._stored, 3, 1).tobytes()
        else:
            data = self._stored.tobytes()
        data += b"\0" * (len(data) & 1)
        return np.frombuffer(data, np.uint8).reshape(-1, 2)[:, ::-1].tobytes() if self._swapped() else data

    def _declare_loss(self, node: Node) -> None:
        method = _LOSSY.get(self.transfer_syntax)
        if method is not None:
            node[0x00282110] = Element(0x00282110, "CS", b"01")
            node.setdefault(0x00282114, Element(0x00282114, "CS", method.encode()))

    def _recoded(self) -> tuple[bytes, str]:
        """The object with its decoded and masked pixels, coded again; uncompressed where no encoder gets it right."""
        node = dict(self._finished)
        offsets.drop_extended(node)
        if self.samples > 1:  # decoders give colours as RGB, sample by sample
            node[0x00280004] = Element(0x00280004, "CS", self.photometric.encode())
            node[0x00280006] = Element(0x00280006, "US", struct.pack("<H", 0))
        node[0x00280100] = Element(0x00280100, "US", struct.pack("<H", self._bits))
        method = _LOSSY.get(self.transfer_syntax)
        if method is not None:
            node[0x00282110] = Element(0x00282110, "CS", b"01")
            node.setdefault(0x00282114, Element(0x00282114, "CS", method.encode()))
        syntax_uid = _WRITTEN.get(self.transfer_syntax, EXPLICIT)
        # JPEG 2000 takes the colours apart on its own, and the header has to say so (PS3.5 8.2.4).
        told = "YBR_RCT" if syntax_uid == _J2K and self.photometric == "RGB" else self.photometric
        fragments = self._coded(syntax_uid, told)
        if fragments is not None:
            coded = dict(node)
            if self.samples > 1:
                coded[0x00280004] = Element(0x00280004, "CS", told.encode())
            coded[PIXEL_DATA] = Element(PIXEL_DATA, "OB", fragments=fragments)
            part10 = _part10(self._meta, coded, syntax_uid)
            if self._proven(part10):
                return part10, syntax_uid
        data = self._stored.astype(self._stored.dtype.newbyteorder("<")).tobytes()
        node[PIXEL_DATA] = Element(PIXEL_DATA, "OW" if self._bits > 8 else "OB", data + b"\0" * (len(data) & 1))
        return _part10(self._meta, node, EXPLICIT), EXPLICIT

    def _coded(self, syntax_uid: str, photometric: str) -> list[bytes] | None:
        """Basic offset table and one fragment a frame, coded without loss; None where no encoder takes the samples."""
        if syntax_uid == EXPLICIT:
            return None
        try:
            encoder = get_encoder(syntax_uid)
            frames = [
                bytes(
                    encoder.encode(
                        np.ascontiguousarray(frame if self.samples > 1 else frame[:, :, 0]),
                        rows=self.rows,
                        columns=self.columns,
                        number_of_frames=1,
                        samples_per_pixel=self.samples,
                        bits_allocated=self._bits,
                        bits_stored=min(self._number(0x00280101) or self._bits, self._bits),
                        pixel_representation=self._number(0x00280103),
                        photometric_interpretation=photometric,
                        planar_configuration=0,
                    )
                )
                for frame in self._stored
            ]
        except Exception:  # whatever the encoder says against it: uncompressed is always right
            return None
        offsets, position = [], 0
        for frame in frames:
            offsets.append(position)
            position += 8 + len(frame) + (len(frame) & 1)
        return [struct.pack(f"<{len(offsets)}L", *offsets) if position < 1 << 32 else b"", *frames]

    def _proven(self, part10: bytes) -> bool:
        """Open what was written: is it what was meant, and every sample outside the mask as received?"""
        try:
            now = Picture(part10)._stored
        except Quarantine:
            return False
        if not np.array_equal(now, self._stored):
            return False
        if self._before is None:
            return True
        if self._chroma_pairs:
            pairs = self._touched.reshape(self.rows, -1, 2)
            whole = pairs.any(axis=2)
            return np.array_equal(now[:, :, :, :2][:, ~pairs], self._before[:, :, :, :2][:, ~pairs]) and np.array_equal(
                now[:, :, :, 2:][:, ~whole], self._before[:, :, :, 2:][:, ~whole]
            )
        return np.array_equal(now[:, ~self._touched], self._before[:, ~self._touched])


def _unsupported(why: str) -> NoReturn:
    raise Quarantine("pixels.unsupported", f"the pixels cannot be masked: {why}", hint="edge-node study show")


def opened(part10: bytes) -> tuple[Node, Node, str]:
    """File meta, data set and transfer syntax of a Part 10 file of ours."""
    try:
        length = struct.unpack_from("<L", part10, 140)[0]
        meta = wire.parse(part10[132 : 144 + length], Syntax())
        transfer_syntax = wire.ascii_text(meta, 0x00020010)
        node = wire.parse(part10[144 + length :], bitstream.syntax_of(transfer_syntax))
    except (Malformed, struct.error, RecursionError):
        raise Quarantine("pixels.unreadable", "the clean object cannot be read", hint="edge-node study show") from None
    return meta, node, transfer_syntax


def _part10(meta: Node, node: Node, transfer_syntax: str) -> bytes:
    meta = {**meta, 0x00020010: Element(0x00020010, "UI", transfer_syntax.encode())}
    meta.pop(0x00020000, None)
    group = wire.encode(meta, Syntax())
    length = wire.encode({0x00020000: Element(0x00020000, "UL", struct.pack("<L", len(group)))}, Syntax())
    return b"".join((bytes(128), b"DICM", length, group, wire.encode(node, bitstream.syntax_of(transfer_syntax))))


def _say_option(node: Node, code: str) -> None:
    """Add a code to De-identification Method Code Sequence (PS3.15 E.1.1), once."""
    sequence = node.get(0x00120064)
    items = list(sequence.items or ()) if sequence is not None else []
    if any(wire.ascii_text(item, 0x00080100) == code for item in items):
        return
    parts = ((0x00080100, "SH", code), (0x00080102, "SH", "DCM"), (0x00080104, "LO", _MEANINGS[code]))
    items.append({tag: Element(tag, vr, text.encode()) for tag, vr, text in parts})
    node[0x00120064] = Element(0x00120064, "SQ", items=items)
