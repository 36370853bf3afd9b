"""The documents and how to take them apart: pages, code, tables."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MANUAL = ROOT / "edge_node" / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(MANUAL.glob("*.md"))]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`]+)`")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def label(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(text: str, language: str) -> list[str]:
    """Fenced blocks of one language."""
    return [body for kind, body in _FENCE.findall(text) if kind == language]


def inline(text: str) -> list[str]:
    """Code spans outside of fenced blocks; one may run over a line end."""
    return [" ".join(span.split()) for span in _CODE.findall(_FENCE.sub("", text))]


def rows(text: str, *header: str) -> list[list[str]]:
    """The cells of all tables whose header begins with `header`, code marks removed."""
    found: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip().replace("`", "") for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
        if tuple(cells[: len(header)]) == header:
            inside = True
        elif inside and set(cells[0]) != {"-"}:
            found.append(cells)
    assert found, f"there is no table {header}"
    return found
