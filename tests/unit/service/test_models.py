"""A node's models from the archive to the result: added, promoted, exchanged between studies, never within one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import tarfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_node.cli.app import app
from edge_node.config.certificates import new_signing_key, public_key_id, sign
from edge_node.config.schema import Config, Node, Triage
from edge_node.demo.phantom import head_phantom
from edge_node.domain.errors import Quarantine, Stop
from edge_node.domain.finding import TriageOutcome
from edge_node.domain.model import SHIPPED, Stage
from edge_node.domain.study import Role
from edge_node.service import activation, doctor, models_in_force
from edge_node.service import models as service
from edge_node.service.activation import in_words
from edge_node.service.models_in_force import ModelsInForce
from edge_node.service.node import open_node
from edge_node.service.setup import initialise
from edge_node.store import audit
from edge_node.triage import radiomics
from edge_node.triage.card import SIGNED_PREFIX
from edge_node.triage.model import LoadedModel, admitted, load_model, make_engine
from edge_node.triage.process import ModelProcess, Started
from edge_node.triage.rule import parse
from edge_node.triage.shipped import SHIPPED_CARDS
from tests.unit.triage import engines
from tests.unit.triage.studies import REFERENCE, clean_study, ct_slices

NAME = "ref-ct-head-hyperdensity"
STARTING = "model.starting: in shadow, starts after those that speak"
WHO = {"who": "Dr. R. Adams", "why": "committee"}
PEM, PUBLIC = new_signing_key()


def config_of(folder, **options):
    options = {"threads": 1, "provider": "cpu", "trusted_keys": [PUBLIC], **options}
    return Config(node=Node(data_dir=folder / "data"), triage=Triage(**options))


@pytest.fixture
def config(tmp_path):
    """A node with one of the shipped models: each costs a start of seconds."""
    shutil.copytree(REFERENCE, tmp_path / "shipped" / NAME)
    config = config_of(tmp_path, models_dir=tmp_path / "shipped")
    initialise(config)
    return config


def package_of(folder, version, *, pem=PEM):
    """The reference model under another version, signed."""
    made = shutil.copytree(REFERENCE, folder / f"package-{version}")
    card = made / "card.toml"
    card.write_text(card.read_text().replace('version = "1.1.0"', f'version = "{version}"'))
    if pem:
        (made / "card.sig").write_bytes(sign(SIGNED_PREFIX + card.read_bytes(), pem))
    return made


def study():
    return clean_study(ct_slices(head_phantom(79, kind="epidural", slices=22, rows=160)))


def stages(config):
    with service.registry(config) as models:
        return {one.version: str(one.stage) for one in models.all(NAME)}


@contextmanager
def in_force(config):
    """A compute role's node and the models that it runs."""
    node = open_node(config, Role.COMPUTE)
    made = ModelsInForce(node)
    try:
        yield node, made
    finally:
        made.close()
        node.database.close()


@pytest.fixture
def force(config):
    with in_force(config) as (_, made):
        yield made


def versions(force):
    with force.begin() as triage:
        return [f"{model.card.file.version} {model.stage}" for model in triage.models]


def test_what_comes_with_the_node_begins_in_shadow_and_the_audit_says_who_decided(tmp_path):
    config = config_of(tmp_path)
    initialise(config)
    with in_force(config) as (node, force):
        with force.begin() as triage:
            assert {(m.card.file.name, str(m.stage), m.trust) for m in triage.models} == {
                (name, "shadow", SHIPPED) for name in SHIPPED_CARDS
            }
            assert len(triage.models) == 3
        with node.database.read() as connection:
            entries = [e for e in audit.entries(connection) if e.action.startswith("model.")]
        assert [e.action for e in entries] == ["model.add", "model.promote"] * 3
        assert {e.detail["who"] for e in entries} == {"configuration"}


def test_a_role_waits_for_the_models_that_speak_and_not_for_those_on_trial(tmp_path, monkeypatch):
    config, begun = config_of(tmp_path), []
    initialise(config)
    with service.registry(config) as models:
        service.take_in_packaged(config, models)
        models.promote(NAME, "1.1.0", Stage.INFORMATION, **WHO)

    def proven(source, terms, *_, **__):
        card, trust = admitted(source, terms)
        begun.append(card.file.name)
        process = ModelProcess(card.file.name, make_engine, ())
        process.started = Started("int8", "CPUExecutionProvider", {"CPUExecutionProvider": 1}, 0.0)
        return LoadedModel(card, source.stage, trust, parse(card.file.selection.rule), process)

    monkeypatch.setattr(models_in_force, "load_model", proven)
    with in_force(config) as (_, force):
        assert begun == [NAME]
        with force.begin() as triage:
            assert [one.partition(": ")[2] for one in triage.absent] == [STARTING] * 2
        assert force.refresh()
        assert sorted(begun) == sorted(SHIPPED_CARDS)
        with force.begin() as triage:
            assert (len(triage.models), triage.absent) == (3, ())
        assert not force.refresh()


def test_a_new_version_never_replaces_what_decides_without_a_human(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    package_of(folder, "1.0.0")
    config = config_of(tmp_path, models_dir=folder, packaged_stage="live")
    initialise(config)
    with service.registry(config) as models:
        assert service.take_in_packaged(config, models) == []
        assert stages(config) == {"1.0.0": "live"}
        package_of(folder, "2.0.0")
        assert service.take_in_packaged(config, models) == []
    assert stages(config) == {"1.0.0": "live", "2.0.0": "added"}
    with service.registry(config) as models:
        models.retire(NAME, "1.0.0", **WHO)
        service.take_in_packaged(config, models)
    assert "live" not in stages(config).values()


def test_a_study_ends_with_the_models_it_began_with(tmp_path, config, force):
    with service.registry(config) as models:
        service.take_in(config, models, package_of(tmp_path, "2.0.0"), **WHO)
        with force.begin() as before:
            old = before.models[0].process.pid
            models.promote(NAME, "2.0.0", Stage.SHADOW, **WHO)
            models.retire(NAME, "1.1.0", **WHO)
            assert force.refresh()
            assert versions(force) == ["2.0.0 shadow"]
            result = before.judge(study())
            assert [f.model.version for f in result.findings] == ["1.1.0"]
            os.kill(old, 0)  # its worker is still there
        assert before.models[0].process.pid == 0
        with force.begin() as now:
            assert [f.model.version for f in now.judge(study()).findings] == ["2.0.0"]
        assert not force.refresh()


def test_a_change_of_stage_keeps_the_warm_worker(config, force):
    with force.begin() as triage:
        worker = triage.models[0].process.pid
    with service.registry(config) as models:
        models.promote(NAME, "1.1.0", Stage.INFORMATION, **WHO)
        models.promote(NAME, "1.1.0", Stage.LIVE, **WHO)
    force.refresh()
    with force.begin() as triage:
        assert triage.models[0].process.pid == worker
        result = triage.judge(study())
    assert result.top is not None
    assert result.top.model.stage == "live"


def test_a_package_that_was_changed_on_the_disk_is_quarantined_and_told_in_every_result(config, force):
    with force.begin() as triage:
        folder, process = triage.models[0].card.folder, triage.models[0].process
    folder.chmod(0o750)
    (folder / "model.onnx").chmod(0o640)
    data = bytearray((folder / "model.onnx").read_bytes())
    data[1000] ^= 4
    (folder / "model.onnx").write_bytes(bytes(data))
    os.kill(process.pid, signal.SIGKILL)
    time.sleep(0.2)
    with force.begin() as triage:
        finding = triage.judge(study()).top
    assert finding is not None
    assert finding.reason.startswith("triage.model-invalid: ")
    assert stages(config) == {"1.1.0": "quarantined"}
    assert force.refresh()
    with force.begin() as triage:
        result = triage.judge(study())
    assert result.reason.startswith("triage.no-model-runs")
    assert "sha256 differs" in result.unavailable[0]
    assert any("sha256 differs" in label for label in force.labels())


def test_a_model_runs_without_the_radiomics_that_its_site_cannot_measure_and_the_reason_is_told(tmp_path, monkeypatch):
    package = package_of(tmp_path, "2.0.0", pem=None)
    card = package / "card.toml"
    card.write_text(card.read_text() + '\n[radiomics]\nfeatures = ["morphology"]\n')
    (package / "card.sig").write_bytes(sign(SIGNED_PREFIX + card.read_bytes(), PEM))
    monkeypatch.setattr(radiomics, "find_spec", lambda _: None)
    config = config_of(tmp_path, models_dir=tmp_path)
    initialise(config)
    with in_force(config) as (_, force):
        assert any("WITHOUT RADIOMICS: triage.radiomics-missing" in label for label in force.labels())
        with force.begin() as triage:
            assert [str(model.card.file.version) for model in triage.models] == ["2.0.0"]
            assert triage.absent == ()
    assert stages(config) == {"2.0.0": "shadow"}
    looked = {check.name: check for check in doctor._models(config)}
    assert looked[f"model {NAME}"].result == "ok"
    warned = looked[f"radiomics {NAME}"]
    assert (warned.result, warned.hint) == ("warn", "pip install 'edge-node[radiomics]' and restart")


def told_of(folder, config, *words):
    """What `model` answers about this node."""
    path = folder / "node.toml"
    path.write_text(f'[node]\ndata_dir = "{config.node.data_dir}"\n[triage]\nprovider = "cpu"\nthreads = 1\n')
    return run(path, *words)


def on_a_gpu(kind):
    """What a compute role loads models with, on a machine with this fake GPU."""

    def load(source, terms, device, **_):
        return load_model(source, terms, device, make=partial(engines.build, kind))

    return load


def test_a_model_that_does_not_agree_on_its_gpu_waits_in_its_stage_and_the_reason_is_told(
    tmp_path, config, monkeypatch
):
    monkeypatch.setattr(models_in_force, "load_model", on_a_gpu(engines.WrongOnItsGpu))
    with in_force(config) as (_, force):
        with force.begin() as triage:
            result = triage.judge(study())
        assert (result.outcome, result.findings) == (TriageOutcome.SKIPPED, ())
        assert result.reason.startswith("triage.no-model-runs")
        assert "triage.parity" in result.unavailable[0]
        assert any("does not decide as the CPU does" in label for label in force.labels())
    assert stages(config) == {"1.1.0": "shadow"}
    row = told_of(tmp_path, config, "list")[0]
    assert (row["stage"], row["code"], row["ran_on"]) == ("shadow", "", None)
    monkeypatch.setattr(service, "load_model", on_a_gpu(engines.WrongOnItsGpu))
    looked = next(check for check in doctor._models(config) if check.name == f"model {NAME}")
    assert (looked.result, looked.detail.partition(":")[0]) == ("fail", "triage.parity")
    assert looked.hint.startswith(
        "mend driver or CUDA, or set triage.provider = 'cpu'; look again: edge-node model verify"
    )
    monkeypatch.setattr(models_in_force, "load_model", on_a_gpu(engines.SoundGpu))  # the driver was mended
    with in_force(config) as (_, force):
        assert versions(force) == ["1.1.0 shadow"]


def test_a_gpu_that_errs_when_a_worker_comes_back_takes_the_model_out_and_not_out_of_its_stage(
    tmp_path, config, monkeypatch
):
    monkeypatch.setattr(models_in_force, "load_model", on_a_gpu(engines.MovesToAWrongGpu))
    with in_force(config) as (_, force):
        with force.begin() as triage:
            result = triage.judge(study())
        assert result.top is not None
        assert result.top.reason.startswith("triage.parity: model ref-ct-head-hyperdensity")
        assert any("OUT OF SERVICE: triage.parity" in label for label in force.labels())
    assert stages(config) == {"1.1.0": "shadow"}


def test_what_could_not_be_proven_waits_in_its_stage_and_is_tried_again_after_a_while(config, monkeypatch):
    monkeypatch.setattr(models_in_force, "load_model", on_a_gpu(engines.NotInTime))
    with in_force(config) as (_, force):
        assert any("triage.parity-unproven: model" in label for label in force.labels())
        assert not force.refresh()
        monkeypatch.setattr(models_in_force, "load_model", on_a_gpu(engines.SoundGpu))
        assert not force.refresh()
        force._again = time.monotonic()  # the while is over
        assert force.refresh()
        assert versions(force) == ["1.1.0 shadow"]
        assert not force.refresh()
    assert stages(config) == {"1.1.0": "shadow"}


def test_what_a_worker_runs_on_when_it_comes_back_is_remembered_too(config, monkeypatch):
    monkeypatch.setattr(models_in_force, "load_model", on_a_gpu(engines.LosesItsGpu))
    with in_force(config) as (node, force):
        for _ in range(2):
            with force.begin() as triage:
                assert triage.judge(study()).top is not None
        with node.database.read() as connection:
            told = [e.detail for e in audit.entries(connection) if e.action == "model.activation"]
    assert [(one["provider"], one["variant"]) for one in told] == [
        ("CUDAExecutionProvider", "fp32"),
        ("CPUExecutionProvider", "int8"),
    ]


def test_the_last_digits_of_a_gpu_are_no_news_and_a_decision_that_turned_is():
    def figures(flips, worst, seconds):
        apart = {"items": 20, "decisions": 20, "flips": flips, "worst": worst}
        parity = {"reference": "int8", "device": apart, "variants": apart, "seconds": seconds}
        return {"provider": "CUDAExecutionProvider", "variant": "fp32", "parity": parity}

    assert activation._telling(figures(0, 0.0011, 2)) == activation._telling(figures(0, 0.0012, 3))
    assert activation._telling(figures(0, 0.0011, 2)) != activation._telling(figures(1, 0.0011, 2))
    assert activation._telling(figures(0, 0.0, 2)) != activation._telling({**figures(0, 0.0, 2), "parity": None})


def test_what_ran_beside_the_cpu_is_remembered_once_and_shown_and_so_is_the_way_back(tmp_path, config, monkeypatch):

    def begin(kind):
        if kind is not None:
            monkeypatch.setattr(models_in_force, "load_model", on_a_gpu(kind))
        node = open_node(config, Role.COMPUTE)
        ModelsInForce(node).close()
        with node.database.read() as connection:
            told = [e.detail for e in audit.entries(connection) if e.action == "model.activation"]
        node.database.close()
        return told

    assert begin(None) == []  # on the CPU, as ever
    assert len(begin(engines.SoundGpu)) == 1
    assert len(begin(engines.SoundGpu)) == 1
    row = told_of(tmp_path, config, "list")[0]
    assert (row["ran_on"]["provider"], row["ran_on"]["variant"]) == ("CUDAExecutionProvider", "fp32")
    assert row["ran_on"]["parity"]["device"]["flips"] == 0
    assert told_of(tmp_path, config, "show", NAME)["ran_on"] == row["ran_on"]
    assert in_words(row["ran_on"]).startswith("fp32 on CUDAExecutionProvider, agrees with the CPU: 0 of ")
    monkeypatch.undo()
    told = begin(None)
    assert [(one["provider"], one["parity"] is None) for one in told][-1] == ("CPUExecutionProvider", True)


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda p: (p / "card.toml").write_text((p / "card.toml").read_text() + "#"), "triage.model-signature"),
        (lambda p: (p / "card.sig").unlink(), "triage.model-unsigned"),
        (lambda p: (p / "model.onnx").write_bytes(b"x"), "triage.model-invalid"),
        (lambda p: (p / "more.bin").write_bytes(b"x"), "triage.model-invalid"),
    ],
)
def test_a_package_that_is_not_what_it_says_is_not_taken_in(tmp_path, config, damage, code):
    package = package_of(tmp_path, "2.0.0")
    damage(package)
    with service.registry(config) as models, pytest.raises(Stop) as caught:
        service.take_in(config, models, package, **WHO)
    assert caught.value.code == code
    assert stages(config) == {}
    assert list(service.kept_path(config).iterdir()) == []


def test_a_package_of_a_maker_who_is_not_trusted_is_not_taken_in(tmp_path, config):
    with service.registry(config) as models, pytest.raises(Stop) as caught:
        service.take_in(config, models, package_of(tmp_path, "2.0.0", pem=new_signing_key()[0]), **WHO)
    assert caught.value.code == "triage.model-signature"


def test_an_archive_with_a_path_out_of_it_leaves_nothing(tmp_path, config):
    source = tmp_path / "evil.tar"
    with tarfile.open(source, "w") as out:
        out.add(REFERENCE / "card.toml", "../../keys/card.toml")
    with service.registry(config) as models, pytest.raises(Quarantine) as caught:
        service.take_in(config, models, source, **WHO)
    assert caught.value.code == "model.archive"
    assert list(service.kept_path(config).iterdir()) == []


def test_a_promotion_of_what_fails_here_changes_nothing(tmp_path, config):
    with service.registry(config) as models:
        one = service.take_in(config, models, package_of(tmp_path, "2.0.0"), **WHO).one
        golden = service.kept_path(config) / one.package / "golden.npz"
        golden.chmod(0o640)
        golden.write_bytes(b"junk")
        generation = models.generation()
        with pytest.raises(Stop, match=r"triage\.model-invalid"):
            service.promote(config, models, NAME, "2.0.0", Stage.SHADOW, **WHO)
        assert models.generation() == generation


def test_a_package_that_was_damaged_on_the_disk_is_mended_by_adding_it_again(tmp_path, config):
    package = package_of(tmp_path, "2.0.0")
    with service.registry(config) as models:
        one = service.take_in(config, models, package, **WHO).one
        kept = service.kept_path(config) / one.package
        kept.chmod(0o750)
        (kept / "golden.npz").unlink()
        assert not service.take_in(config, models, package, **WHO).new
        assert service.prove(config, one)[0].variant == "int8"


def test_a_package_that_was_damaged_can_be_replaced_though_nobody_may_write_in_its_folder(
    tmp_path, config, monkeypatch
):
    package, writable, real = package_of(tmp_path, "2.0.0"), [], shutil.rmtree

    def noting(folder, **options):
        writable.append(bool(folder.stat().st_mode & 0o200))
        real(folder, **options)

    with service.registry(config) as models:
        kept = service.kept_path(config) / service.take_in(config, models, package, **WHO).one.package
        assert kept.stat().st_mode & 0o777 == 0o550
        (kept / "golden.npz").unlink()
        monkeypatch.setattr(service.shutil, "rmtree", noting)
        service.take_in(config, models, package, **WHO)
        assert (kept / "golden.npz").exists()
    assert writable == [True, True]


def test_what_a_process_that_died_had_unpacked_goes_with_the_next_start_and_nobody_elses(tmp_path, config, force):
    home = service.kept_path(config)
    with service.registry(config) as models:
        left = home / ".incoming-dead"
        (left / "package").mkdir(parents=True)
        (left / "package" / "model.onnx").write_bytes(b"x")
        with service._staging(home) as staging:
            assert not left.exists()
            assert service.take_in_packaged(config, models) == []
            assert staging.exists()
        (left / "package").mkdir(parents=True)
        service.take_in_packaged(config, models)
        assert not left.exists()


def test_a_node_that_dies_while_it_takes_in_what_comes_with_it_is_not_left_half_way(config, monkeypatch):
    """Whether the first package of a name was kept and where it begins is one transaction."""

    def dies(*_, **__):
        raise KeyboardInterrupt

    with service.registry(config) as models:
        monkeypatch.setattr(type(models), "promote", dies)
        service.take_in_packaged(config, models)
        assert stages(config) == {"1.1.0": "shadow"}
        assert [change.kind for change in models.changes(NAME)] == ["promote", "add"]


@pytest.mark.parametrize("method", ["rename", "chmod", "mkdir"])
def test_a_disk_that_takes_nothing_stops_with_a_hint_and_leaves_nothing(tmp_path, config, monkeypatch, method):
    package = package_of(tmp_path, "2.0.0")
    real = getattr(Path, method)

    def full(path, *arguments, **options):
        if service.kept_path(config) in path.parents:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, *arguments, **options)

    with service.registry(config) as models:
        service.kept_path(config).mkdir()
        with monkeypatch.context() as patched:
            patched.setattr(Path, method, full)
            with pytest.raises((Stop, Quarantine)) as caught:
                service.take_in(config, models, package, **WHO)
        assert "No space left on device" in caught.value.message
        assert caught.value.hint
        assert stages(config) == {}
        assert not list(service.kept_path(config).glob(".incoming-*"))
        assert service.take_in(config, models, package, **WHO).new


def run(config_file, *words):
    done = CliRunner().invoke(app, ["--config", str(config_file), "--json", "model", *words])
    assert done.exit_code == 0, (words, done.output, done.exception)
    return json.loads(done.stdout)


def test_the_administrators_page_from_the_archive_to_the_rollback(tmp_path):
    """As `edge-node docs models` tells it."""
    key = tmp_path / "maker.pem"
    package = package_of(tmp_path, "2.1.0", pem=None)
    config_file = tmp_path / "edge-node.toml"
    config_file.write_text('[node]\ndata_dir = "data"\n')
    public = run(config_file, "sign", str(package), "--key", str(key))["public_key"]
    assert key.stat().st_mode & 0o777 == 0o400
    config_file.write_text(
        f'[node]\ndata_dir = "data"\n[triage]\nthreads = 1\nprovider = "cpu"\ntrusted_keys = ["{public}"]\n'
    )
    assert CliRunner().invoke(app, ["--config", str(config_file), "init"]).exit_code == 0
    archive = tmp_path / "pe.tar.gz"
    with tarfile.open(archive, "w:gz") as out:
        out.add(package, "pe-2.1.0")
    assert run(config_file, "check", str(archive))["admitted"] is True
    added = run(config_file, "add", str(archive), "--by", "A. Admin")
    assert (added["stage"], added["trust"]) == ("added", f"signed by {public_key_id(public)}")
    by = ("--by", "Dr. R. Adams", "--why", "committee of 3 May")
    for stage in ("shadow", "information", "live"):
        assert run(config_file, "promote", NAME, "2.1.0", "--to", stage, *by)["stage"] == stage
    assert run(config_file, "verify", NAME)["provider"] == "CPUExecutionProvider"
    assert run(config_file, "bench", NAME, "--rounds", "1", "--items", "4")["median_s"] > 0
    assert run(config_file, "rollback", NAME, *by)["stages"] == {"2.1.0": "information"}
    assert run(config_file, "retire", NAME, "2.1.0", *by)["stage"] == "retired"
    shown = run(config_file, "show", NAME)
    assert [c["kind"] for c in shown["changes"]] == ["retire", "rollback", "promote", "promote", "promote", "add"]
    assert {c["who"] for c in shown["changes"][:5]} == {"Dr. R. Adams"}
    assert shown["card"]["regulatory"].startswith("Not a medical device")
    assert [row["stage"] for row in run(config_file, "list")] == ["retired"]
