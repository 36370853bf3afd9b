"""Sites and patients for the end-to-end tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_node.demo.pacs import ToyPacs
from edge_node.demo.studies import DemoStudy, make_studies
from edge_node.demo.trainer import ToyTrainer
from tests.e2e.site import Site


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[int, DemoStudy]:
    """The demo's patients, smaller; by arrival (1: head CT, 7: ultrasound, 8: broken, 12: head CT with a finding)."""
    made = make_studies(tmp_path_factory.mktemp("patients"), 5, slices=12, rows=128)
    return {study.arrival: study for study in made}


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[ToyPacs]:
    with ToyPacs(store=tmp_path / "pacs") as running:
        yield running


@pytest.fixture
def trainer(tmp_path: Path, studies: dict[int, DemoStudy]) -> Iterator[ToyTrainer]:
    needles = [needle for study in studies.values() for needle in study.needles]
    with ToyTrainer(store=tmp_path / "trainer", needles=needles) as running:
        yield running


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    sites: list[Site] = []

    def make(pacs: ToyPacs | None = None, trainer: ToyTrainer | None = None, **extra: dict[str, Any]) -> Site:
        folder = tmp_path / f"site{len(sites)}"
        folder.mkdir()
        sites.append(Site(folder, pacs, trainer, extra=extra))
        return sites[-1]

    yield make
    for one in sites:
        if one.process is not None and one.process.poll() is None:
            one.kill()
