"""`edge-node docs`: the manual that ships with the node, for machines without the internet."""

from __future__ import annotations

import difflib
import re
import sys
from importlib import resources
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown

from edge_node.cli.console import emit, print_data, say, table
from edge_node.cli.context import Invocation
from edge_node.domain.errors import Stop
from edge_node.domain.status import ExitCode

Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
WIDTH = 100  # columns: longer lines of prose are hard to read


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(docs)


def docs(
    ctx: typer.Context,
    topic: Annotated[str | None, typer.Argument(help="A topic of the list, or an error code.")] = None,
    json: Json = False,
) -> None:
    """Read the manual: the list of topics, one of them, or what an error code means."""
    call: Invocation = ctx.obj
    as_json = json or call.json
    pages = _pages()
    if topic is None:
        listed = [(name, *_opening(text)) for name, text in pages.items()]
        emit(
            [{"topic": name, "title": title, "about": about} for name, title, about in listed],
            json=as_json,
            human=lambda: table(("topic", "about"), [(name, about) for name, _, about in listed]),
        )
        if not as_json:
            say("next: edge-node docs TOPIC, or edge-node docs CODE for what an error code means")
        return
    text = pages.get(topic) or _code(pages["operations"], topic)
    if text is None:
        raise _unknown(topic, pages)
    emit({"topic": topic, "markdown": text}, json=as_json, human=lambda: _show(text))


def _pages() -> dict[str, str]:
    """The text of every topic, by name."""
    folder = resources.files("edge_node").joinpath("docs")
    found = {
        one.name.removesuffix(".md"): one.read_text(encoding="utf-8")
        for one in folder.iterdir()
        if one.name.endswith(".md")
    }
    return dict(sorted(found.items()))


def _opening(text: str) -> tuple[str, str]:
    """Title and first sentence."""
    title, first = re.findall(r"^[^\n]+(?:\n[^\n]+)*", text, re.MULTILINE)[:2]
    return title.lstrip("# "), re.split(r"(?<=\.)\s", " ".join(first.split()), maxsplit=1)[0]


def _code(operations: str, code: str) -> str | None:
    """The row of the tables of codes that explains `code`, as Markdown; None when there is none."""
    row = re.search(rf"^\| `{re.escape(code)}` \|(?P<cells>.*)\|$", operations, re.MULTILINE)
    if row is None:
        return None
    *kind, meaning = (cell.strip() for cell in row["cells"].split(" | "))
    return f"`{code}`{''.join(f' ({word})' for word in kind if word)}: {meaning}\n"


def _unknown(topic: str, pages: dict[str, Any]) -> Stop:
    near = difflib.get_close_matches(topic, [*pages, *re.findall(r"^\| `([^`]+)`", pages["operations"], re.M)], 1)
    return Stop(
        "docs.unknown-topic",
        f"there is no topic and no code {topic} (topics: {', '.join(pages)})",
        hint=f"edge-node docs {near[0]}" if near else "edge-node docs",
        exit_code=ExitCode.USAGE,
    )


def _show(text: str) -> None:
    """Laid out on a terminal, the Markdown as it is when piped."""
    if sys.stdout.isatty():
        console = Console(highlight=False)
        console.print(Markdown(text, hyperlinks=False), width=min(WIDTH, console.width))
    else:
        print_data(text)
