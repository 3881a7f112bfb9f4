"""Delays between tries: they double, begin anew after a success, and differ between processes."""

from __future__ import annotations

from math import inf

from trio_ws._backoff import Backoff


def test_delays_double_up_to_the_longest() -> None:
    backoff = Backoff(first=0.5, longest=30, steady=10)
    delays = [backoff.delay(lasted) for lasted in (1.0, 9.9, -1.0, -inf, 0, 0, 0, 0)]
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_delays_begin_anew_after_what_held() -> None:
    backoff = Backoff(first=0.5, longest=30, steady=10)
    assert [backoff.delay(lasted) for lasted in (0, 0, 10, 0)] == [0.5, 1.0, 0.5, 1.0]


def test_what_held_may_be_tried_again_at_once() -> None:
    backoff = Backoff(first=0.5, longest=30, steady=10, at_once=True)
    assert [backoff.delay(lasted) for lasted in (0, 0, 10, 10, 0)] == [0.5, 1.0, 0.0, 0.0, 0.5]


def test_a_share_of_each_delay_is_left_out_at_random() -> None:
    backoff = Backoff(first=0.05, longest=2, steady=2, jitter=0.5)
    for longest in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2, 2):
        assert longest / 2 <= backoff.delay(lasted=0.1) <= longest


def test_many_do_not_come_at_once() -> None:
    def delay() -> float:
        return Backoff(first=1, longest=2, steady=2, jitter=0.5).delay(lasted=0)

    assert len({delay() for _ in range(10)}) > 5
