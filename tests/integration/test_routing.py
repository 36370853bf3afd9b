"""Routing to readers: the human performer in the workitem that a UPS SCP has, the recipient in the HL7 message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_node.config.destinations import Hl7
from edge_node.demo.pacs import ToyPacs
from edge_node.domain.finding import Verdict
from edge_node.domain.reading_list import Performer, Routes
from edge_node.domain.worklist import Peer
from edge_node.worklist.oru import message
from edge_node.worklist.performers import performer_of
from edge_node.worklist.writer import Site, WorklistWriter
from edge_node.worklist.writers import WRITERS
from tests.results_back import finding, priority, result, write_back

ROUTES = Routes(
    routes=(("modality:CT finding:1386000", "STROKE"), ("modality:CT body:HEAD", "NEURO"), ("modality:MG", "BREAST")),
    names={"STROKE": "Stroke team", "NEURO": "Neuroradiology"},
    scheme="99HOSP",
    organization="St. Elsewhere",
)


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[ToyPacs]:
    with ToyPacs(store=tmp_path) as running:
        yield running


@pytest.fixture
def writer(pacs: ToyPacs) -> WorklistWriter:
    peer = Peer("DEMOPACS", "127.0.0.1", pacs.port)
    return WRITERS["ups"](Site(peer, peer, "EDGENODE", 10))


def reader(verdict: Verdict, modalities: str = "CT", body_part: str = "HEAD") -> Performer | None:
    return performer_of(ROUTES, modalities, body_part, result(finding(verdict)))


@pytest.mark.parametrize(
    ("verdict", "study", "code"),
    [
        (Verdict.FLAGGED, ("CT", "HEAD"), "STROKE"),
        (Verdict.NOT_FLAGGED, ("CT,SR", "HEAD"), "NEURO"),
        (Verdict.CANNOT_JUDGE, ("CT", "head"), "NEURO"),
        (Verdict.NOT_FLAGGED, ("CT", "CHEST"), None),
        (Verdict.FLAGGED, ("MR", "HEAD"), None),
        (Verdict.FLAGGED, ("MG,SR", ""), "BREAST"),
    ],
)
def test_the_first_route_of_which_every_word_fits_names_the_reader(
    verdict: Verdict, study: tuple[str, str], code: str | None
) -> None:
    found = reader(verdict, *study)
    assert (found.code.value if found else None) == code


def test_the_workitem_names_the_reader_in_the_site_s_own_code(pacs: ToyPacs, writer: WorklistWriter) -> None:
    writer.write(write_back(performer=reader(Verdict.NOT_FLAGGED)))
    [performer] = pacs.workitems[0].ScheduledHumanPerformersSequence
    [code] = performer.HumanPerformerCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning) == ("NEURO", "99HOSP", "Neuroradiology")
    assert (performer.HumanPerformerName, performer.HumanPerformerOrganization) == ("Neuroradiology", "St. Elsewhere")


def test_a_later_finding_that_raises_the_workitem_gives_it_to_another_reader(
    pacs: ToyPacs, writer: WorklistWriter
) -> None:
    writer.write(write_back(priority=priority(), performer=reader(Verdict.NOT_FLAGGED)))
    assert writer.write(write_back(revision=2, performer=reader(Verdict.FLAGGED))).outcome == "raised"
    [item] = pacs.workitems
    assert item.ScheduledHumanPerformersSequence[0].HumanPerformerCodeSequence[0].CodeValue == "STROKE"


def test_without_a_route_nobody_is_named(pacs: ToyPacs, writer: WorklistWriter) -> None:
    writer.write(write_back(performer=None))
    assert not pacs.workitems[0].ScheduledHumanPerformersSequence


def test_the_hl7_result_names_the_reader_as_recipient_of_copies() -> None:
    made = message(write_back(performer=reader(Verdict.FLAGGED)), Hl7())
    assert made is not None
    request = next(one for one in made.content.decode().split("\r") if one.startswith("OBR|"))
    assert request.split("|")[28] == "STROKE^Stroke team^^^^^^^99HOSP"
    plain = message(write_back(), Hl7())
    assert plain is not None
    assert len(next(one for one in plain.content.decode().split("\r") if one.startswith("OBR|")).split("|")) == 26
