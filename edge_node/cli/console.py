"""How commands speak: data to standard output, talk to standard error, tables for people, JSON for programs."""

from __future__ import annotations

import json as json_text
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edge_node.domain.errors import EdgeNodeError, Retry, Stop
from edge_node.domain.status import ExitCode


def exit_code(error: EdgeNodeError) -> int:
    """The exit code that tells a script what to do about `error`: Retry 75, Stop its own, else 1."""
    if isinstance(error, Stop):
        return error.exit_code
    return ExitCode.TRY_AGAIN if isinstance(error, Retry) else ExitCode.FOUND_WRONG


def fail(error: EdgeNodeError, *, json: bool = False) -> NoReturn:
    """Say what went wrong and what to do next on standard error, and exit with `exit_code(error)`."""
    code = exit_code(error)
    if json:
        told = {"code": error.code, "message": error.message, "hint": error.hint, "exit_code": code}
        if error.study:
            told["study"] = error.study
        print_error_line(json_text.dumps({"error": told}, ensure_ascii=False))
    else:
        talk = Console(stderr=True, highlight=False, soft_wrap=True)
        # Text, not markup: "[receive] port" would be taken for a style
        talk.print(Text.assemble(("error ", "bold red"), (error.code, "bold")))
        talk.print(Text(error.message))
        if error.hint:
            talk.print(Text.assemble(("next: ", "bold"), error.hint))
    raise SystemExit(code)


def say(text: str) -> None:
    """A remark for people, on standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(text))


def print_error_line(line: str) -> None:
    """One line, as it is, on standard error."""
    sys.stderr.write(line + "\n")


def print_data(text: str) -> None:
    """`text` as it is on standard output, ended by one line end."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def emit(data: object, *, json: bool, human: Callable[[], None]) -> None:
    """`data` as JSON on standard output, or whatever `human` prints. Paths, times and enums become text."""
    if json:
        print_data(json_text.dumps(data, indent=2, ensure_ascii=False, default=str))
    else:
        human()


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "", empty: str = "") -> None:
    """A table on standard output: framed on a terminal, plain aligned columns when piped. Cells are text or rich Text.

    `empty` is said on standard error when there are no rows.
    """
    cells = [
        [cell if isinstance(cell, Text) else Text("" if cell is None else str(cell)) for cell in row] for row in rows
    ]
    if not cells and empty:
        say(empty)
        return
    if sys.stdout.isatty():
        framed = Table(*columns, title=title or None, title_justify="left", header_style="bold")
        for row in cells:
            framed.add_row(*row)
        Console(highlight=False).print(framed)
        return
    plain = [list(columns), *([cell.plain for cell in row] for row in cells)]
    widths = [max(map(len, column)) for column in zip(*plain, strict=True)]
    for texts in plain:
        print_data("  ".join(f"{text:{width}}" for text, width in zip(texts, widths, strict=True)).rstrip())
