"""A model whose card asks for an earlier study: a whole node fetches it from an Orthanc and judges."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from edge_node.config.certificates import new_signing_key, sign
from edge_node.demo.pacs import ToyPacs
from edge_node.demo.studies import DemoStudy
from edge_node.triage.card import SIGNED_PREFIX
from tests.e2e.site import Site
from tests.e2e.test_line import no_identity_on_disk
from tests.integration.peers_orthanc import Orthanc

MakeSite = Callable[..., Site]
ASKS = """
[priors]
max = 1
within_days = 365
rule = 'Modality == "CT" and StudyDescription ~ "earlier"'
"""


def wanting_priors(package: Path) -> str:
    """The shipped model with a card that asks for a prior, signed; the public key."""
    card = package / "card.toml"
    card.write_text(card.read_text() + ASKS)
    pem, public = new_signing_key()
    (package / "card.sig").write_bytes(sign(SIGNED_PREFIX + card.read_bytes(), pem))
    return public


def earlier(study: DemoStudy, into: Path, date: str, number: int) -> list[Path]:
    """The study as it was on another day."""
    made = []
    for path in study.files:
        one = dcmread(path)
        one.StudyDate, one.StudyDescription = date, "CT earlier"
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(one, keyword, f"{getattr(one, keyword)[:58]}.{number}")
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        made.append(into / f"{number}-{path.name}")
        one.save_as(made[-1])
    return made


@pytest.mark.parametrize("here", [True, False])
def test_a_prior_is_fetched_while_the_study_comes_in_and_is_never_waited_for_too_long(
    site: MakeSite, pacs: ToyPacs, studies: dict[int, DemoStudy], tmp_path: Path, here: bool
) -> None:
    study = studies[12]
    day = str(dcmread(study.files[0], stop_before_pixels=True).StudyDate)
    (tmp_path / "archive").mkdir()
    with Orthanc(
        tmp_path / "archive", ae_title="ARCHIVE", extra={"DicomAlwaysAllowGet": True, "DicomAlwaysAllowFind": True}
    ) as archive:
        before = f"{int(day[:4]) - 1}{day[4:]}" if day[4:] != "0229" else f"{int(day[:4]) - 1}0301"
        (tmp_path / "made").mkdir()
        for path in earlier(study, tmp_path / "made", before, 1) if here else []:
            archive.request("/instances", method="POST", body=path.read_bytes())
        peer = {"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": archive.dicom_port if here else 1}
        node = site(
            pacs,
            pull={"method": "get", "pacs": "archive", "studies_per_minute": 600.0, "windows": _never()},
            priors={"wait_s": 60.0 if here else 3.0},
            triage={"trusted_keys": [wanting_priors(_package(tmp_path))], "models_dir": "../models"},
            **{"peers.archive": peer},
        )
        node.start()
        node.send(study)
        node.wait_for("the result", lambda: _result(node, study) is not None)
        result = _result(node, study)
        assert result["outcome"] == "FINDING"
        rows = {one["study"]: one for one in node.ask("study", "list")}
        if not here:
            assert result["priors"] == {"code": "priors.too-late", "studies": []}
            assert len(rows) == 1
        else:
            [prior] = [key for key, one in rows.items() if one["prior"]]
            assert result["priors"] == {"code": "priors.here", "studies": [prior]}
            node.wait_for("the prior", lambda: node.ask("study", "show", prior)["state"] in ("TRIAGED", "DELIVERED"))
            told = node.ask("study", "show", prior)
            assert told["result"] is None
            assert not [one for one in told["work"] if one["step"] == "worklist"]
            assert [one["study"] for one in node.ask("worklist", "list")] == [key for key in rows if key != prior]
        node.wait_for("the PACS", lambda: len(pacs.instances) == 2)
    assert node.stop() == 0
    no_identity_on_disk(node, study)


def _never() -> list[str]:
    """A window for lists that is not now: who is waited for comes all the same."""
    import datetime

    start = datetime.datetime.now().astimezone() + datetime.timedelta(hours=6)
    return [f"{start:%H:%M}-{start + datetime.timedelta(hours=1):%H:%M}"]


def _package(folder: Path) -> Path:
    from tests.e2e.site import MODEL

    return Path(shutil.copytree(MODEL, folder / "models" / MODEL.name))


def _result(node: Site, study: DemoStudy) -> Any:
    return next((one["result"] for one in node.ask("study", "list") if not one["prior"] and one["result"]), None)
