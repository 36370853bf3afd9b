"""Which writers there are and when they run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edge_node.domain.errors import Stop
from edge_node.domain.worklist import Peer
from edge_node.worklist.writer import Site
from edge_node.worklist.writers import WRITERS, writers_for

NOWHERE = Peer("NOWHERE", "127.0.0.1", 1)


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        ("shadow", ()),
        ("information", ("evidence",)),
        ("live", ("evidence", "ups", "hl7", "fhir", "ups_rs", "hl7_order")),
    ],
)
def test_the_mode_decides_who_writes(mode: str, names: tuple[str, ...]) -> None:
    assert writers_for(mode) == names


def test_an_unknown_mode_is_an_error() -> None:
    with pytest.raises(ValueError, match="loud"):
        writers_for("loud")


@pytest.mark.parametrize(("name", "site"), [("evidence", (None, NOWHERE)), ("ups", (NOWHERE, None))])
def test_a_writer_without_its_peer_stops_at_start(name: str, site: tuple[Peer | None, Peer | None]) -> None:
    with pytest.raises(Stop) as raised:
        WRITERS[name](Site(*site, calling_ae="EDGENODE", timeout_s=5))
    assert raised.value.code == "worklist.no-peer"


@pytest.mark.parametrize("name", ["hl7", "fhir", "ups_rs", "hl7_order"])
def test_a_writer_without_its_address_stops_at_start(name: str) -> None:
    with pytest.raises(Stop) as raised:
        WRITERS[name](Site(NOWHERE, None, calling_ae="EDGENODE", timeout_s=5))
    assert raised.value.code == "worklist.no-address"


def test_the_reading_order_does_not_import_the_report_library() -> None:
    code = "import sys, edge_node.worklist; sys.exit('highdicom' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
