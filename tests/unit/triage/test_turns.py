"""Of studies that are judged at once the most urgent one goes on, and the others wait where they can."""

from __future__ import annotations

import threading
import time

import pytest

from edge_node.triage import turns
from edge_node.triage.turns import Precedence

STAT, ROUTINE = 60.0, 720.0


def test_a_study_waits_while_a_more_urgent_one_is_judged_and_no_longer() -> None:
    precedence, passed = Precedence(), threading.Event()
    with precedence.judging(ROUTINE) as give_way:
        give_way()

        def go_on() -> None:
            give_way()
            passed.set()

        with precedence.judging(STAT) as urgent:
            urgent()
            waiting = threading.Thread(target=go_on)
            waiting.start()
            assert not passed.wait(0.1)
        assert passed.wait(5)
        waiting.join(5)
        with precedence.judging(ROUTINE) as equal:
            equal()
            give_way()


def test_nobody_waits_for_long_whatever_comes_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "GIVEN_WAY_S", 0.1)
    precedence = Precedence()
    with precedence.judging(ROUTINE) as give_way, precedence.judging(STAT):
        began = time.monotonic()
        for _ in range(100):
            give_way()
        assert 0.1 <= time.monotonic() - began < 5


def test_a_study_does_not_begin_while_a_more_urgent_one_is_judged_unless_it_has_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "GIVEN_WAY_S", 1.0)
    precedence = Precedence()
    assert precedence.may_begin(ROUTINE)
    assert not precedence.may_begin(None)
    with precedence.judging(STAT):
        assert precedence.may_begin(STAT)
        assert not precedence.may_begin(ROUTINE)
        time.sleep(1.0)
        assert precedence.may_begin(ROUTINE)
        with precedence.judging(ROUTINE) as give_way:
            began = time.monotonic()
            give_way()
            assert time.monotonic() - began < 0.8, "what it waited before it began counts"
        assert not precedence.may_begin(ROUTINE), "the next one has its own time"


def test_while_there_is_no_study_nothing_is_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "GIVEN_WAY_S", 0.1)
    precedence = Precedence()
    with precedence.judging(STAT):
        assert not precedence.may_begin(ROUTINE)
        time.sleep(0.1)
        assert not precedence.may_begin(None)
        assert not precedence.may_begin(ROUTINE)


def test_who_judges_more_urgent_studies_meanwhile_lets_the_one_that_waits_wait_no_longer_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "GIVEN_WAY_S", 0.3)
    precedence = Precedence()
    with precedence.judging(STAT):
        assert not precedence.may_begin(ROUTINE)
        with precedence.judging(STAT - 1) as give_way:
            began = time.monotonic()
            give_way()
            time.sleep(0.3)
        assert time.monotonic() - began < 5
        assert precedence.may_begin(ROUTINE)
