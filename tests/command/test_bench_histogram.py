"""The histogram of `trio-ws bench`, held against sorted lists."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st

from trio_ws._command.benching.histogram import Histogram


def histogram_of(times: list[float]) -> Histogram:
    histogram = Histogram()
    for seconds in times:
        histogram.record(seconds)
    return histogram


@given(
    st.lists(st.floats(0, 1000) | st.floats(0, 1e-6), min_size=1),
    st.sampled_from([0, 50, 90, 99, 99.9, 100]),
)
def test_a_percentile_is_at_most_a_hundredth_too_much(times: list[float], percent: float) -> None:
    histogram = histogram_of(times)
    wanted = max(math.ceil(round(len(times) * percent / 100, 6)), 1)
    exact = sorted(times)[wanted - 1]
    assert histogram.count == len(times)
    assert histogram.longest == max(times)
    # A nanosecond is the smallest time that it tells from the next one.
    assert exact - 1e-9 <= histogram.percentile(percent) <= exact * 1.01 + 1e-9


@pytest.mark.parametrize(
    ("percent", "expected"), [(50, 0.5), (90, 0.9), (99, 0.99), (99.9, 0.999), (100, 1)]
)
def test_percentiles_of_a_thousand_times(percent: float, expected: float) -> None:
    histogram = histogram_of([number / 1000 for number in range(1, 1001)])
    assert histogram.percentile(percent) == pytest.approx(expected, rel=0.01)


def test_of_no_times_it_says_nothing() -> None:
    assert math.isnan(Histogram().percentile(50))
    assert math.isnan(Histogram().longest)


def test_a_time_below_0_counts_as_0_and_the_longest_one_is_kept_however_long() -> None:
    histogram = histogram_of([-1, 1e12])
    assert histogram.percentile(50) == 0
    assert histogram.longest == 1e12
    assert histogram.percentile(100) == pytest.approx(2**50 / 1e9, rel=0.01)
