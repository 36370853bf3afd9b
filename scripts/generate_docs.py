"""Write what is generated from the schema; with --check, only say whether it is up to date (exit 1 if not)."""

from __future__ import annotations

import sys
from pathlib import Path

from edge_node.config.document import example_toml, options_markdown

ROOT = Path(__file__).resolve().parent.parent
GENERATED = {
    ROOT / "configs" / "edge-node.toml": example_toml,
    ROOT / "edge_node" / "docs" / "options.md": options_markdown,
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
