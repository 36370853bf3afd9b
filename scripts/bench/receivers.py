"""Who receives beside the node in the benchmarks, who sends to them all, and how their figures are compared."""

from __future__ import annotations

import json
import multiprocessing
import os
import queue
import shutil
import socket
import statistics
import subprocess
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from edge_node.domain.errors import Retry
from edge_node.domain.worklist import Peer
from edge_node.service.echo import echo
from scripts.bench.objects import KINDS, PDU, PLACE, is_success, largest, read_pdu, template
from scripts.bench.upper_layer import command, data, pdu, request
from tests.e2e.site import free_port

PATIENCE_S = 600.0
Sent = tuple[float, float, list[float]]  # when it began and ended, the seconds of each object


def sender(peer: Peer, name: str, run: int, number: int, nagle: bool, ready: Barrier, answers: Queue[Sent]) -> None:
    """One association; puts when it began and ended and the seconds from the first byte of each object to its Success.

    All begin together, when each has its association and its bytes.
    """
    kind = KINDS[name]
    body = template(kind, f"1.2.826.0.1.3680043.10.1511.{run}.{number}")
    at = body.index(PLACE)
    place = PLACE.replace(b"0000000000", b"%010d" % run)
    took = []
    with socket.create_connection((peer.host, peer.port), 60) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(not nagle))
        line.sendall(request(b"BENCH", peer.ae_title.encode(), kind.storage))
        most = min(PDU, largest(read_pdu(line)))
        ready.wait(PATIENCE_S)
        begin = time.time()
        for one in range(kind.objects):
            instance = place + b"%08d" % (number * 100_000 + one)
            whole = b"".join((body[:at], instance, body[at + len(instance) :]))
            began = time.perf_counter()
            line.sendall(data(3, 3, command(one + 1, instance.decode(), kind.storage)))
            for cut in range(0, len(whole), most - 6):
                line.sendall(data(3, 2 * (cut + most - 6 >= len(whole)), whole[cut : cut + most - 6]))
            answer = read_pdu(line)
            took.append(time.perf_counter() - began)
            if not is_success(answer):
                raise RuntimeError("an object was not answered with Success")
        ended = time.time()
        line.sendall(pdu(5, bytes(4)))
        read_pdu(line)
    answers.put((begin, ended, took))


def cell(peer: Peer, name: str, associations: int, run: int, nagle: bool) -> tuple[float, list[float]]:
    """Objects a second, and the seconds to Success of each."""
    answers: Queue[Sent] = multiprocessing.Queue()
    ready, limit = multiprocessing.Barrier(associations), time.time() + PATIENCE_S
    senders = [
        multiprocessing.Process(target=sender, args=(peer, name, run, number, nagle, ready, answers))
        for number in range(associations)
    ]
    for one in senders:
        one.start()
    found: list[Sent] = []
    while len(found) < len(senders):
        try:
            found.append(answers.get(timeout=1.0))
        except queue.Empty:
            if any(one.exitcode for one in senders) or time.time() > limit:
                for one in senders:
                    one.kill()
                raise RuntimeError("a sender failed, or was not answered: see above") from None
    for one in senders:
        one.join()
    took = [seconds for _, _, each in found for seconds in each]
    return len(took) / (max(ended for _, ended, _ in found) - min(begin for begin, _, _ in found)), took


def storescp(folder: Path) -> tuple[subprocess.Popen[bytes], Peer]:
    folder.mkdir()
    port = free_port()
    words = ["storescp", "-q", "--fork", "+xa", "-pm", "-aet", "STORESCP", "-od", str(folder), str(port)]
    return subprocess.Popen(words, env={**os.environ, "TCP_NODELAY": "1"}), Peer("STORESCP", "127.0.0.1", port)


def orthanc(folder: Path) -> tuple[subprocess.Popen[bytes], Peer]:
    folder.mkdir()
    port = free_port()
    said = {"StorageDirectory": str(folder), "IndexDirectory": str(folder), "DicomAet": "ORTHANC", "DicomPort": port}
    said |= {"HttpServerEnabled": False, "Plugins": [], "DicomAlwaysAllowStore": True, "DicomCheckCalledAet": False}
    (folder / "orthanc.json").write_text(json.dumps(said))
    words = [shutil.which("Orthanc") or "Orthanc", str(folder / "orthanc.json")]
    environment = {**os.environ, "TCP_NODELAY": "1"}
    process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
    return process, Peer("ORTHANC", "127.0.0.1", port)


def answer(peer: Peer) -> None:
    """Wait until the peer answers a C-ECHO."""
    deadline = time.monotonic() + 60
    while True:
        try:
            echo(peer, "BENCH", 5.0)
            return
        except Retry:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def spread(ours: list[float], theirs: list[float]) -> str:
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):5.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
