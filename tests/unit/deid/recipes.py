"""Recipes that a test writes, and what the reader finds in them."""

from __future__ import annotations

from pathlib import Path

from edge_node.deid.recipe import Recipe, read


def told(tmp_path: Path, text: str, *variables: str) -> tuple[Recipe, list[tuple[int, str, str]]]:
    path = tmp_path / "own.deid"
    path.write_text("FORMAT dicom\n" + text, encoding="utf-8")
    recipe, findings = read(path, variables)
    return recipe, [(finding.line, finding.what, finding.instead) for finding in findings]
