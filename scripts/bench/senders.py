"""Senders of other makers, and how each says what became of what it sent."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from edge_node.domain.errors import Retry
from edge_node.domain.worklist import Peer
from edge_node.service.sender import send_study
from tests.integration.needed_tools import need
from tests.integration.peers_orthanc import Orthanc

TIME_OUT_S = 300
# storescu proposes one compressed syntax at a time.
STORESCU = {
    ExplicitVRLittleEndian: "-xe",
    ImplicitVRLittleEndian: "-xi",
    ExplicitVRBigEndian: "-xb",
    DeflatedExplicitVRLittleEndian: "-xd",
    RLELossless: "-xr",
    JPEGBaseline8Bit: "-xy",
    JPEGExtended12Bit: "-xx",
    JPEGLosslessSV1: "-xs",
    JPEG2000Lossless: "-xv",
    JPEG2000: "-xw",
    JPEGLSLossless: "-xt",
    JPEGLSNearLossless: "-xu",
}
_ANSWER = re.compile(r"Received (?:C-STORE|Store) Response \((?:Status: 0x[0-9A-Fa-f]{4} - )?([^)]*)\)")
_ENDED = re.compile(r"Association (?:was )?(Rejected|Aborted)", re.IGNORECASE)
_PYNETDICOM = "from pynetdicom.apps.storescu.storescu import main; main()"


@dataclass
class Heard:
    """What a sender says: how many answers were Success, other answers in words, what else went wrong."""

    successes: int = 0
    others: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def ran(self, command: Sequence[str], *, quick: bool) -> None:
        """Run a program whose output names each answer; `quick` switches Nagle's algorithm off, which is on as DCMTK
        comes."""
        environment = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
        environment |= {"TCP_NODELAY": "1"} if quick else {}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TIME_OUT_S, env=environment, check=False
            )
        except subprocess.TimeoutExpired:
            self.faults.append("did not come to its end")
            return
        said = done.stdout + done.stderr
        for answer in _ANSWER.findall(said):
            if answer.startswith("Success"):
                self.successes += 1
            else:
                self.others.append(answer)
        self.faults += sorted({f"its association was {how.lower()}" for how in _ENDED.findall(said)})
        if done.returncode < 0:
            self.faults.append(f"ended by signal {-done.returncode}")


Files = dict[str, list[Path]]  # by transfer syntax
Send = Callable[[Files, Heard], None]


@dataclass(frozen=True)
class Sender:
    """`called` as in the table."""

    called: str
    send: Send


def senders(node: Peer, tls_port: int, ca: Path, orthanc: Orthanc) -> list[Sender]:
    """All of them, against one node; Orthanc knows it as modality `node`."""
    where = [node.host, str(node.port)]
    over_tls = ["+tla", "+cf", str(ca)]

    def storescu(files: Files, heard: Heard, calling: str, *, quick: bool = True, tls: bool = False) -> None:
        for syntax, paths in files.items():
            words = [need("storescu"), "-v", "-nh", "-R", STORESCU.get(syntax, "-xe"), "-aet", calling]
            words += ["-aec", node.ae_title, *(over_tls if tls else ())]
            heard.ran([*words, node.host, str(tls_port if tls else node.port), *map(str, paths)], quick=quick)

    def one_by_one(files: Files, heard: Heard) -> None:
        for syntax, paths in files.items():
            for path in paths:
                storescu({syntax: [path]}, heard, "STORESCU1")

    def dcmsend(files: Files, heard: Heard, *, quick: bool) -> None:
        words = [need("dcmsend"), "-v", "-nh", "-nuc", "-dn", "-aet", "DCMSEND", "-aec", node.ae_title]
        heard.ran([*words, *where, *map(str, _all(files))], quick=quick)

    def pynetdicom(files: Files, heard: Heard) -> None:
        words = [sys.executable, "-c", _PYNETDICOM, "-v", "-cx", "-aet", "PYNETDICOM", "-aec", node.ae_title]
        heard.ran([*words, *where, *map(str, _all(files))], quick=False)

    def own(files: Files, heard: Heard) -> None:
        """As dcm4che does it where it is told to: an association for each image."""
        for path in _all(files):
            try:
                for name, count in send_study([path], node, calling_ae="BYIMAGE").by_status.items():
                    if name == "SUCCESS":
                        heard.successes += count
                    else:
                        heard.others += [name] * count
            except Retry as error:
                heard.faults.append(error.code)

    def by_orthanc(files: Files, heard: Heard) -> None:
        for path in _all(files):
            try:
                stored = json.loads(orthanc.request("/instances", method="POST", body=path.read_bytes()))
            except urllib.error.HTTPError:
                continue  # what Orthanc itself does not read it cannot send
            try:
                orthanc.request("/modalities/node/store", method="POST", body=stored["ID"].encode())
                heard.successes += 1
            except urllib.error.HTTPError:
                heard.others.append("Orthanc could not store it")

    return [
        Sender("storescu", lambda files, heard: storescu(files, heard, "STORESCU")),
        Sender("storescu, Nagle on", lambda files, heard: storescu(files, heard, "STORESCU", quick=False)),
        Sender("storescu, TLS", lambda files, heard: storescu(files, heard, "STORESCU", tls=True)),
        Sender("storescu by image", one_by_one),
        Sender("dcmsend", lambda files, heard: dcmsend(files, heard, quick=True)),
        Sender("dcmsend, Nagle on", lambda files, heard: dcmsend(files, heard, quick=False)),
        Sender("Orthanc", by_orthanc),
        Sender("pynetdicom app", pynetdicom),
        Sender("own SCU by image", own),
    ]


def _all(files: Files) -> Iterable[Path]:
    return (path for paths in files.values() for path in paths)
