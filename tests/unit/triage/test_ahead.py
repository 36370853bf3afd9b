"""Slices are decoded while their study is still coming in, and nothing depends on it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import RLELossless

from edge_node.domain.study import CleanObject, CleanStudy
from edge_node.triage.ahead import Ahead, Decoder
from edge_node.triage.headers import read_headers
from edge_node.triage.process import ModelProcess
from edge_node.triage.rule import parse
from edge_node.triage.runner import Arrays
from edge_node.triage.select import candidates
from edge_node.triage.series_volume import Volumes
from tests.unit.triage.hazards import enhanced
from tests.unit.triage.studies import clean_study, ct_slice

SLICES, SIDE = 8, 24
ROOM = SLICES * SIDE * SIDE * 2


class Deadly(Decoder):
    """Its codec falls over one image: the one whose first value is 7."""

    def run(self, inputs: Arrays, time_limit_s: float) -> Arrays:
        made = super().run(inputs, time_limit_s)
        if made["stored"].flat[0] == 7:
            os.kill(os.getpid(), signal.SIGSEGV)
        return made


def slices() -> list[Dataset]:
    rng = np.random.default_rng(5)
    made = [
        ct_slice(rng.integers(-900, 900, (SIDE, SIDE)), position=(0.0, 0.0, 10.0 * k), spacing=(4.0, 4.0), number=k)
        for k in range(SLICES)
    ]
    for ds in made:
        ds.compress(RLELossless)
    return made


def unread(item: CleanObject) -> CleanObject:
    """The object, which must not be read any more."""

    def read() -> bytes:
        raise AssertionError("decoded twice")

    return replace(item, read=read)


@pytest.fixture(scope="module")
def started() -> Iterator[Ahead]:
    made = Ahead(64 << 20, bool, processes=1)
    yield made
    made.close()


@pytest.fixture
def ahead(started: Ahead) -> Iterator[Ahead]:
    yield started
    started.forget_all_but(set())
    assert started._bytes == 0


def test_what_came_before_the_study_was_complete_is_decoded_once_and_the_volume_is_the_same(ahead: Ahead) -> None:
    study = clean_study(slices())
    [series] = candidates(read_headers(study.objects)[0], parse('Modality == "CT"'))
    alone = Volumes(1).of(series, time.monotonic() + 60)
    assert ahead.prepare(replace(study, objects=study.objects[:4])) == 4
    assert ahead.prepare(study) == 4, "only what is new"
    assert ahead.prepare(study) == 0
    again = replace(series, slices=tuple(replace(h, item=unread(h.item)) for h in series.slices))
    with ahead.lent(study.study_key) as ready:
        volume = Volumes(1, ready=ready).of(again, time.monotonic() + 60)
        assert ready(study.objects[0]) is None, "each slice once: it must not be in memory twice"
    assert np.array_equal(volume.hu, alone.hu)
    assert ahead._bytes == 0


def test_what_is_not_ready_is_decoded_when_it_is_judged(ahead: Ahead) -> None:
    study = clean_study(slices())
    [series] = candidates(read_headers(study.objects)[0], parse('Modality == "CT"'))
    ahead.prepare(replace(study, objects=study.objects[:3]))
    with ahead.lent(study.study_key) as ready:
        volume = Volumes(1, ready=ready).of(series, time.monotonic() + 60)
    assert np.array_equal(volume.hu, Volumes(1).of(series, time.monotonic() + 60).hu)


def test_a_codec_that_falls_over_an_image_takes_nothing_along_and_is_not_asked_for_it_again() -> None:
    datasets = slices()
    deadly = ct_slice(np.full((SIDE, SIDE), 7 - 1024), position=(0.0, 0.0, 90.0), spacing=(4.0, 4.0), number=9)
    deadly.compress(RLELossless)
    ahead = Ahead(64 << 20, bool, processes=1)
    [sound] = ahead._processes
    ahead._processes = [ModelProcess("decode", Deadly, ())]
    ahead._idle.get()
    ahead._idle.put(ahead._processes[0])
    sound.close()
    try:
        study = clean_study([*datasets[:2], deadly, *datasets[2:]])
        assert ahead.prepare(study) == SLICES
        assert ahead._processes[0].restarts == 1
        assert ahead.prepare(study) == 0
        with ahead.lent(study.study_key) as ready:
            assert [ready(item) is None for item in study.objects].index(True) == 2
    finally:
        ahead.close()


def test_what_needs_no_codec_starts_no_process() -> None:
    ahead = Ahead(ROOM, bool, processes=1)
    plain = ct_slice(np.zeros((SIDE, SIDE)), position=(0.0, 0.0, 0.0), spacing=(4.0, 4.0), number=1)
    secondary = slices()[0]
    secondary.file_meta.MediaStorageSOPClassUID = secondary.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    assert ahead.prepare(clean_study([plain, secondary])) == 0
    assert ahead._processes[0].pid == 0
    ahead.close()


def test_an_object_of_many_frames_is_left_to_whoever_judges_it(ahead: Ahead) -> None:
    plain = [
        ct_slice(np.zeros((SIDE, SIDE)), position=(0.0, 0.0, 10.0 * k), spacing=(4.0, 4.0), number=k) for k in (1, 2)
    ]
    [many] = enhanced(plain)
    many.compress(RLELossless)
    assert ahead.prepare(clean_study([many])) == 0


def test_no_more_is_held_than_there_is_room_for_and_what_nobody_will_judge_makes_room(
    ahead: Ahead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "_most", ROOM // 2)
    study = clean_study(slices())
    other = CleanStudy("other", "2.25.2", 1, ("CT",), study.objects)
    assert ahead.prepare(study) == SLICES // 2
    assert ahead.prepare(other) == 0
    ahead.forget_all_but({"other"})
    assert ahead._bytes == 0
    assert ahead.prepare(other) == SLICES // 2
    with ahead.lent(study.study_key) as ready:
        assert ready(study.objects[0]) is None


def test_a_study_that_is_judged_meanwhile_leaves_nothing_behind(ahead: Ahead, monkeypatch: pytest.MonkeyPatch) -> None:
    study = clean_study(slices())
    [process] = ahead._processes
    run = process.run

    def while_it_is_judged(inputs: Arrays, limit_s: float) -> Arrays:
        with ahead.lent(study.study_key):
            return run(inputs, limit_s)

    monkeypatch.setattr(process, "run", while_it_is_judged)
    assert ahead.prepare(study) == 0
    assert (ahead._bytes, ahead._held, ahead._tried) == (0, {}, {})
