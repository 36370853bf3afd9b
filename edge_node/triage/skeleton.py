"""The beginning of a card, from a plain ONNX file or a MONAI bundle: what can be read is filled in, the rest marked.

Nothing is guessed that a reader could take for the maker's word: thresholds, codes and statements say FILL IN.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge_node.domain.errors import Quarantine
from edge_node.triage.onnx_header import NotOnnx, OnnxHeader, Port, read_header

FILL_IN: Final = "FILL IN"
_MOST_JSON: Final = 4 << 20
_MOST_MODEL: Final = 2 << 30


@dataclass(frozen=True, slots=True)
class Found:
    """A model and what its surroundings say of it; `facts` are those of a MONAI bundle."""

    model: bytes = field(repr=False)
    header: OnnxHeader
    name: str
    facts: Mapping[str, Any]


def read_model(source: Path) -> Found:
    """An ONNX file, or a MONAI bundle (folder or .zip) that holds one. Raises Quarantine ``model.skeleton``."""
    try:
        if source.is_dir() or zipfile.is_zipfile(source):
            files = _files(source)
            model = next((data() for name, data in files.items() if name.endswith(".onnx")), None)
            if model is None:
                raise _refused("the bundle holds no .onnx; export one: python -m monai.bundle onnx_export")
            facts = _facts(
                *(_json(files, f"configs/{name}") for name in ("metadata.json", "inference.json")),
            )
        else:
            model, facts = source.read_bytes(), {}
        header = read_header(model)
    except NotOnnx as error:
        raise _refused(f"the model is no ONNX: {error}") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise _refused(f"the source cannot be read ({type(error).__name__})") from error
    name = re.sub(r"[^a-z0-9]+", "-", str(facts.get("name") or source.stem).lower()).strip("-")[:63]
    return Found(model, header, name or "model", facts)


def _files(source: Path) -> dict[str, Any]:
    """Readers by path inside of the bundle; the longest common folder is left out. Nothing is unpacked."""
    found: dict[str, Any] = {}
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= _MOST_MODEL:
                found[path.relative_to(source).as_posix()] = path.read_bytes
        return found
    with zipfile.ZipFile(source) as archive:
        for info in archive.infolist():
            if not info.is_dir() and info.file_size <= _MOST_MODEL and info.filename.endswith((".json", ".onnx")):
                data = archive.read(info)
                inside = re.sub(r"^.*?(?=(?:configs|models)/)", "", info.filename)
                found[inside] = lambda data=data: data
    return found


def _json(files: Mapping[str, Any], name: str) -> dict[str, Any]:
    data = files[name]() if name in files else b"{}"
    try:
        plain = json.loads(data[:_MOST_JSON])
    except ValueError:
        raise _refused(f"{name} is no JSON") from None
    return plain if isinstance(plain, dict) else {}


def _facts(metadata: Mapping[str, Any], inference: Mapping[str, Any]) -> dict[str, Any]:
    """What a bundle says that a card can use (monai-bundle-spec, metadata.json and inference.json)."""
    formats = metadata.get("network_data_format") or {}
    image: dict[str, Any] = next(iter((formats.get("inputs") or {}).values()), {})
    output: dict[str, Any] = next(iter((formats.get("outputs") or {}).values()), {})
    facts: dict[str, Any] = {
        "name": metadata.get("name") or metadata.get("task"),
        "version": metadata.get("version"),
        "licence": metadata.get("license"),
        "intended_use": metadata.get("intended_use"),
        "data": metadata.get("data_source"),
        "modality": image.get("modality"),
        "classes": {
            int(key): str(word) for key, word in (output.get("channel_def") or {}).items() if str(key).isdigit()
        },
    }
    for step in _steps(inference):
        kind = str(step.get("_target_", ""))
        if kind.startswith("Spacing") and isinstance(step.get("pixdim"), list):
            facts["spacing"] = [float(v) for v in reversed(step["pixdim"]) if isinstance(v, int | float)]
        elif kind.startswith("ScaleIntensityRange") and all(
            isinstance(step.get(k), int | float) for k in ("a_min", "a_max")
        ):
            facts["window"] = (float(step["a_min"]), float(step["a_max"]))
        elif kind.startswith("SlidingWindow") and isinstance(step.get("overlap"), int | float):
            facts["overlap"] = float(step["overlap"])
            facts["blend"] = "gaussian" if step.get("mode") == "gaussian" else "mean"
    return {key: value for key, value in facts.items() if value}


def _steps(plain: Any) -> Iterator[Mapping[str, Any]]:
    """Every object with a `_target_`, however deep."""
    if isinstance(plain, dict):
        if "_target_" in plain:
            yield plain
        for inner in plain.values():
            yield from _steps(inner)
    elif isinstance(plain, list):
        for inner in plain:
            yield from _steps(inner)


def card_text(found: Found) -> str:
    """card.toml with FILL IN wherever only the maker can know."""
    return "\n".join([*_head(found), *_inputs(found), *_outputs(found), *_tail(found), ""])


def _text(value: Any) -> str:
    return json.dumps(" ".join(str(value).split())[:1000], ensure_ascii=False)


def _head(found: Found) -> Iterator[str]:
    facts = found.facts
    version = str(facts.get("version", "0.1.0"))
    yield "# A skeleton. Every FILL IN is for the maker of the model; then: edge-node model golden, check and sign."
    yield "format = 2"
    yield f"name = {_text(found.name)}"
    yield f"version = {_text(version if re.fullmatch(r'[0-9]+[.][0-9]+[.][0-9]+', version) else '0.1.0')}"
    yield f'label = "{FILL_IN}: one line that stands in every result"'
    yield f"licence = {_text(facts.get('licence', FILL_IN))}"
    yield f"intended_use = {_text(facts.get('intended_use', FILL_IN))}"
    yield f'limits = ["{FILL_IN}: what it was not made for"]'
    yield f'regulatory = "{FILL_IN}: class and number, or that it is not a medical device"'
    yield ""
    port = found.header.outputs[0]
    classes: dict[int, str] = facts.get("classes") or {}
    several = len(port.shape) in (2, 5)
    named = {k: word for k, word in classes.items() if k > 0} if several else {}
    for index, word in (named or {(1 if several else 0): ""}).items():
        yield "[[findings]]"
        yield f"short = {_text(re.sub(r'[^A-Za-z0-9 _-]', '', word)[:16].strip() or 'FINDING')}"
        yield f'code = {{ value = "{FILL_IN}", scheme = "SCT", meaning = "{FILL_IN}" }}'
        yield f"category = 3  # {FILL_IN}: ACR actionable finding category, 1 minutes, 2 hours, 3 days"
        yield f"output = {_text(port.name)}"
        yield f"index = {index}"
        yield ""
    modality = {"CT": "CT", "MR": "MR", "MRI": "MR"}.get(str(facts.get("modality", "")).upper(), "CT")
    yield "[selection]"
    yield f"rule = '''Modality == \"{modality}\" and BodyPartExamined in [\"{FILL_IN}\"]'''"
    yield ""


def _shape(port: Port, *, free_first: bool = True) -> list[int | str]:
    shape: list[int | str] = [a if isinstance(a, int) else f"axis{i}" for i, a in enumerate(port.shape)]
    return ["n", *shape[1:]] if free_first and shape else shape


def _inputs(found: Found) -> Iterator[str]:
    facts = found.facts
    low, high = facts.get("window", (-1000.0, 1000.0))
    sure = "" if "window" in facts else f"  # {FILL_IN}: the values that become 0 and 1"
    for port in found.header.inputs:
        shape = _shape(port)
        yield "[[inputs]]"
        yield f"name = {_text(port.name)}"
        yield f"dtype = {_text(port.dtype)}"
        yield f"shape = {json.dumps(shape)}"
        channels = shape[1] if len(shape) > 1 and isinstance(shape[1], int) else 1
        if len(shape) == 5:
            patch = [axis if isinstance(axis, int) else 96 for axis in shape[2:]]
            spacing = (facts.get("spacing") or [1.0, 1.0, 1.0])[:3]
            yield "[inputs.patches]"
            yield f"spacing_mm = {spacing}" + ("" if "spacing" in facts else f"  # {FILL_IN}: z, y, x")
            yield f"patch = {patch}"
            yield f"overlap = {facts.get('overlap', 0.25)}"
            yield f"blend = {_text(facts.get('blend', 'gaussian'))}"
            yield "channels = ["
            yield from (f"  {{ low = {low}, high = {high} }},{sure}" for _ in range(channels))
            yield "]"
        elif len(shape) == 4:
            yield "[inputs.slabs]"
            yield f"size = {shape[-1] if isinstance(shape[-1], int) else 256}"
            yield f"pixel_mm = 1.0  # {FILL_IN}"
            yield f"slab_mm = 5.0  # {FILL_IN}"
            yield 'check = "none"'
            yield "channels = ["
            yield from (f"  {{ slab = 0, low = {low}, high = {high} }},{sure}" for _ in range(channels))
            yield "]"
        else:
            yield f'attributes = {{ names = ["{FILL_IN}"] }}'
        yield ""


def _outputs(found: Found) -> Iterator[str]:
    kinds = {2: "class-scores", 3: "boxes", 4: "logit-map", 5: "class-volume"}
    for port in found.header.outputs:
        kind = kinds.get(len(port.shape), "scores")
        yield "[[outputs]]"
        yield f"name = {_text(port.name)}"
        yield f"kind = {_text(kind)}"
        yield f"dtype = {_text(port.dtype)}"
        yield f"shape = {json.dumps(_shape(port))}"
        if kind in ("class-scores", "class-volume"):
            yield f'activation = "softmax"  # {FILL_IN}: none, sigmoid or softmax, if the model does not do it itself'
        yield f"limit = 1000.0  # {FILL_IN}: the magnitude that no sound model reaches"
        yield ""


def _tail(found: Found) -> Iterator[str]:
    shorts = [line.split('"')[1] for line in _head(found) if line.startswith("short = ")]
    yield "[variants.fp32]"
    yield 'file = "model.onnx"'
    yield 'sha256 = ""'
    yield f"opset = {found.header.opset}"
    yield "golden_tolerance = 0.01"
    for short in shorts:
        yield f"points.{_text(short)} = {{ threshold = 0.5, slope = 1.0, offset = 0.0 }}  # {FILL_IN}"
    yield ""
    yield "[golden]"
    yield 'file = "golden.npz"'
    yield 'sha256 = ""'
    yield ""
    yield "[training]"
    yield f"data = {_text(found.facts.get('data', FILL_IN))}"
    yield ""
    yield "[held_out]"
    yield f'data = "{FILL_IN}: on what it was measured, and what came out"'


def _refused(why: str) -> Quarantine:
    return Quarantine("model.skeleton", why, hint="`edge-node docs models` shows how a package is made")
