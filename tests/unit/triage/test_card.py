from __future__ import annotations

import shutil

import pytest

from edge_node.domain.errors import Stop
from edge_node.triage.card import load_card
from tests.unit.triage.studies import PACKAGES


@pytest.fixture
def package(tmp_path):
    return shutil.copytree(PACKAGES / "ref-ct-head-hyperdensity", tmp_path / "ref")


def refused(folder):
    with pytest.raises(Stop) as caught:
        load_card(folder)
    assert caught.value.code == "triage.model-invalid"
    assert caught.value.hint
    return caught.value.message


def edit(folder, old, new):
    path = folder / "card.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_shipped_package_says_what_it_is(package):
    card = load_card(package)
    assert card.file.label == "reference model, synthetic training data, not for clinical use"
    assert (card.code.value, card.code.scheme) == ("1386000", "SCT")
    assert card.file.finding.category == 1
    assert set(card.file.variants) == {"int8", "fp32"}


def test_the_shipped_figures_hold_the_bounds_for_activation(package):
    figures = load_card(package).file.held_out
    assert figures["positives"] >= 50
    assert figures["others"] >= 50
    for variant in ("int8", "fp32"):
        assert figures[variant]["sensitivity"] >= 0.9
        assert figures[variant]["specificity"] >= 0.9
    total = figures["positives"] + figures["others"]
    assert figures["parity"]["decision_flips"] <= 0.03 * total
    assert figures["parity"]["new_misses"] == 0
    assert figures["parity"]["max_probability_difference"] <= 0.15
    assert figures["parity"]["auroc_difference"] >= -0.01


@pytest.mark.parametrize("name", ["model.onnx", "model.fp32.onnx", "golden.npz"])
def test_one_flipped_bit_in_any_file_is_refused(package, name):
    data = bytearray((package / name).read_bytes())
    data[len(data) // 2] ^= 1
    (package / name).write_bytes(bytes(data))
    assert f"{name} is not the file the card names" in refused(package)


def test_a_model_swapped_after_loading_is_refused_when_it_is_read(package):
    card = load_card(package)
    (package / "model.onnx").write_bytes((package / "model.fp32.onnx").read_bytes())
    with pytest.raises(Stop, match=r"triage\.model-invalid"):
        card.model_bytes("int8")


def test_a_missing_file_is_refused(package):
    (package / "golden.npz").unlink()
    assert "golden.npz cannot be read" in refused(package)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('version = "1.0.0"', "version = 1", "version"),
        ('licence = "', 'colour = "red"\nlicence = "', "colour"),
        ("category = 1", "category = 9", "finding.category"),
        ('Modality == "CT"', 'PatientName == "CT"', "selection.rule"),
        ('file = "model.onnx"', 'file = "../model.onnx"', "variants.int8.file"),
        ("cells = 40", "cells = 41", "multiple"),
        ("limit = 80.0", "limit = nan", "output.limit"),
        ("[finding]", "[finding", "not TOML"),
    ],
)
def test_a_card_that_says_something_else_is_refused_with_the_place(package, old, new, says):
    edit(package, old, new)
    assert says in refused(package)
