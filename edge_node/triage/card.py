"""The model package: a folder of `card.toml`, its ONNX variants and golden vectors, every file pinned by sha256.

A card that does not match its files is refused with the line of the card. `card.sig`, if there, is the ed25519
signature of card.toml, which pins all the rest.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edge_node.config.certificates import signed_by
from edge_node.config.lines import key_lines
from edge_node.domain.errors import Stop
from edge_node.domain.finding import Code
from edge_node.domain.model import SHIPPED, UNSIGNED
from edge_node.triage.card_tables import CardFile, FindingTable, InputTable, OutputTable, PointTable, Variant
from edge_node.triage.onnx_header import KNOWN_DOMAINS, NotOnnx, OnnxHeader, Port, read_header
from edge_node.triage.prepare import GridSpec
from edge_node.triage.shipped import SHIPPED_CARDS

CARD = "card.toml"
SIGNATURE = "card.sig"
# Signed is this and the card, so that a signature made for something else is none for a card.
SIGNED_PREFIX = b"edge-node model card\0"

Arrays = dict[str, NDArray[np.generic]]
Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Card:
    """A package whose hashes and headers were checked. `package` is its address: the hash of card and signature."""

    file: CardFile
    folder: Path
    package: str = ""
    lines: Mapping[tuple[str, ...], int] = field(default_factory=dict, repr=False)
    site: str = ""
    thresholds: Mapping[str, float] = field(default_factory=dict)  # of the site's configuration, by NAME/FINDING

    @property
    def spec(self) -> GridSpec:
        """The input grid of a card with slabs."""
        p = self.slabs_input.slabs
        assert p is not None
        return GridSpec(p.size, p.pixel_mm, p.slab_mm, tuple((c.slab, c.low, c.high) for c in p.channels))

    @property
    def slabs_input(self) -> InputTable:
        """The first input that is made of pixels."""
        return next(one for one in self.file.inputs if one.attributes is None)

    @property
    def first(self) -> FindingTable:
        """The finding that speaks for the model when nothing could be judged."""
        return self.file.findings[0]

    def output(self, name: str) -> OutputTable:
        """The output of this name."""
        return next(one for one in self.file.outputs if one.name == name)

    def code(self, finding: FindingTable) -> Code:
        """The coded concept of a finding."""
        return Code(finding.code.value, finding.code.scheme, finding.code.meaning)

    def point(self, variant: Variant, finding: FindingTable) -> PointTable:
        """The operating point in force at this site."""
        table = self.file.variants[variant].points[finding.short]
        of_the_card = table.sites.get(self.site, table.threshold)
        threshold = self.thresholds.get(f"{self.file.name}/{finding.short}", of_the_card)
        return table.model_copy(update={"threshold": threshold})

    def runnable(self) -> str:
        """Why this node cannot run what the card says, "" if it can."""
        made = [one.kind for one in self.file.inputs]
        kinds = {self.output(one.output).kind for one in self.file.findings}
        if len(made) != 1 or made[0] == "attributes":
            return (
                f"inputs of {' and '.join(made)}: this node runs models with one input, slabs, patches, film or slices"
            )
        if made[0] == "slabs" and len(self.file.findings) > 1:
            return "several findings of one logit-map: this node runs slabs with one finding"
        if (made[0] == "slices") != (self.file.says == "body-part"):
            return f"{self.file.says} of {made[0]}: this node runs slices for body parts, and for nothing else"
        runs = {
            "slabs": {"logit-map"},
            "patches": {"class-volume"},
            "film": {"logit-map"},
            "slices": {"class-scores"},
        }[made[0]]
        return (
            "" if kinds <= runs else f"outputs {', '.join(sorted(kinds - runs))} of {made[0]} are not run by this node"
        )

    def model_bytes(self, variant: Variant) -> bytes:
        """The ONNX file of a variant, hashed as it is read: what was checked is what runs. Raises `Stop`."""
        table = self.file.variants[variant]
        return self._pinned(table.file, table.sha256, ("variants", variant, "sha256"))

    def golden(self, variant: Variant) -> tuple[Arrays, Arrays]:
        """Golden inputs and expected outputs by name. Inputs kept as uint8 for a float input mean 0..1 (255 is 1.0).

        Raises `Stop`.
        """
        data = self._pinned(self.file.golden.file, self.file.golden.sha256, ("golden", "sha256"))
        try:
            with np.load(BytesIO(data), allow_pickle=False) as arrays:
                held = {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError, EOFError) as error:
            raise self.wrong("the golden vectors cannot be read", ("golden", "file")) from error
        inputs: Arrays = {}
        for one in self.file.inputs:
            array = held.get(f"input.{one.name}")
            if array is None:
                raise self.wrong(f"the golden vectors lack the input {one.name}", ("golden", "file"))
            if array.dtype == np.uint8 and one.dtype.startswith("float"):
                array = array.astype(np.float32) / np.float32(255)
            inputs[one.name] = array.astype(one.dtype)
        expected: Arrays = {}
        for out in self.file.outputs:
            array = held.get(f"expected.{variant}.{out.name}")
            if array is None:
                raise self.wrong(f"the golden vectors do not cover the variant {variant}", ("golden", "file"))
            expected[out.name] = array
        return inputs, expected

    def trust(self, trusted: tuple[str, ...]) -> str:
        """Whose word the package has: `SHIPPED`, "signed by KEY", or `UNSIGNED`.

        `trusted` are ed25519 public keys in base64. Raises `Stop` ``triage.model-signature`` for a signature that is
        not one of theirs.
        """
        text = self._read(CARD)
        path = self.folder / SIGNATURE
        if not path.exists():
            shipped = SHIPPED_CARDS.get(self.file.name) == hashlib.sha256(text).hexdigest()
            return SHIPPED if shipped else UNSIGNED
        key = signed_by(SIGNED_PREFIX + text, self._read(SIGNATURE), trusted)
        if key:
            return f"signed by {key}"
        raise Stop(
            "triage.model-signature",
            f"model package {self.folder.name}: {SIGNATURE} is no signature of this card by a key that the site trusts",
            hint="the card was changed, or add the maker's public key to triage.trusted_keys",
        )

    def wrong(self, why: str, path: Place = ()) -> Stop:
        """The error of this package, with the line of the card that is not true."""
        return invalid(self.folder, why, line_of(self.lines, path), path)

    def check(self) -> Card:
        """Everything that can be checked without running the model; returns itself. Raises `Stop`."""
        for path, why in _disagreements(self.file):
            raise self.wrong(why, path)
        named = {*self.file.files, CARD, SIGNATURE}
        for item in sorted(self.folder.iterdir()):
            if item.name not in named or not item.is_file() or item.is_symlink():
                raise self.wrong(f"{item.name} is in the package, but not in the card")
        for name, table in self.file.variants.items():
            data = self.model_bytes(name)
            try:
                header = read_header(data)
            except NotOnnx as error:
                raise self.wrong(f"{table.file} is no ONNX model: {error}", ("variants", name, "file")) from error
            for path, why in _mismatches(self.file, name, header):
                raise self.wrong(f"{table.file}: {why}", path)
        for one in (self.file.golden, *self.file.documents):
            self._pinned(one.file, one.sha256, ("golden", "sha256") if one is self.file.golden else ("documents",))
        return self

    def _read(self, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except OSError as error:
            raise self.wrong(f"{name} cannot be read ({error.strerror})") from error

    def _pinned(self, name: str, sha256: str, path: Place) -> bytes:
        data = self._read(name)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise self.wrong(f"{name} is not the file the card names (sha256 differs)", path)
        return data


def load_card(folder: Path, site: str = "") -> Card:
    """Read and check one package. Raises `Stop` ``triage.model-invalid`` with the line of the card."""
    try:
        raw = (folder / CARD).read_bytes()
        text = raw.decode("utf-8")
        plain = tomllib.loads(text)
    except OSError as error:
        raise invalid(folder, f"it cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise invalid(folder, f"it is not TOML ({error})") from error
    lines = key_lines(text)
    signature = (folder / SIGNATURE).read_bytes() if (folder / SIGNATURE).is_file() else b""
    package = hashlib.sha256(hashlib.sha256(raw).digest() + hashlib.sha256(signature).digest()).hexdigest()
    try:
        parsed = CardFile.model_validate(plain)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        path = first["loc"]
        raise invalid(folder, first["msg"].removeprefix("Value error, "), line_of(lines, path), path) from error
    return Card(parsed, folder, package, lines, site).check()


def line_of(lines: Mapping[tuple[str, ...], int], path: Place) -> int:
    """Line of the deepest part of the path that stands in the card; 0 if none does."""
    parts = tuple(map(str, path))
    return next((lines[parts[:n]] for n in range(len(parts), 0, -1) if parts[:n] in lines), 0)


def invalid(folder: Path, why: str, line: int = 0, path: Place = ()) -> Stop:
    """The one error of a package that must not run."""
    place = f"{CARD}:{line}" if line else CARD
    what = f"{'.'.join(map(str, path))}: " if path else ""
    return Stop(
        "triage.model-invalid",
        f"model package {folder.name}: {place}: {what}{why}",
        hint="get the package from its maker again, or take it out of service: edge-node model retire NAME",
    )


def _disagreements(card: CardFile) -> Iterator[tuple[Place, str]]:
    """What the tables of a card say against each other."""
    outputs = {one.name: one for one in card.outputs}
    if len(outputs) != len(card.outputs) or len({one.name for one in card.inputs}) != len(card.inputs):
        yield ("outputs",), "two inputs or two outputs have one name"
    shorts = [one.short for one in card.findings]
    if len(set(shorts)) != len(shorts):
        yield ("findings",), "two findings have one short word"
    for number, finding in enumerate(card.findings):
        if (not finding.category) != (card.says == "body-part"):
            why = "a body part has no category" if finding.category else "a finding needs a category of 1 to 3"
            yield ("findings", number, "category"), why
        out = outputs.get(finding.output)
        if out is None:
            yield ("findings", number, "output"), f"there is no output {finding.output}"
            continue
        classes = out.shape[1] if out.kind in ("class-scores", "class-volume") else None
        if isinstance(classes, int) and finding.index >= classes:
            yield ("findings", number, "index"), f"the output {out.name} has {classes} classes"
    slabs = next((one.slabs for one in card.inputs if one.slabs), None)
    patches = next((one.patches for one in card.inputs if one.patches), None)
    film = next((one.film for one in card.inputs if one.film), None)
    wide = slabs.size if slabs else film.size if film else 0
    for number, out in enumerate(card.outputs):
        if out.kind == "logit-map" and (not wide or wide % int(out.shape[2])):
            yield ("outputs", number, "shape"), "the size of the slabs or the film must be a multiple of the cells"
        if out.kind == "class-volume" and (patches is None or tuple(out.shape[2:]) != patches.patch):
            yield ("outputs", number, "shape"), "a class-volume has the size of the patch"
        for other in filter(None, (out.scores, out.labels)):
            if other not in outputs:
                yield ("outputs", number), f"there is no output {other}"
    if card.radiomics is not None and (card.says == "body-part" or (slabs is None and patches is None)):
        yield ("radiomics",), "radiomics are of a volume: of slabs or patches that give findings"
    if card.picture.mask and card.picture.mask not in outputs:
        yield ("picture", "mask"), f"there is no output {card.picture.mask}"
    for name, variant in card.variants.items():
        if set(variant.points) != set(shorts):
            yield ("variants", name, "points"), f"needs exactly the points {', '.join(shorts)}"


def _mismatches(card: CardFile, variant: Variant, header: OnnxHeader) -> Iterator[tuple[Place, str]]:
    """What the card says against the ONNX file of one variant."""
    if header.opset != card.variants[variant].opset:
        yield ("variants", variant, "opset"), f"its opset is {header.opset}"
    if header.external:
        yield ("variants", variant, "file"), "its weights lie in another file; put them into the model"
    strange = sorted(header.domains - KNOWN_DOMAINS)
    if strange:
        yield ("variants", variant, "file"), f"operators of {', '.join(strange)} are not run here"
    told_ports: dict[str, tuple[list[tuple[str, str, list[int | str]]], tuple[Port, ...]]] = {
        "inputs": ([(one.name, one.dtype, one.shape) for one in card.inputs], header.inputs),
        "outputs": ([(one.name, one.dtype, one.shape) for one in card.outputs], header.outputs),
    }
    for what, (told, ports) in told_ports.items():
        have = {port.name: port for port in ports}
        missing = sorted(set(have) - {name for name, _, _ in told})
        if missing:
            yield (what,), f"the model has {what} that the card does not name: {', '.join(missing)}"
        for number, (name, dtype, shape) in enumerate(told):
            port = have.get(name)
            if port is None:
                yield (what, number, "name"), f"the model has no such {what[:-1]}; it has {', '.join(have) or 'none'}"
                continue
            if port.dtype != dtype:
                yield (what, number, "dtype"), f"the model says {port.dtype}"
            if not _fits(shape, port.shape):
                shown = ", ".join(str(axis) or "?" for axis in port.shape)
                yield (what, number, "shape"), f"the model says [{shown}]"


def _fits(told: list[int | str], real: tuple[int | str, ...]) -> bool:
    """A number of the card fits the same number or a free axis; a name fits free axes only."""
    return len(told) == len(real) and all(
        isinstance(axis, str) or axis == one for one, axis in zip(told, real, strict=True)
    )
