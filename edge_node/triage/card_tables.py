"""The words of card.toml: every table a model card may have, and what must be true inside of it.

The format says more than this node runs today: `Card.runnable` tells which cards it runs.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from edge_node.triage import ibsi, rule
from edge_node.triage.calibration import corners_fault

Variant = Literal["int8", "fp32", "fp16", "int8-trt"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Axis = Annotated[int, Field(ge=1, le=1 << 24)] | Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Triple = tuple[int, int, int]
Word = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]*$")]
INPUT_KINDS: Final = ("slabs", "patches", "film", "slices", "attributes")
Sentence = Annotated[str, Field(min_length=1, max_length=2000)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CodeTable(_Table):
    """A coded concept (PS3.3 8.8)."""

    value: Annotated[str, Field(min_length=1, max_length=16)]
    scheme: Annotated[str, Field(min_length=1, max_length=16)]
    meaning: Annotated[str, Field(min_length=1, max_length=64)]


class FindingTable(_Table):
    """One thing the model raises: code, short word, ACR actionable category, and the output and class that say it. Of a
    model that says body parts, `short` is the word of the header (HEAD)."""

    short: Word
    code: CodeTable
    category: Annotated[int, Field(ge=0, le=3)] = 0  # 0: none, a body part is no finding
    output: str
    index: Annotated[int, Field(ge=0)] = 0  # class of a class output, label of a box output


class SelectionTable(_Table):
    """Which series the model is made for."""

    rule: str

    @field_validator("rule")
    @classmethod
    def _parses(cls, value: str) -> str:
        rule.parse(value)
        return value


class WindowTable(_Table):
    """Values from `low` to `high` (HU for CT) mapped to 0..1."""

    low: float
    high: float

    @model_validator(mode="after")
    def _rises(self) -> WindowTable:
        if self.low >= self.high:
            raise ValueError("low must be below high")
        return self


class ChannelTable(WindowTable):
    """One channel of slabs: the slab at this offset, windowed."""

    slab: Annotated[int, Field(ge=-4, le=4)]


class SlabsTable(_Table):
    """Axial slabs, see `GridSpec`: tensor (n, channels, size, size) in 0..1."""

    size: Annotated[int, Field(ge=32, le=1024)]
    pixel_mm: Annotated[float, Field(gt=0, le=10)]
    slab_mm: Annotated[float, Field(gt=0, le=20)]
    channels: Annotated[list[ChannelTable], Field(min_length=1, max_length=16)]
    check: Literal["head", "none"] = "head"  # input quality control before the model


class FilmTable(_Table):
    """One radiograph, see `triage.film`: tensor (n, 1, size, size) in 0..1, dense bright; `low` and `high` are the
    shares of grey values that become 0 and 1. With `detail` there are two channels: the second is what differs from the
    mean of the square of so many pixels each way, four times as strong, 0.5 where nothing does."""

    size: Annotated[int, Field(ge=64, le=1024)]
    low: Annotated[float, Field(ge=0, le=0.2)] = 0.01
    high: Annotated[float, Field(ge=0.8, le=1)] = 0.99
    detail: Annotated[int, Field(ge=0, le=64)] = 0
    check: Literal["chest", "none"] = "chest"  # input quality control before the model


class SliceTable(_Table):
    """A few axial CT slices, each for itself, see `triage.body_part`: tensor (n, channels, size, size) in 0..1, the
    body in the middle; at most `most` slices, spread evenly."""

    size: Annotated[int, Field(ge=16, le=512)]
    pixel_mm: Annotated[float, Field(gt=0, le=20)]
    most: Annotated[int, Field(ge=1, le=64)]
    channels: Annotated[list[WindowTable], Field(min_length=1, max_length=16)]


class PatchesTable(_Table):
    """A volume in patches: tensor (n, channels, z, y, x) in 0..1, resampled to `spacing_mm` (z, y, x), neighbours
    sharing `overlap` of their extent; where patches overlap their outputs are averaged, `gaussian` by distance."""

    spacing_mm: tuple[float, float, float]
    patch: Triple
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.25
    blend: Literal["mean", "gaussian"] = "gaussian"
    channels: Annotated[list[WindowTable], Field(min_length=1, max_length=16)]

    @model_validator(mode="after")
    def _positive(self) -> PatchesTable:
        if min(self.spacing_mm) <= 0 or max(self.spacing_mm) > 20 or min(self.patch) < 8 or max(self.patch) > 512:
            raise ValueError("spacing_mm must lie within 0 and 20, patch within 8 and 512")
        return self


class AttributesTable(_Table):
    """Numbers out of the header, one column each, absent ones `missing`: tensor (n, columns)."""

    names: Annotated[list[str], Field(min_length=1, max_length=64)]
    missing: float = 0.0

    @field_validator("names")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        unknown = sorted(set(value) - rule.ATTRIBUTES)
        if unknown:
            raise ValueError(f"no attribute of a rule: {', '.join(unknown)}")
        return value


class InputTable(_Table):
    """One input of the network, and from what it is made: exactly one of `slabs`, `patches`, `film`, `slices`,
    `attributes`."""

    name: str
    dtype: Literal["float32", "float16", "uint8", "int64", "int32"] = "float32"
    shape: Annotated[list[Axis], Field(min_length=1, max_length=6)]
    slabs: SlabsTable | None = None
    patches: PatchesTable | None = None
    film: FilmTable | None = None
    slices: SliceTable | None = None
    attributes: AttributesTable | None = None

    @property
    def kind(self) -> str:
        """The one of `INPUT_KINDS` that is given."""
        return next(name for name in INPUT_KINDS if getattr(self, name) is not None)

    @model_validator(mode="after")
    def _one_kind(self) -> InputTable:
        if sum(getattr(self, name) is not None for name in INPUT_KINDS) != 1:
            raise ValueError(f"needs exactly one of {', '.join(INPUT_KINDS)}")
        if self.slabs is not None:
            wanted: tuple[int, ...] = (len(self.slabs.channels), self.slabs.size, self.slabs.size)
        elif self.patches is not None:
            wanted = (len(self.patches.channels), *self.patches.patch)
        elif self.film is not None:
            wanted = (2 if self.film.detail else 1, self.film.size, self.film.size)
        elif self.slices is not None:
            wanted = (len(self.slices.channels), self.slices.size, self.slices.size)
        else:
            wanted = (len(self.attributes.names) if self.attributes else 0,)
        if tuple(self.shape[1:]) != wanted or not isinstance(self.shape[0], str):
            raise ValueError(f'shape must be ["n", {", ".join(map(str, wanted))}], as its geometry says')
        return self


class OutputTable(_Table):
    """One output of the network.

    `logit-map`: (n, 1, cells, cells), one logit a cell of a slab. `class-scores`: (n, classes), a row a slab or patch.
    `class-volume`: (n, classes, z, y, x) of a patch. `boxes`: (n, k, 4 or 6) corners, with `scores` naming the output
    (n, k) of their scores and `labels` that of their classes. `scores`, `labels`: those outputs.
    """

    name: str
    kind: Literal["logit-map", "class-scores", "class-volume", "boxes", "scores", "labels"]
    dtype: Literal["float32", "float16", "int64", "int32"] = "float32"
    shape: Annotated[list[Axis], Field(min_length=1, max_length=6)]
    activation: Literal["none", "sigmoid", "softmax"] = "none"  # what this node still has to apply
    limit: Annotated[float, Field(gt=0)]  # the magnitude that no sound model reaches
    scores: str = ""
    labels: str = ""
    corners: Literal["", "yxyx", "xyxy", "zyxzyx", "xyzxyz"] = ""
    top_voxels: Annotated[int, Field(ge=1, le=1_000_000)] = 1  # class-volume: a score is the mean of so many highest

    @model_validator(mode="after")
    def _shaped(self) -> OutputTable:
        rank = {"logit-map": 4, "class-scores": 2, "class-volume": 5, "boxes": 3, "scores": 2, "labels": 2}[self.kind]
        if len(self.shape) != rank:
            raise ValueError(f"shape of {self.kind} has {rank} axes")
        if self.kind == "logit-map" and (self.shape[1] != 1 or self.shape[2] != self.shape[3]):
            raise ValueError('shape of logit-map is ["n", 1, cells, cells]')
        if self.kind == "boxes" and (not self.scores or self.shape[2] != len(self.corners)):
            raise ValueError("boxes need scores and corners that fit their shape")
        return self


class PointTable(_Table):
    """The operating point of one finding: Platt calibration of its score (on the logit scale; a temperature T is slope
    1/T), then isotonic corners (said, true) if there are any, then the threshold; `sites` has other thresholds by the
    site's name (`triage.site`)."""

    threshold: Share
    slope: Annotated[float, Field(gt=0)] = 1.0
    offset: float = 0.0
    isotonic: Annotated[list[tuple[float, float]], Field(max_length=256)] = []
    sites: dict[str, Share] = {}

    @field_validator("isotonic")
    @classmethod
    def _rises(cls, value: list[tuple[float, float]]) -> list[tuple[float, float]]:
        if why := corners_fault(value):
            raise ValueError(why)
        return value


class VariantTable(_Table):
    """One ONNX file: opset, golden tolerance (in units of the outputs), and an operating point for every finding."""

    file: FileName
    sha256: Sha256
    opset: Annotated[int, Field(ge=7, le=40)]
    golden_tolerance: Annotated[float, Field(gt=0)]
    points: Annotated[dict[str, PointTable], Field(min_length=1)]


class ToleranceTable(_Table):
    """How far a variant may differ from fp32 (or what the maker compares with) and still speak: share of decisions,
    new misses, probability, AUROC, sensitivity of a group with 20 positives; and how many cases prove it."""

    flips: Share = 0.03
    new_misses: Annotated[int, Field(ge=0)] = 0
    probability: Share = 0.15
    auroc: Share = 0.01
    sensitivity: Share = 0.05
    positives: Annotated[int, Field(ge=1)] = 50
    others: Annotated[int, Field(ge=1)] = 50


class PinnedTable(_Table):
    """A file of the package and its hash."""

    file: FileName
    sha256: Sha256


class PictureTable(_Table):
    """What is drawn into the key image: `mask` is the output whose place is marked, "" nothing."""

    mask: str = ""


class QualityTable(_Table):
    """Input quality as this model needs it, in place of the defaults: `limits` beyond which a measure is told,
    `refused` beyond which nothing is judged. Names are those of the measures."""

    limits: dict[Word, float] = {}
    refused: dict[Word, float] = {}


class PriorsTable(_Table):
    """Earlier studies of the patient that the node fetches for this model: the `max` newest of `within_days` days whose
    Modalities in Study and Study Description fit `rule`. Which of them were here stands in the result; their pixels are
    no input yet."""

    max: Annotated[int, Field(ge=1, le=5)] = 1
    within_days: Annotated[int, Field(ge=1, le=36500)] = 730
    rule: str

    @field_validator("rule")
    @classmethod
    def _parses(cls, value: str) -> str:
        rule.parse(value, rule.ASKED_OF_ARCHIVES)
        return value


class RadiomicsTable(_Table):
    """Figures of the region that the model flags: IBSI features by code or name, or whole families (morphology,
    statistics); `seconds` is how long they may take for one finding."""

    features: Annotated[list[str], Field(min_length=1, max_length=64)]
    seconds: Annotated[float, Field(ge=1, le=60)] = 5.0

    @field_validator("features")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        ibsi.chosen(value)
        return value


class CardFile(_Table):
    """The whole of card.toml."""

    format: Literal[2]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    label: Annotated[str, Field(min_length=1, max_length=128)]
    licence: Sentence
    intended_use: Sentence
    limits: Annotated[list[str], Field(min_length=1)]
    regulatory: Sentence  # class and number under which it may be used, or that it must not be
    says: Literal["findings", "body-part"] = "findings"  # body-part: suggestions, never a finding
    findings: Annotated[list[FindingTable], Field(min_length=1, max_length=64)]
    selection: SelectionTable
    inputs: Annotated[list[InputTable], Field(min_length=1, max_length=8)]
    outputs: Annotated[list[OutputTable], Field(min_length=1, max_length=8)]
    picture: PictureTable = PictureTable()
    tolerance: ToleranceTable | None = None  # with one, a variant that was not compared speaks in shadow only
    quality: QualityTable = QualityTable()
    priors: PriorsTable | None = None
    radiomics: RadiomicsTable | None = None
    variants: Annotated[dict[Variant, VariantTable], Field(min_length=1)]
    golden: PinnedTable
    documents: list[PinnedTable] = []
    training: dict[str, Any]
    held_out: dict[str, Any]

    @field_validator("training", "held_out")
    @classmethod
    def _says_on_what(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(value.get("data"), str) or not value["data"].strip():
            raise ValueError("data must say on what")
        return value

    @property
    def files(self) -> dict[str, str]:
        """sha256 by name of every file beside card.toml and its signature."""
        pinned = {one.file: one.sha256 for one in (self.golden, *self.documents)}
        return {one.file: one.sha256 for one in self.variants.values()} | pinned
