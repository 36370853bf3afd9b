"""The model package: a folder of `card.toml`, its ONNX variants and golden vectors, every file pinned by sha256."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edge_node.domain.errors import Stop
from edge_node.domain.finding import Code
from edge_node.triage import rule
from edge_node.triage.prepare import Floats, GridSpec

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Share = Annotated[float, Field(ge=0, le=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CodeTable(_Table):
    """A coded concept (PS3.3 8.8)."""

    value: Annotated[str, Field(min_length=1, max_length=16)]
    scheme: Annotated[str, Field(min_length=1, max_length=16)]
    meaning: Annotated[str, Field(min_length=1, max_length=64)]


class FindingTable(_Table):
    """What the model raises: code, short word for labels, ACR actionable category."""

    code: CodeTable
    short: Annotated[str, Field(min_length=1, max_length=16)]
    category: Annotated[int, Field(ge=1, le=3)]


class SelectionTable(_Table):
    """Which series the model is made for."""

    rule: str

    @field_validator("rule")
    @classmethod
    def _parses(cls, value: str) -> str:
        rule.parse(value)
        return value


class ChannelTable(_Table):
    """One input channel: the slab at this offset, HU from `low_hu` to `high_hu` mapped to 0..1."""

    slab: Annotated[int, Field(ge=-4, le=4)]
    low_hu: float
    high_hu: float

    @model_validator(mode="after")
    def _rises(self) -> ChannelTable:
        if self.low_hu >= self.high_hu:
            raise ValueError("low_hu must be below high_hu")
        return self


class PreprocessingTable(_Table):
    """The input grid, see `GridSpec`."""

    size: Annotated[int, Field(ge=32, le=1024)]
    pixel_mm: Annotated[float, Field(gt=0, le=10)]
    slab_mm: Annotated[float, Field(gt=0, le=20)]
    channels: Annotated[list[ChannelTable], Field(min_length=1, max_length=16)]


class OutputTable(_Table):
    """The logit map: cells per side, and the magnitude no sound model reaches."""

    cells: Annotated[int, Field(ge=1, le=512)]
    limit: Annotated[float, Field(gt=0)]


class CalibrationTable(_Table):
    """Platt calibration of the study logit."""

    slope: Annotated[float, Field(gt=0)]
    offset: float


class VariantTable(_Table):
    """One ONNX file with its own threshold, calibration and golden tolerance (logits)."""

    file: FileName
    sha256: Sha256
    threshold: Share
    calibration: CalibrationTable
    golden_tolerance: Annotated[float, Field(gt=0)]


class GoldenTable(_Table):
    """Golden vectors: `input` (uint8, 255 is 1.0) and `expected_VARIANT` logits."""

    file: FileName
    sha256: Sha256


class CardFile(_Table):
    """The whole of card.toml."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    label: Annotated[str, Field(min_length=1, max_length=128)]
    licence: Annotated[str, Field(min_length=1)]
    intended_use: Annotated[str, Field(min_length=1)]
    limits: list[str]
    finding: FindingTable
    selection: SelectionTable
    preprocessing: PreprocessingTable
    output: OutputTable
    variants: Annotated[dict[Literal["int8", "fp32", "fp16"], VariantTable], Field(min_length=1)]
    golden: GoldenTable
    training: dict[str, Any]
    held_out: dict[str, Any]

    @model_validator(mode="after")
    def _grid_divides(self) -> CardFile:
        if self.preprocessing.size % self.output.cells:
            raise ValueError("preprocessing.size must be a multiple of output.cells")
        return self


@dataclass(frozen=True, slots=True)
class Card:
    """A package whose hashes were checked."""

    file: CardFile
    folder: Path

    @property
    def spec(self) -> GridSpec:
        """The input grid."""
        p = self.file.preprocessing
        return GridSpec(p.size, p.pixel_mm, p.slab_mm, tuple((c.slab, c.low_hu, c.high_hu) for c in p.channels))

    @property
    def code(self) -> Code:
        """The coded finding."""
        c = self.file.finding.code
        return Code(c.value, c.scheme, c.meaning)

    def model_bytes(self, variant: Literal["int8", "fp32", "fp16"]) -> bytes:
        """The ONNX file of a variant, hashed as it is read: what was checked is what runs. Raises `Stop`."""
        table = self.file.variants[variant]
        return _pinned(self.folder, table.file, table.sha256)

    def golden(self, variant: str) -> tuple[Floats, Floats]:
        """Golden input, float32 (n, channels, size, size), and expected logits, (n, 1, cells, cells). Raises `Stop`."""
        data = _pinned(self.folder, self.file.golden.file, self.file.golden.sha256)
        with np.load(BytesIO(data), allow_pickle=False) as arrays:
            if f"expected_{variant}" not in arrays:
                raise invalid(self.folder, f"the golden vectors do not cover the variant {variant}")
            inputs: NDArray[np.uint8] = arrays["input"]
            expected = arrays[f"expected_{variant}"].astype(np.float32)
        return inputs.astype(np.float32) / np.float32(255), expected


def load_card(folder: Path) -> Card:
    """Read and check one package. Raises `Stop` ``triage.model-invalid``."""
    try:
        plain = tomllib.loads((folder / "card.toml").read_text(encoding="utf-8"))
        card = Card(CardFile.model_validate(plain), folder)
    except OSError as error:
        raise invalid(folder, f"card.toml cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise invalid(folder, f"card.toml is not TOML ({error})") from error
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "card"
        raise invalid(folder, f"card.toml, {place}: {first['msg']}") from error
    for variant in card.file.variants.values():
        _pinned(folder, variant.file, variant.sha256)
    _pinned(folder, card.file.golden.file, card.file.golden.sha256)
    return card


def invalid(folder: Path, why: str) -> Stop:
    """The one error of a package that must not run."""
    return Stop(
        "triage.model-invalid",
        f"model package {folder.name}: {why}",
        hint="restore the package from its source, or remove it from [triage] models_dir",
    )


def _pinned(folder: Path, name: str, sha256: str) -> bytes:
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        raise invalid(folder, f"{name} cannot be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise invalid(folder, f"{name} is not the file the card names (sha256 differs)")
    return data
