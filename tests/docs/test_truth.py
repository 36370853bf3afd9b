"""What the documents say about the code is what the code says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from edge_node.config.load import DEFAULT_PATH
from edge_node.config.options import ENV_PREFIX, sections
from edge_node.config.schema import Config
from edge_node.config.secrets import NODE_KEYS, keys_for
from edge_node.deid import bitstream
from edge_node.deid.functions import FUNCTIONS
from edge_node.domain.finding import ADVISORY
from edge_node.domain.status import ExitCode, Status
from edge_node.domain.study import Role
from edge_node.pipeline import STEPS
from edge_node.store.tables import metadata
from edge_node.worklist.header import SERIES
from edge_node.worklist.priority import CATEGORY_MINUTES, ORDER_MINUTES
from tests.docs.pages import MANUAL, PAGES, ROOT, blocks, inline, label, read, rows

NAMES = [label(page) for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", read(page)):
        if not target.startswith(("https://", "http://", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_link_of_the_manual_stays_in_the_manual(page: Path) -> None:
    """It ships in the wheel, where there is no checkout around it."""
    if page.parent == MANUAL:
        for target in re.findall(r"\]\(([^)\s]+)\)", read(page)):
            assert "/" not in target.removeprefix("pictures/") or target.startswith("https://"), target


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_no_document_names_a_path_of_somebodys_machine(page: Path) -> None:
    assert not re.search(r"(?<![\w.])/(?:home|root|work|tmp|Users|mnt)/", read(page))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_file_of_the_project_that_is_named_exists(page: Path) -> None:
    rooms = r"(?:edge_node|tests|configs|systemd|scripts|\.ci)/[\w./-]*"
    for span in inline(read(page)):
        if re.fullmatch(rooms, span) and "beacon" not in span:  # the writer of the contributors' example
            assert (ROOT / span).exists(), span


def options() -> set[str]:
    return {f"{name}.{key}" for name, table in sections().items() for key in table if name != "peers"}


def codes() -> set[str]:
    """Codes begin like options: ``receive.busy``."""
    text = read(MANUAL / "operations.md")
    return {row[0] for row in [*rows(text, "code", "kind"), *rows(text, "code", "meaning")]}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_option_that_is_named_exists(page: Path) -> None:
    known, names = options() | codes(), "|".join(sections())
    for span in inline(read(page)):
        for dotted in re.findall(rf"^(?:--set )?((?:{names})\.[a-z_]+)(?:$|[ =])", span):
            assert dotted in known, dotted
        for variable in re.findall(rf"{ENV_PREFIX}([A-Z]+)__([A-Z_]+)", span):
            dotted = ".".join(variable).lower()
            assert dotted in known | {"section.option"}, dotted


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_configuration_that_is_shown_is_valid(page: Path) -> None:
    for block in blocks(read(page), "toml"):
        Config.model_validate(tomllib.loads(block))


def test_a_default_that_is_told_is_the_default() -> None:
    """In the form `section.option` (value)."""
    config = Config().model_dump()
    told = 0
    for page in PAGES:
        for dotted, value in re.findall(r"`([a-z]+\.[a-z_]+)` \(([\w.]+)(?: s)?\)", read(page)):
            if dotted in options():
                section, key = dotted.split(".")
                default = config[section][key]
                assert value == (f"{default:g}" if isinstance(default, int | float) else default), dotted
                told += 1
    assert told > 15


def test_the_default_path_is_the_one_that_is_told() -> None:
    assert str(DEFAULT_PATH) in read(MANUAL / "operations.md")


def test_the_table_of_steps_is_the_pipeline() -> None:
    told = rows(read(MANUAL / "architecture.md"), "step", "role")
    assert told == [[s.name, s.role, s.works_on, s.takes, s.gives, s.on_failure, ", ".join(s.then)] for s in STEPS]


def test_the_table_of_doors_says_who_holds_which_key() -> None:
    told = {role: keys for role, _, keys, _ in rows(read(MANUAL / "architecture.md"), "role", "may talk to")}
    assert told == {str(role): ", ".join(keys_for(role)) or "none" for role in Role}


def test_the_table_of_keys_is_complete() -> None:
    told = {key: roles.split(", ") for key, _, roles, _ in rows(read(MANUAL / "operations.md"), "key", "opens")}
    assert told == {key: [str(role) for role in Role if key in keys_for(role)] for key in NODE_KEYS}


def test_the_tables_of_the_ledger_are_named() -> None:
    sentence = re.search(r"Tables: ([^.]+)\.", read(MANUAL / "architecture.md"))
    assert sentence is not None
    assert {*re.split(r",\s+", sentence[1]), "schema_version", "audit_head"} == set(metadata.tables)


def test_the_exit_codes_are_all_explained() -> None:
    told = {(int(code), name) for code, name, _ in rows(read(MANUAL / "operations.md"), "exit code", "name")}
    assert told == {(int(code), code.name) for code in ExitCode}


def test_a_status_that_is_named_with_its_code_has_that_code() -> None:
    text = read(MANUAL / "conformance.md")
    told = [
        *re.findall(r"`([A-Z_]+)` \(([0-9A-F]{4})", text),
        *re.findall(r"^\| `([A-Z_]+)` \| ([0-9A-F]{4}) ", text, re.M),
    ]
    assert len(told) >= 8
    for name, code in told:
        assert Status[name] == int(code, 16), name


def test_the_transfer_syntaxes_are_those_the_door_reads() -> None:
    told: set[str] = set()
    for _, uids in rows(read(MANUAL / "conformance.md"), "transfer syntax", "UID"):
        found = re.findall(r"1\.2\.840\.10008\.[\d.]*\d", uids)
        if " to " in uids:
            first, last = (int(uid.rsplit(".", 1)[1]) for uid in found)
            stem = found[0].rsplit(".", 1)[0]
            found = [f"{stem}.{n}{end}" for n in range(first, last + 1) for end in ("", ".1")]
        told |= set(found)
    assert told == {*bitstream.ENCAPSULATED, *bitstream._SYNTAXES}


def test_every_function_of_the_recipe_is_explained() -> None:
    told = {span.removeprefix("func:") for span in inline(read(MANUAL / "privacy.md")) if span.startswith("func:")}
    assert told == set(FUNCTIONS)


def test_what_the_radiologist_sees_is_quoted_word_for_word() -> None:
    text = " ".join(read(MANUAL / "safety.md").split())
    assert ADVISORY in text
    for number, _, description in SERIES.values():
        assert f'{number} "{description}"' in text


def test_the_minutes_of_the_reading_order_are_those_of_the_code() -> None:
    text = " ".join(read(MANUAL / "safety.md").split())
    stat, urgent, routine = (f"{ORDER_MINUTES[word]:g}" for word in ("STAT", "URGENT", "ROUTINE"))
    assert f"{stat}, {urgent} or {routine} minutes for an order that is STAT, URGENT or ROUTINE" in text
    first, second, third = (f"{CATEGORY_MINUTES[number]:g}" for number in (1, 2, 3))
    assert f"category 1, 2 or 3 gives {first}, {second} or {third} minutes" in text


def test_every_metric_that_is_named_is_served() -> None:
    served = set(re.findall(r'"(edge_node_[a-z_]+)"', read(ROOT / "edge_node" / "service" / "page.py")))
    told = {span for page in PAGES for span in inline(read(page)) if re.fullmatch(r"edge_node_[a-z_]+", span)}
    assert told == served


def test_the_reference_model_is_never_named_without_its_label() -> None:
    for page in PAGES:
        if re.search(r"\bref-c[tr]-[a-z]", read(page)):
            assert "not for clinical use" in " ".join(read(page).split()), label(page)


def test_the_picture_of_the_readme_is_small() -> None:
    pictures = list((MANUAL / "pictures").iterdir())
    assert pictures
    assert all(picture.suffix == ".png" and picture.stat().st_size < 250_000 for picture in pictures)
