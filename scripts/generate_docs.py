"""Write what is generated from the code; with --check, only say whether it is up to date (exit 1 if not)."""

from __future__ import annotations

import sys
from pathlib import Path

from pydicom.uid import UID
from pynetdicom.sop_class import _STORAGE_CLASSES

from edge_node.config.document import example_toml, options_markdown
from edge_node.deid.harden import refuse_object
from edge_node.domain.errors import Quarantine
from edge_node.receive.admission import storage_sop_classes

ROOT = Path(__file__).resolve().parent.parent


def sop_classes_markdown() -> str:
    """Every storage SOP class the receiver accepts, by name."""
    lines = [
        "# SOP classes",
        "",
        "Every storage SOP class that the node accepts. Generated from the code.",
        "Those with *quarantine* are acknowledged and sealed away, because they cannot be de-identified yet.",
        "",
        "| SOP class | UID | what becomes of it |",
        "|---|---|---|",
    ]
    named = sorted((_name(uid), uid) for uid in storage_sop_classes())
    return "\n".join([*lines, *(f"| {name} | {uid} | {_fate(uid)} |" for name, uid in named)]) + "\n"


def _name(uid: str) -> str:
    """As in the standard; as pynetdicom spells it where pydicom's dictionary is older."""
    spelt = {known: name for name, known in _STORAGE_CLASSES.items()}
    return UID(uid).name if UID(uid).name != uid else spelt[uid]


def _fate(uid: str) -> str:
    try:
        refuse_object(uid, structured=True)
    except Quarantine:
        return "quarantine"
    return "de-identified"


GENERATED = {
    ROOT / "configs" / "edge-node.toml": example_toml,
    ROOT / "edge_node" / "docs" / "options.md": options_markdown,
    ROOT / "edge_node" / "docs" / "sop-classes.md": sop_classes_markdown,
}


def main(arguments: list[str]) -> int:
    """Exit code: 0 up to date or written, 1 out of date, 2 usage."""
    if arguments not in ([], ["--check"]):
        print("usage: scripts/generate_docs.py [--check]", file=sys.stderr)
        return 2
    stale = [
        path for path, text in GENERATED.items() if not path.is_file() or path.read_text(encoding="utf-8") != text()
    ]
    for path in stale:
        if arguments:
            print(f"{path.relative_to(ROOT)}: out of date; run scripts/generate_docs.py", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(GENERATED[path](), encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: written")
    return 1 if stale and arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
