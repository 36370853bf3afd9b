"""The importers: what an ONNX file or a MONAI bundle says is in the card, what only the maker knows is marked."""

from __future__ import annotations

import json
import tomllib
import zipfile

import pytest

from edge_node.domain.errors import Quarantine
from edge_node.service.packages import skeleton
from edge_node.triage.card import load_card
from tests.unit.triage.tiny_onnx import model, node, port, three_classes

METADATA = {
    "name": "Spleen CT segmentation",
    "version": "0.5.9",
    "license": "Apache-2.0",
    "intended_use": "a sample, not for use in patients",
    "data_source": "Task09_Spleen.tar",
    "network_data_format": {
        "inputs": {"image": {"type": "image", "format": "hounsfield", "modality": "CT", "num_channels": 1}},
        "outputs": {"pred": {"type": "image", "channel_def": {"0": "background", "1": "spleen", "2": "lesion"}}},
    },
}
INFERENCE = {
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Spacingd", "keys": "image", "pixdim": [1.5, 1.5, 2.0]},
            {"_target_": "ScaleIntensityRanged", "a_min": -57, "a_max": 164, "b_min": 0, "b_max": 1},
        ],
    },
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [96, 96, 96], "overlap": 0.5, "mode": "gaussian"},
}
FILES = {
    "configs/metadata.json": json.dumps(METADATA).encode(),
    "configs/inference.json": json.dumps(INFERENCE).encode(),
    "models/model.onnx": three_classes((96, 96, 96)),
}


def bundle(tmp_path, kind):
    if kind == "folder":
        for name, data in FILES.items():
            path = tmp_path / "spleen" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return tmp_path / "spleen"
    with zipfile.ZipFile(tmp_path / "spleen.zip", "w") as out:
        for name, data in FILES.items():
            out.writestr(f"spleen_ct/{name}", data)
        out.writestr("../../evil", b"never unpacked")
    return tmp_path / "spleen.zip"


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_monai_bundle_fills_the_card_as_far_as_it_goes(tmp_path, kind):
    places = skeleton(bundle(tmp_path, kind), tmp_path / "package")
    card = tomllib.loads((tmp_path / "package" / "card.toml").read_text())
    assert (card["name"], card["version"], card["licence"]) == ("spleen-ct-segmentation", "0.5.9", "Apache-2.0")
    patches = card["inputs"][0]["patches"]
    assert patches["spacing_mm"] == [2.0, 1.5, 1.5]
    assert patches["patch"] == [96, 96, 96]
    assert (patches["overlap"], patches["blend"]) == (0.5, "gaussian")
    assert patches["channels"] == [{"low": -57.0, "high": 164.0}]
    assert [(f["short"], f["index"]) for f in card["findings"]] == [("spleen", 1), ("lesion", 2)]
    assert card["training"]["data"] == "Task09_Spleen.tar"
    assert any("regulatory" in place for place in places)
    assert all(place.startswith("card.toml:") for place in places)
    assert sorted(p.name for p in (tmp_path / "package").iterdir()) == ["card.toml", "model.onnx"]


def test_a_skeleton_is_never_taken_for_a_finished_package(tmp_path):
    skeleton(bundle(tmp_path, "zip"), tmp_path / "package")
    with pytest.raises(Exception, match=r"card\.toml:\d+"):
        load_card(tmp_path / "package")


def test_a_plain_onnx_file_says_its_inputs_outputs_and_opset(tmp_path):
    made = model(
        [node("Relu", ("x",), ("y",))], [port("x", ("batch", 3, 256, 256))], [port("y", ("batch", 1, 64, 64))], opset=13
    )
    (tmp_path / "lung.onnx").write_bytes(made)
    skeleton(tmp_path / "lung.onnx", tmp_path / "package")
    card = tomllib.loads((tmp_path / "package" / "card.toml").read_text())
    assert card["inputs"][0]["shape"] == ["n", 3, 256, 256]
    assert len(card["inputs"][0]["slabs"]["channels"]) == 3
    assert card["outputs"][0]["kind"] == "logit-map"
    assert card["variants"]["fp32"]["opset"] == 13


@pytest.mark.parametrize("content", [b"no model", b"PK\x03\x04 no zip"])
def test_what_is_neither_is_refused(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(Quarantine) as caught:
        skeleton(tmp_path / "model.onnx", tmp_path / "package")
    assert caught.value.code == "model.skeleton"
    assert not (tmp_path / "package").exists()
