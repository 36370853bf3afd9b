"""Every command line that the documents or the hints of errors name is one that the program takes."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from edge_node.cli.app import app
from tests.docs.pages import PAGES, ROOT, blocks, inline, label, read

PROGRAM: Any = typer.main.get_command(app)


def command_lines(text: str) -> list[str]:
    """What stands behind `edge-node ` in shell blocks and code spans, up to a pipe, redirection or comment."""
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    found = []
    for line in [*lines, *inline(text)]:
        match = re.match(r"^(?:runuser -u edge-node -- )?edge-node( .*)?$", line.strip())
        if match:
            found.append(re.split(r"\s(?:[|<>&#]|2>)", match[1] or "")[0].strip())
    return found


def verbs(command: Any) -> dict[str, Any]:
    """The verbs below a verb."""
    return getattr(command, "commands", {})


def parse(line: str) -> tuple[str, ...]:
    """The verb of a command line, as words; fails with the reason when the program would not take it."""
    words = shlex.split(line)
    current, path, arguments = PROGRAM, [], 0
    while words:
        word = words.pop(0)
        options = {name: p for p in current.params if p.param_type_name == "option" for name in p.opts}
        if word == "--help":
            continue
        if word.startswith("-"):
            assert word in options, f"{line!r}: {' '.join(path) or 'edge-node'} has no option {word}"
            if not options[word].is_flag:
                assert words, f"{line!r}: {word} needs a value"
                words.pop(0)
        elif verbs(current):
            assert word in verbs(current), f"{line!r}: there is no verb {word}"
            current = verbs(current)[word]
            path.append(word)
        else:
            arguments += 1
    takes = [p for p in current.params if p.param_type_name == "argument"]
    assert arguments <= len(takes), f"{line!r}: too many words"
    return tuple(path)


def quoted() -> list[tuple[str, str]]:
    return [(label(page), line) for page in PAGES for line in command_lines(read(page))]


@pytest.mark.parametrize(("page", "line"), sorted(set(quoted())))
def test_every_quoted_command_is_one_the_program_takes(page: str, line: str) -> None:
    parse(line)


def test_every_quoted_verb_explains_itself() -> None:
    for verb in sorted({parse(line) for _, line in quoted()}):
        shown = CliRunner().invoke(app, [*verb, "--help"])
        assert shown.exit_code == 0, verb
        assert "Usage:" in shown.stdout, verb


def test_a_wrong_command_would_be_found() -> None:
    for wrong in ("studi list", "study list --wrong", "audit verify now", "run --role"):
        with pytest.raises(AssertionError):
            parse(wrong)


def test_every_verb_stands_in_the_changelog_and_has_a_sentence() -> None:
    told = set(inline(read(ROOT / "CHANGELOG.md")))
    for name, command in verbs(PROGRAM).items():
        assert command.get_short_help_str()
        assert name in told, f"{name} is not in the changelog"


def hints() -> list[tuple[str, str]]:
    """(place, hint) of every error of the source that has one in plain words."""
    found = []
    for path in sorted((ROOT / "edge_node").rglob("*.py")):
        for node in ast.walk(ast.parse(read(path))):
            for keyword in node.keywords if isinstance(node, ast.Call) else ():
                if keyword.arg == "hint" and isinstance(keyword.value, ast.Constant):
                    found.append((label(path), str(keyword.value.value)))
    return found


def test_every_verb_that_a_hint_names_exists() -> None:
    named = 0
    for place, hint in hints():
        for first, second in re.findall(r"(?:^|`|[:;] |then |or )edge-node ([a-z]+)(?: ([a-z]+))?", hint):
            named += 1
            assert first in verbs(PROGRAM), f"{place}: {hint}"
            below = verbs(verbs(PROGRAM)[first])
            assert not below or not second or second in below, f"{place}: {hint}"
    assert named > 30


def test_every_document_that_a_message_names_exists() -> None:
    pages = {page.stem for page in PAGES}
    sources: list[Path] = [*(ROOT / "edge_node").rglob("*.py"), ROOT / "configs" / "recipes" / "basic.deid"]
    for path in sources:
        for topic in re.findall(r"edge-node docs ([a-z-]+)", read(path)):
            assert topic in pages, f"{label(path)} names {topic}"
