"""What is held: counted by reason and sender, released or destroyed one by one or all of a kind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from typer.testing import CliRunner

from edge_node.cli.app import app
from edge_node.cli.node import MOST_ROWS
from edge_node.config.load import load
from edge_node.config.schema import Config
from edge_node.domain.errors import Quarantine
from edge_node.domain.study import Role
from edge_node.service import intake_worker
from edge_node.service import release as releasing
from edge_node.service.node import open_node
from edge_node.service.page import _render
from edge_node.service.snapshot import MOST_ROWS as MOST_TOLD
from edge_node.service.snapshot import snapshot
from edge_node.store import audit, tables
from edge_node.store.held import Which, reasons
from edge_node.store.intake import IntakeStore
from tests.unit.deid.objects import received
from tests.unit.service.site import image


class Node:
    """A node that never ran, and what it holds."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "edge-node.toml"
        self.path.write_text(f'[node]\nname = "site"\ndata_dir = "{folder / "data"}"\n')
        self.run("init")
        self.config: Config = load(self.path).config
        self.node = open_node(self.config, Role.DICOM)

    def run(self, *words: str, code: int = 0, answer: str | None = None) -> Any:
        """The JSON answer of a command."""
        done = CliRunner().invoke(app, ["--config", str(self.path), "--json", *words], input=answer)
        assert done.exit_code == code, (done.output, done.exception)
        return json.loads(done.stdout) if done.stdout.startswith("{") else done.stderr

    def hold(
        self, number: int, *, study: int = 1, code: str = "deid.crashed", sender: str = "CT1", **changes: Any
    ) -> str:
        """An object that nothing is wrong with is held as if something were; its name."""
        one = received(image(number, study=study, **changes))
        one = replace(one, calling_ae=sender)
        store = IntakeStore(
            self.node.database,
            self.node.keyring,
            self.node.spool_writer(),
            actor="t",
            quarantine_s=99.0,
            envelope_s=99.0,
        )
        store.quarantine(one, f"{number:064}", Quarantine(code, f"held: {code}"), f"STUDY{study:07}")
        return str(self.rows()[-1]["item"])

    def rows(self, **wanted: str) -> list[dict[str, Any]]:
        with self.node.database.read() as connection:
            found = connection.execute(tables.quarantine.select().order_by(tables.quarantine.c.received_at)).mappings()
            return [dict(row) for row in found if all(row[name] == value for name, value in wanted.items())]

    def kept(self) -> int:
        with self.node.database.read() as connection:
            return len(connection.execute(tables.instance.select()).all())


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_what_is_held_is_counted_by_reason_and_sender(node: Node) -> None:
    for number in range(3):
        node.hold(number)
    node.hold(3, sender="MR1")
    node.hold(4, code="deid.malformed", study=2)
    told = node.run("quarantine", "list")
    assert [(one["code"], one["sender"], one["objects"]) for one in told["reasons"]] == [
        ("deid.crashed", "CT1", 3),
        ("deid.crashed", "MR1", 1),
        ("deid.malformed", "CT1", 1),
    ]
    assert len(told["objects"]) == 5
    assert len(node.run("quarantine", "list", "--limit", "2")["objects"]) == 2
    assert [one["from"] for one in node.run("quarantine", "list", "--from", "MR1")["objects"]] == ["MR1"]
    assert node.run("quarantine", "list", "--study", "STUDY0000002")["reasons"][0]["code"] == "deid.malformed"


def test_all_of_a_reason_is_released_at_once_and_the_rest_stays(node: Node) -> None:
    for number in range(4):
        node.hold(number)
    other = node.hold(9, code="deid.malformed")
    told = node.run("quarantine", "release", "--code", "deid.crashed")
    assert (told["released"], told["held"], len(told["studies"])) == (4, [], 1)
    assert node.kept() == 4
    assert [row["item"] for row in node.rows(state="HELD")] == [other]
    with node.node.database.read() as connection:
        released = [one for one in audit.entries(connection) if one.action == "quarantine.released"]
    assert len(released) == 4


def test_what_does_not_pass_stays_held_and_says_why_while_the_others_go(node: Node) -> None:
    good, bad = node.hold(1), node.hold(2, PatientName="Doe^Jane", Manufacturer="Doe^Jane Ltd", BurnedInAnnotation="NO")
    broken = node.rows(item=bad)[0]
    with node.node.database.write() as connection:  # its bytes are not what they were: it does not open
        connection.execute(
            tables.quarantine.update().where(tables.quarantine.c.item == bad).values(length=broken["length"] - 1)
        )
    told = node.run("quarantine", "release", good, bad, code=1)
    assert told["released"] == 1
    assert [(one["item"], one["code"]) for one in told["held"]] == [(bad, "store.seal-broken")]
    assert [row["item"] for row in node.rows(state="HELD")] == [bad]


def test_an_object_that_came_again_and_was_kept_meanwhile_is_no_longer_held(node: Node) -> None:
    item = node.hold(1)
    [receipt] = intake_worker.make_intake(node.config)([received(image(1))])
    assert not getattr(receipt, "code", "?")
    assert node.run("quarantine", "release", item)["released"] == 1
    assert (node.kept(), node.rows(state="HELD")) == (1, [])


def test_nothing_said_is_not_everything(node: Node) -> None:
    node.hold(1)
    for verb in ("release", "discard"):
        assert "quarantine.unknown" in str(_error(node, verb))
    assert len(node.rows(state="HELD")) == 1
    assert node.run("quarantine", "release", "--all")["released"] == 1


def _error(node: Node, *words: str) -> BaseException | None:
    return CliRunner().invoke(app, ["--config", str(node.path), "quarantine", *words]).exception


def test_a_name_that_is_not_held_releases_nothing_at_all(node: Node) -> None:
    item = node.hold(1)
    with pytest.raises(Quarantine, match="QFFFFFFFFFF"):
        releasing.held_now(node.config, Which((item, "QFFFFFFFFFF")))
    assert "quarantine.unknown" in str(_error(node, "release", item, "QFFFFFFFFFF"))
    assert len(node.rows(state="HELD")) == 1


def test_discard_asks_and_destroys_only_what_is_meant(node: Node) -> None:
    for number in range(3):
        node.hold(number)
    node.hold(7, sender="MR1")
    asked = CliRunner().invoke(app, ["--config", str(node.path), "quarantine", "discard", "--from", "CT1"], input="n\n")
    assert asked.exit_code != 0
    assert "3 objects" in asked.output
    assert len(node.rows(state="HELD")) == 4
    assert node.run("quarantine", "discard", "--from", "CT1", "--yes") == {"destroyed": 3}
    assert [row["calling_ae"] for row in node.rows(state="HELD")] == ["MR1"]
    with node.node.database.read() as connection:
        keys = connection.execute(tables.data_key.select().where(tables.data_key.c["class"] == "quarantine")).all()
    assert len(keys) == 1


def test_a_quarantined_object_is_no_study_and_the_command_says_which_is_meant(node: Node) -> None:
    item = node.hold(1)
    done = CliRunner().invoke(app, ["--config", str(node.path), "study", "release", item])
    assert isinstance(done.exception, Quarantine)
    assert done.exception.hint == f"edge-node quarantine release {item}"


def test_thousands_of_held_objects_are_a_few_lines_on_page_and_status(node: Node) -> None:
    node.hold(0)
    [row] = node.rows()
    many = [
        {**row, "item": f"Q{number:010X}", "code": f"deid.code-{number % 30}", "source_digest": f"{number:064}"}
        for number in range(3000)
    ]
    with node.node.database.write() as connection:
        connection.execute(insert(tables.quarantine), many)
        assert sum(one.objects for one in reasons(connection)) == 3001
    shot = snapshot(node.config)
    assert len(shot.quarantine) == MOST_TOLD
    assert sum(one["objects"] for one in shot.quarantine_reasons) == 3001
    page = _render(node.config)
    assert "Quarantine: 3001 objects" in page
    assert page.count("<tr>") < 100
    printed = CliRunner().invoke(app, ["--config", str(node.path), "status"]).output
    assert printed.count("CT1") == MOST_ROWS
    assert "11 more" in printed
