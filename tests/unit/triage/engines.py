"""Engines that fail on purpose, built inside of worker processes: they crash, hang, lose their device, answer NaN.

A file beside the package says that a failure was had once already.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from edge_node.triage.card import Card, load_card
from edge_node.triage.engine import Engine
from edge_node.triage.runner import CPU, CUDA, Device, DeviceLost, OutOfDeviceMemory, Runtime, Session, providers_for


class Stub:
    """What an engine is to its worker, without onnxruntime: it starts in a fraction of the time, raises nothing on any
    study and fails as `fail` says."""

    variant, provider, worst = "int8", CPU, 0.0

    def __init__(self, folder: Path, device: Device) -> None:
        self.card, self.mark = load_card(folder), folder.parent / "failed-once"
        self.placement = {CPU: 1}

    def run(self, inputs, time_limit_s):
        self.fail()
        return {"logits": np.full((len(inputs["slabs"]), 1, 40, 40), -5, np.float32)}

    def agree(self, known, limit_s):
        return None

    def prove(self) -> float:
        return self.worst

    def first_time(self) -> bool:
        known = self.mark.exists()
        self.mark.touch()
        return not known

    def fail(self) -> None:
        raise AssertionError


class CrashesOnce(Stub):
    def fail(self):
        if self.first_time():
            os.kill(os.getpid(), signal.SIGSEGV)


class Crashes(Stub):
    def fail(self):
        os.kill(os.getpid(), signal.SIGSEGV)


class Hangs(Stub):
    def fail(self):
        time.sleep(3600)


class Slow(Stub):
    def fail(self):
        time.sleep(0.3)


class LosesItsDevice(Stub):
    def fail(self):
        if self.first_time():
            raise DeviceLost


class HasNoMemory(Stub):
    def fail(self):
        raise OutOfDeviceMemory


class HasABug(Stub):
    def fail(self):
        raise RuntimeError


class SlowToStart(Stub):
    """Crashes in its first study, and comes back only when there is a file `may-start` beside the package."""

    def __init__(self, folder: Path, device: Device) -> None:
        super().__init__(folder, device)
        while self.mark.exists() and not (folder.parent / "may-start").exists():
            time.sleep(0.02)

    def fail(self):
        if self.first_time():
            os.kill(os.getpid(), signal.SIGKILL)


class LosesAllDevices(Stub):
    """Needs a GPU that is lost with the first study and never seen again."""

    def __init__(self, folder: Path, device: Device) -> None:
        super().__init__(folder, device)
        providers_for(Device("cuda", require_gpu=True), FakeGpu(devices=int(not self.mark.exists())))

    def fail(self):
        self.first_time()
        raise DeviceLost


class SaysNaN(Engine):
    """Right on the golden vectors, NaN on anything else (two golden slabs, other counts are studies)."""

    def __init__(self, folder: Path, device: Device) -> None:
        super().__init__(load_card(folder), device, Nonsense(broken=False))


class SaysNaNForEver(Engine):
    """Right while it starts, then NaN on everything."""

    def __init__(self, folder: Path, device: Device) -> None:
        super().__init__(load_card(folder), device, Nonsense(broken=True))


class Nonsense(Runtime):
    def __init__(self, *, broken: bool) -> None:
        self.broken = broken

    def open(self, model, providers, device):
        session = super().open(model, providers, device)
        session.__class__ = NonsenseSession
        session.broken, session.runs = self.broken, 0
        return session


class NonsenseSession(Session):
    def run(self, inputs, time_limit_s):
        out = super().run(inputs, time_limit_s)
        self.runs += 1
        if self.runs > 1 and (self.broken or len(inputs["slabs"]) != 2):
            out["logits"] = np.full_like(out["logits"], np.nan)
        return out


class FakeGpu(Runtime):
    """A machine with `devices` GPUs, on which sessions say they run; `room` items fit at once, `falls_back` is what
    onnxruntime does when a CUDA library is missing, `wrong` what the GPU does to outputs but the golden ones."""

    def __init__(self, *, devices: int = 1, room: int = 1000, falls_back: bool = False, wrong=None) -> None:
        self.devices, self.room, self.falls_back, self.wrong = devices, room, falls_back, wrong
        self.opened: list[tuple[str, ...]] = []

    def gpus(self):
        return self.devices

    def available(self):
        return (CUDA, CPU)

    def open(self, model, providers, device):
        self.opened.append(providers)
        session = super().open(model, (CPU,), device)
        session.__class__ = FakeGpuSession
        session.room, session.wrong, session.runs = self.room, self.wrong, 0
        if providers[0] == CUDA and not self.falls_back:
            session.provider, session.placement = CUDA, {CUDA: 21, CPU: 1}
        return session


class FakeGpuSession(Session):
    def run(self, inputs, time_limit_s):
        if self.provider == CUDA and len(next(iter(inputs.values()))) > self.room:
            raise OutOfDeviceMemory
        out = super().run(inputs, time_limit_s)
        self.runs += 1
        return self.wrong(out) if self.provider == CUDA and self.wrong and self.runs > 1 else out


class SoundGpu(Engine):
    """A GPU that answers as the CPU does."""

    def __init__(self, folder: Path, device: Device) -> None:
        super().__init__(load_card(folder), Device("auto", threads=1), FakeGpu())


class WrongOnItsGpu(Engine):
    """A GPU that is right on the golden vectors, and says a little more on anything else."""

    def __init__(self, folder: Path, device: Device) -> None:
        super().__init__(load_card(folder), Device("auto", threads=1), FakeGpu(wrong=louder))


class MovesToAWrongGpu(Engine):
    """Runs on the CPU until its worker dies, then on a GPU that errs."""

    def __init__(self, folder: Path, device: Device) -> None:
        self.mark, self.runs = folder.parent / "moved", 0
        runtime = FakeGpu(devices=int(self.mark.exists()), wrong=louder)
        super().__init__(load_card(folder), Device("auto", threads=1), runtime)

    def run(self, inputs, time_limit_s):
        self.runs += 1
        if self.runs > 1 and self.provider == CPU:  # the first is the golden one
            self.mark.touch()
            raise DeviceLost
        return super().run(inputs, time_limit_s)


class NotInTime(SoundGpu):
    """A sound GPU beside a CPU that has no time."""

    def agree(self, known, limit_s):
        return super().agree(known, -1.0)


class WrongOnceItDied(Engine):
    """A GPU that would be found out by a comparison as soon as there is the mark."""

    def __init__(self, folder: Path, device: Device) -> None:
        wrong = louder if (folder.parent / "failed-once").exists() else None
        super().__init__(load_card(folder), Device("auto", threads=1), FakeGpu(wrong=wrong))


class TellsItsCard(Stub):
    """Says for whom and with which threshold it would decide."""

    def __init__(self, card: Card) -> None:
        self.placement = {card.site: 1}
        self.worst = card.point("int8", card.first).threshold


def tells_its_card(card, device, prepare):
    return TellsItsCard(card)


def louder(outputs):
    return {name: array + np.float32(6) for name, array in outputs.items()}


class LosesItsGpu(Engine):
    """A GPU that is lost in the middle of a study and gone afterwards."""

    def __init__(self, folder: Path, device: Device) -> None:
        self.mark, self.runs = folder.parent / "failed-once", -1000  # while it is proven it stays
        super().__init__(load_card(folder), Device("auto", threads=1), FakeGpu(devices=int(not self.mark.exists())))

    def agree(self, known, limit_s):
        found = super().agree(known, limit_s)
        self.runs = 0
        return found

    def run(self, inputs, time_limit_s):
        self.runs += 1
        if self.runs == 2 and not self.mark.exists():
            self.mark.touch()
            raise DeviceLost
        return super().run(inputs, time_limit_s)


def crashes_at_start(card, device, prepare):
    os.kill(os.getpid(), signal.SIGKILL)


def build(kind, card, device, prepare):
    return kind(card.folder, device)
