"""Cards of models that this node does not run are understood, held against their ONNX files, and not run."""

from __future__ import annotations

import pytest

from edge_node.domain.errors import Stop
from edge_node.service.packages import make_golden
from edge_node.triage.card import load_card
from tests.unit.triage.studies import loaded
from tests.unit.triage.tiny_onnx import model, node, port, weight

CARD = """\
format = 2
name = "nodules"
version = "1.0.0"
label = "for tests"
licence = "Apache-2.0"
intended_use = "to test the format"
limits = ["finds nothing"]
regulatory = "not a medical device"

[[findings]]
short = "NODULE"
code = { value = "427359005", scheme = "SCT", meaning = "Solitary nodule of lung" }
category = 3
output = "boxes"
index = 1

[selection]
rule = 'Modality == "CT" and BodyPartExamined == "CHEST"'

[[inputs]]
name = "image"
shape = ["n", 1, 16, 32, 32]
[inputs.patches]
spacing_mm = [1.25, 0.7, 0.7]
patch = [16, 32, 32]
overlap = 0.25
channels = [{ low = -1000.0, high = 400.0 }]

[[inputs]]
name = "facts"
shape = ["n", 2]
attributes = { names = ["SliceThickness", "Rows"] }

[[outputs]]
name = "boxes"
kind = "boxes"
shape = ["n", 1, 6]
corners = "zyxzyx"
scores = "scores"
limit = 4096.0

[[outputs]]
name = "scores"
kind = "scores"
shape = ["n", 1]
activation = "sigmoid"
limit = 100.0

[variants.fp32]
file = "model.onnx"
sha256 = ""
opset = 17
golden_tolerance = 0.01
points.NODULE = { threshold = 0.5 }

[golden]
file = "golden.npz"
sha256 = ""

[training]
data = "none"
[held_out]
data = "none"
"""


def detector() -> bytes:
    """Boxes and scores out of a volume and two numbers; what they say means nothing."""
    nodes = [
        node("Identity", ("one",), ("level",)),
        node("MatMul", ("facts", "w"), ("flat",)),
        node("Mul", ("flat", "level"), ("scaled",)),
        node("Unsqueeze", ("scaled", "axis"), ("boxes",)),
        node("MatMul", ("scaled", "s"), ("scores",)),
    ]
    axis = b"".join((bytes([8, 1]), bytes([16, 7]), b"\x42\x04axis", b"\x4a\x08" + (1).to_bytes(8, "little")))
    weights = [weight("w", (2, 6), [0.1] * 12), weight("s", (6, 1), [0.1] * 6), weight("one", (1,), (1.0,)), axis]
    return model(
        nodes,
        [port("image", ("n", 1, 16, 32, 32)), port("facts", ("n", 2))],
        [port("boxes", ("n", 1, 6)), port("scores", ("n", 1))],
        weights,
    )


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "nodules"
    folder.mkdir()
    (folder / "card.toml").write_text(CARD)
    (folder / "model.onnx").write_bytes(detector())
    make_golden(folder, None)
    return folder


def test_boxes_from_a_volume_and_numbers_are_expressed_and_checked(package):
    card = load_card(package)
    assert card.output("boxes").scores == "scores"
    assert card.golden("fp32")[0].keys() == {"image", "facts"}


def test_what_this_node_does_not_run_it_says_before_it_starts_a_worker(package):
    assert "this node runs models with one input" in load_card(package).runnable()
    with pytest.raises(Stop, match="one input"):
        loaded(package)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('scores = "scores"', 'scores = "score"', r"card\.toml:34: outputs\.0: there is no output score"),
        ('corners = "zyxzyx"', 'corners = "yxyx"', r"card\.toml:34: outputs\.0: boxes need scores and corners"),
        ('names = ["SliceThickness", "Rows"]', 'names = ["SliceThickness"]', "as its geometry says"),
        ('"SliceThickness", "Rows"', '"SliceThickness", "PatientAge"', "no attribute of a rule: PatientAge"),
        ("patch = [16, 32, 32]", "patch = [16, 32, 64]", "as its geometry says"),
        ('name = "facts"', 'name = "image"', "one name"),
        ("attributes = {", "patches = {", r"card\.toml:\d+"),
    ],
)
def test_a_card_that_contradicts_itself_or_its_model_is_refused_with_the_line(package, old, new, says):
    text = (package / "card.toml").read_text()
    assert old in text
    (package / "card.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(Stop, match=says):
        load_card(package)
