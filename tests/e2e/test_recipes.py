"""Several recipes in one node: real senders under two titles; what leaves, what is written down, what is held."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from edge_node.config.load import load
from edge_node.demo.studies import DemoStudy
from edge_node.domain.study import Role
from edge_node.service.node import open_node
from tests.e2e.site import Site
from tests.integration.needed_tools import need

RULES = """
[[deid.rules]]
calling_ae_titles = ["SCANNER2"]
called_ae_titles = ["LUNG"]
recipe = "lung.deid"
trial = "LUNG-1"
variables = { protocol = "EU-2026-014" }
"""
LUNG = """FORMAT dicom

%header
ADD ProtocolName var:protocol

%filter lung
LABEL corner
  contains Modality CT
  coordinates 0,0,16,16
"""


def storescu(node: Site, files: list[Path], calling: str, called: str) -> int:
    """DCMTK's sender; its exit code."""
    words = [need("storescu"), "-aet", calling, "-aec", called, "127.0.0.1", str(node.port), *map(str, files)]
    quick = {**os.environ, "TCP_NODELAY": "1"}
    return subprocess.run(words, capture_output=True, timeout=60, env=quick, check=False).returncode


def actions(node: Site, study_key: str) -> list[str]:
    return [entry["action"] for entry in node.ask("study", "timeline", study_key)]


def clean(node: Site, study_key: str) -> list[Dataset]:
    """The clean objects of a study as the compute role opens them."""
    objects = open_node(load(node.config, environ={}).config, Role.COMPUTE).clean.study(study_key).objects
    return [dcmread(BytesIO(one.read())) for one in objects]


def test_two_titles_two_recipes_and_a_study_that_is_never_given_away_twice(
    site: Callable[..., Site], studies: dict[int, DemoStudy], tmp_path: Path
) -> None:
    node = site(None, None, triage={"enabled": False})
    (node.folder / "lung.deid").write_text(LUNG)
    node.config.write_text(node.config.read_text() + RULES)
    [ruled, others] = node.ask("config", "check")["recipes"]
    assert (ruled["objects"], ruled["trial"]) == ("#1 from SCANNER2 · to LUNG", "LUNG-1")
    node.start()

    one, other = studies[1], studies[12]
    assert storescu(node, list(one.files[:3]), "SCANNER1", "EDGENODE") == 0
    assert storescu(node, list(other.files[:3]), "SCANNER2", "LUNG") == 0
    rows: dict[str, Any] = {row["from"]: row for row in node.wait_for_state("DELIVERED", 2)}
    plain, trial = rows["SCANNER1"], rows["SCANNER2"]
    assert (plain["recipe"], plain["trial"], plain["recipe_sha256"]) == ("basic", "", others["sha256"])
    assert (trial["recipe"], trial["trial"], trial["recipe_sha256"]) == ("lung", "LUNG-1", ruled["sha256"])
    for row in (plain, trial):
        opened = node.ask("study", "timeline", row["study"])[0]
        assert opened["action"] == "study.opened"
        told = (opened["detail"]["recipe"], opened["detail"].get("trial", ""), opened["detail"]["from"])
        assert told == (row["recipe_sha256"], row["trial"], row["from"])
    for row, protocol, corner in ((plain, None, False), (trial, "EU-2026-014", True)):
        node.wait_for("the pixels", lambda key=row["study"]: "pixels.done" in actions(node, key))
        for ds in clean(node, row["study"]):
            assert (ds.get("ProtocolName") == protocol) is corner
            # Masked by the filter of its own recipe: the pixel step works in another process, much later.
            assert (len(np.unique(ds.pixel_array[:16, :16])) == 1) is corner
            method = "\\".join(ds.DeidentificationMethod)
            assert f"recipe {row['recipe']} {row['recipe_sha256'][:32]}" in method

    # The same study by another way: acknowledged, held, and nothing of it kept a second time.
    assert storescu(node, list(one.files[:3]), "SCANNER2", "LUNG") == 0
    assert storescu(node, list(other.files[3:4]), "SCANNER2", "EDGENODE") == 0
    held = node.ask("status")["quarantine"]
    assert {(item["code"], item["study"]) for item in held} == {
        ("receive.other-trial", plain["study"]),
        ("receive.other-trial", trial["study"]),
    }
    assert len(held) == 4
    assert storescu(node, list(one.files[:3]), "SCANNER1", "EDGENODE") == 0
    assert [row["instances"] for row in node.ask("study", "list")] == [3, 3]
    refused = node.run("quarantine", "release", held[0]["item"], check=False)
    assert refused.returncode == 1
    assert "receive.other-trial" in refused.stderr

    # A title that nobody gave the node.
    assert storescu(node, list(one.files[:1]), "SCANNER2", "HEART") != 0
    assert node.stop() == 0
    assert node.run("audit", "verify").returncode == 0
