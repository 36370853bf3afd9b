"""`edge-node deid` on the site's own recipe, and on others."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_node.cli import deid as command
from edge_node.cli.context import Invocation


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
