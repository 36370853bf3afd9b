"""What a model does to its worker stays in its worker; what it says is believed only if a sound model could say it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest

from edge_node.demo.phantom import head_phantom
from edge_node.domain.errors import Retry, Stop
from edge_node.domain.finding import TriageOutcome, Verdict
from edge_node.domain.model import Stage
from edge_node.triage import judge, process
from edge_node.triage.judge import Triage
from edge_node.triage.model import ModelFault, Source, Terms, load_model
from edge_node.triage.rule import parse
from edge_node.triage.runner import CPU, CUDA, OutOfTime
from edge_node.triage.turns import Turns
from tests.unit.triage import engines
from tests.unit.triage.studies import ON_CPU, REFERENCE, clean_study, ct_slices, loaded


@pytest.fixture
def package(tmp_path):
    return shutil.copytree(REFERENCE, tmp_path / "ref")


@pytest.fixture(autouse=True)
def _hard_stop_at_once(monkeypatch):
    """Whoever hangs here heeds no soft stop."""
    monkeypatch.setattr(process, "GRACE_S", 0.2)


@pytest.fixture(scope="module")
def _reference():
    model = loaded()
    yield model
    model.process.close()


@pytest.fixture
def sound(_reference):
    """The reference model, with one worker for all tests: nothing here may harm it."""
    yield replace(_reference)
    assert (_reference.fault, _reference.process.restarts) == ("", 0)


@contextmanager
def model_that(package, kind):
    """The package, run by an engine of this kind."""
    model = loaded(package, make=partial(engines.build, kind))
    try:
        yield model
    finally:
        model.process.close()


def until(what):
    """Wait for something that must come."""
    for _ in range(1000):
        if what():
            return
        time.sleep(0.01)
    raise AssertionError


def at_work(model):
    """Whether its worker is asked something, or is being started."""
    return model.process._turns._taken


@cache
def study():
    return clean_study(ct_slices(head_phantom(79, kind="epidural", slices=22, rows=160)))


@cache
def healthy():
    return clean_study(ct_slices(head_phantom(79, kind=None, slices=22, rows=160)))


def slabs(count):
    return {"slabs": np.full((count, 5, 160, 160), 0.5, np.float32)}


def soon(seconds=60.0):
    return time.monotonic() + seconds


def test_a_model_that_crashes_once_is_tried_again_and_the_study_gets_its_answer(package):
    with model_that(package, engines.CrashesOnce) as model:
        result = Triage([model], threads=1, time_limit_s=60).judge(study())
        assert model.process.restarts == 1
        assert not model.fault
    assert result.top is not None
    assert result.top.verdict is not Verdict.CANNOT_JUDGE


def test_a_model_that_crashes_twice_is_out_of_service_and_the_others_go_on(package, sound):
    told = []
    with model_that(package, engines.Crashes) as bad:
        triage = Triage([bad, sound], threads=1, time_limit_s=60, on_fault=told.append)
        result = triage.judge(study())
        assert bad.process.pid == 0
        verdicts = {finding.verdict for finding in result.findings}
        assert told == [bad]
        assert bad.fault.startswith("model.crashed: its worker died twice")
        assert Verdict.CANNOT_JUDGE in verdicts
        assert verdicts & {Verdict.FLAGGED, Verdict.NOT_FLAGGED}
        again = triage.judge(study())
    assert len(again.findings) == 1
    assert "model.crashed" in again.unavailable[0]


@pytest.mark.parametrize(
    ("kind", "of_the_failing"),
    [
        (engines.HasNoMemory, Stage.SHADOW),
        (engines.HasABug, Stage.INFORMATION),
        (engines.LosesAllDevices, Stage.LIVE),
    ],
)
def test_what_fails_under_one_model_takes_no_flag_of_another_along(package, sound, kind, of_the_failing):
    with model_that(package, kind) as bad:
        bad.stage = of_the_failing
        result = Triage([bad, sound], threads=1, time_limit_s=60).judge(study())
    assert [finding.verdict for finding in result.findings] == [Verdict.FLAGGED]
    assert result.key_image is not None
    [said] = result.unavailable
    assert said.startswith("ref-ct-head-hyperdensity 1.1.0 (")
    assert said.endswith((": triage.gpu-memory", ": triage.inference-failed", ": triage.no-gpu"))


@pytest.mark.parametrize(
    ("failing", "other", "raised"),
    [
        (Stage.INFORMATION, Stage.SHADOW, True),  # nobody waits for a flag of the shadow
        (Stage.SHADOW, Stage.SHADOW, False),
    ],
)
def test_a_failure_is_tried_again_only_for_a_model_that_speaks(package, sound, failing, other, raised):
    with model_that(package, engines.HasNoMemory) as bad:
        bad.stage, sound.stage = failing, other
        triage = Triage([bad, sound], threads=1, time_limit_s=60)
        if raised:
            with pytest.raises(Retry) as caught:
                triage.judge(study())
            assert caught.value.code == "triage.gpu-memory"
        else:
            assert len(triage.judge(study()).findings) == 1


def test_a_model_that_speaks_and_fails_is_tried_again_though_another_did_not_flag(package, sound):
    with model_that(package, engines.HasNoMemory) as bad, pytest.raises(Retry):
        Triage([bad, sound], threads=1, time_limit_s=60).judge(healthy())


@pytest.mark.parametrize("stage", [Stage.LIVE, Stage.SHADOW])
def test_a_device_that_is_gone_stops_the_role_whatever_else_failed(package, tmp_path, stage):
    other = shutil.copytree(REFERENCE, tmp_path / "other" / "ref")
    with model_that(package, engines.LosesAllDevices) as gone, model_that(other, engines.HasNoMemory) as full:
        gone.stage = stage
        with pytest.raises(Stop) as caught:
            Triage([gone, full], threads=1, time_limit_s=60).judge(study())
    assert caught.value.code == "triage.no-gpu"


def test_models_in_shadow_have_a_time_of_their_own_and_all_together_no_more(package, sound, tmp_path, monkeypatch):
    monkeypatch.setattr(judge, "SHADOW_S", 3.0)
    more = shutil.copytree(REFERENCE, tmp_path / "more" / "ref")
    with model_that(package, engines.Hangs) as one, model_that(more, engines.Hangs) as two:
        one.stage = two.stage = Stage.SHADOW
        began = time.monotonic()
        result = Triage([one, two, sound], threads=1, time_limit_s=60).judge(study())
        assert time.monotonic() - began < 30
        assert (one.process.pid, bool(two.process.pid)) == (0, True)  # no time was left to ask the second one
    assert [finding.verdict for finding in result.findings] == [Verdict.FLAGGED]
    assert [said.rpartition(": ")[2] for said in result.unavailable] == ["triage.time-limit"] * 2


def test_where_nobody_speaks_a_model_in_shadow_has_all_the_time_there_is(sound, monkeypatch):
    monkeypatch.setattr(judge, "SHADOW_S", 0.0)
    alone = replace(sound, stage=Stage.SHADOW)
    assert len(Triage([alone], threads=1, time_limit_s=60).judge(study()).findings) == 1
    assert len(Triage([alone, sound], threads=1, time_limit_s=60).judge(study()).findings) == 1


def test_where_only_a_model_in_shadow_was_too_late_the_reason_names_its_time(package, sound, monkeypatch):
    monkeypatch.setattr(judge, "SHADOW_S", 0.5)
    with model_that(package, engines.Hangs) as trial:
        trial.stage, sound.rule = Stage.SHADOW, parse('Modality == "MR"')
        result = Triage([trial, sound], threads=1, time_limit_s=60).judge(study())
    assert result.reason == "triage.time-limit: not judged within 0.5 s"


def test_a_worker_that_starts_slowly_delays_nobody_and_is_ready_for_a_later_study(package):
    with model_that(package, engines.SlowToStart) as model:
        began = time.monotonic()
        result = Triage([model], threads=1, time_limit_s=1.5).judge(study())
        assert time.monotonic() - began < 10
        assert result.reason.startswith("triage.time-limit: not judged within 1.5 s")
        assert not model.fault
        (package.parent / "may-start").touch()
        assert len(model.run(slabs(2), soon(), 100)["logits"]) == 2
        assert model.process.restarts == 1


def test_a_worker_that_is_never_ready_again_is_out_of_service(package, monkeypatch):
    with model_that(package, engines.SlowToStart) as model:
        monkeypatch.setattr(process, "START_S", 0.5)
        with pytest.raises(ModelFault) as caught:
            model.run(slabs(2), soon(), 100)
        assert model.process.pid == 0
    assert caught.value.reason == "model.crashed"
    assert "not ready after 0.5 s" in caught.value.text


def test_a_package_that_changed_is_found_out_by_a_later_study_too_and_the_role_goes_on(package):
    with model_that(package, engines.Hangs) as model:
        with pytest.raises(OutOfTime):
            model.run(slabs(2), soon(0.5), 100)
        (package / "model.onnx").write_bytes(b"junk")
        with pytest.raises(ModelFault) as caught:
            model.run(slabs(2), soon(), 100)
    assert caught.value.reason == "triage.model-invalid"


def test_whoever_waits_for_a_turn_waits_no_longer_than_the_time_there_is(package):
    with model_that(package, engines.Hangs) as model:

        def hang():
            with pytest.raises(OutOfTime):
                model.run(slabs(2), soon(2), 15)

        hanging = threading.Thread(target=hang)
        hanging.start()
        until(lambda: at_work(model))
        with pytest.raises(OutOfTime):
            model.run(slabs(2), soon(0.3), 100)
        assert hanging.is_alive()
        hanging.join()


def test_one_who_gave_up_waiting_does_not_get_the_turn():
    turns, order = Turns(), []
    with turns.take(1):
        with pytest.raises(TimeoutError), turns.take(1, 0.05):
            order.append("never")

        def wait():
            with turns.take(2, 10) as left:
                order.append(left > 0)

        later = threading.Thread(target=wait)
        later.start()
        while not turns._waiting:
            time.sleep(0.01)
    later.join(5)
    assert order == [True]


def test_a_worker_that_is_killed_in_the_middle_of_a_study_takes_nothing_along(package):
    with model_that(package, engines.Slow) as model:
        killed = model.process.pid

        def kill():
            until(lambda: at_work(model))
            time.sleep(0.1)
            os.kill(killed, signal.SIGKILL)

        threading.Thread(target=kill).start()
        result = Triage([model], threads=1, time_limit_s=60).judge(study())
        assert model.process.pid not in (0, killed)
    assert result.top is not None
    assert result.top.verdict is not Verdict.CANNOT_JUDGE


def test_a_worker_that_dies_while_it_is_proven_is_no_model(package):
    with pytest.raises(Stop) as caught:
        loaded(package, make=engines.crashes_at_start)
    assert caught.value.code == "triage.model-crashed"


def test_a_model_that_hangs_is_stopped_at_the_limit_and_the_study_is_skipped(package):
    with model_that(package, engines.Hangs) as model:
        began = time.monotonic()
        result = Triage([model], threads=1, time_limit_s=3).judge(study())  # a busy machine takes one to prepare it
        assert time.monotonic() - began < 10
        assert model.process.pid == 0
        assert result.outcome is TriageOutcome.SKIPPED
        assert result.reason.startswith("triage.time-limit")
        assert not model.fault


def test_nan_is_never_an_answer(package):
    with model_that(package, engines.SaysNaN) as model:
        result = Triage([model], threads=1, time_limit_s=60).judge(study())
        assert result.top is not None
        assert result.top.verdict is Verdict.CANNOT_JUDGE
        assert result.top.reason.startswith("model.output: output logits holds values that are no numbers")
        assert result.top.probability == 0
        assert not model.fault  # it still gives its golden answers: this study it was


def test_a_model_whose_golden_answers_are_gone_too_is_out_of_service(package):
    with model_that(package, engines.SaysNaNForEver) as model:
        result = Triage([model], threads=1, time_limit_s=60).judge(study())
        assert result.top is not None
        assert result.top.verdict is Verdict.CANNOT_JUDGE
        assert model.fault.startswith("model.unproven")


def test_a_lost_device_is_looked_for_again(package):
    with model_that(package, engines.LosesItsDevice) as model:
        assert len(model.run(slabs(3), soon(), 100)["logits"]) == 3
        assert model.process.restarts == 1


def test_when_the_gpu_is_gone_the_whole_study_is_judged_by_one_variant(package, sound):
    with model_that(package, engines.LosesItsGpu) as model:
        assert (model.variant, model.provider) == ("fp32", CUDA)
        out = model.run(slabs(40), soon(), 100)["logits"]
        assert (model.variant, model.provider) == ("int8", CPU)
        assert model.identity.variant == "int8"
    np.testing.assert_array_equal(out, sound.run(slabs(40), soon(), 100)["logits"])


def test_a_full_device_is_a_retry_and_the_next_study_gets_a_fresh_worker(package):
    with model_that(package, engines.HasNoMemory) as model:
        with pytest.raises(Retry) as caught:
            model.run(slabs(1), soon(), 100)
        assert caught.value.code == "triage.gpu-memory"
        assert model.process.pid == 0


def test_a_package_that_changes_while_it_runs_is_found_out_at_the_next_start(package):
    with model_that(package, engines.CrashesOnce) as model:
        data = bytearray((package / "model.onnx").read_bytes())
        data[1000] ^= 4
        (package / "model.onnx").write_bytes(bytes(data))
        with pytest.raises(ModelFault) as caught:
            model.run(slabs(1), soon(), 100)
    assert caught.value.reason == "triage.model-invalid"
    assert "sha256 differs" in caught.value.text


def test_a_role_that_stops_in_the_middle_of_a_study_blames_no_model(package):
    with model_that(package, engines.Hangs) as model:
        ends = threading.Thread(target=lambda: (until(lambda: at_work(model)), model.process.close()))
        ends.start()
        with pytest.raises(Retry):
            model.run(slabs(1), soon(), 100)
        ends.join()
        assert not model.fault


def test_an_unsigned_package_runs_only_where_the_site_says_so_and_every_result_says_it(package):
    card = package / "card.toml"
    card.write_text(card.read_text() + "\n# changed by the site\n")
    with pytest.raises(Stop) as caught:
        load_model(Source(package), Terms(), ON_CPU)
    assert caught.value.code == "triage.model-unsigned"
    model = loaded(package)
    try:
        result = Triage([model], threads=1, time_limit_s=60).judge(study())
        assert "UNSIGNED" in model.label
    finally:
        model.process.close()
    assert result.top is not None
    assert result.top.model.label.startswith("UNSIGNED PACKAGE; ")
    assert result.top.model.trust == "unsigned"


def test_the_stage_of_a_model_is_in_what_it_says(sound):
    trial = replace(sound, stage=Stage.SHADOW)
    result = Triage([trial], threads=1, time_limit_s=60).judge(study())
    assert result.top is not None
    assert result.top.model.stage == "shadow"


def test_the_most_urgent_waits_for_one_turn_at_most():
    turns, order = Turns(), []
    begun, go = threading.Event(), threading.Event()

    def first():
        with turns.take(500, 10):
            begun.set()
            go.wait()

    def later(urgency):
        with turns.take(urgency, 10):
            order.append(urgency)

    threads = [threading.Thread(target=first)]
    threads[0].start()
    begun.wait()
    for urgency in (240, 60, 720, 15):
        threads.append(threading.Thread(target=later, args=(urgency,)))
        threads[-1].start()
    while len(turns._waiting) < 4:
        time.sleep(0.01)
    go.set()
    for thread in threads:
        thread.join()
    assert order == [15, 60, 240, 720]


def test_an_urgent_study_passes_a_long_one_at_the_next_batch(package):
    with model_that(package, engines.Slow) as model:
        done = []

        def routine():
            model.run(slabs(64), soon(), 720)  # four batches, each of which takes its time
            done.append("routine")

        thread = threading.Thread(target=routine)
        thread.start()
        until(lambda: at_work(model))
        model.run(slabs(4), soon(), 15)
        done.append("urgent")
        thread.join()
    assert done == ["urgent", "routine"]


def test_a_worker_loads_nothing_that_reads_dicom():
    """It starts in a fraction of the time, and somebody else's model has less around it."""
    code = (
        "import sys, edge_node.triage.process, edge_node.triage.model\n"
        "print([m for m in ('pydicom', 'PIL', 'sqlalchemy', 'mirp', 'scipy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_memory_of_a_large_question_is_given_back_and_that_of_a_small_one_stays(monkeypatch):
    memory = process._Memory(os.memfd_create("test"))
    small, large = np.arange(10, dtype=np.uint8), np.arange(1000, dtype=np.int64)
    monkeypatch.setattr(process, "KEPT", 100)
    try:
        for array, left in ((small, 10), (large, 0), (small, 10)):
            (got,) = memory.read(memory.write({"a": array})).values()
            np.testing.assert_array_equal(got, array)
            assert os.fstat(memory.fd).st_size == left
    finally:
        os.close(memory.fd)
