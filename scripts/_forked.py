"""Tries the mutants of some modules of edge_node/deid: `python _forked.py [--again] MODULE … -- PYTEST-ARGUMENT …`.

Runs where `scripts/mutants` works, with mutmut importable, which makes the mutants and keeps what became
of them. The tests are collected once, run once to see which functions each of them calls, and then, for each mutant, in
a fork: those that call the changed function, first the ones that noticed its other mutants. A mutant is killed by the
first test that fails, survives if none does, and times out when it takes many times the time of its tests. With
``--again`` what survived is tried again.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import mutmut.__main__ as mutmut
import pytest
from _pytest.runner import runtestprotocol
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state
from mutmut.utils.format_utils import mangled_name_from_mutant_name

SURVIVED, KILLED, NO_TESTS, TIMED_OUT, UNKNOWN = 0, 1, 33, 36, 35
JOBS = int(os.environ.get("MUTANTS_JOBS", "1"))


@dataclass
class Trial:
    """A mutant in a process of its own, which writes the number of the test that failed into a pipe."""

    data: SourceFileMutationData
    mutant: str
    pipe: int


@dataclass
class Mutants:
    modules: list[str]
    again: bool
    callers: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    seconds: list[float] = field(default_factory=list)
    noticed: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    running: dict[int, Trial] = field(default_factory=dict)
    items: list[pytest.Item] = field(default_factory=list)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        import edge_node

        if not Path(edge_node.__file__).is_relative_to(Path.cwd()):
            raise pytest.UsageError("the tests do not reach the changed code")
        self.items = session.items
        self._look()
        os.chdir("..")  # where mutmut keeps its results
        gc.collect()
        gc.freeze()  # forks share what is there instead of counting it anew
        for module in self.modules:
            self._try(module)
        while self.running:
            self._wait()
        os.chdir("mutants")
        return True

    def _look(self) -> None:
        set_mutant_under_test("stats")
        for number, item in enumerate(self.items):
            state()._stats.clear()
            before = time.process_time()
            if any(report.failed for report in runtestprotocol(item, nextitem=None, log=False)):
                raise pytest.UsageError(f"{item.nodeid} fails without any change")
            self.seconds.append(time.process_time() - before)
            for function in state()._stats:
                self.callers[function].append(number)
        set_mutant_under_test("")

    def _try(self, module: str) -> None:
        data = SourceFileMutationData(path=Path(f"edge_node/deid/{module}.py"))
        data.load()
        waiting = [
            name
            for name, code in data.exit_code_by_key.items()
            if code is None or (self.again and code not in (KILLED, TIMED_OUT))
        ]
        for count, mutant in enumerate(waiting):
            tests = self.callers.get(mangled_name_from_mutant_name(mutant), [])
            if not tests:
                data.exit_code_by_key[mutant] = NO_TESTS
                continue
            while len(self.running) >= JOBS:
                self._wait()
            self._start(data, mutant, tests)
            if count % 25 == 0:
                print(f"{module} {count} of {len(waiting)}", file=sys.stderr, flush=True)
        data.save()

    def _start(self, data: SourceFileMutationData, mutant: str, tests: list[int]) -> None:
        known = self.noticed[mangled_name_from_mutant_name(mutant)]
        order = sorted(tests, key=lambda number: (-known[number], self.seconds[number]))
        here, there = os.pipe()
        pid = os.fork()
        if pid:
            os.close(there)
            self.running[pid] = Trial(data, mutant, here)
            return
        code = UNKNOWN
        gc.disable()
        try:
            limit = int(10 + 8 * sum(self.seconds[number] for number in tests))
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
            resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, 1)
            os.dup2(nothing, 2)
            os.chdir("mutants")
            set_mutant_under_test(mutant)
            for number in order:
                os.write(there, number.to_bytes(4, "big"))
                if any(report.failed for report in runtestprotocol(self.items[number], nextitem=None, log=False)):
                    code = KILLED
                    break
            else:
                code = SURVIVED
        finally:
            os._exit(code)

    def _wait(self) -> None:
        pid, status = os.wait()
        trial = self.running.pop(pid)
        told = b""
        while piece := os.read(trial.pipe, 65536):
            told += piece
        os.close(trial.pipe)
        code = os.waitstatus_to_exitcode(status)
        if code == KILLED and told:
            self.noticed[mangled_name_from_mutant_name(trial.mutant)][int.from_bytes(told[-4:], "big")] += 1
        trial.data.exit_code_by_key[trial.mutant] = (
            code if code in (SURVIVED, KILLED) else TIMED_OUT if code < 0 else UNKNOWN
        )
        trial.data.save()


def main() -> None:
    told, pytest_arguments = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
    trial = Mutants([name for name in told if name != "--again"], "--again" in told)
    set_mutant_under_test("mutant_generation")
    Path("mutants").mkdir(exist_ok=True)
    mutmut.copy_src_dir()
    mutmut.copy_also_copy_files()
    mutmut.setup_source_paths()
    mutmut.store_lines_covered_by_tests()
    mutmut.create_mutants(1)
    set_mutant_under_test("")
    os.chdir("mutants")
    code = pytest.main(["-q", "--rootdir=.", "--tb=native", *pytest_arguments], plugins=[trial])
    sys.exit(code)


if __name__ == "__main__":
    main()
