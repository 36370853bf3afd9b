"""When a study may be pulled, and what a list may hold."""

from __future__ import annotations

from contextlib import suppress
from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.config.load import ConfigInvalid, load
from edge_node.domain.errors import Stop
from edge_node.domain.pull import Kind, Wanted
from edge_node.service.pull_requests import days_between, named, patients_in, studies_in
from edge_node.service.pulling import in_window

MINUTES = st.integers(0, 24 * 60 - 1)


def clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


@given(MINUTES, st.integers(1, 24 * 60 - 1), MINUTES)
def test_a_window_opens_at_its_first_minute_and_closes_at_its_last_over_midnight_too(
    first: int, length: int, now: int
) -> None:
    text = f"{clock(first)}-{clock((first + length) % (24 * 60))}"
    moment = datetime(2026, 3, 4) + timedelta(minutes=now)
    assert in_window([text], moment) == ((now - first) % (24 * 60) < length)


def test_without_windows_it_is_always_time_and_of_several_one_is_enough() -> None:
    noon = datetime(2026, 3, 4, 12)
    assert in_window([], noon)
    assert in_window(["22:00-06:00", "11:00-13:00"], noon)
    assert not in_window(["22:00-06:00", "13:00-14:00"], noon)


@pytest.mark.parametrize("window", ["22-6", "24:00-06:00", "22:00-22:00", "22:00 - 06:00", "22:60-06:00"])
def test_a_window_that_is_none_is_refused(window: str) -> None:
    with pytest.raises(ConfigInvalid, match="HH:MM-HH:MM"):
        load(environ={}, flags={"pull.windows": [window]})


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ({"pull.method": "move"}, "no .peers.pacs."),
        ({"pull.method": "web"}, "needed when pull.method is web"),
        ({"pull_web.url": "http://pacs.example/dicom-web"}, "unencrypted"),
        ({"pull.destination": "A" * 17}, "AE title"),
    ],
)
def test_a_pull_that_cannot_work_is_refused_at_the_start(flags: dict[str, object], names: str) -> None:
    with pytest.raises(ConfigInvalid, match=names):
        load(environ={}, flags=flags)


def test_lists_hold_uids_accession_numbers_patients_and_remarks() -> None:
    lines = ["\ufeff1.2.840.3", "# 1.2.3", "", "A-17 4", "20240101", "1.2.", "  "]
    assert [(one.kind, one.value) for one in studies_in(lines)] == [
        (Kind.STUDY, "1.2.840.3"),
        (Kind.ACCESSION, "A-17 4"),
        (Kind.ACCESSION, "20240101"),
        (Kind.ACCESSION, "1.2."),
    ]
    assert list(patients_in(["P1\tHOSPITAL", "P2"], "CT")) == [
        Wanted(Kind.PRIORS, "P1", "HOSPITAL", "CT"),
        Wanted(Kind.PRIORS, "P2", "", "CT"),
    ]


@given(st.text())
def test_no_line_of_a_list_is_ever_shown_or_searched_for_with_a_wildcard(text: str) -> None:
    marked = f"ZZSECRET{text}"
    if set(marked) & set("*?\\"):
        with pytest.raises(Stop) as caught:
            list(studies_in([marked]))
        assert "ZZSECRET" not in str(caught.value)
        return
    with suppress(Stop):
        for one in studies_in([marked]):
            assert one.value.startswith("ZZSECRET")
            assert "ZZSECRET" not in repr(one)


def test_a_range_is_asked_day_by_day_the_newest_first() -> None:
    asked = [one.value for one in days_between(date(2024, 2, 28), date(2024, 3, 1))]
    assert asked == ["20240301", "20240229", "20240228"]
    for first, last in ((date(2024, 1, 2), date(2024, 1, 1)), (date(1990, 1, 1), date(2024, 1, 1))):
        with pytest.raises(Stop, match=r"pull\.bad-range"):
            list(days_between(first, last))


def test_the_nodes_name_for_a_request_tells_kinds_issuers_and_keys_apart() -> None:
    asked = [
        Wanted(Kind.ACCESSION, "1.2"),
        Wanted(Kind.STUDY, "1.2"),
        Wanted(Kind.PRIORS, "1.2"),
        Wanted(Kind.PRIORS, "1.2", "A"),
        Wanted(Kind.PRIORS, "1.2", "", "A"),
    ]
    names = {named(key, one).request_key for one in asked for key in (b"k" * 32, b"l" * 32)}
    assert len(names) == 10
    assert not any("1.2" in name for name in names)
