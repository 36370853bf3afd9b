"""A site whose RIS speaks HL7, whose EHR speaks FHIR and whose worklist speaks UPS-RS: each gets its result."""

from __future__ import annotations

from collections.abc import Callable

from edge_node.demo.pacs import ToyPacs
from edge_node.demo.studies import DemoStudy
from tests.e2e.site import Site
from tests.e2e.test_line import no_identity_on_disk
from tests.integration.peers_fhir import FhirServer
from tests.integration.peers_mllp import MllpListener, answer, break_off
from tests.integration.peers_ups_rs import UpsRsServer

MakeSite = Callable[..., Site]


def test_each_writer_tells_its_own_system_once_and_waits_for_nobody(
    site: MakeSite, pacs: ToyPacs, studies: dict[int, DemoStudy]
) -> None:
    with MllpListener(break_off, answer("AE"), answer("AA")) as ris, FhirServer() as ehr, UpsRsServer() as worklist:
        ehr.faults.append((422, {}, b""))
        node, study = (
            site(
                pacs,
                worklist={"writers": ["evidence", "hl7", "fhir", "ups_rs"]},
                hl7={"host": "127.0.0.1", "port": ris.port, "assigning_authority": "MAIN"},
                fhir={"url": ehr.url, "patient_systems": {studies[12].patient.issuer: "urn:oid:1.2.3"}},
                ups_rs={"url": worklist.url},
            ),
            studies[12],
        )
        node.start()
        node.send(study, list(study.files[:-1]))
        # The EHR refused for good: a human is waited for, and nobody else waits.
        node.wait_for("the RIS", lambda: len(ris.messages) == 3)
        node.wait_for("the worklist", lambda: len(worklist.items) == 1)
        node.wait_for("the PACS", lambda: len(pacs.instances) == 2)
        assert len(set(ris.messages)) == 1
        assert not ehr.resources
        study_key = node.ask("study", "list")[0]["study"]
        work = {w["target"]: w for w in node.ask("study", "show", study_key)["work"] if w["step"] == "worklist"}
        assert work["fhir"]["state"] == "DEAD"
        node.run("study", "retry", study_key)
        node.wait_for_state("DELIVERED")
        assert len(ehr.resources) == 4
        assert len(ris.messages) == 3

        node.send(study, [study.files[-1]])
        node.wait_for("the second revision", lambda: len(ris.messages) == 4)
        node.wait_for_state("DELIVERED")
        assert len(set(ris.control_ids())) == 2
        assert len(ehr.resources) == 4
        assert len(worklist.items) == 1
        patient = ris.rows(3)["PID"][0]
        assert patient[3].startswith(f"{study.patient.patient_id}^")
        assert ris.rows(3)["OBR"][0][18] == study.patient.accession
        (report,) = ehr.of("DiagnosticReport")
        assert report["subject"]["identifier"]["value"] == study.patient.patient_id
    assert node.stop() == 0
    no_identity_on_disk(node, study)


def test_the_order_of_a_flagged_study_is_raised_once_and_that_of_another_never(
    site: MakeSite, pacs: ToyPacs, studies: dict[int, DemoStudy]
) -> None:
    flagged, quiet = studies[12], studies[1]
    with MllpListener(break_off, answer("AE"), answer("AA")) as ris:
        order = {"host": "127.0.0.1", "port": ris.port, "assigning_authority": "MAIN"}
        node = site(pacs, worklist={"writers": ["evidence", "hl7_order"]}, hl7_order=order)
        node.start()
        node.send(flagged, list(flagged.files[:-1]))
        node.wait_for("the RIS", lambda: len(ris.messages) == 3)
        node.wait_for_state("DELIVERED")
        assert len(set(ris.messages)) == 1
        study_key = node.ask("study", "list")[0]["study"]
        assert _order_codes(node, study_key) == ["hl7_order.raised"]
        assert ris.rows(2)["ORC"][0][1] == "XO"
        assert ris.rows(2)["TQ1"][0][9].startswith("S^")
        assert ris.rows(2)["IPC"][0][1] == flagged.patient.accession

        node.send(flagged, [flagged.files[-1]])
        node.wait_for("the second revision", lambda: len(_order_codes(node, study_key)) == 2)
        assert _order_codes(node, study_key)[1] == "hl7_order.nothing-to-raise"
        node.send(quiet)
        node.wait_for("the other study", lambda: len(node.ask("study", "list")) == 2)
        other = next(one["study"] for one in node.ask("study", "list") if one["study"] != study_key)
        node.wait_for("its order", lambda: _order_codes(node, other) == ["hl7_order.nothing-to-raise"])
        assert len(ris.messages) == 3
    assert node.stop() == 0
    no_identity_on_disk(node, flagged)


def _order_codes(node: Site, study_key: str) -> list[str]:
    codes = [str(one["detail"].get("code", "")) for one in node.ask("study", "timeline", study_key)]
    return [code for code in codes if code.startswith("hl7_order.")]
