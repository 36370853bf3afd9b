"""Rules of the house that a reader can check line by line, so that no reader has to."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "edge_node"
FILES = sorted(PACKAGE.rglob("*.py"))
STATUS_FILES = {"domain/status.py", "worklist/statuses.py"}


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_only_the_deidentification_room_makes_a_deidentified_instance() -> None:
    makers = {
        name(path)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("DeidentifiedInstance", "Deidentified")
    }
    assert makers
    assert all(maker.startswith("deid/") for maker in makers), makers


def test_every_file_says_what_it_is_for_and_stays_readable() -> None:
    for path in FILES:
        text = path.read_text()
        assert ast.get_docstring(ast.parse(text)), f"{name(path)} has no docstring"
        assert len(text.splitlines()) <= 420, f"{name(path)} is too long to have one reason"


def test_a_dimse_status_is_never_written_as_a_number() -> None:
    number = re.compile(r"0x(?:A[79]|B0|C[0-3])[0-9A-Fa-f]{2}\b")
    for path in FILES:
        if name(path) not in STATUS_FILES and not name(path).startswith(("forward/", "demo/")):
            assert not number.search(path.read_text()), name(path)


def test_nothing_unfinished_lands() -> None:
    unfinished = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|NotImplementedError")
    for path in FILES:
        assert not unfinished.search(path.read_text()), name(path)


@pytest.mark.parametrize("word", ["normal", "negative"])
def test_no_result_text_ever_says_normal_or_negative(word: str) -> None:
    """A model that raises nothing says "not flagged"; it has not seen what it was not made for."""
    for path in FILES:
        if not name(path).startswith(("worklist/", "domain/finding", "triage/judge", "triage/picture", "demo/report")):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in docstrings(path):
                assert word not in node.value.lower().split(), f"{name(path)}: {node.value!r}"


def docstrings(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            body = node.body
            if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                found.add(str(body[0].value.value))
    return found


def test_the_flow_can_be_read_in_under_two_hundred_lines() -> None:
    assert len((PACKAGE / "pipeline.py").read_text().splitlines()) < 200


def test_compute_and_forward_load_no_network_library_of_the_dicom_role() -> None:
    """What a role never loads it cannot leak through: the compute role has no pynetdicom and no highdicom."""
    import subprocess
    import sys

    code = (
        "import sys\n"
        "import edge_node.service.roles, edge_node.service.compute_steps, edge_node.service.forward_steps\n"
        "print([m for m in ('pynetdicom', 'highdicom', 'deid', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
