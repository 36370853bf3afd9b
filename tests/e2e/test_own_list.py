"""A site whose viewer asks the node for its list, and whose technologists hear of what is missing."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from pydicom import dcmread

from edge_node.demo.pacs import ToyPacs
from edge_node.demo.studies import DemoStudy
from tests.e2e.site import Site, free_port
from tests.e2e.test_line import no_identity_on_disk
from tests.integration.needed_tools import need

MakeSite = Callable[..., Site]
COMMENT, PERFORMER = "RequestedProcedureComments", "ScheduledPerformingPhysicianName"


def test_a_viewer_finds_the_flagged_study_and_the_technologist_what_is_missing(
    site: MakeSite, pacs: ToyPacs, studies: dict[int, DemoStudy], tmp_path: Path
) -> None:
    findscu, port, study = need("/usr/bin/findscu"), free_port(), studies[12]
    with ToyPacs(store=tmp_path / "room", ae_title="CTROOM") as room:
        node = site(
            pacs,
            worklist={"writers": ["evidence"]},
            settle={"required_instances": {"CT": 1000}, "missing_s": 1},
            reading_list={"port": port, "calling_ae_titles": ["VIEWER"]},
            quality_alerts={"peer": "room"},
            routing={"routes": {'"modality:CT"': "NEURO"}, "names": {"NEURO": "Neuroradiology"}},
            **{"peers.room": {"ae_title": room.ae_title, "host": "127.0.0.1", "port": room.port}},
        )
        node.start()
        node.send(study)
        node.wait_for("the alert", lambda: len(room.workitems) == 1)
        [alert] = room.workitems
        assert alert.CommentsOnTheScheduledProcedureStep == f"images missing: {1000 - len(study.files)} of 1000 CT"
        assert alert.PatientID == study.patient.patient_id
        node.wait_for_state("DELIVERED")

        answers = tmp_path / "answers"
        answers.mkdir()
        step = "ScheduledProcedureStepSequence[0]"
        keys = ["PatientID", "PatientName", "RequestedProcedurePriority", COMMENT, f"{step}.{PERFORMER}"]
        keys += [f"AccessionNumber={study.patient.accession}", f"{step}.Modality=CT"]
        command = [findscu, "-W", "-X", "-od", str(answers), "-aet", "VIEWER", "-aec", "EDGELIST"]
        command += ["127.0.0.1", str(port), *(part for key in keys for part in ("-k", key))]
        subprocess.run(command, check=True, timeout=60, capture_output=True)
        [found] = [dcmread(path, force=True) for path in answers.glob("rsp*.dcm")]
        assert found.PatientID == study.patient.patient_id
        assert found.RequestedProcedurePriority == "STAT"
        assert "category 1" in found[COMMENT].value
        assert found.ScheduledProcedureStepSequence[0][PERFORMER].value == "Neuroradiology"
        node.wait_for("the counts", lambda: _told(node).get("shown") == 1)
        assert node.ask("worklist", "list")[0]["read"] == "SCHEDULED"
    assert node.stop() == 0
    no_identity_on_disk(node, study)


def _told(node: Site) -> dict[str, int]:
    roles = {role["role"]: role for role in node.ask("status")["roles"]}
    told: dict[str, int] = roles["dicom"].get("reading_list", {})
    return told
