"""The demo: a loopback hospital around a real node, from the first image to the report."""

from __future__ import annotations

import json as json_text
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edge_node.config.load import load
from edge_node.config.schema import Config
from edge_node.config.secrets import load_key
from edge_node.deid import patient_key, study_key_of
from edge_node.demo.collect import Outcome, collect
from edge_node.demo.day import Run
from edge_node.demo.orthanc import LocalOrthanc
from edge_node.demo.pacs import ToyPacs
from edge_node.demo.report import write_report
from edge_node.demo.studies import DemoStudy, make_studies
from edge_node.demo.trainer import ToyTrainer
from edge_node.domain.errors import EdgeNodeError, Retry
from edge_node.domain.status import ExitCode
from edge_node.domain.worklist import Peer
from edge_node.service.dimse import LOOPBACK
from edge_node.service.echo import echo
from edge_node.service.sender import send_study
from edge_node.service.setup import initialise
from edge_node.service.snapshot import Snapshot, snapshot

NODE_AE = "EDGENODE"
PACS_AE = "DEMOPACS"
QUIET_S = 2.0  # a demo has no patience for the 10 s of a real head CT
START_S = 60.0
FINISH_S = 240.0
WITHOUT_CONSENT = 3  # the study of this arrival has no consent: it is read and prioritised, but does not leave


@dataclass(frozen=True, slots=True)
class Hospital:
    """The peers of one run: the worklist peer is always the toy PACS, archive and trainer may be Orthanc."""

    pacs: ToyPacs
    trainer: ToyTrainer
    archive: LocalOrthanc | None
    central: LocalOrthanc | None

    @property
    def name(self) -> str:
        return "Orthanc as PACS archive and trainer, toy UPS worklist" if self.archive else "toy PACS and toy trainer"


def run(out: Path, *, seed: int, orthanc: bool, json: bool) -> int:
    """Play one day; write ``out/report.html``; print the summary. Returns 0 when every promise was kept, else 1."""
    console = Console(stderr=json, highlight=False)
    out = out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    started = time.time()
    with console.status("making the patients of today (all of them fictional) …"):
        demo_studies = make_studies(out / "studies", seed)
    with ExitStack() as stack:
        port = _free_port()
        hospital = _open_hospital(stack, out, demo_studies, port, orthanc=orthanc)
        config_path = _configure(out, hospital, demo_studies, port)
        config = load(config_path).config
        stack.enter_context(_node(config_path, out / "node.log"))
        _wait_until_listening(console, config)
        opened = time.time()
        sent = _play(console, config, demo_studies)
        with console.status("collecting what PACS and trainer received …"):
            known = Run(
                seed, started, opened, hospital.name, demo_studies, sent, _keys(config, demo_studies), WITHOUT_CONSENT
            )
            outcome = collect(known, config, hospital.pacs, hospital.trainer, hospital.archive, hospital.central)
    report = write_report(outcome.report, out / "report.html")
    _tell(console, outcome, report, json=json)
    return ExitCode.FINE if all(check.kept for check in outcome.report.checks) else ExitCode.FOUND_WRONG


def _open_hospital(stack: ExitStack, out: Path, studies: list[DemoStudy], node_port: int, *, orthanc: bool) -> Hospital:
    needles = sorted({needle for study in studies for needle in study.needles})
    pacs = stack.enter_context(ToyPacs(PACS_AE, store=out / "pacs"))
    trainer = stack.enter_context(ToyTrainer(store=out / "trainer", needles=needles))
    archive = central = None
    if orthanc:
        us = {NODE_AE: (LOOPBACK, node_port)}
        archive = stack.enter_context(LocalOrthanc(out / "orthanc-pacs", ae_title="ORTHANC", modalities=us))
        central = stack.enter_context(LocalOrthanc(out / "orthanc-trainer", ae_title="TRAINER"))
    return Hospital(pacs, trainer, archive, central)


def _configure(out: Path, hospital: Hospital, studies: list[DemoStudy], port: int) -> Path:
    """Write the node's configuration, make its keys and ledger, and the consent list of keyed hashes."""
    archive = hospital.archive
    pacs = ("ORTHANC", archive.dicom_port) if archive else (PACS_AE, hospital.pacs.port)
    trainer = hospital.central.stow_url if hospital.central else hospital.trainer.url
    path = out / "edge-node.toml"
    path.write_text(
        f"""# Made by `edge-node demo`: a node between a toy hospital and a toy trainer, all on loopback.
[node]
name = "demo"
data_dir = "node"
log_format = "json"

[receive]
ae_title = "{NODE_AE}"
host = "{LOOPBACK}"
port = {port}

[settle]
quiet_s = {QUIET_S}
quiet_by_modality = {{ CT = {QUIET_S}, CR = {QUIET_S} }}

[storage]
reserve_mb = 256

[triage]
packaged_stage = "live"

[worklist]
mode = "live"
calling_ae_title = "{NODE_AE}"

[forward]
url = "{trainer}"

[consent]
source = "csv"
csv_file = "consent.csv"

[status]
port = 0

[peers.pacs]
ae_title = "{pacs[0]}"
host = "{LOOPBACK}"
port = {pacs[1]}

[peers.ups]
ae_title = "{PACS_AE}"
host = "{LOOPBACK}"
port = {hospital.pacs.port}
"""
    )
    (out / "consent.csv").write_text("patient_key,consent\n")
    config = load(path).config
    initialise(config)
    site_key = load_key("pseudonym", config)
    rows = [
        f"{patient_key(site_key, s.patient.patient_id, s.patient.issuer)},"
        f"{'deny' if s.arrival == WITHOUT_CONSENT else 'allow'}"
        for s in studies
    ]
    (out / "consent.csv").write_text("\n".join(["patient_key,consent", *rows]) + "\n")
    return path


def _free_port() -> int:
    with socket.socket() as one:
        one.bind((LOOPBACK, 0))
        return int(one.getsockname()[1])


@contextmanager
def _node(config_path: Path, log: Path) -> Iterator[None]:
    """The node as an admin would start it, with its log beside the report."""
    command = [sys.executable, "-m", "edge_node", "--config", str(config_path), "run"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env={**os.environ})
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_listening(console: Console, config: Config) -> None:
    peer = Peer(NODE_AE, LOOPBACK, config.receive.port)
    deadline = time.monotonic() + START_S
    with console.status("starting the node: receiver, models, forwarder …"):
        while True:
            try:
                echo(peer, "DEMO", 2.0)
                compute_ready = any(r["role"] == "compute" and r["alive"] for r in snapshot(config).roles)
                if compute_ready:
                    return
            except EdgeNodeError:
                pass
            if time.monotonic() > deadline:
                raise Retry(
                    "demo.node-not-ready", "the node did not start in time", hint="see node.log in the demo folder"
                )
            time.sleep(0.2)


def _keys(config: Config, studies: list[DemoStudy]) -> dict[int, str]:
    site_key = load_key("pseudonym", config)
    return {s.arrival: study_key_of(site_key, s.study_uid) for s in studies}


def _play(console: Console, config: Config, studies: list[DemoStudy]) -> dict[int, dict[str, int]]:
    """Send all studies in arrival order, then wait until the node is through; a live line shows how it goes.

    Returns {arrival: {C-STORE status name: objects}}.
    """
    peer = Peer(NODE_AE, LOOPBACK, config.receive.port)
    sent: dict[int, dict[str, int]] = {}
    deadline = time.monotonic() + FINISH_S
    with Live(console=console, refresh_per_second=8) as live:
        for study in studies:

            def show(done: int, total: int, _status: str, study: DemoStudy = study) -> None:
                live.update(_live_line(snapshot(config), f"receiving {study.description} ({done}/{total})"))

            report = send_study(study.files, peer, calling_ae=study.calling_ae, progress=show)
            sent[study.arrival] = dict(report.by_status)
        while time.monotonic() < deadline:
            shot = snapshot(config)
            live.update(_live_line(shot, "settling, judging, writing back, forwarding …"))
            if _through(shot):
                live.update(_live_line(shot, "every study is through"))
                return sent
            time.sleep(0.25)
    return sent


def _through(shot: Snapshot) -> bool:
    busy = {w["step"] for w in shot.work if w["state"] != "DEAD"} - {"purge"}
    return not busy and not {"RECEIVING", "SETTLED", "TRIAGED"} & set(shot.studies)


def _live_line(shot: Snapshot, words: str) -> Table:
    grid = Table.grid(padding=(0, 2))
    states = "  ".join(f"{s.lower()} {n}" for s, n in sorted(shot.studies.items()))
    to_trainer = shot.deliveries.get("trainer", {})
    grid.add_row(Text("edge-node demo", "bold cyan"), Text(words))
    grid.add_row("", Text.assemble(("studies  ", "dim"), states or "none yet"))
    grid.add_row(
        "",
        Text.assemble(
            ("objects  ", "dim"),
            f"{shot.instances} received",
            ("   trainer  ", "dim"),
            ", ".join(f"{s.lower()} {n}" for s, n in to_trainer.items()) or "nothing yet",
            ("   quarantine  ", "dim"),
            str(len(shot.quarantine)),
        ),
    )
    return grid


def _tell(console: Console, outcome: Outcome, report: Path, *, json: bool) -> None:
    """The summary: a table for people, one JSON document for machines."""
    data = outcome.report
    if json:
        sys.stdout.write(
            json_text.dumps({**outcome.summary, "report": str(report)}, ensure_ascii=False, indent=2) + "\n"
        )
        return
    console.print()
    worklist = Table(title="Worklist, as the PACS shows it now", title_justify="left", header_style="bold", box=None)
    for column in ("read", "arrived", "study", "level", "due", "why", "s to worklist"):
        worklist.add_column(column, justify="right" if column in ("read", "arrived") else "left")
    by_number = {study.number: study for study in data.studies}
    for place, row in enumerate(data.worklist_after, start=1):
        study = by_number[row.study]
        seconds = study.events.seconds_to_worklist
        worklist.add_row(
            str(place),
            str(row.study),
            f"{study.patient}, {study.description}",
            row.level,
            row.due,
            row.reason,
            f"{seconds:.1f}" if seconds is not None else "",
            style="bold red" if row.flagged else "",
        )
    console.print(worklist)
    if data.held:
        held = Table(title="Not everything goes everywhere", title_justify="left", header_style="bold", box=None)
        for column in ("arrived", "objects", "state", "reason", "what it means"):
            held.add_column(column)
        for item in data.held:
            held.add_row(str(item.study), str(item.objects), item.state, item.reason, item.explanation)
        console.print(held)
    for check in data.checks:
        mark = Text("kept   ", "bold green") if check.kept else Text("BROKEN ", "bold red")
        console.print(Text.assemble(mark, check.promise, ("  " + check.detail, "dim")))
    console.print(
        Text.assemble("\nReport: ", (str(report), "bold"), f"  ({data.seconds:.0f} s, {datetime.now():%H:%M})")
    )
