"""Rate limits of the simulator are strict in every window, and a wait that it names is enough."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.simulator import limits, rate_limits, settings

SPAN_S = 60.0

arrivals = st.lists(st.tuples(st.floats(0, 30, allow_nan=False), st.integers(1, 12)), min_size=1, max_size=80)


@given(arrivals, st.integers(1, 20))
def test_no_window_of_a_minute_ever_holds_more_than_the_limit(
    steps: list[tuple[float, int]], limit: int
) -> None:
    window = limits.SlidingWindow(limit, SPAN_S)
    now, taken = 0.0, list[tuple[float, int]]()
    for gap_s, amount in steps:
        now += gap_s
        wait_s = window.wait_s(amount, now)
        in_window = sum(units for at, units in taken if at + SPAN_S > now)
        # Strict, and no stricter: it fits exactly when the last minute leaves room.
        assert (wait_s == 0) == (in_window + amount <= limit)
        if wait_s == 0:
            window.take(amount, now)
            taken.append((now, amount))


@given(arrivals, st.integers(12, 20))
def test_a_call_that_comes_after_the_wait_it_was_told_is_let_in(
    steps: list[tuple[float, int]], limit: int
) -> None:
    window = limits.SlidingWindow(limit, SPAN_S)
    now = 0.0
    for gap_s, amount in steps:
        now += gap_s
        wait_s = window.wait_s(amount, now)
        if wait_s > 0:
            now += wait_s + 1e-6  # a client is never early by the rounding of a float
            assert window.wait_s(amount, now) == 0
        window.take(amount, now)


def test_a_call_larger_than_the_whole_limit_is_never_let_in() -> None:
    assert limits.SlidingWindow(10, SPAN_S).wait_s(11, 0.0) == SPAN_S


def test_a_refused_call_is_not_counted_by_any_limit() -> None:
    limiter = limits.Limiter(settings.Limits(rpm=10, tpm=100))
    assert limiter.admit(90, 0, 0.0) is None
    assert limiter.admit(20, 0, 1.0) == limits.Exceeded("tokens", 100, 59.0)
    assert limiter.requests is not None and limiter.requests.used == 1
    assert limiter.admit(10, 0, 2.0) is None


def test_the_calls_in_flight_are_limited_too() -> None:
    limiter = limits.Limiter(settings.Limits(concurrency=2))
    assert limiter.admit(1, 1, 0.0) is None
    refused = limiter.admit(1, 2, 0.0)
    assert refused is not None and (refused.scope, refused.limit) == ("concurrency", 2)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.12, "120ms"),
        (1, "1s"),
        (7.66, "7.66s"),
        (0.0001, "1ms"),
        (59.9996, "1m0s"),
        (360, "6m0s"),
        (179.56, "2m59.56s"),
        (83909.144, "23h18m29.144s"),
    ],
)
def test_durations_are_written_as_go_writes_them(seconds: float, text: str) -> None:
    assert rate_limits.go_duration(seconds) == text
