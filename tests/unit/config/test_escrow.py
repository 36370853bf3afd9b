"""The escrow key that the configuration names is looked at before the node starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_node.config.checks import contradictions
from edge_node.config.schema import Config, Deid


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("-----BEGIN PRIVATE KEY-----\nx\n", "is a private key, which must not be on this machine"),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nx\n", "is a private key, which must not be on this machine"),
        ("ssh-ed25519 AAAA", "is no public key in PEM"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_an_escrow_key_that_is_none_is_a_problem_of_the_configuration(
    tmp_path: Path, content: str | None, says: str
) -> None:
    path = tmp_path / "escrow.pem"
    if content is not None:
        path.write_text(content)
    config = Config(deid=Deid(escrow=path))
    [problem] = [one for one in contradictions(config, environ={}) if one.keys[0] == "deid.escrow"]
    assert problem.text == f"{path}: {says}" + ("; give the public key" if "private" in says else "")
