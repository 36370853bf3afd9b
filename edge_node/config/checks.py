"""What must be true between options, and between options and the disk: no type can say it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from edge_node.config.addresses import address_fault, is_loopback
from edge_node.config.certificates import public_key_id
from edge_node.config.contradiction import Contradiction
from edge_node.config.destinations import Hl7, WebPeer
from edge_node.config.list_checks import list_contradictions
from edge_node.config.rules import rule_faults
from edge_node.config.schema import SHIPPED_RECIPES, Config
from edge_node.config.secrets import secret_file_problem


def contradictions(config: Config, *, environ: Mapping[str, str] | None = None) -> Iterator[Contradiction]:
    """Everything that keeps a well-typed configuration from working, the whole list at once.

    A file that this process may not look at counts as present: the role that needs it will say if it is not.
    """
    yield from _tls(config, environ)
    yield from _peers(config, environ)
    yield from _order(config)
    yield from _stow(config, environ)
    yield from _settle(config)
    yield from _folders(config)
    yield from _models(config)
    yield from _escrow(config)
    yield from _rules(config)
    yield from _worklist(config)
    yield from list_contradictions(config)
    yield from _hl7(config, "hl7", config.hl7)
    yield from _hl7(config, "hl7_order", config.hl7_order)
    yield from _fhir(config)
    yield from _pull(config)
    for name in ("fhir", "ups_rs", "forward", "pull_web"):
        yield from _web_peer(config, name, environ)
    yield from _consent(config)


def _tls(config: Config, environ: Mapping[str, str] | None) -> Iterator[Contradiction]:
    tls = config.tls
    if not tls.port:
        if not config.receive.plain:
            yield Contradiction(("receive.plain", "tls.port"), "nothing would listen; set tls.port, or leave plain on")
        return
    if config.receive.plain and tls.port == config.receive.port:
        yield Contradiction(("tls.port", "receive.port"), "is receive.port already; choose another one")
    if tls.cert is None:
        yield Contradiction(("tls.cert", "tls.port"), "is needed when tls.port is set")
    if tls.key is None:
        yield Contradiction(("tls.key", "tls.port"), "is needed when tls.port is set")
    elif reason := secret_file_problem(tls.key, environ=environ):
        yield Contradiction(("tls.key",), reason)
    if tls.allowed_clients and tls.client_ca is None:
        yield Contradiction(("tls.allowed_clients", "tls.client_ca"), "needs client_ca")
    for key, path in {"cert": tls.cert, "client_ca": tls.client_ca}.items():
        if path is not None and (reason := _file_problem(path)):
            yield Contradiction((f"tls.{key}",), reason)


def _stow(config: Config, environ: Mapping[str, str] | None) -> Iterator[Contradiction]:
    stow = config.stow
    if not stow.port:
        return
    taken = {"tls.port": config.tls.port, "status.port": config.status.port}
    if config.receive.plain:
        taken["receive.port"] = config.receive.port
    for key, port in taken.items():
        if port == stow.port:
            yield Contradiction(("stow.port", key), f"is {key} already; choose another one")
    if (stow.cert is None) != (stow.key is None):
        lacks, has = ("cert", "key") if stow.cert is None else ("key", "cert")
        yield Contradiction((f"stow.{has}", f"stow.{lacks}"), f"needs {lacks}")
    if stow.client_ca is not None and stow.cert is None:
        yield Contradiction(("stow.client_ca", "stow.cert"), "needs cert and key")
    if stow.user and stow.password_file is None:
        yield Contradiction(("stow.user", "stow.password_file"), "needs password_file")
    if stow.password_file is not None and not stow.user:
        yield Contradiction(("stow.password_file", "stow.user"), "needs user")
    if stow.user and stow.token_file is not None:
        yield Contradiction(("stow.token_file", "stow.user"), "cannot be used together with user; choose one")
    if not is_loopback(stow.host):
        if stow.cert is None:
            yield Contradiction(
                ("stow.host", "stow.cert"), "would take studies unencrypted over the network; set cert and key"
            )
        if not (stow.user or stow.token_file or stow.client_ca):
            yield Contradiction(
                ("stow.host", "stow.token_file"), "would take studies from anybody; set token_file, user or client_ca"
            )
    for key, path in {"password_file": stow.password_file, "token_file": stow.token_file, "key": stow.key}.items():
        if path is not None and (reason := secret_file_problem(path, environ=environ)):
            yield Contradiction((f"stow.{key}",), reason)
    for key, path in {"cert": stow.cert, "client_ca": stow.client_ca}.items():
        if path is not None and (reason := _file_problem(path)):
            yield Contradiction((f"stow.{key}",), reason)


def _peers(config: Config, environ: Mapping[str, str] | None) -> Iterator[Contradiction]:
    for name, peer in config.peers.items():
        told = {"ca_file": peer.ca_file, "client_cert": peer.client_cert, "client_key": peer.client_key}
        for key, path in told.items():
            if path is None:
                continue
            check = secret_file_problem(path, environ=environ) if key == "client_key" else _file_problem(path)
            if not peer.tls:
                yield Contradiction((f"peers.{name}.{key}", f"peers.{name}.tls"), "has no effect without tls = true")
            elif check:
                yield Contradiction((f"peers.{name}.{key}",), check)
        if (peer.client_cert is None) != (peer.client_key is None):
            lacks, has = ("client_cert", "client_key") if peer.client_cert is None else ("client_key", "client_cert")
            yield Contradiction((f"peers.{name}.{has}", f"peers.{name}.{lacks}"), f"needs {lacks}")


def _settle(config: Config) -> Iterator[Contradiction]:
    settle = config.settle
    if settle.quiet_s >= settle.hard_cap_s:
        yield Contradiction(("settle.quiet_s", "settle.hard_cap_s"), "must be less than hard_cap_s")
    for modality, count in settle.required_instances.items():
        if count < 1 or count != int(count):
            yield Contradiction((f"settle.required_instances.{modality}",), "must be a whole number, at least 1")
    for modality, seconds in settle.quiet_by_modality.items():
        if not 0 < seconds < settle.hard_cap_s:
            key = f"settle.quiet_by_modality.{modality}"
            yield Contradiction((key, "settle.hard_cap_s"), "must be more than 0 and less than hard_cap_s")


def _folders(config: Config) -> Iterator[Contradiction]:
    if reason := _recipe_problem(config.deid.recipe):
        yield Contradiction(("deid.recipe",), reason)
    if (inbox := config.inbox.folder) is not None:
        data = config.node.data_dir
        if reason := _folder_problem(inbox):
            yield Contradiction(("inbox.folder",), reason)
        elif inbox == data or inbox in data.parents or data in inbox.parents:
            yield Contradiction(("inbox.folder", "node.data_dir"), "must not lie in node.data_dir, nor around it")
    if config.triage.models_dir is not None and (reason := _folder_problem(config.triage.models_dir)):
        yield Contradiction(("triage.models_dir",), reason)


def _models(config: Config) -> Iterator[Contradiction]:
    options = config.triage
    for number, key in enumerate(options.trusted_keys):
        try:
            public_key_id(key)
        except ValueError as error:
            yield Contradiction(("triage.trusted_keys",), f"element {number + 1} {error}")
    if options.require_gpu and options.provider == "cpu":
        yield Contradiction(("triage.require_gpu", "triage.provider"), "cannot be had with provider = 'cpu'")


def _escrow(config: Config) -> Iterator[Contradiction]:
    path = config.deid.escrow
    if path is None:
        return
    try:
        text = path.read_bytes()[:65536]
    except OSError as error:
        yield Contradiction(("deid.escrow",), f"{path}: cannot be read: {error.strerror}")
        return
    if b"PRIVATE KEY" in text:
        yield Contradiction(
            ("deid.escrow",), f"{path}: is a private key, which must not be on this machine; give the public key"
        )
    elif b"BEGIN PUBLIC KEY" not in text:
        yield Contradiction(("deid.escrow",), f"{path}: is no public key in PEM")


def _rules(config: Config) -> Iterator[Contradiction]:
    for number, rule in enumerate(config.deid.rules):
        if reason := _recipe_problem(rule.recipe):
            yield Contradiction((f"deid.rules.{number}.recipe",), reason)
    for fault in rule_faults(config):
        yield Contradiction(fault.keys, fault.text)


def _recipe_problem(path: Path | None) -> str:
    return "" if path is None or str(path) in SHIPPED_RECIPES else _file_problem(path)


def _order(config: Config) -> Iterator[Contradiction]:
    if config.order.peer and config.order.peer not in config.peers:
        known = ", ".join(sorted(config.peers)) or "none"
        yield Contradiction(("order.peer", "peers"), f"there is no [peers.{config.order.peer}] (peers: {known})")


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


def _hl7(config: Config, section: str, options: Hl7) -> Iterator[Contradiction]:
    if _writes(config, section) and not options.host:
        yield Contradiction((f"{section}.host", "worklist.writers"), f"is needed when worklist.writers names {section}")
    if not options.tls:
        for key in ("ca_file", "client_cert", "client_key"):
            if getattr(options, key) is not None:
                yield Contradiction((f"{section}.{key}", f"{section}.tls"), "has no effect without tls = true")


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


def _pull(config: Config) -> Iterator[Contradiction]:
    pull = config.pull
    if config.node.identity == "memory" and pull.method == "off":
        yield Contradiction(
            ("node.identity", "pull.method"), "needs pull.method: after a restart the PACS is asked for identities"
        )
    if pull.method in ("move", "get") and pull.pacs not in config.peers:
        known = ", ".join(sorted(config.peers)) or "none"
        yield Contradiction(
            ("pull.pacs", "pull.method", "peers"),
            f"there is no [peers.{pull.pacs}], method {pull.method} needs it (peers: {known})",
        )
    if pull.method == "web" and not config.pull_web.url:
        yield Contradiction(("pull_web.url", "pull.method"), "is needed when pull.method is web")


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
