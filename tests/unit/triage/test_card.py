from __future__ import annotations

import shutil

import pytest

from edge_node.config.certificates import new_signing_key, public_key_id, sign
from edge_node.domain.errors import Stop
from edge_node.domain.model import SHIPPED, UNSIGNED
from edge_node.triage.card import SIGNED_PREFIX, load_card
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
    code = card.code(card.first)
    assert (code.value, code.scheme) == ("1386000", "SCT")
    assert card.first.category == 1
    assert set(card.file.variants) == {"int8", "fp32"}


def test_a_file_that_the_card_does_not_name_is_refused(package):
    (package / "notes.txt").write_text("hello")
    assert "notes.txt is in the package, but not in the card" in refused(package)


def test_a_link_in_the_place_of_a_file_is_refused(package):
    (package / "model.onnx").rename(package.parent / "model.onnx")
    (package / "model.onnx").symlink_to(package.parent / "model.onnx")
    assert "model.onnx" in refused(package)


def test_the_shipped_package_is_the_one_that_the_program_names(package):
    assert load_card(package).trust(()) == SHIPPED
    edit(package, "Not for clinical use.", "For clinical use.")
    assert load_card(package).trust(()) == UNSIGNED


def test_a_signature_of_a_trusted_key_is_told_and_every_other_one_is_refused(package):
    pem, public = new_signing_key()
    (package / "card.sig").write_bytes(sign(SIGNED_PREFIX + (package / "card.toml").read_bytes(), pem))
    assert load_card(package).trust((public,)) == f"signed by {public_key_id(public)}"
    for trusted in ((), (new_signing_key()[1],)):
        with pytest.raises(Stop, match=r"triage\.model-signature"):
            load_card(package).trust(trusted)
    edit(package, "threshold = 0.742", "threshold = 0.1")
    with pytest.raises(Stop, match=r"triage\.model-signature"):
        load_card(package).trust((public,))


def test_a_signature_over_the_bare_card_is_none(package):
    """Made for something else, by a key that also signs other things."""
    pem, public = new_signing_key()
    (package / "card.sig").write_bytes(sign((package / "card.toml").read_bytes(), pem))
    with pytest.raises(Stop, match=r"triage\.model-signature"):
        load_card(package).trust((public,))


def test_a_site_may_have_a_threshold_of_its_own(package):
    edit(package, "offset = -2.301893 }", "offset = -2.301893, sites = { north = 0.5 } }")
    assert load_card(package, "north").point("int8", load_card(package).first).threshold == 0.5
    assert load_card(package, "south").point("int8", load_card(package).first).threshold == 0.742


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
        ('version = "1.1.0"', "version = 1", "card.toml:4: version"),
        ('licence = "', 'colour = "red"\nlicence = "', "colour"),
        ("category = 1", "category = 9", "card.toml:20: findings.0.category"),
        ('Modality == "CT"', 'PatientName == "CT"', "selection.rule"),
        ('file = "model.onnx"', 'file = "../model.onnx"', "variants.int8.file"),
        ("limit = 80.0", "limit = nan", "outputs.0.limit"),
        ("[[findings]]", "[[findings", "not TOML"),
        ("opset = 17", "opset = 18", "variants.int8.opset: model.onnx: its opset is 17"),
        ('name = "logits"\nkind', 'name = "logit"\nkind', "card.toml:21: findings.0.output: there is no output logit"),
        ('name = "slabs"', 'name = "slices"', "inputs"),
        (
            'shape = ["n", 1, 40, 40]',
            'shape = ["n", 1, 20, 20]',
            "outputs.0.shape: model.onnx: the model says [n, 1, 40, 40]",
        ),
        ('dtype = "float32"\nshape = ["n", 1', 'dtype = "float16"\nshape = ["n", 1', "the model says float32"),
        ('shape = ["n", 5, 160, 160]', 'shape = ["n", 4, 160, 160]', "card.toml:"),
        ("  { slab = 1, low = 0.0, high = 90.0 },\n", "", "as its geometry says"),
        ("low = 0.0, high = 90.0", "low = 90.0, high = 0.0", "low must be below high"),
        ("points.ICH", "points.PE", "needs exactly the points ICH"),
        ('regulatory = "', 'regulatry = "', "card.toml:"),
        ('data = "synthetic phantoms, edge', 'date = "synthetic phantoms, edge', "data must say on what"),
    ],
)
def test_a_card_that_says_something_else_is_refused_with_the_place(package, old, new, says):
    edit(package, old, new)
    assert says in refused(package)
