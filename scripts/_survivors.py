"""What the last run of `scripts/mutants` found: a table, then every surviving mutant with its line and its change.

Runs in the working directory of that script, with mutmut importable.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code


def changes(diff: str) -> tuple[list[str], list[str]]:
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++", "@@"))]
    return [x[1:] for x in lines if x.startswith("-")], [x[1:] for x in lines if x.startswith("+")]


def line_of(source: list[str], name: str, old: list[str]) -> int:
    """Line of the changed code: the first such line behind the function's `def`."""
    function = name.rpartition("__mutmut_")[0].rpartition(".")[2].removeprefix("x_").rpartition("ǁ")[2]
    start = next((at for at, line in enumerate(source) if line.strip().startswith(f"def {function}(")), 0)
    wanted = old[0].strip() if old else ""
    return next((at + 1 for at in range(start, len(source)) if source[at].strip() == wanted), start + 1)


def main() -> None:
    survivors: list[str] = []
    print("| module | mutants | killed | timed out | survived | not run |\n|---|---|---|---|---|---|")
    for module in sys.argv[1:]:
        path = Path(f"edge_node/deid/{module}.py")
        found = SourceFileMutationData(path=path)
        found.load()
        states = {key: status_by_exit_code[code] for key, code in found.exit_code_by_key.items()}
        count = Counter(states.values())
        other = len(states) - count["killed"] - count["timeout"] - count["survived"]
        row = (len(states), count["killed"], count["timeout"], count["survived"], other)
        print(f"| `{module}` | " + " | ".join(map(str, row)) + " |")
        source = path.read_text().splitlines()
        for key, state in states.items():
            if state in ("killed", "timeout"):
                continue
            old, new = changes(get_diff_for_mutant(key, path=path))
            survivors.append(f"{module}.py:{line_of(source, key, old)} {state} {key.rpartition('.')[2]}")
            survivors += [f"    - {line.strip()}" for line in old] + [f"    + {line.strip()}" for line in new]
    print("", *survivors, sep="\n")


if __name__ == "__main__":
    main()
