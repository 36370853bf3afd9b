"""Golden vectors: inputs, and what each variant answered to them when the package was made."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any, Final

import numpy as np

from edge_node.triage.runner import CPU, Arrays, Device, Runtime

_ITEMS: Final = 2
_SECONDS: Final = 600.0


def golden_arrays(card: Mapping[str, Any], models: Mapping[str, bytes], inputs: bytes | None) -> bytes:
    """An .npz for an unfinished card: `input.NAME` (given, else noise that is the same everywhere) and
    `expected.VARIANT.OUTPUT` from the CPU. Raises KeyError, ValueError, RuntimeError."""
    arrays: Arrays = {}
    if inputs is not None:
        with np.load(BytesIO(inputs), allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files if name.startswith("input.")}
    fed: Arrays = {}
    for one in card["inputs"]:
        name, dtype = f"input.{one['name']}", one.get("dtype", "float32")
        if name not in arrays:
            shape = [axis if isinstance(axis, int) else _ITEMS for axis in one["shape"]]
            arrays[name] = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
        array = arrays[name]
        scaled = array.dtype == np.uint8 and dtype.startswith("float")
        fed[one["name"]] = (array.astype(np.float32) / np.float32(255) if scaled else array).astype(dtype)
    for variant, model in models.items():
        session = Runtime().open(model, (CPU,), Device("cpu"))
        for output, value in session.run(fed, _SECONDS).items():
            arrays[f"expected.{variant}.{output}"] = value
    out = BytesIO()
    np.savez_compressed(out, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for its own options
    return out.getvalue()
