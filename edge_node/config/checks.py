"""What must be true between options, and between options and the disk: no type can say it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_node.config.addresses import address_fault
from edge_node.config.rules import rule_faults
from edge_node.config.schema import SHIPPED_RECIPES, Config, WebPeer
from edge_node.config.secrets import secret_file_problem


@dataclass(frozen=True, slots=True)
class Contradiction:
    """`text` is wrong about the first of `keys` (dotted); the others are the options that make it wrong."""

    keys: tuple[str, ...]
    text: str


def contradictions(config: Config, *, environ: Mapping[str, str] | None = None) -> Iterator[Contradiction]:
    """Everything that keeps a well-typed configuration from working, the whole list at once.

    A file that this process may not look at counts as present: the role that needs it will say if it is not.
    """
    yield from _settle(config)
    yield from _folders(config)
    yield from _rules(config)
    yield from _worklist(config)
    yield from _hl7(config)
    yield from _fhir(config)
    for name in ("fhir", "ups_rs", "forward"):
        yield from _web_peer(config, name, environ)
    yield from _consent(config)


def _settle(config: Config) -> Iterator[Contradiction]:
    settle = config.settle
    if settle.quiet_s >= settle.hard_cap_s:
        yield Contradiction(("settle.quiet_s", "settle.hard_cap_s"), "must be less than hard_cap_s")
    for modality, seconds in settle.quiet_by_modality.items():
        if not 0 < seconds < settle.hard_cap_s:
            key = f"settle.quiet_by_modality.{modality}"
            yield Contradiction((key, "settle.hard_cap_s"), "must be more than 0 and less than hard_cap_s")


def _folders(config: Config) -> Iterator[Contradiction]:
    if reason := _recipe_problem(config.deid.recipe):
        yield Contradiction(("deid.recipe",), reason)
    if config.triage.models_dir is not None and (reason := _folder_problem(config.triage.models_dir)):
        yield Contradiction(("triage.models_dir",), reason)


def _rules(config: Config) -> Iterator[Contradiction]:
    for number, rule in enumerate(config.deid.rules):
        if reason := _recipe_problem(rule.recipe):
            yield Contradiction((f"deid.rules.{number}.recipe",), reason)
    for fault in rule_faults(config):
        yield Contradiction(fault.keys, fault.text)


def _recipe_problem(path: Path | None) -> str:
    return "" if path is None or str(path) in SHIPPED_RECIPES else _file_problem(path)


def _worklist(config: Config) -> Iterator[Contradiction]:
    if config.worklist.mode == "shadow":
        return
    live, writers = config.worklist.mode == "live", config.worklist.writers
    wanted = {}
    if "evidence" in writers or (live and {"ups", "ups_rs"} & set(writers)):
        wanted["pacs"] = config.worklist.pacs
    if live and "ups" in writers:
        wanted["ups"] = config.worklist.ups
    for key, peer in wanted.items():
        if peer not in config.peers:
            known = ", ".join(sorted(config.peers)) or "none"
            yield Contradiction(
                (f"worklist.{key}", "worklist.mode", "peers"),
                f"there is no [peers.{peer}], mode {config.worklist.mode} needs it (peers: {known})",
            )


def _hl7(config: Config) -> Iterator[Contradiction]:
    options = config.hl7
    if _writes(config, "hl7") and not options.host:
        yield Contradiction(("hl7.host", "worklist.writers"), "is needed when worklist.writers names hl7")
    if not options.tls:
        for key in ("ca_file", "client_cert", "client_key"):
            if getattr(options, key) is not None:
                yield Contradiction((f"hl7.{key}", "hl7.tls"), "has no effect without tls = true")


def _writes(config: Config, writer: str) -> bool:
    return config.worklist.mode == "live" and writer in config.worklist.writers


def _web_peer(config: Config, name: str, environ: Mapping[str, str] | None) -> Iterator[Contradiction]:
    """The address, the login and the files of the section `name`."""
    peer: WebPeer = getattr(config, name)
    if peer.url and (fault := address_fault(peer.url)):
        yield Contradiction((f"{name}.url",), fault)
    if not peer.url and _writes(config, name):
        yield Contradiction((f"{name}.url", "worklist.writers"), f"is needed when worklist.writers names {name}")
    if peer.user and peer.password_file is None:
        yield Contradiction((f"{name}.user", f"{name}.password_file"), "needs password_file")
    if peer.password_file is not None and not peer.user:
        yield Contradiction((f"{name}.password_file", f"{name}.user"), "needs user")
    if peer.user and peer.token_file is not None:
        yield Contradiction((f"{name}.token_file", f"{name}.user"), "cannot be used together with user; choose one")
    if peer.client_cert is not None and peer.client_key is None:
        yield Contradiction((f"{name}.client_cert", f"{name}.client_key"), "needs client_key")
    if peer.client_key is not None and peer.client_cert is None:
        yield Contradiction((f"{name}.client_key", f"{name}.client_cert"), "needs client_cert")
    private = {"password_file": peer.password_file, "token_file": peer.token_file, "client_key": peer.client_key}
    for key, path in private.items():
        if path is not None and (reason := secret_file_problem(path, environ=environ)):
            yield Contradiction((f"{name}.{key}",), reason)
    for key, path in {"ca_file": peer.ca_file, "client_cert": peer.client_cert}.items():
        if path is not None and (reason := _file_problem(path)):
            yield Contradiction((f"{name}.{key}",), reason)


def _fhir(config: Config) -> Iterator[Contradiction]:
    options = config.fhir
    systems = {f"patient_systems.{issuer}": system for issuer, system in options.patient_systems.items()}
    for key in ("patient_system", "accession_system"):
        if getattr(options, key):
            systems[key] = getattr(options, key)
    for key, system in systems.items():
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s|]+", system):
            yield Contradiction(
                (f"fhir.{key}",), "must be a URI, such as urn:oid:1.2.3 or https://hospital.example/mrn"
            )


def _consent(config: Config) -> Iterator[Contradiction]:
    consent = config.consent
    if consent.source == "csv" and consent.csv_file is None:
        yield Contradiction(("consent.csv_file", "consent.source"), "is needed when source is csv")
    if consent.csv_file is not None and (reason := _file_problem(consent.csv_file)):
        yield Contradiction(("consent.csv_file",), reason)


def _file_problem(path: Path) -> str:
    try:
        return "" if path.is_file() else f"{path}: not a file" if path.exists() else f"{path}: no such file"
    except PermissionError:
        return ""


def _folder_problem(path: Path) -> str:
    try:
        return "" if path.is_dir() else f"{path}: no such folder"
    except PermissionError:
        return ""
