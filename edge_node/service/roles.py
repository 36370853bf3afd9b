"""The roles: what each process opens, starts and works on. Each runs until told to stop and gives its exit code."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import threading
from collections.abc import Iterator
from functools import partial

import structlog

from edge_node.config.rules import called_ae_titles
from edge_node.config.schema import Config
from edge_node.config.secrets import MemoryVault
from edge_node.consent import source_for
from edge_node.domain.announcement import CLASSES, Kind
from edge_node.domain.errors import Stop
from edge_node.domain.study import Role
from edge_node.pipeline import Bench, Targets, Work
from edge_node.receive.workers import FORGET_S, WorkerPool
from edge_node.service import logs, notify, quietly
from edge_node.service.housekeeping import Job
from edge_node.service.keeping import Keeper
from edge_node.service.life import HEARTBEAT_S, Life
from edge_node.service.node import Node, escrow_of, open_node, spool_path
from edge_node.service.process import die_with_parent, harden, more_handles, starting
from edge_node.store.commitments import TARGET as COMMITMENT
from edge_node.store.spool import free_bytes

log = structlog.get_logger()

SETTLE_S = 0.5
TIDY_S = 60.0
MODELS_S = 2.0
PRIORS_S = 1.0
WATCH_S = 60.0
CONSENT_S = 30.0
DRAIN_S = 20.0
QUALITY = "quality"
NEVER_S = 10 * 365 * 86400.0
ORDER_MAX_AGE_S = 600.0
PIXELS_MAX_AGE_S = 24 * 3600.0


def targets_of(config: Config) -> Targets:
    """Where a study goes after triage: every writer has its own row, so that none blocks another."""
    return Targets(
        worklist=(*config.worklist.writers, *([QUALITY] if config.quality_alerts.peer else [])),
        forward=("",) if config.forward.url else (),
        purge={
            "envelope": config.retention.envelope_hours * 3600.0,
            "clean": config.retention.clean_days * 86400.0,
        },
    )


def bench(node: Node, step: str, work: Work, *, max_age_s: float, target: str | None = None) -> Bench:
    """A worker of this node for one step."""
    return Bench(step, work, node.tasks, node.database, targets_of(node.config), max_age_s, target)


def dicom(config: Config, writing: quietly.Ahead | None = None) -> int:
    """The receiver and what knows identity; `writing` is the process of the write-back, if it is loading already."""
    from edge_node.receive.local import LocalDoor
    from edge_node.receive.scp import StorageSCP
    from edge_node.receive.tls import TlsListener
    from edge_node.service import doors as other_doors
    from edge_node.service import memory_identity, own_list, pulling, recovering
    from edge_node.service.commitment_steps import commits, note_commitment
    from edge_node.service.intake_worker import make_intake

    more_handles()
    begun = memory_identity.begin(config)
    node, vault = begun.node, begun.vault
    life = Life(node)
    life.listen_to_signals()
    escrow_of(config)  # what is wrong with it must end the role, not each worker
    notify.status("starting the de-identifying workers")
    count = config.receive.workers or min(8, os.cpu_count() or 1)
    # Workers are quick and short-lived instead: `forget` replaces them.
    quick = partial(starting, forgetful=False)
    pool = WorkerPool(count, make_intake, (config, vault), wait_s=config.receive.network_timeout_s / 2, spawning=quick)
    pool.start()
    reserve, low = config.storage.reserve_mb * 1_000_000, config.storage.low_mb * 1_000_000
    folder = spool_path(config)
    scp = StorageSCP(
        config.receive,
        pool.accept,
        folder,
        free_bytes=lambda: free_bytes(folder),
        reserve=reserve,
        low=low or reserve * 3 // 2,
        further_ae_titles=called_ae_titles(config),
        signals=[CLASSES[Kind(name)] for name in config.settle.signals],
        committed=note_commitment(node) if commits(config) else None,
    )
    local = LocalDoor(
        config.node.data_dir,
        pool.accept,
        has_room=lambda: free_bytes(folder) > reserve,
        largest=config.receive.max_object_mb * 1_000_000,
        tell=lambda about, facts: life.tell(**{about: facts}) if facts else None,
    )
    host, doors = config.receive.host, contextlib.ExitStack()
    with _listening("[receive] host and port", host, config.receive.port):
        scp.start()
    if config.receive.plain:
        life.tell(port=scp.port)
    if config.tls.port:
        tls = TlsListener(host, config.tls, scp.adopt, admits_address=scp.admits_address, refused=scp.turn_away)
        with _listening("[receive] host and [tls] port", host, config.tls.port):
            tls.start()
        doors.callback(tls.stop)
        life.tell(tls_port=tls.port)
    local.start()  # behind the ports: a second receiver would have been stopped there
    doors.callback(local.stop, DRAIN_S)
    keeper = Keeper(config, life)
    keeper.keep("write-back", "worklist", partial(_write_back, vault=vault), ahead=writing)
    if other_doors.wanted(config):
        keeper.keep("doors", "receive", other_doors.serve)
    if pulling.wanted(config):
        keeper.keep("pull", "pull", partial(pulling.serve, vault=vault))
    if own_list.wanted(config):
        keeper.keep("reading list", "reading-list", partial(own_list.serve, vault=vault))
    if vault is not None:
        keeper.keep("identity", "identity", partial(recovering.serve, vault=vault))
    life.tell(ae_title=config.receive.ae_title, workers=count)

    def drain() -> None:
        doors.close()
        scp.stop(DRAIN_S)
        pool.close()

    tell = Job("refused", HEARTBEAT_S, lambda: life.tell(refused=scp.refused.rows()))
    return life.live([tell, Job("forget", FORGET_S / 4, pool.forget)], drain=drain)


@contextlib.contextmanager
def _listening(options: str, host: str, port: int) -> Iterator[None]:
    """Turn the OSError of a listener's start into the Stop that names the options to change."""
    try:
        yield
    except OSError as error:
        raise Stop(
            "receive.cannot-listen",
            f"{options}: cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}",
            hint="another process uses the port, or the address is not ours: `edge-node doctor`",
            exit_code=69,
        ) from None


def _write_back(config: Config, vault: MemoryVault | None = None) -> None:
    from edge_node.service.commitment_steps import commitment_work, commits
    from edge_node.service.dicom_steps import ORDER, worklist_work
    from edge_node.service.memory_identity import after_identity, needs_identity, with_identity
    from edge_node.service.order_steps import order_work
    from edge_node.service.quality_steps import alerts, quality_work

    harden()
    die_with_parent()
    logs.configure(config.node.log_format, config.node.log_level, role="dicom", node=config.node.name)
    node = open_node(config, Role.DICOM, vault)
    life = Life(node)
    life.listen_to_signals()
    node.tasks.take_over()

    def when_here(work: Work, *, needed: bool = True, patience_s: float = math.inf) -> Work:
        return after_identity(node, work, patience_s) if vault and needed else work

    max_age = config.worklist.max_age_hours * 3600.0
    asking = when_here(order_work(node), patience_s=ORDER_MAX_AGE_S / 2)
    life.thread(ORDER, bench(node, ORDER, asking, max_age_s=ORDER_MAX_AGE_S).run)
    for name in config.worklist.writers:
        work = when_here(worklist_work(node, name), needed=needs_identity(config, name))
        worker = bench(node, "worklist", work, max_age_s=max_age, target=name)
        life.thread(name, worker.run)
    if commits(config):
        work = with_identity(node, commitment_work(node)) if vault else commitment_work(node)
        proof = bench(node, "worklist", work, max_age_s=max_age, target=COMMITMENT)
        life.thread(COMMITMENT, proof.run)
    if alerts(config):
        work = when_here(quality_work(node))
        life.thread(QUALITY, bench(node, "worklist", work, max_age_s=max_age, target=QUALITY).run)
    if config.worklist.mode != "shadow":
        # It takes seconds to load, for which the first result would wait, and that may be the urgent one.
        importlib.import_module("edge_node.worklist.structured_report")
    code = life.wait()
    if code:
        raise SystemExit(code)


def compute(config: Config) -> int:
    """Settling, triage, pixels, purge."""
    # Before numpy comes in: its matrices here are small, threads of its own only wait for each other and for codecs.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    loaded = ("compute_steps", "watching", "decoding", "prior_wishes", "models_in_force")
    quietly.load(*[f"edge_node.service.{name}" for name in loaded])
    from edge_node.service import watching
    from edge_node.service.compute_steps import AT_ONCE, judging, purge_work, settle_due, tidy
    from edge_node.service.decoding import Decoding
    from edge_node.service.models_in_force import ModelsInForce
    from edge_node.service.prior_wishes import PriorWishes
    from edge_node.triage.ahead import Ahead
    from edge_node.triage.turns import Precedence

    node = open_node(config, Role.COMPUTE)
    life = Life(node)
    life.listen_to_signals()
    notify.status("loading and proving the models")
    node.tasks.take_over()
    Keeper(config, life).keep("pixels", "pixels", _clean_pixels, vital=True)
    room = config.triage.ahead_mb << 20 if config.triage.enabled else 0
    ahead = Ahead(room, harden, config.triage.threads) if room else None
    precedence = Precedence()
    models = ModelsInForce(node, ahead, precedence) if config.triage.enabled else None
    jobs, wishes = [Job("tidy", TIDY_S, lambda: tidy(node))], None
    if models is not None:
        in_force, wishes = models, PriorWishes(node, models)
        life.tell(models=in_force.labels())

        def look() -> None:
            in_force.refresh()
            life.tell(models=in_force.labels())

        jobs.append(Job("models", MODELS_S, look))
        jobs.append(Job("priors", PRIORS_S, wishes.look))
        jobs.append(Job("watch", WATCH_S, lambda: watching.look(node)))
        if ahead is not None:
            life.thread("decode ahead", Decoding(node, ahead).run)
    worker = judging(node, models, targets_of(config), precedence)
    for number in range(config.triage.studies_at_once):
        life.thread(f"triage {number + 1}", worker.run)
    # One more for what was ordered at once: it waits for nothing that has begun.
    woken = threading.Event()
    life.thread("triage STAT", worker.for_the_urgent(AT_ONCE, woken).run)
    jobs.append(Job("settle", SETTLE_S, lambda: settle_due(node, wishes, woken)))
    life.thread("purge", bench(node, "purge", purge_work(node), max_age_s=NEVER_S).run)
    try:
        return life.live(jobs)
    finally:
        if models is not None:
            models.close()
        if ahead is not None:
            ahead.close()


def _clean_pixels(config: Config) -> None:
    quietly.load("edge_node.service.pixel_steps", "edge_node.service.patient")
    from edge_node.service.patient import patient
    from edge_node.service.pixel_steps import load_tools, look_again, pixels_work

    harden()
    die_with_parent()
    logs.configure(config.node.log_format, config.node.log_level, role="compute", node=config.node.name)
    node = open_node(config, Role.COMPUTE)
    life = Life(node)
    life.listen_to_signals()
    tools = load_tools(node)
    look_again(node, tools)
    work = patient(pixels_work(node, tools))  # triage goes first
    life.thread("pixels", bench(node, "pixels", work, max_age_s=PIXELS_MAX_AGE_S).run)
    code = life.wait()
    if code:
        raise SystemExit(code)


def forward(config: Config) -> int:
    """What goes to the trainer, and consent."""
    quietly.load("edge_node.forward.stow", "edge_node.service.forward_steps")
    from edge_node.forward.stow import StowTrainer
    from edge_node.service.forward_steps import forward_work, refresh_consent

    node = open_node(config, Role.FORWARD)
    life = Life(node)
    life.listen_to_signals()
    node.tasks.take_over()
    consent = source_for(config.consent)
    jobs = []
    trainer = StowTrainer(config.forward) if config.forward.url else None
    if trainer is not None:
        work = forward_work(node, trainer, consent)
        life.thread("forward", bench(node, "forward", work, max_age_s=config.forward.max_age_days * 86400.0).run)
        jobs.append(Job("consent", CONSENT_S, lambda: refresh_consent(node, consent)))
    life.tell(consent=config.consent.source, forwarding=bool(config.forward.url))
    return life.live(jobs, drain=trainer.drain if trainer else _nothing)


def _nothing() -> None:
    """There is nothing to drain."""


def status(config: Config) -> int:
    """The status page."""
    quietly.load("edge_node.service.page")
    from edge_node.service.page import serve

    return serve(config)
