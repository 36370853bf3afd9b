"""A package of three classes in volumes, made as a maker makes it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from edge_node.service.packages import make_golden, skeleton
from tests.unit.triage.tiny_onnx import three_classes

PATCH = (16, 32, 32)


def volume_package(home: Path, spacing_mm: str, more: Callable[[str], str] = str) -> Path:
    """Its folder below `home`: skeleton, card filled in and passed through `more`, golden vectors."""
    (home / "bright.onnx").write_bytes(three_classes(PATCH))
    folder = home / "bright"
    skeleton(home / "bright.onnx", folder)
    card = folder / "card.toml"
    text = card.read_text()
    text = text.replace('["FILL IN"]', '["HEAD"]').replace("low = -1000.0, high = 1000.0", "low = -100.0, high = 300.0")
    text = re.sub(r"spacing_mm = .*", f"spacing_mm = {spacing_mm}", text)
    card.write_text(more(text).replace("FILL IN", "to test"))
    make_golden(folder, None)
    return folder
