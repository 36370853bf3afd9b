"""The making of a model package: skeleton of a card, golden vectors, hashes, signature, and a look at the whole."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from edge_node.config.certificates import new_signing_key, public_key_id, sign
from edge_node.config.schema import Config
from edge_node.domain.errors import Quarantine
from edge_node.domain.model import UNSIGNED
from edge_node.service.activation import figures_of
from edge_node.service.models import device_of, terms_of
from edge_node.triage.archive import unpack
from edge_node.triage.card import CARD, SIGNATURE, SIGNED_PREFIX
from edge_node.triage.golden import golden_arrays
from edge_node.triage.model import Source, admitted, make_engine
from edge_node.triage.process import ModelProcess
from edge_node.triage.skeleton import FILL_IN, card_text, read_model


def skeleton(source: Path, into: Path) -> list[str]:
    """Make a package folder of an ONNX file or a MONAI bundle; returns the places that are still open, with lines.

    Raises Quarantine ``model.skeleton``, ``model.archive``.
    """
    if into.exists():
        raise _refused(f"{into} is there already")
    found = read_model(source)
    into.mkdir(parents=True)
    (into / "model.onnx").write_bytes(found.model)
    text = card_text(found)
    (into / CARD).write_text(text, encoding="utf-8")
    return [
        f"{CARD}:{number}: {line.strip()[:80]}" for number, line in enumerate(text.splitlines(), 1) if FILL_IN in line
    ]


def make_golden(package: Path, inputs: Path | None) -> dict[str, str]:
    """Write golden.npz and set every hash in the card; returns sha256 by file. Raises Stop ``triage.model-invalid``,
    Quarantine ``model.skeleton``."""
    path = package / CARD
    try:
        text = path.read_text(encoding="utf-8")
        plain: dict[str, Any] = tomllib.loads(text)
        variants = {str(name): str(made["file"]) for name, made in plain["variants"].items()}
        golden = str(plain["golden"]["file"])
        models = {name: (package / file).read_bytes() for name, file in variants.items()}
        (package / golden).write_bytes(golden_arrays(plain, models, inputs.read_bytes() if inputs else None))
        files = [*variants.values(), golden, *(str(one["file"]) for one in plain.get("documents", []))]
        hashes = {file: hashlib.sha256((package / file).read_bytes()).hexdigest() for file in files}
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"no {error.args[0]}" if isinstance(error, KeyError) else type(error).__name__
        raise _refused(f"{path} does not say enough ({what})") from error
    for file, digest in hashes.items():
        text, count = re.subn(rf'(file = "{re.escape(file)}"\s*(?:\n|,)\s*sha256 = ")[^"]*"', rf'\g<1>{digest}"', text)
        if not count:
            raise _refused(f'{path}: put sha256 = "" right after file = "{file}"')
    path.write_text(text, encoding="utf-8")
    return hashes


def sign_package(package: Path, key: Path) -> tuple[str, bool]:
    """Sign card.toml, which pins the rest; makes the key if there is none. Returns the public key (base64) and whether
    it was made. Raises Stop of an unsound package, Quarantine ``model.skeleton``."""
    from edge_node.triage.card import load_card

    (package / SIGNATURE).unlink(missing_ok=True)
    card = load_card(package)
    made = not key.exists()
    try:
        if made:
            pem, public = new_signing_key()
            handle = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
            with os.fdopen(handle, "wb") as out:
                out.write(pem)
            (key.with_suffix(".pub")).write_text(public + "\n", encoding="ascii")
        line = sign(SIGNED_PREFIX + (package / CARD).read_bytes(), key.read_bytes())
        public = key.with_suffix(".pub").read_text(encoding="ascii").strip()
        if public_key_id(public).encode() not in line:
            raise _refused(f"{key.with_suffix('.pub')} is not the public half of {key}")
        (card.folder / SIGNATURE).write_bytes(line)
    except (OSError, ValueError) as error:
        raise _refused(f"{key} cannot be used ({type(error).__name__})") from error
    return public, made


def examine(package: Path, config: Config) -> dict[str, Any]:
    """Unpack a package away from the node, check and prove it; what it is, for people. Raises what refuses it."""
    with tempfile.TemporaryDirectory() as scratch:
        inside = Path(scratch) / package.name
        inside.mkdir()
        unpack(package, inside)
        terms = terms_of(config)
        card, trust = admitted(Source(inside), type(terms)(terms.trusted, True, terms.site, terms.thresholds))
        told: dict[str, Any] = {
            "name": card.file.name,
            "version": card.file.version,
            "package": card.package,
            "trust": trust,
            "admitted": trust != UNSIGNED or terms.unsigned,
            "cannot_run": card.runnable(),
        }
        process = ModelProcess(card.file.name, make_engine, (card, device_of(config), None))
        try:
            started = process.start()
        finally:
            process.close()
        return told | figures_of(started) | {"golden_difference": started.worst}


def _refused(why: str) -> Quarantine:
    return Quarantine("model.skeleton", why, hint="`edge-node docs models` shows how a package is made")
