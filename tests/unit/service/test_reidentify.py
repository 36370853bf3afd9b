"""The way back: by record, envelope or candidates; recorded before it is told; told to nobody when it is not."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from edge_node.cli.app import app
from edge_node.config.secrets import load_key
from edge_node.deid import Pseudonyms
from edge_node.domain.errors import EdgeNodeError, Quarantine, Retry, Stop
from edge_node.domain.study import Role
from edge_node.service import doctor, reidentify, rekey
from edge_node.service.check import guarded
from edge_node.service.escrow import PRIVATE, misplaced, new_pair
from edge_node.service.node import escrow_of, open_node
from edge_node.service.reidentify import Candidate, Request
from edge_node.store import retention
from edge_node.store.seal import private_key
from tests.unit.service.site import Site, image, needles_in, site

__all__ = ["site"]
WHY = "incidental finding, report to the ward"


@pytest.fixture
def key(site: Site) -> str:
    return site.take(image(1))[0].study_key


def _forget(site: Site, key: str) -> None:
    """Let retention destroy the envelope."""
    node = open_node(site.config, Role.DICOM)
    with node.database.write() as connection:
        connection.execute(text("UPDATE study SET state = 'CLOSED'"))
        retention.destroy_identity(connection, key, 1)
    node.database.close()


def test_every_pseudonym_of_a_study_leads_back_after_its_envelope_is_destroyed(site: Site, key: str) -> None:
    _forget(site, key)
    [study], [one], [record] = site.rows("study"), site.rows("instance"), site.rows("escrow")
    for what in (key, study["study_uid"], one["sop_uid"], one["series_uid"], record["patient"]):
        [told] = reidentify.by_escrow(site.config, Request(str(what), WHY), site.escrow)
        assert (told["patient_name"], told["patient_id"]) == ("Beeblebrox^Zaphod", "PAT-420042")
        assert told["accession_number"] == "ACC-774411"
    with pytest.raises(Quarantine, match=r"vault\.destroyed"):
        reidentify.by_vault(site.config, Request(key, WHY))
    assert needles_in(site.config.node.data_dir) == []


def test_the_envelope_and_the_record_tell_the_same(site: Site, key: str) -> None:
    by_vault = reidentify.by_vault(site.config, Request(key, WHY))
    assert by_vault == reidentify.by_escrow(site.config, Request(key, WHY), site.escrow)
    assert isinstance(by_vault[0]["date_shift_days"], int)
    rekey.rotate(site.config, "pseudonym")
    rekey.rotate(site.config, "vault")
    assert reidentify.by_vault(site.config, Request(key, WHY)) == by_vault


def test_the_audit_says_who_why_and_which_study_and_not_whose(site: Site, key: str) -> None:
    reidentify.by_escrow(site.config, Request(key, WHY), site.escrow)
    [entry] = site.audited("identity.shown")
    assert entry.study_key == key
    assert entry.detail["means"] == "escrow"
    assert entry.detail["reason"] == WHY
    assert entry.detail["by"]
    everything = json.dumps([e.detail for e in site.audited()])
    assert not [word for word in ("Beeblebrox", "PAT-420042", "ACC-774411", "19500102") if word in everything]


def test_what_cannot_be_recorded_is_not_told(site: Site, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_named: object) -> int:
        raise Retry("ledger.disk-full", "no room on the disk of the ledger")

    monkeypatch.setattr(reidentify.audit, "append", full)
    candidate = [Candidate(2, "PAT-420042", "", "")]
    for ask in (
        lambda: reidentify.by_escrow(site.config, Request(key, WHY), site.escrow),
        lambda: reidentify.by_vault(site.config, Request(key, WHY)),
        lambda: reidentify.by_candidates(site.config, Request(key, WHY), candidate),
    ):
        with pytest.raises(EdgeNodeError) as caught:
            ask()
        assert "PAT-420042" not in str(caught.value)


def test_refusals_are_recorded_too_without_the_reason(site: Site, key: str) -> None:
    asked = [
        (Request(key, WHY), os.urandom(32), "escrow.wrong-key"),
        (Request("NOBODY", WHY), site.escrow, "reidentify.unknown"),
        (Request(key, "why not"), site.escrow, "reidentify.reason"),
        (Request(key, "Mr Beeblebrox asks for it"), site.escrow, "reidentify.reason"),
        (Request(key, "the patient pat-420042 asks"), site.escrow, "reidentify.reason"),
        (Request(key, "she was born on 1950-01-02"), site.escrow, "reidentify.reason"),
        (Request("", WHY), site.escrow, "reidentify.unknown"),
    ]
    for request, private, code in asked:
        with pytest.raises(EdgeNodeError, match=code.replace(".", r"\.")):
            reidentify.by_escrow(site.config, request, private)
    assert not site.audited("identity.shown")
    refused = site.audited("identity.refused")
    assert [entry.detail["code"] for entry in refused] == [code for *_, code in asked]
    assert all("reason" not in entry.detail for entry in refused)
    assert "eeblebrox" not in json.dumps([entry.detail for entry in refused])


def test_without_escrow_nothing_is_kept_and_candidates_still_lead_back(site: Site) -> None:
    site = site.without_escrow()
    [receipt] = site.take(image(1))
    assert site.rows("escrow") == []
    with pytest.raises(Quarantine, match=r"escrow\.nothing-kept"):
        reidentify.by_escrow(site.config, Request(receipt.study_key, WHY), site.escrow)
    patient = Pseudonyms(load_key("pseudonym", site.config)).patient("", "PAT-420042", "")
    listed = [Candidate(2, "PAT-1", "", ""), Candidate(3, "PAT-420042", "", ""), Candidate(4, "PAT-420042", "X", "")]
    [told] = reidentify.by_candidates(site.config, Request(patient, WHY), listed)
    assert (told["line"], told["patient_id"], told["matches"]) == (3, "PAT-420042", "patient")


def test_candidates_are_tried_under_labels_old_keys_and_every_kind_of_pseudonym(site: Site) -> None:
    site.take(image(1))
    old = load_key("pseudonym", site.config)
    rekey.rotate(site.config, "pseudonym")
    [study] = site.rows("study")
    uid = Candidate(2, "", "", "1.2.826.0.1.3680043.8.498.1")
    assert reidentify.by_candidates(site.config, Request(str(study["study_uid"]), WHY), [uid])[0]["matches"] == "uid"
    assert reidentify.by_candidates(site.config, Request(str(study["study_key"]), WHY), [uid])[0]["line"] == 2
    labelled = Pseudonyms(old, "trial-A").patient("H", "PAT-1", "")
    listed = [Candidate(2, "PAT-1", "H", "")]
    with pytest.raises(Quarantine, match=r"reidentify\.no-candidate"):
        reidentify.by_candidates(site.config, Request(labelled, WHY), listed)
    [told] = reidentify.by_candidates(site.config, Request(labelled, WHY), listed, own_labels=["trial-A"])
    assert told["label"] == "trial-A"
    with pytest.raises(Quarantine, match=r"reidentify\.no-candidate"):
        reidentify.by_candidates(
            site.config, Request(labelled, WHY), listed, own_labels=["trial-A"], site_key=bytes(32)
        )


@pytest.mark.parametrize(
    "content",
    [
        "patient_id,issuer\nPAT-420042,\n",
        "\ufeffPatient_ID;Issuer;UID\nPAT-420042;;\n",
        "uid,patient_id\n,PAT-420042\n",
    ],
)
def test_a_list_may_come_from_any_spreadsheet(tmp_path: Path, content: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(content, encoding="utf-8")
    assert reidentify.read_candidates(path) == [Candidate(2, "PAT-420042", "", "")]


@pytest.mark.parametrize("content", [b"", b"PAT-420042\nPAT-2\n", b"\xff\xfe\x00", b"name\nBeeblebrox\n"])
def test_a_list_that_cannot_be_read_is_named_and_never_quoted(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(content)
    with pytest.raises(Stop, match=r"reidentify\.candidates") as caught:
        reidentify.read_candidates(path)
    assert "PAT" not in str(caught.value)
    assert "Beeble" not in str(caught.value)


def _run(site: Site, *words: str) -> tuple[int, str, str]:
    return _cli(site, "deid", "reidentify", *words, config={"deid.escrow": str(site.config.deid.escrow)})


def _cli(site: Site, *words: str, config: dict[str, str]) -> tuple[int, str, str]:
    settings = {"node.data_dir": str(site.config.node.data_dir), **config}
    options = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    done = CliRunner().invoke(app, [*options, *words])
    return done.exit_code, done.stdout, str(done.exception or "") + done.stderr


def test_the_command_tells_a_terminal_or_a_private_file_and_no_pipe(site: Site, key: str, tmp_path: Path) -> None:
    pem = tmp_path / "officer.pem"
    pem.write_bytes(site.pem)
    pem.chmod(0o644)
    ask = (key, "--reason", WHY, "--escrow-key", str(pem))
    code, out, error = _run(site, *ask)
    assert (out, "reidentify.not-a-terminal" in error) == ("", True)
    code, out, error = _run(site, *ask, "--json")
    assert (out, "secrets.file-too-open" in error) == ("", True)
    assert not [e for e in site.audited() if e.action.startswith("identity.")]
    pem.chmod(0o400)
    code, out, error = _run(site, *ask, "--json")
    assert (code, json.loads(out)[0]["patient_id"]) == (0, "PAT-420042")
    target = tmp_path / "answer.json"
    code, out, error = _run(site, *ask, "--output", str(target))
    assert (code, out) == (0, "")
    assert "PAT-420042" not in error
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert json.loads(target.read_text())[0]["patient_name"] == "Beeblebrox^Zaphod"
    again = _run(site, *ask, "--output", str(target))
    assert "reidentify.output" in again[2]
    assert len(site.audited("identity.shown")) == 2


def test_a_refused_answer_leaves_no_file(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "answer.json"
    _, out, error = _run(site, "NOBODY", "--reason", WHY, "--vault", "--output", str(target))
    assert "reidentify.unknown" in error
    assert (out, target.exists()) == ("", False)
    for wrong in ((), ("--vault", "--candidates", "x"), ("--vault", "--label", "a")):
        assert _run(site, "NOBODY", "--reason", WHY, *wrong)[0] == 2


def test_a_key_pair_is_made_away_from_the_node_and_never_overwritten(site: Site, tmp_path: Path) -> None:
    pair = new_pair(tmp_path / "officer", "", site.config)
    assert stat.S_IMODE(pair.private.stat().st_mode) == 0o400
    assert stat.S_IMODE(pair.public.stat().st_mode) == 0o444
    assert len(private_key(pair.private.read_bytes())) == 32
    code, _, error = _cli(site, "key", "escrow", str(tmp_path / "second"), config={"deid.escrow": "not-made-yet.pem"})
    assert (code, (tmp_path / "second" / PRIVATE).exists()) == (0, True), error
    for place in (tmp_path / "officer", site.config.node.data_dir, site.config.node.data_dir / "keys" / "mine"):
        with pytest.raises(Stop, match=r"escrow\.key-place"):
            new_pair(place, "", site.config)


@pytest.mark.parametrize("passphrase", ["", "correct horse"])
def test_the_doctor_finds_a_private_key_on_the_node(site: Site, tmp_path: Path, passphrase: str) -> None:
    assert doctor._escrow(site.config).result == "ok"
    pair = new_pair(tmp_path / "officer", passphrase, site.config)
    pair.private.rename(site.config.node.data_dir / "keys" / PRIVATE)
    assert [path.name for path in misplaced(site.config)] == [PRIVATE]
    check = doctor._escrow(site.config)
    assert (check.result, "private key lies on the node" in check.detail) == ("warn", True)


def test_a_public_key_that_is_none_stops_the_node_and_is_found_by_the_doctor(site: Site) -> None:
    path = site.config.deid.escrow
    assert path is not None
    path.write_text("-----BEGIN PUBLIC KEY-----\nnonsense\n-----END PUBLIC KEY-----\n")
    for broken in (site.config, site.config.model_copy(update={"deid": replace_escrow(site, path.with_name("gone"))})):
        with pytest.raises(Stop, match=r"escrow\.no-public-key"):
            escrow_of(broken)
        with pytest.raises(Stop, match=r"escrow\.no-public-key"):
            Site(broken, site.escrow, site.pem).take(image(1))
        assert guarded("escrow", doctor._escrow, broken).result == "fail"


def replace_escrow(site: Site, path: Path) -> object:
    return site.config.deid.model_copy(update={"escrow": path})


def test_the_doctor_says_that_a_rotation_was_cut_short(site: Site) -> None:
    from edge_node.config.key_files import exchange

    exchange(site.config, "vault")
    check = doctor._keys(site.config)
    assert (check.result, check.hint) == ("warn", "edge-node key rotate vault")
    rekey.rotate(site.config, "vault")
    assert doctor._keys(site.config).result == "ok"
