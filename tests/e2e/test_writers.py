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
