"""A validation from files to a signed report: the node's own triage, de-identified studies only, and promotion."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from typer.testing import CliRunner

from edge_node.cli.app import app
from edge_node.config.schema import Config, Node, Triage
from edge_node.demo.phantom import head_phantom
from edge_node.domain.errors import EdgeNodeError, Quarantine
from edge_node.domain.model import Stage
from edge_node.service import models as service
from edge_node.service import truth
from edge_node.service.setup import initialise
from edge_node.service.speaking import check_parity
from edge_node.store import audit, watch
from edge_node.store.watch import Stream
from edge_node.triage.card import load_card
from edge_node.triage.card_tables import ToleranceTable
from tests.unit.triage.studies import REFERENCE, ct_slices

NAME = "ref-ct-head-hyperdensity"
WORLD = ((79, "epidural"), (80, None), (81, "intraventricular"), (82, None))


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Four heads, two with blood, and a truth that also names one that is not there."""
    folder = tmp_path_factory.mktemp("studies")
    lines = ["study,truth,kind"]
    for seed, kind in WORLD:
        home = folder / f"s{seed}"
        home.mkdir()
        for number, ds in enumerate(ct_slices(head_phantom(seed, kind=kind, slices=18, rows=128))):
            ds.StudyInstanceUID, ds.SeriesInstanceUID = f"2.25.{seed}", f"2.25.{seed}.1"
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"2.25.{seed}.1.{number + 1}"
            ds.PatientIdentityRemoved, ds.PatientSex, ds.PatientAge = "YES", "F", "045Y"
            ds.Manufacturer, ds.ProtocolName = "Toy Scanners", "HEAD ROUTINE"
            ds.save_as(home / f"{number:03d}.dcm", enforce_file_format=True)
        lines.append(f"s{seed},{int(kind is not None)},{kind or ''}")
    (folder / "truth.csv").write_text("\n".join([*lines, "s99,1,subdural"]))
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A node with the reference model added, and how to call it."""
    folder = tmp_path_factory.mktemp("site")
    config = Config(node=Node(data_dir=folder / "data"), triage=Triage(threads=1, provider="cpu"))
    initialise(config)
    with service.registry(config) as models:
        service.take_in(config, models, REFERENCE, who="test", why="test")
    toml = folder / "edge-node.toml"
    toml.write_text(f'[node]\ndata_dir = "{config.node.data_dir}"\n[triage]\nthreads = 1\nprovider = "cpu"\n')
    return config, lambda *words: CliRunner().invoke(app, ["--config", str(toml), *map(str, words)])


@pytest.fixture(scope="module")
def validated(site, studies, tmp_path_factory):
    report = tmp_path_factory.mktemp("report") / "report.html"
    _, run = site
    done = run(
        *("model", "validate", NAME, studies, "--truth", studies / "truth.csv", "--by", "Dr. R. Adams"),
        *("--out", report, "--against", "fp32", "--prevalence", "0.1", "--studies-per-day", "20", "--json"),
    )
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), report.read_text()


def test_the_report_says_what_was_found_of_which_model_and_loads_nothing(validated):
    told, page = validated
    figures = told["figures"]
    assert (figures["positives"], figures["others"]) == (2, 2)
    assert figures["hits"] + figures["misses"] == 2
    assert figures["auroc"]["value"] > 0.5
    assert figures["auroc"]["low"] < figures["auroc"]["high"]
    for text in (told["sha256"], "not for clinical use", "fewer than 20", "Signature", "Toy Scanners"):
        assert text in page
    assert page.count("<svg") == 3
    assert page.count("data:image/png;base64,") >= 2
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "http" not in page.replace("http-equiv", "")
    assert told["remarks"][0] == "1 lines of the truth without a study: 6"


def test_no_uid_or_path_of_a_study_stands_in_the_report(validated, studies):
    _, page = validated
    assert "2.25." not in page
    assert str(studies) not in page


def test_it_is_recorded_as_the_reference_of_the_watch_and_in_the_audit(site, validated):
    config, _ = site
    with service.registry(config) as models, models.database.read() as connection:
        one = next(one for one in models.all(NAME))
        record = watch.newest(connection, Stream(one.package, "int8", "1386000"), "validation")
        actions = [entry.action for entry in audit.entries(connection, "")]
    assert record is not None
    assert len(record.figures["reference"]["scores"]) == 4
    assert {"soft HU", "noise HU", "scanner", "protocol"} <= set(record.figures["reference"]["seen"][0])
    assert "HEAD ROUTINE" not in json.dumps(record.figures)
    assert {"model.validation", "model.parity"} <= set(actions)


def test_both_variants_were_run_and_compared(validated):
    told, _ = validated
    assert told["parity"]["flips"] == 0
    assert 0 < told["parity"]["worst_probability"] < 0.15, "int8 and fp32 are not the same file"
    assert told["parity"]["short"]


def test_promotion_is_refused_past_the_tolerance_and_shadow_is_not(site, validated):
    config, _ = site
    card = load_card(REFERENCE)
    with service.registry(config) as models:
        one = next(one for one in models.all(NAME))
        check_parity(models, one, card, "int8", Stage.LIVE)  # few cases, but the card asks for no proof here
        asks = card.file.model_copy(update={"tolerance": ToleranceTable()})
        strict = type(card)(asks, card.folder, card.package)
        with pytest.raises(Quarantine, match="too few cases") as error:
            check_parity(models, one, strict, "int8", Stage.INFORMATION)
        assert error.value.code == "model.parity"
        check_parity(models, one, strict, "int8", Stage.SHADOW)
        check_parity(models, one, strict, "fp32", Stage.LIVE)
        stream = Stream(one.package, "int8", "1386000")
        with models.database.write() as connection:
            nothing = {"breaches": [], "short": "", "against": "int8"}
            watch.write_record(connection, "test", stream, "parity", "test", nothing, {})
        with pytest.raises(Quarantine, match="too few cases"):
            check_parity(models, one, strict, "int8", Stage.LIVE)  # a comparison with itself proves nothing
        with models.database.write() as connection:
            bad = {"breaches": ["3 positives are missed"], "short": "", "against": "fp32"}
            few = {"breaches": [], "short": "4 positives", "against": "fp32"}
            watch.write_record(connection, "test", stream, "parity", "test", bad, {})
            watch.write_record(connection, "test", stream, "parity", "test", few, {})
        with pytest.raises(Quarantine, match="3 positives are missed"):
            check_parity(models, one, card, "int8", Stage.LIVE)


def test_a_variant_is_not_compared_with_itself_and_a_report_has_to_have_a_place(site, studies, tmp_path):
    _, run = site
    words = ("model", "validate", NAME, studies, "--truth", studies / "truth.csv", "--by", "me")
    same = run(*words, "--out", tmp_path / "r.html", "--against", "int8", "--json")
    assert isinstance(same.exception, Quarantine)
    assert same.exception.code == "validation.same-variant"
    nowhere = run(*words, "--out", tmp_path / "no" / "r.html")
    assert isinstance(nowhere.exception, EdgeNodeError)
    assert nowhere.exception.code == "validation.unwritable"


def test_a_threshold_of_the_site_is_the_one_that_decides_and_is_shown(site):
    config, run = site
    key = f"{NAME}/ICH"
    told = config.model_copy(update={"triage": config.triage.model_copy(update={"thresholds": {key: 0.3}})})
    with service.registry(config) as models:
        card = service.card_of(told, models.find(NAME))
    assert card.point("int8", card.file.findings[0]).threshold == 0.3
    assert "ICH 0.742 (int8)" in run("model", "show", NAME).stdout


def test_objects_that_still_may_identify_are_refused_before_anything_is_judged(studies, tmp_path):
    from pydicom import dcmread

    copy = shutil.copytree(studies, tmp_path / "copy")
    path = next(copy.rglob("*.dcm"))
    ds = dcmread(path)
    del ds.PatientIdentityRemoved
    ds.save_as(path)
    with pytest.raises(Quarantine) as error:
        truth.known_studies(copy, copy / "truth.csv")
    assert error.value.code == "validation.identified"
    assert path.name not in error.value.message


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("study,truth\na,1\nb,maybe SECRET\n", ":3"),
        ("study,truth\na,1\na,0\n", ":3"),
        ("name,truth\nSECRET,1\n", ":2"),
        ("study,truth\n", ":1"),
        ("\xff", ""),
    ],
)
def test_a_truth_that_cannot_be_read_is_named_by_its_line_without_its_values(tmp_path, text, where):
    path = tmp_path / "truth.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(EdgeNodeError) as error:
        truth.read_truth(path)
    assert error.value.code == "validation.truth"
    assert f"truth.csv{where}" in error.value.message
    assert "SECRET" not in error.value.message
