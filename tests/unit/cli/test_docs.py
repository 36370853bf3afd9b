"""`edge-node docs`: the manual on a machine without the internet."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from edge_node.cli import docs as command
from edge_node.cli.app import app
from edge_node.domain.errors import Stop

TOPICS = (
    "architecture",
    "conformance",
    "keys",
    "models",
    "operations",
    "options",
    "pixels",
    "privacy",
    "recipes",
    "safety",
    "sop-classes",
)


def run(*words: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    result = CliRunner().invoke(app, ["docs", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_without_a_topic_the_topics_are_listed_with_a_sentence() -> None:
    code, out, err = run()
    assert code == 0
    listed = dict(line.split(maxsplit=1) for line in out.splitlines()[1:])
    assert tuple(listed) == TOPICS
    assert all(about.endswith(".") and about != title for title, about in listed.items())
    assert "edge-node docs TOPIC" in err


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_is_printed_as_it_is_when_piped(topic: str) -> None:
    code, out, _ = run(topic)
    assert code == 0
    assert out.startswith("# ")
    assert "\x1b" not in out


def test_an_error_code_is_explained() -> None:
    _, out, _ = run("spool.disk-full")
    assert out.startswith("`spool.disk-full` (Retry): No room for a sealed object")
    _, out, _ = run("consent.unlisted")
    assert out == "`consent.unlisted`: The patient is not on the list: denied.\n"


def test_an_unknown_topic_is_answered_with_the_nearest() -> None:
    with pytest.raises(Stop) as raised:
        run("operation")
    assert (raised.value.code, raised.value.exit_code) == ("docs.unknown-topic", 2)
    assert raised.value.hint == "edge-node docs operations"


def test_programs_get_json() -> None:
    _, out, _ = run("--json")
    assert [item["topic"] for item in json.loads(out)] == list(TOPICS)
    _, out, _ = run("privacy", "--json")
    assert json.loads(out)["markdown"].startswith("# Privacy")


def test_on_a_terminal_the_page_is_laid_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    command._show("# Title\n\nSome *words*.\n")
    out = capsys.readouterr().out
    assert "# Title" not in out
    assert "Some words." in re.sub(r"\x1b\[[\d;]*m", "", out)
