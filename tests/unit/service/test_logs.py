"""No line of the log, whoever writes it, says who the patient is."""

from __future__ import annotations

import ast
import io
import json
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from pydicom.valuerep import IS

from edge_node.domain.errors import Quarantine, Stop
from edge_node.service import logs

NAME = "MUELLER^ERIKA"


@pytest.fixture(autouse=True)
def _hooks_as_before() -> Iterator[None]:
    before = (sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning, logging.raiseExceptions)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("pynetdicom", "pydicom", "httpx", "apscheduler")}
    yield
    sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning, logging.raiseExceptions = before
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, was in levels.items():
        logging.getLogger(name).setLevel(was)
    structlog.reset_defaults()


@pytest.fixture(params=["json", "text"])
def out(request: pytest.FixtureRequest) -> io.StringIO:
    stream = io.StringIO()
    logs.configure(request.param, "debug", "dicom", stream, node="ward-3")
    return stream


@pytest.fixture
def lines() -> Lines:
    return Lines()


class Lines:
    """A JSON log and what stands in it."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        logs.configure("json", "debug", "compute", self.stream, node="ward-3")

    def read(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


def _held() -> None:
    """An error of ours with a library's error, and its text, behind it."""
    try:
        int(NAME)
    except ValueError as inner:
        raise Quarantine("deid.undecodable", "an element cannot be decoded", study="S7") from inner


def test_an_event_says_when_who_and_what(lines: Lines) -> None:
    logs.get("edge_node.receive").info("stored", study="S1", instances=3, seconds=0.25)
    (line,) = lines.read()
    assert str(line.pop("timestamp")).endswith("Z")
    assert line == {
        "role": "compute",
        "node": "ward-3",
        "event": "stored",
        "level": "info",
        "logger": "edge_node.receive",
        "study": "S1",
        "instances": 3,
        "seconds": 0.25,
    }


def test_a_field_that_is_not_on_the_list_is_dropped(out: io.StringIO) -> None:
    logs.get("edge_node.deid").info("checked", patient_name=NAME, study={"name": NAME}, peer=[NAME.encode()])
    assert NAME not in out.getvalue()
    assert out.getvalue().count(logs.DROPPED) == 3


def test_numbers_with_a_unit_pass_and_text_with_a_unit_does_not(lines: Lines) -> None:
    logs.get("edge_node.store").info("swept", freed_mb=12.5, waiting_s=NAME)
    (line,) = lines.read()
    assert line["freed_mb"] == 12.5
    assert line["waiting_s"] == logs.DROPPED


def test_bound_context_passes_the_same_gate(out: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(patient=NAME, study="S1"):
        logs.get("edge_node.deid").bind(name=NAME).warning("checked")
    assert "S1" in out.getvalue()
    assert NAME not in out.getvalue()


def test_the_text_of_a_pydicom_exception_never_reaches_the_log(out: io.StringIO) -> None:
    with pytest.raises(ValueError, match=r"MUELLER\^ERIKA") as caught:
        IS(NAME)  # a number is expected and somebody's name is there: pydicom repeats it
    log = logs.get("edge_node.receive")
    try:
        IS(NAME)
    except ValueError:
        log.exception("object refused")
        logging.getLogger("edge_node.old").exception("object refused")
        logging.getLogger("pynetdicom.service").exception("Exception raised by handler")
    log.error("object refused", exc_info=caught.value)
    assert NAME not in out.getvalue()
    assert out.getvalue().count("object refused") == 3  # the library's own words are not told


def test_causes_of_an_exception_are_told_by_type_only(lines: Lines) -> None:
    try:
        _held()
    except Quarantine:
        logs.get("edge_node.receive").exception("held")
    (line,) = lines.read()
    assert line["exception_type"] == "edge_node.domain.errors.Quarantine"
    assert line["caused_by"] == ["ValueError"]
    assert (line["code"], line["message"], line["study"]) == (
        "deid.undecodable",
        "an element cannot be decoded",
        "S7",
    )
    assert NAME not in lines.stream.getvalue()


def test_an_exception_names_the_lines_of_our_own_code_and_no_others() -> None:
    from edge_node.config.secrets import load_key

    with pytest.raises(ValueError, match="no node key") as caught:
        load_key("nonsense", None)  # type: ignore[arg-type]
    told = logs.describe_exception(caught.value)
    frames = told["frames"]
    assert isinstance(frames, list)
    assert [frame.split(":")[0] for frame in frames] == ["edge_node/config/secrets.py"]


def test_what_a_library_says_is_replaced_by_the_place_it_says_it_at(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("pynetdicom"), "propagate", True)  # the write-back room mutes it
    logging.getLogger("pynetdicom.service-c").error("C-STORE of %s failed", NAME)
    logging.getLogger("somebody.else").info(NAME)
    first, second = lines.read()
    assert first["library"] == "pynetdicom.service-c"
    assert str(first["at"]).startswith("service/test_logs.py:")
    assert second["event"] == "library message"
    assert NAME not in lines.stream.getvalue()


def test_chatty_libraries_are_heard_from_warning_on(lines: Lines) -> None:
    for name in ("pynetdicom.acse", "pydicom", "httpx", "apscheduler.scheduler", "highdicom"):
        logging.getLogger(name).info("busy")
    assert lines.read() == []


def test_a_warning_is_told_by_category_and_place(out: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs.configure("json", "info", "dicom", out)
        warnings.warn(f"Invalid value for VR UI: '{NAME}'", UserWarning, stacklevel=1)
    assert "UserWarning" in out.getvalue()
    assert NAME not in out.getvalue()


def test_a_thread_that_dies_is_told_by_type(out: io.StringIO) -> None:
    def body() -> None:
        raise KeyError(NAME)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert "KeyError" in out.getvalue()
    assert NAME not in out.getvalue()


def test_a_message_that_cannot_be_formatted_prints_nothing_of_its_arguments(
    out: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger("edge_node.x").error("%d", NAME)
    logging.getLogger("library.x").error("%d", NAME)
    assert NAME not in out.getvalue()
    assert NAME not in capfd.readouterr().err


def test_a_peer_cannot_steer_the_terminal_through_its_ae_title(out: io.StringIO) -> None:
    logs.get("edge_node.receive").warning("rejected", calling_ae="\x1b[2JEVIL")
    assert "\x1b[2J" not in out.getvalue()


def test_the_level_is_the_least_that_is_logged() -> None:
    stream = io.StringIO()
    logs.configure("json", "error", "forward", stream)
    logs.get("edge_node.forward").warning("slow")
    logs.get("edge_node.forward").error("down", code="trainer.unavailable")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["down"]


def test_configuring_twice_does_not_log_twice() -> None:
    stream = io.StringIO()
    logs.configure("json", "info", "forward", stream)
    logs.configure("json", "info", "forward", stream)
    logs.get("edge_node.forward").info("once")
    assert len(stream.getvalue().splitlines()) == 1


def test_pynetdicom_does_not_log_identifiers() -> None:
    import pynetdicom._config

    pynetdicom._config.LOG_REQUEST_IDENTIFIERS = True
    pynetdicom._config.LOG_RESPONSE_IDENTIFIERS = True
    logs.configure("json", "debug", "dicom", io.StringIO())
    assert pynetdicom._config.LOG_REQUEST_IDENTIFIERS is False
    assert pynetdicom._config.LOG_RESPONSE_IDENTIFIERS is False


CHILD = """
import multiprocessing, sys
from edge_node.domain.errors import Stop
from edge_node.service import logs

def body(how):
    logs.configure("json", "info", "dicom")
    if how == "stop":
        raise Stop("store.full", "no room", exit_code=74)
    raise ValueError("MUELLER^ERIKA")

if __name__ == "__main__":
    how = sys.argv[1]
    if how == "main":
        body(how)
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=logs.guarded, args=(body, how))
    child.start()
    child.join()
    sys.exit(child.exitcode)
"""


@pytest.mark.parametrize(("how", "code"), [("main", 1), ("child", 1), ("stop", 74)])
def test_a_process_that_dies_is_told_by_type_and_exits_with_its_code(tmp_path: Path, how: str, code: int) -> None:
    script = tmp_path / "process_under_test.py"
    script.write_text(CHILD)
    ran = subprocess.run(
        [sys.executable, str(script), how],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PYTHONPATH": str(logs.PACKAGE.parent)},
    )
    assert ran.returncode == code
    assert NAME not in ran.stderr + ran.stdout
    told = json.loads(ran.stderr.splitlines()[-1])
    assert told["exception_type"] == ("edge_node.domain.errors.Stop" if how == "stop" else "ValueError")


def test_guarded_runs_its_target_with_all_arguments() -> None:
    seen: list[object] = []
    logs.guarded(lambda *args, **kwargs: seen.append((args, kwargs)), 1, two=2)
    assert seen == [((1,), {"two": 2})]


def test_guarded_exits_with_the_code_of_a_stop(lines: Lines) -> None:
    def stops() -> None:
        raise Stop("config.invalid", "no", exit_code=78)

    with pytest.raises(SystemExit) as caught:
        logs.guarded(stops)
    assert caught.value.code == 78
    assert lines.read()[0]["code"] == "config.invalid"


def _log_calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call that writes a line of the log in our own code, with its place."""
    levels = {"debug", "info", "warning", "error", "critical", "exception"}
    for path in sorted(logs.PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in levels
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id.strip("_").lower() in {"log", "logger"}
            ):
                yield f"{path.relative_to(logs.PACKAGE.parent)}:{node.lineno}", node


def test_every_event_in_the_code_is_constant_text() -> None:
    """The gate trusts the event text of our own code, so no value may be woven into it."""
    calls = list(_log_calls())
    assert calls, "no log call was found: this test looks in the wrong place"
    assert [place for place, call in calls if not (call.args and isinstance(call.args[0], ast.Constant))] == []


def test_every_field_in_the_code_passes_the_gate() -> None:
    """A field that would always be dropped is a mistake in the code or in the list."""
    dropped = [
        (place, word.arg)
        for place, call in _log_calls()
        for word in call.keywords
        if word.arg not in (None, "exc_info") and logs.passable(word.arg, 1) == logs.DROPPED
    ]
    assert dropped == []
