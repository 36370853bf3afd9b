"""Engines that fail on purpose, built inside of worker processes: they crash, hang, lose their device, answer NaN.

A file beside the package says that a failure was had once already.
"""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np

from edge_node.triage.card import load_card
from edge_node.triage.engine import Engine
from edge_node.triage.runner import CPU, CUDA, Device, DeviceLost, OutOfDeviceMemory, Runtime, Session


class Failing(Engine):
    """Sound while it is proven; `fail` after that."""

    ready = False

    def __init__(self, folder: Path, device: Device, runtime: Runtime | None = None) -> None:
        self.mark = folder.parent / "failed-once"
        super().__init__(load_card(folder), device, runtime or Runtime())
        self.ready = True

    def run(self, inputs, time_limit_s):
        if self.ready:
            self.fail()
        return super().run(inputs, time_limit_s)

    def first_time(self) -> bool:
        known = self.mark.exists()
        self.mark.touch()
        return not known

    def fail(self) -> None:
        raise AssertionError


class CrashesOnce(Failing):
    def fail(self):
        if self.first_time():
            os.kill(os.getpid(), signal.SIGSEGV)


class Crashes(Failing):
    def fail(self):
        os.kill(os.getpid(), signal.SIGSEGV)


class Hangs(Failing):
    def fail(self):
        time.sleep(3600)


class Slow(Failing):
    def fail(self):
        time.sleep(0.5)


class LosesItsDevice(Failing):
    def fail(self):
        if self.first_time():
            raise DeviceLost


class HasNoMemory(Failing):
    def fail(self):
        raise OutOfDeviceMemory


class HasABug(Failing):
    def fail(self):
        raise RuntimeError


class SlowToStart(Engine):
    """Crashes in its first study, and takes its time to come back."""

    def __init__(self, folder: Path, device: Device) -> None:
        self.mark, self.proven = folder.parent / "crashed-once", False
        if self.mark.exists():
            time.sleep(5)
        super().__init__(load_card(folder), device, Runtime())
        self.proven = True

    def run(self, inputs, time_limit_s):
        if self.proven and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(inputs, time_limit_s)


class LosesAllDevices(Failing):
    """Needs a GPU that is lost with the first study and never seen again."""

    def __init__(self, folder: Path, device: Device) -> None:
        gone = (folder.parent / "failed-once").exists()
        super().__init__(folder, Device("cuda", require_gpu=True, threads=1), FakeGpu(devices=int(not gone)))

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
    onnxruntime does when a CUDA library is missing."""

    def __init__(self, *, devices: int = 1, room: int = 1000, falls_back: bool = False) -> None:
        self.devices, self.room, self.falls_back = devices, room, falls_back
        self.opened: list[tuple[str, ...]] = []

    def gpus(self):
        return self.devices

    def available(self):
        return (CUDA, CPU)

    def open(self, model, providers, device):
        self.opened.append(providers)
        session = super().open(model, (CPU,), device)
        session.__class__ = FakeGpuSession
        session.room = self.room
        if providers[0] == CUDA and not self.falls_back:
            session.provider, session.placement = CUDA, {CUDA: 21, CPU: 1}
        return session


class FakeGpuSession(Session):
    def run(self, inputs, time_limit_s):
        if self.provider == CUDA and len(inputs["slabs"]) > self.room:
            raise OutOfDeviceMemory
        return super().run(inputs, time_limit_s)


class LosesItsGpu(Failing):
    """A GPU that is lost in the middle of a study and gone afterwards."""

    def __init__(self, folder: Path, device: Device) -> None:
        there = not (folder.parent / "failed-once").exists()
        self.runs = 0
        super().__init__(folder, Device("auto", threads=1), FakeGpu(devices=int(there)))

    def fail(self):
        self.runs += 1
        if self.runs == 2 and self.first_time():
            raise DeviceLost


def crashes_at_start(folder, device, prepare):
    os.kill(os.getpid(), signal.SIGKILL)


def build(kind, folder, device, prepare):
    return kind(folder, device)


crashes = partial(build, Crashes)
crashes_once = partial(build, CrashesOnce)
hangs = partial(build, Hangs)
slow = partial(build, Slow)
loses_its_device = partial(build, LosesItsDevice)
loses_its_gpu = partial(build, LosesItsGpu)
has_no_memory = partial(build, HasNoMemory)
has_a_bug = partial(build, HasABug)
loses_all_devices = partial(build, LosesAllDevices)
slow_to_start = partial(build, SlowToStart)
says_nan = partial(build, SaysNaN)
says_nan_for_ever = partial(build, SaysNaNForEver)
