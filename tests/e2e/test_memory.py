"""Where identity is in memory: with the worker that de-identifies, and while a writer tells it; nowhere else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_node.demo.pacs import ToyPacs
from edge_node.demo.studies import DemoStudy
from edge_node.demo.trainer import ToyTrainer
from tests.e2e.site import Site


def test_after_the_last_result_only_the_deidentifying_worker_still_has_an_identity_in_its_memory(
    site: Callable[..., Site], pacs: ToyPacs, trainer: ToyTrainer, studies: dict[int, DemoStudy]
) -> None:
    node, study = site(pacs, trainer), studies[12]
    node.start()
    node.send(study)
    node.wait_for_state("DELIVERED")
    assert node.process is not None
    patient = study.patient
    needles = [text.encode() for text in (patient.name.split("^")[0], patient.patient_id, patient.accession)]
    looked, having = 0, []
    for pid in processes_of(node.process.pid):
        looked += 1
        if any(needle in piece for piece in memory(pid) for needle in needles):
            having.append(pid)
    # The supervisor, three roles, a worker and what it is forked from, the write-back, the pixels, a model: and of
    # these the worker, which is replaced when it has rested for a minute (test_receive_workers).
    assert looked >= 9
    [receiver] = (role["pid"] for role in node.ask("status")["roles"] if role["role"] == "dicom")
    assert receiver not in having
    assert len(having) == 1
    assert parent_of(parent_of(having[0])) == receiver
    assert node.stop() == 0


def processes_of(leader: int) -> Iterator[int]:
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(int(entry.name)) == leader:
                yield int(entry.name)


def parent_of(pid: int) -> int:
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("PPid")]
    return int(line.split()[1])


def memory(pid: int) -> Iterator[bytes]:
    """What a process may write to, region by region."""
    try:
        with Path(f"/proc/{pid}/mem").open("rb", 0) as whole:
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                place, rights, *_ = line.split()
                begin, end = (int(number, 16) for number in place.split("-"))
                if rights.startswith("rw") and "[v" not in line:
                    whole.seek(begin)
                    with contextlib.suppress(OSError):
                        yield whole.read(end - begin)
    except PermissionError:
        pytest.skip("not allowed to look into the memory of a process")
