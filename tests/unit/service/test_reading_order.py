"""The reading order of the status page and the command line: what is to be read now, not everything that ever was."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from sqlalchemy import insert
from typer.testing import CliRunner

from edge_node.cli.app import app
from edge_node.config.load import load
from edge_node.service.node import ledger_path
from edge_node.service.page import _render
from edge_node.service.snapshot import reading_list
from edge_node.store import readers, tables
from edge_node.store.database import Database
from tests.unit.store.rows import study_row

HOUR_S = 3600.0


def invoke(site: Path, *words: str) -> str:
    """What a call of the command line says."""
    done = CliRunner().invoke(app, ["--config", str(site), *words])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The configuration of a node that was set up and never ran."""
    config = tmp_path / "edge-node.toml"
    config.write_text(f'[node]\nname = "site"\ndata_dir = "{tmp_path / "data"}"\n')
    invoke(config, "init")
    return config


def database_of(site: Path) -> Database:
    return Database(ledger_path(load(site).config))


def add(
    site: Path, key: str, *, hours: float, tier: int, triaged: bool = True, reported_after: float | None = None
) -> None:
    """A study judged so many hours ago; `reported_after`: hours from its place to its report."""
    at = time.time() - hours * HOUR_S
    place = {
        "study_key": key,
        "revision": 1,
        "tier": tier,
        "due": at,
        "target_minutes": 10.0,
        "level": "HIGH",
        "raised_by_ai": False,
        "reason": "as ordered",
        "decided_at": at,
    }
    with database_of(site).write() as connection:
        connection.execute(insert(tables.study).values(study_row(key, at=at, triaged_at=at if triaged else None)))
        connection.execute(insert(tables.reading).values(place))
        if reported_after is not None:
            when = at + reported_after * HOUR_S
            readers.note(connection, key, readers.Reading.REPORTED, "hl7", when)


def order(site: Path, hours: float) -> dict[str, str]:
    with database_of(site).read() as connection:
        return {one["study"]: one["read"] for one in reading_list(connection, since=time.time() - hours * HOUR_S)}


def test_last_years_urgent_studies_do_not_stand_before_todays(site: Path) -> None:
    for number in range(60):
        add(site, f"OLD{number:013}", hours=9000, tier=0)
    add(site, "NEW0000000000001", hours=1, tier=1)
    assert order(site, 72) == {"NEW0000000000001": "SCHEDULED"}
    assert len(order(site, 10_000)) == 61
    page = _render(load(site).config)
    assert "NEW0000000000001" in page
    assert "OLD0" not in page


def test_what_was_due_on_another_day_says_on_which(site: Path) -> None:
    add(site, "YESTERDAY0000001", hours=48, tier=0)
    day = time.strftime("%Y-%m-%d ", time.localtime(time.time() - 48 * HOUR_S))
    assert f"<td>{day}" in _render(load(site).config)


def test_what_was_not_judged_yet_keeps_its_place_however_long_it_waits(site: Path) -> None:
    add(site, "WAITS00000000001", hours=9000, tier=0, triaged=False)
    assert order(site, 72) == {"WAITS00000000001": "SCHEDULED"}


def test_a_reported_study_leaves_the_page_and_says_so_on_the_list(site: Path) -> None:
    add(site, "REPORTED00000001", hours=2, tier=0, reported_after=1)
    add(site, "CHANGED000000001", hours=2, tier=1, reported_after=-1)  # its place was decided after the report
    assert order(site, 72) == {"REPORTED00000001": "REPORTED", "CHANGED000000001": "SCHEDULED"}
    page = _render(load(site).config)
    assert "REPORTED00000001" not in page
    assert "CHANGED000000001" in page


def test_the_command_shows_the_hours_that_are_asked_for(site: Path) -> None:
    add(site, "OLD0000000000001", hours=100, tier=0)
    assert "OLD0000000000001" not in invoke(site, "--json", "worklist", "list")
    assert "OLD0000000000001" in invoke(site, "--json", "worklist", "list", "--hours", "200")
    assert "OLD0000000000001" not in invoke(site, "--json", "worklist", "list", "--hours", "50")
