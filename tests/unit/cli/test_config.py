"""`edge-node config` and the way every command speaks."""

from __future__ import annotations

import io
import json
import re
import tomllib
from pathlib import Path

import pytest
import typer
from rich.text import Text
from typer.testing import CliRunner

from edge_node.cli import config as command
from edge_node.cli import console
from edge_node.cli.context import Invocation
from edge_node.config import load as loading
from edge_node.config.document import example_toml, options_markdown
from edge_node.domain.errors import Quarantine, Retry, Stop


@pytest.fixture(autouse=True)
def _nothing_from_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loading, "DEFAULT_PATH", tmp_path / "absent.toml")
    monkeypatch.delenv("EDGE_NODE_CONFIG", raising=False)


def _run(call: Invocation, *words: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    result = CliRunner().invoke(command.app, list(words), obj=call)
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    path = tmp_path / "wrong.toml"
    path.write_text("[receive]\nprot = 1\n[node]\nlog_level = 'loud'\n")
    return path


def test_a_valid_configuration_is_said_to_be_valid() -> None:
    code, out, err = _run(Invocation(), "check")
    assert code == 0
    assert re.search(r"^all others +\S+/basic\.deid +[0-9a-f]{16}$", out, re.MULTILINE)
    assert "valid (defaults only, no file)" in err


def test_check_says_which_objects_get_which_recipe_and_what_is_doubtful(tmp_path: Path) -> None:
    recipe, config = tmp_path / "own.deid", tmp_path / "edge-node.toml"
    recipe.write_text("FORMAT dicom\n\n%header\nKEEP PatientName\nADD ProtocolName var:protocol\n")
    config.write_text(
        '[[deid.rules]]\ncalling_ae_titles = ["CT2", "CT1"]\ncalled_ae_titles = ["LUNG"]\nrecipe = "own.deid"\n'
        'trial = "LUNG-1"\nvariables = { protocol = "P-1" }\n'
    )
    code, out, err = _run(Invocation(config_path=config), "check")
    assert code == 0
    assert re.search(rf"^#1 from CT1, CT2 · to LUNG +{recipe} +LUNG-1 +[0-9a-f]{{16}}$", out, re.MULTILINE)
    assert f"{recipe}:4: KEEP PatientName: this keeps what names the patient" in err
    _, out, _ = _run(Invocation(config_path=config), "check", "--json")
    told = json.loads(out)["recipes"]
    assert [(one["objects"][:2], one["trial"], len(one["doubts"])) for one in told] == [
        ("#1", "LUNG-1", 1),
        ("al", "", 0),
    ]


def test_check_names_what_is_wrong_in_a_recipe_of_a_rule(tmp_path: Path) -> None:
    recipe, config = tmp_path / "own.deid", tmp_path / "edge-node.toml"
    recipe.write_text("FORMAT dicom\n\n%header\nADD ClinicalTrialProtocolID var:protocol\nJITTER StudyDate var:days\n")
    config.write_text(
        '[deid]\nvariables = { days = "x" }\n[[deid.rules]]\ncalling_ae_titles = ["CT1"]\nrecipe = "own.deid"\n'
    )
    code, out, err = _run(Invocation(config_path=config), "check")
    assert (code, out) == (78, "")
    assert f"{recipe}:4: the variable 'protocol' is not defined" in err
    assert f"{recipe}:5: the variable 'days' is no number of days" in err
    code, out, _ = _run(Invocation(config_path=config), "check", "--json")
    assert (code, json.loads(out)["valid"], len(json.loads(out)["problems"])) == (78, False, 2)


def test_check_names_every_problem_with_file_and_line_and_exits_78(wrong: Path) -> None:
    code, out, err = _run(Invocation(config_path=wrong), "check")
    assert (code, out) == (78, "")
    assert f"{wrong}:2: [receive] prot: there is no such option; did you mean port?\n" in err
    assert f"{wrong}:4: [node] log_level: must be one of" in err
    assert "edge-node config check" in err


@pytest.mark.parametrize(("call_json", "words"), [(True, ["check"]), (False, ["check", "--json"])])
def test_check_answers_programs_in_json(wrong: Path, call_json: bool, words: list[str]) -> None:
    code, out, err = _run(Invocation(config_path=wrong, json=call_json), *words)
    assert code == 78
    answer = json.loads(out)
    assert (answer["valid"], len(answer["problems"])) == (False, 2)
    assert json.loads(err)["error"]["code"] == "config.invalid"
    code, out, _ = _run(Invocation(json=call_json), *words)
    answer = json.loads(out)
    assert (code, answer["valid"], answer["problems"], answer["path"]) == (0, True, [], None)
    assert [(one["objects"], one["trial"], one["doubts"]) for one in answer["recipes"]] == [("all others", "", [])]


def test_show_prints_what_is_in_force_as_toml() -> None:
    code, out, _ = _run(Invocation(flags={"receive.port": "7"}), "show")
    assert code == 0
    assert tomllib.loads(out)["receive"]["port"] == 7
    assert "#" not in out


def test_show_says_where_each_value_comes_from() -> None:
    _, out, _ = _run(Invocation(flags={"receive.port": "7"}), "show", "--origin")
    assert "# --set receive.port" in out
    _, out, _ = _run(Invocation(flags={"receive.port": "7"}), "show", "--origin", "--json")
    answer = json.loads(out)
    assert answer["config"]["receive"]["port"] == 7
    assert answer["origin"]["receive.port"] == "--set receive.port"
    assert answer["origin"]["receive.host"] == "default"


def test_show_in_json_is_the_configuration_alone() -> None:
    _, out, _ = _run(Invocation(), "show", "--json")
    assert json.loads(out)["consent"] == {"source": "deny-all", "csv_file": None}


def test_show_of_a_wrong_configuration_fails_like_check(wrong: Path) -> None:
    code, out, err = _run(Invocation(config_path=wrong), "show")
    assert (code, out) == (78, "")
    assert "did you mean port?" in err


def test_schema_lists_every_option_in_three_forms() -> None:
    _, out, _ = _run(Invocation(), "schema")
    assert "receive.port" in out
    assert "peers.NAME.ae_title" in out
    _, out, _ = _run(Invocation(), "schema", "--json")
    assert "Receive" in json.loads(out)["$defs"]
    _, out, _ = _run(Invocation(), "schema", "--markdown")
    assert out == options_markdown()


def test_example_prints_the_shipped_file() -> None:
    _, out, _ = _run(Invocation(), "example")
    assert out == example_toml()


def test_the_configuration_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "edge-node.toml"
    path.write_text("[node]\nname = 'a'\n")
    call = Invocation(config_path=path)
    first = call.load()
    path.unlink()
    assert call.load() is first


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Stop("config.invalid", "x"), 78),
        (Stop("net.down", "x", exit_code=69), 69),
        (Stop("secrets.unreadable", "x", exit_code=77), 77),
        (Retry("pacs.unavailable", "x"), 75),
        (Quarantine("deid.undecodable", "x"), 1),
    ],
)
def test_an_error_exits_with_the_code_that_says_what_to_do(error: Stop | Retry | Quarantine, code: int) -> None:
    with pytest.raises(SystemExit) as caught:
        console.fail(error)
    assert caught.value.code == code


def test_an_error_is_told_to_people_with_brackets_and_hint(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        console.fail(Stop("config.invalid", "[receive] port: " + "long " * 60, hint="edge-node init"))
    seen = capsys.readouterr()
    assert seen.out == ""
    assert seen.err.splitlines()[0] == "error config.invalid"
    assert seen.err.splitlines()[1].startswith("[receive] port: long")
    assert seen.err.splitlines()[-1] == "next: edge-node init"
    assert len(seen.err.splitlines()) == 3


def test_an_error_is_told_to_programs_as_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        console.fail(Retry("ledger.busy", "the ledger is busy", study="S1"), json=True)
    seen = capsys.readouterr()
    assert seen.out == ""
    assert json.loads(seen.err) == {
        "error": {"code": "ledger.busy", "message": "the ledger is busy", "hint": "", "exit_code": 75, "study": "S1"}
    }


def test_a_piped_table_is_plain_aligned_text(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(("study", "n"), [("[S1]", 1), (Text("longer", style="red"), None)], title="Studies")
    assert capsys.readouterr().out == "study   n\n[S1]    1\nlonger\n"


def test_a_table_on_a_terminal_is_framed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    console.table(("study", "n"), [("[S1]", 1)], title="Studies")
    assert "┃" in terminal.getvalue()
    assert "[S1]" in terminal.getvalue()
    assert "Studies" in terminal.getvalue()


def test_an_empty_table_says_so_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(("study",), [], empty="No studies yet.")
    seen = capsys.readouterr()
    assert (seen.out, seen.err) == ("", "No studies yet.\n")


def test_emit_gives_data_to_programs_and_words_to_people(capsys: pytest.CaptureFixture[str]) -> None:
    console.emit({"path": Path("/x")}, json=True, human=lambda: None)
    assert json.loads(capsys.readouterr().out) == {"path": "/x"}
    console.emit({}, json=False, human=lambda: typer.echo("words"))
    assert capsys.readouterr().out == "words\n"
