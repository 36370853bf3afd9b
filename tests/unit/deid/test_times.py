"""What a time may be, and what is a number of something else under its name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.deid.objects import clean, ct


@pytest.mark.parametrize(
    "text", ["10", "1015", "101500", "235960", "101500.1", "101500.123456", "10:15:00.5", "1000-1200", "-1200", "1000-"]
)
def test_a_time_stays_as_it_is(text: str) -> None:
    assert clean(ct(SeriesTime=text))[1].SeriesTime == text


@pytest.mark.parametrize(
    "text", ["0123456", "943476591", "24", "1060", "101561", "101500.1234567", "555-1234", "10.15.00"]
)
def test_a_number_that_is_no_time_goes(text: str) -> None:
    assert clean(ct(SeriesTime=text))[1].SeriesTime == ""


@pytest.mark.filterwarnings("ignore:Invalid value")
@pytest.mark.parametrize("text", ["\\".join([" "] * 5000) + "\\x", "12-" + " " * 60_000 + "x", "12\\" * 16_000 + "x"])
def test_a_long_value_that_is_almost_times_is_judged_at_all(text: str) -> None:
    assert clean(ct(SeriesTime=text))[1].SeriesTime == ""  # an expression that tried every way would not come back


@given(st.lists(st.times(), min_size=1, max_size=3))
def test_every_time_of_day_stays(moments: list[object]) -> None:
    texts = [format(moment, "%H%M%S.%f") for moment in moments]
    assert clean(ct(SeriesTime="\\".join(texts)))[0].part10.count(texts[0].encode()) >= 1
