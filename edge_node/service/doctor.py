"""`edge-node doctor`: everything the node needs, checked one by one; each failure names the next command."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from edge_node.config.certificates import days_left
from edge_node.config.load import Loaded
from edge_node.config.schema import Config
from edge_node.config.secrets import VAULT, RoleKeys, keys_dir, read_secret_file
from edge_node.config.tls import listener_context, peer_of, server_context
from edge_node.domain.errors import EdgeNodeError
from edge_node.domain.model import RUNNING, Stage
from edge_node.domain.study import Role
from edge_node.service import watching
from edge_node.service.check import Check, guarded, several
from edge_node.service.node import escrow_of, ledger_path, models_path, spool_path
from edge_node.service.pull_checks import pull
from edge_node.service.snapshot import snapshot
from edge_node.service.vault_key import in_memory
from edge_node.service.writer_checks import writers
from edge_node.store import audit
from edge_node.store.database import Database
from edge_node.store.spool import free_bytes

CONNECT_S = 3.0
WARN_DAYS = 30


def examine(loaded: Loaded) -> Iterator[Check]:
    """Run all checks; none of them changes anything or shows PHI."""
    config = loaded.config
    yield Check("configuration", "ok", str(loaded.path) if loaded.path else "defaults only, no file")
    for name, look in (
        ("node keys", _keys),
        ("identity", _identity),
        ("escrow", _escrow),
        ("ledger", _ledger),
        ("audit chain", _audit),
        ("disk", _disk),
        ("pixels", _pixels),
        ("onnxruntime", _runtime),
        ("receiver", _receiver),
        ("TLS", _tls),
        ("STOW-RS", _stow),
        ("admission", _admission),
        ("roles", _roles),
        ("consent", _consent),
    ):
        yield guarded(name, look, config)
    yield from several("models", _models, config)
    yield from several("drift", watching.checks, config)
    yield from _recipes(config)
    yield from _peers(config)
    yield from writers(config)
    yield guarded("pull", pull, config)
    yield guarded("trainer", _trainer, config)


def _keys(config: Config) -> Check:
    keys = RoleKeys(Role.DICOM, config)
    cut_short = sorted(set(keys.old_keys) - {"pseudonym"})
    if cut_short:
        name = cut_short[0]
        return Check("node keys", "warn", f"a rotation was cut short: {name}", f"edge-node key rotate {name}")
    if in_memory(config):
        path = keys_dir(config) / f"{VAULT}.key"
        if path.exists():
            return Check("node keys", "warn", f"{path}: not used any more, and opens older backups", f"delete {path}")
    kept = "; the old site key is kept for studies under way" if keys.old_keys else ""
    return Check("node keys", "ok", ", ".join(keys.names) + kept)


def _identity(config: Config) -> Check:
    if not in_memory(config):
        return Check("identity", "ok", "its key is on the disk")
    waiting = snapshot(config).waiting_for_identity
    if waiting:
        codes = ", ".join(sorted({row["code"] for row in waiting}))
        return Check("identity", "warn", f"{len(waiting)} studies wait for theirs: {codes}", "edge-node status")
    return Check("identity", "ok", "its key is in memory only, and no study waits for its own")


def _escrow(config: Config) -> Check:
    from edge_node.service.escrow import misplaced

    escrow = escrow_of(config)
    found = next(misplaced(config), None)
    if found is not None:
        return Check("escrow", "warn", f"{found}: an escrow private key lies on the node", "take it away from here")
    if escrow is None:
        return Check("escrow", "ok", "off: nothing leads back once the envelopes are destroyed")
    return Check("escrow", "ok", f"each study is sealed to the escrow key {escrow.key}")


def _ledger(config: Config) -> Check:
    database = Database(ledger_path(config), read_only=True)
    word = database.integrity()
    database.close()
    if word != "ok":
        return Check("ledger", "fail", word, "stop the node and restore the newest backup")
    return Check("ledger", "ok", str(ledger_path(config)))


def _audit(config: Config) -> Check:
    with Database(ledger_path(config), read_only=True).read() as connection:
        report = audit.verify(connection)
    if not report.intact:
        return Check("audit chain", "fail", f"broken at entry {report.first_broken}", "edge-node audit export")
    return Check("audit chain", "ok", f"{report.entries} entries")


def _disk(config: Config) -> Check:
    free, reserve = free_bytes(spool_path(config)), config.storage.reserve_mb * 1_000_000
    detail = f"{free / 1e9:.1f} GB free, reserve {reserve / 1e9:.1f} GB"
    if free <= reserve:
        return Check("disk", "fail", detail, "free space: new instances are refused with OUT_OF_RESOURCES")
    return Check("disk", "warn" if free < 4 * reserve else "ok", detail)


def _recipes(config: Config) -> Iterator[Check]:
    from edge_node.service.recipes import active

    for one in active(config):
        name = one.choice.recipe.stem + (f", trial {one.choice.trial}" if one.choice.trial else "")
        whom = f"{one.objects}: {name}" if config.deid.rules else name
        if one.errors:
            yield Check("recipe", "fail", f"{whom}: {one.problems()[0]}", f"edge-node deid lint {one.choice.recipe}")
        elif one.doubts:
            lines = ", ".join(str(doubt.line) for doubt in one.doubts)
            detail = f"{whom}, sha256 {one.sha256[:16]}…, doubts in line {lines}"
            yield Check("recipe", "warn", detail, f"edge-node deid lint {one.choice.recipe}")
        else:
            yield Check("recipe", "ok", f"{whom}, sha256 {one.sha256[:16]}…")


def _pixels(config: Config) -> Check:
    from edge_node.deid.text_detector import TextDetector, model_path

    faces = "faces are removed from head CT" if config.deid.deface else "faces stay"
    path = model_path()
    if path is None:
        return Check(
            "pixels",
            "warn",
            f"no text detector: ultrasound, secondary captures and the like stay withheld; {faces}",
            "pip install 'edge-node[ocr]'",
        )
    TextDetector(path)
    return Check("pixels", "ok", f"text detector {path.stem}; {faces}")


def _runtime(_config: Config) -> Check:
    from edge_node.triage.runner import check_onnxruntime_owner

    check_onnxruntime_owner()
    return Check("onnxruntime", "ok", "owned by one distribution")


def _models(config: Config) -> Iterator[Check]:
    from edge_node.service.models import card_of, packaged, prove, registry
    from edge_node.triage.agreement import told
    from edge_node.triage.card import load_card

    if not config.triage.enabled:
        yield Check("models", "warn", "triage is off", "set triage.enabled = true")
        return
    with registry(config) as models:
        known = models.all()
    running = [one for one in known if one.stage in RUNNING]
    for one in running:
        try:
            started, label, unmeasured = prove(config, one)
            agrees = f", {told(started.parity)}" if started.parity else ""
            yield Check(f"model {one.name}", "ok", f"{label}; hashes and golden vectors hold{agrees}, {one.trust}")
            if unmeasured:
                what, _, hint = unmeasured.partition("; ")
                yield Check(f"radiomics {one.name}", "warn", f"{one.version} runs without: {what}", hint)
        except EdgeNodeError as error:
            yield Check(f"model {one.name}", "fail", f"{error.code}: {error.message}", error.hint)
    for one in known:
        if one.stage == Stage.QUARANTINED:
            detail = f"{one.version} is in quarantine: {one.code}: {one.message}"
            yield Check(f"model {one.name}", "fail", detail, f"edge-node model rollback {one.name}")
    wanted = set(config.triage.thresholds)
    for key in sorted(
        wanted and wanted - {f"{m.name}/{f.short}" for m in running for f in card_of(config, m).file.findings}
    ):
        yield Check(
            "thresholds", "warn", f"triage.thresholds: no model that runs has {key}", "edge-node model show NAME"
        )
    if known:
        if not running:
            yield Check("models", "warn", "no model runs: every study is skipped", "edge-node model list")
        return
    for folder in packaged(config):
        card = load_card(folder)
        detail = f"{card.file.name} {card.file.version} is taken in at the first start: {config.triage.packaged_stage}"
        yield Check("models", "ok", detail)
    if not packaged(config):
        yield Check("models", "warn", f"no model package in {models_path(config)}", "edge-node model add PACKAGE")


def _receiver(config: Config) -> Check:
    if not config.receive.plain:
        return Check("receiver", "ok", f"{config.receive.ae_title}, TLS only")
    host = "127.0.0.1" if config.receive.host in ("0.0.0.0", "::", "") else config.receive.host  # noqa: S104
    where = f"{config.receive.ae_title} on port {config.receive.port}"
    if _reachable(host, config.receive.port):
        return Check("receiver", "ok", f"{where} answers")
    return Check("receiver", "warn", f"{where} does not answer", "edge-node run, or systemctl start edge-node.target")


def _tls(config: Config) -> Check:
    tls = config.tls
    if not tls.port:
        return Check("TLS", "ok", "off: senders speak plain DICOM")
    listener_context(tls)
    who = "senders need a certificate" if tls.client_ca else "senders need no certificate"
    where = f"port {tls.port}, {who}"
    expiry = _expiry("TLS", where, {"cert": tls.cert, "client_ca": tls.client_ca})
    if expiry is not None:
        return expiry
    host = "127.0.0.1" if config.receive.host in ("0.0.0.0", "::", "") else config.receive.host  # noqa: S104
    if not _reachable(host, tls.port):
        return Check("TLS", "warn", f"{where} does not answer", "edge-node run, or systemctl start edge-node.target")
    if not tls.client_ca:
        return Check("TLS", "warn", where, "set tls.client_ca: without it any host may send")
    return Check("TLS", "ok", where)


def _stow(config: Config) -> Check:
    stow = config.stow
    if not stow.port:
        return Check("STOW-RS", "ok", "off: nobody sends by HTTP")
    where = f"{stow.host}:{stow.port}{', TLS' if stow.cert else ''}"
    for path in (stow.token_file, stow.password_file):
        if path is not None:
            read_secret_file(path)
    if stow.cert:
        server_context("[stow]", stow.cert, stow.key, stow.client_ca)
        if expiry := _expiry("STOW-RS", where, {"cert": stow.cert, "client_ca": stow.client_ca}):
            return expiry
    if not _reachable("127.0.0.1" if stow.host in ("0.0.0.0", "::") else stow.host, stow.port):  # noqa: S104
        return Check("STOW-RS", "warn", f"{where} does not answer", "edge-node run, or see the log of the dicom role")
    return Check("STOW-RS", "ok", where)


def _expiry(name: str, where: str, certificates: dict[str, Path | None]) -> Check | None:
    for key, path in certificates.items():
        if path is None:
            continue
        try:
            days = days_left(path)
        except (OSError, ValueError):
            return Check(name, "fail", f"{where}: {key} cannot be read", f"a PEM certificate in {path}")
        if days < WARN_DAYS:
            word = f"expires in {days:.0f} days" if days > 0 else "has expired"
            return Check(name, "warn" if days > 0 else "fail", f"{where}: {key} {word}", f"renew {path}, then restart")
    return None


def _admission(config: Config) -> Check:
    if config.receive.calling_ae_titles or config.receive.allowed_addresses:
        return Check("admission", "ok", "limited by AE title or address")
    return Check(
        "admission", "warn", "any host may send", "set receive.calling_ae_titles and receive.allowed_addresses"
    )


def _roles(config: Config) -> Check:
    shot = snapshot(config)
    silent = [r["role"] for r in shot.roles if not r["alive"]]
    if not shot.roles or len(silent) == len(shot.roles):
        return Check("roles", "warn", "the node is not running", "edge-node run")
    if silent:
        return Check("roles", "fail", f"silent: {', '.join(silent)}", "edge-node status")
    return Check("roles", "ok", ", ".join(r["role"] for r in shot.roles))


def _consent(config: Config) -> Check:
    from edge_node.consent import source_for

    source_for(config.consent)
    if config.consent.source == "deny-all":
        return Check("consent", "ok", "deny-all: nothing leaves")
    if config.consent.source == "allow-all":
        return Check("consent", "warn", "allow-all: everything may leave", "make sure consent is held elsewhere")
    return Check("consent", "ok", f"list {config.consent.csv_file}")


def _peers(config: Config) -> Iterator[Check]:
    from edge_node.service.echo import echo

    for name, peer in config.peers.items():
        label = f"peer {name}"
        if expiry := _expiry(label, "TLS", {"client_cert": peer.client_cert, "ca_file": peer.ca_file}):
            yield expiry
            continue
        try:
            us = config.worklist.calling_ae_title
            seconds = echo(peer_of(peer), us, CONNECT_S)
            yield Check(label, "ok", f"{peer.ae_title} answers C-ECHO in {seconds * 1000:.0f} ms")
        except EdgeNodeError as error:
            yield Check(label, "fail", f"{error.code}: {error.message}", error.hint)


def _trainer(config: Config) -> Check:
    if not config.forward.url:
        return Check("trainer", "ok", "not configured: nothing is forwarded")
    parts = urlsplit(config.forward.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if _reachable(parts.hostname or "", port):
        return Check("trainer", "ok", f"{parts.hostname}:{port} accepts connections")
    return Check(
        "trainer", "warn", f"{parts.hostname}:{port} does not answer", "deliveries wait and go on by themselves"
    )


def _reachable(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), CONNECT_S):
            return True
    except OSError:
        return False
