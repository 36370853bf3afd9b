"""The whole line through the installed command line: what a hospital does, and what goes wrong there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread

from edge_node.demo.pacs import ToyPacs
from edge_node.demo.studies import DemoStudy
from edge_node.demo.trainer import ToyTrainer, needle_bytes
from edge_node.domain.errors import Retry
from tests.e2e.site import Site

MakeSite = Callable[..., Site]
Studies = dict[int, DemoStudy]
SR = "1.2.840.10008.5.1.4.1.1.88.34"


def of_study(pacs: ToyPacs, study: DemoStudy, sop_class: str) -> list[Path]:
    found = [(dcmread(p, stop_before_pixels=True), p) for p in pacs.instances.values()]
    return [p for d, p in found if d.SOPClassUID == sop_class and d.StudyInstanceUID == study.study_uid]


def test_a_study_goes_in_a_finding_and_a_clean_copy_come_out(
    site: MakeSite, pacs: ToyPacs, trainer: ToyTrainer, studies: Studies
) -> None:
    node, study = site(pacs, trainer), studies[12]
    node.start()
    assert node.send(study).accepted == len(study.files)
    [row] = node.wait_for_state("DELIVERED")

    [report] = [dcmread(p) for p in of_study(pacs, study, SR)]
    assert str(report.PatientName) == str(dcmread(study.files[0]).PatientName)
    assert report.AccessionNumber == study.patient.accession
    assert report.VerificationFlag == "UNVERIFIED"
    [item] = pacs.workitems
    assert item.PatientID == study.patient.patient_id
    assert len(trainer.received) == len(study.files)
    assert trainer.bad == []
    assert row["trainer"] == {"DELIVERED": len(study.files)}

    timeline = [entry["action"] for entry in node.ask("study", "timeline", row["study"])]
    assert timeline[:2] == ["study.opened", "settle.done"]
    # Triage and pixels go side by side; what leaves has been through both.
    assert max(timeline.index("triage.done"), timeline.index("pixels.done")) < timeline.index("forward.done")
    assert node.run("audit", "verify").returncode == 0
    assert node.stop() == 0
    # with the node down, the ledger still answers
    assert [r["study"] for r in node.ask("worklist", "list")] == [row["study"]]
    no_identity_on_disk(node, study)


def no_identity_on_disk(node: Site, study: DemoStudy) -> None:
    patterns = needle_bytes(study.needles)
    for path in [*(node.folder / "data").rglob("*"), node.folder / "node.log"]:
        data = path.read_bytes() if path.is_file() else b""
        found = [study.needles[index] for index, raw in patterns if raw in data or raw in path.name.encode()]
        assert not found, f"{path.name}: {found}"


def test_out_of_the_box_nothing_is_written_and_nothing_leaves(
    site: MakeSite, pacs: ToyPacs, trainer: ToyTrainer, studies: Studies
) -> None:
    node = site(pacs, trainer, worklist={"mode": "shadow"}, consent={"source": "deny-all"})
    node.start()
    node.send(studies[1])
    [row] = node.wait_for_state("DELIVERED")
    assert pacs.instances == {}
    assert pacs.workitems == []
    assert trainer.received == {}
    assert row["trainer"] == {"WITHHELD": len(studies[1].files)}
    assert row["priority"]  # decided, though told to nobody


def test_kill_nine_in_mid_study_loses_nothing_that_was_acknowledged(
    site: MakeSite, trainer: ToyTrainer, studies: Studies
) -> None:
    node, study = site(None, trainer, triage={"enabled": False}), studies[1]
    files, acknowledged = list(study.files), 0
    for number in range(3):
        node.start()
        part = files[number * 4 : number * 4 + 4]
        acknowledged += node.send(study, part).accepted
        node.kill()
    node.start()
    assert acknowledged == 12
    node.wait_for("all instances at the trainer", lambda: len(trainer.received) == acknowledged)
    assert not any(item.changed for item in trainer.received.values())
    assert trainer.bad == []


def test_a_pacs_that_is_down_delays_its_own_delivery_and_nothing_else(
    site: MakeSite, tmp_path: Path, trainer: ToyTrainer, studies: Studies
) -> None:
    with ToyPacs(store=tmp_path / "first") as first:
        port = first.port
        node = site(first, trainer, triage={"enabled": False})
    node.start()
    node.send(studies[12])
    node.wait_for("the trainer", lambda: len(trainer.received) == len(studies[12].files))
    waiting = node.ask("queue")["work"]
    assert {(w["step"], w["target"]) for w in waiting} >= {("worklist", "ups")}
    with ToyPacs(store=tmp_path / "second", port=port) as second:
        study_key = node.ask("study", "list")[0]["study"]
        node.run("study", "retry", study_key, check=False)  # it may just be trying by itself
        [row] = node.wait_for_state("DELIVERED")
        assert len(second.workitems) == 1
        purges = [w for w in node.ask("study", "show", row["study"])["work"] if w["step"] == "purge"]
        assert {w["state"] for w in purges} == {"READY"}  # a retry hurries deliveries, never the destruction


def test_a_late_instance_reopens_the_study_and_its_report_names_the_one_before(
    site: MakeSite, pacs: ToyPacs, studies: Studies
) -> None:
    node, study = site(pacs), studies[12]
    node.start()
    node.send(study, list(study.files[:-1]))
    node.wait_for_state("DELIVERED")
    node.send(study, [study.files[-1]])
    node.wait_for("the second revision", lambda: node.ask("study", "list")[0]["revision"] == 2)
    node.wait_for_state("DELIVERED")
    reports = sorted((dcmread(p) for p in of_study(pacs, study, SR)), key=lambda d: int(d.InstanceNumber))
    assert len(reports) == 2
    [before] = reports[1].PredecessorDocumentsSequence
    named = before.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert named == reports[0].SOPInstanceUID
    assert len(pacs.workitems) == 1  # one entry a study, whatever the revision


def test_a_study_sent_again_changes_nothing(
    site: MakeSite, pacs: ToyPacs, trainer: ToyTrainer, studies: Studies
) -> None:
    node, study = site(pacs, trainer), studies[1]
    node.start()
    node.send(study)
    [before] = node.wait_for_state("DELIVERED")
    assert node.send(study).accepted == len(study.files)
    [after] = node.ask("study", "list")
    assert (after["revision"], after["instances"]) == (before["revision"], before["instances"])
    assert all(item.count == 1 for item in trainer.received.values())


def test_a_broken_object_is_acknowledged_sealed_away_and_visible(site: MakeSite, studies: Studies) -> None:
    node, study = site(), studies[8]
    node.start()
    assert node.send(study).accepted == len(study.files)
    shot = node.ask("status")
    [held] = shot["quarantine"]
    assert held["code"] == "deid.malformed"
    refused = node.run("quarantine", "release", held["item"], check=False)
    assert refused.returncode == 1
    assert "1 still held: deid.malformed" in refused.stderr
    node.run("quarantine", "discard", "--yes", held["item"])
    assert node.ask("status")["quarantine"] == []
    no_identity_on_disk(node, study)


def test_a_role_that_is_killed_is_started_again_and_the_work_goes_on(
    site: MakeSite, pacs: ToyPacs, studies: Studies
) -> None:
    node = site(pacs, triage={"enabled": False})
    node.start()
    pids = {r["role"]: r["pid"] for r in node.ask("status")["roles"]}
    os.kill(pids["compute"], signal.SIGKILL)
    node.send(studies[1])
    node.wait_for_state("DELIVERED")
    after = {r["role"]: r["pid"] for r in node.ask("status")["roles"]}
    assert after["compute"] != pids["compute"]
    assert after["dicom"] == pids["dicom"]


def test_a_paused_step_waits_and_goes_on_when_resumed(site: MakeSite, pacs: ToyPacs, studies: Studies) -> None:
    node = site(pacs, triage={"enabled": False})
    node.run("queue", "pause", "worklist")
    node.start()
    node.send(studies[1])
    node.wait_for_state("TRIAGED")
    assert node.ask("status")["paused"] == ["worklist"]
    assert pacs.workitems == []
    node.run("queue", "resume", "worklist")
    node.wait_for_state("DELIVERED")


def test_consent_given_later_sends_what_was_withheld(
    site: MakeSite, tmp_path: Path, trainer: ToyTrainer, studies: Studies
) -> None:
    consent = tmp_path / "consent.csv"
    consent.write_text("patient_key,consent\n")
    node = site(None, trainer, triage={"enabled": False}, consent={"source": "csv", "csv_file": str(consent)})
    node.start()
    node.send(studies[1])
    [row] = node.wait_for_state("DELIVERED")
    assert row["trainer"] == {"WITHHELD": len(studies[1].files)}
    patient = studies[1].patient
    made = subprocess.run(
        [sys.executable, "-m", "edge_node", "--config", str(node.config), "consent", "hash"],
        input=f"{patient.patient_id}\t{patient.issuer}\n",
        capture_output=True,
        text=True,
        check=True,
    )
    consent.write_text(made.stdout)
    node.stop()
    node.start()  # the list is looked at again at a start, and then every half minute
    node.wait_for("the trainer", lambda: len(trainer.received) == len(studies[1].files))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_refuses_by_name_and_recovers_by_itself(site: MakeSite, tmp_path: Path, studies: Studies) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", mount], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        node = site(node={"data_dir": str(mount / "data")}, triage={"enabled": False})
        node.start()
        ballast = mount / "ballast"
        ballast.write_bytes(bytes(28_000_000))
        with pytest.raises(Retry, match=r"send\.association-rejected"):  # an open association would hear the status
            node.send(studies[1], [studies[1].files[0]])
        node.wait_for("the refusal", lambda: [r["reason"] for r in node.ask("status")["refused"]] == ["disk-low"])
        ballast.unlink()
        assert node.send(studies[1]).accepted == len(studies[1].files)
        node.stop()
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


def test_wrong_configuration_is_told_with_its_line_and_exit_code_78(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text('[receive]\nport = 11112\nae_titel = "X"\n')
    command = [sys.executable, "-m", "edge_node", "--config", str(path), "run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78
    assert "wrong.toml:3" in done.stderr
    assert "ae_title" in done.stderr


def test_a_node_without_keys_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "fresh.toml"
    path.write_text(f'[node]\ndata_dir = "{tmp_path / "data"}"\n')
    command = [sys.executable, "-m", "edge_node", "--config", str(path), "run", "--role", "compute"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78
    assert "edge-node init" in done.stderr
