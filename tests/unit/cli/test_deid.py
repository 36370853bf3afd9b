"""`edge-node deid` on the site's own recipe, and on others."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from edge_node.cli import deid as command
from edge_node.cli.context import Invocation
from edge_node.deid.part10 import part10_of
from tests.unit.deid.objects import ct, received


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 0),
        (["--var", "protocol=P-2"], 0),
        (["RECIPE"], 1),
        (["RECIPE", "--var", "protocol=P-2"], 0),
    ],
)
def test_the_variables_of_the_site_are_those_of_its_recipe_and_of_no_other(
    tmp_path: Path, words: list[str], code: int
) -> None:
    recipe, config = tmp_path / "own.deid", tmp_path / "edge-node.toml"
    recipe.write_text("FORMAT dicom\n\n%header\nADD ProtocolName var:protocol\n")
    config.write_text('[deid]\nrecipe = "own.deid"\nvariables = { protocol = "P-1" }\n')
    words = [str(recipe) if word == "RECIPE" else word for word in words]
    assert CliRunner().invoke(command.app, ["lint", *words], obj=Invocation(config_path=config)).exit_code == code


def test_a_label_gives_other_pseudonyms_to_whoever_looks_too(tmp_path: Path) -> None:
    source, key = tmp_path / "one.dcm", tmp_path / "key"
    source.write_bytes(part10_of(received(ct())))
    key.write_bytes(bytes(range(32)))
    key.chmod(0o400)
    (tmp_path / "edge-node.toml").write_text("")
    studies = []
    for label in ([], ["--label", "trial-A"]):
        out = tmp_path / "clean.dcm"
        words = ["diff", str(source), "--key-file", str(key), *label, "--out", str(out)]
        call = Invocation(config_path=tmp_path / "edge-node.toml", json=True)
        done = CliRunner().invoke(command.app, words, obj=call)
        assert done.exit_code == 0, done.output
        studies.append(dcmread(out).StudyInstanceUID)
    assert len(set(studies)) == 2
