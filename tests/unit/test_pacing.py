"""The pure parts of the pace: buckets, windows, estimates, and what is read and written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.pacing import bucket, estimate, shared, state, tally, window
from worker.providers import told
from worker.routing import registry
from worker.routing.failures import ErrorClass

steps = st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 50)), min_size=1, max_size=60)


@given(steps, st.floats(0.5, 20), st.floats(1, 10))
def test_no_span_of_time_sees_more_than_the_refill_the_burst_and_one_call(
    asked: list[tuple[float, float]], per_s: float, burst: float
) -> None:
    tokens, now, went = bucket.Bucket(per_s, burst, 0.0), 0.0, list[tuple[float, float]]()
    for gap_s, amount in asked:
        now += gap_s
        if tokens.wait_s(amount, now) == 0:
            tokens.take(amount)
            went.append((now, amount))
    largest = max((amount for _, amount in went), default=0)
    for first, (begin, _) in enumerate(went):
        total = 0.0
        for at, amount in went[first:]:
            total += amount
            assert total <= per_s * (at - begin) + max(burst, largest) + 1e-6 * total


@given(st.floats(0.1, 1000), st.floats(0.5, 20), st.floats(1, 10))
def test_a_call_that_waits_as_long_as_it_is_told_may_go(amount: float, per_s: float, burst: float) -> None:
    tokens = bucket.Bucket(per_s, burst, 0.0)
    tokens.take(amount)
    assert tokens.wait_s(amount, tokens.wait_s(amount, 0.0)) == 0


def test_what_is_given_back_can_be_taken_at_once() -> None:
    tokens = bucket.Bucket(1.0, 10.0, 0.0)
    assert tokens.wait_s(10.0, 10.0) == 0
    tokens.take(10.0)
    assert tokens.wait_s(10.0, 10.0) == 10.0
    tokens.take(-10.0)
    assert tokens.wait_s(10.0, 10.0) == 0


def play(calls: window.Window, refused: int, answered: int) -> None:
    round_no = calls.round_no
    for _ in range(refused):
        calls.settled(round_no, refused=True)
    for _ in range(answered):
        calls.settled(round_no, refused=False)


def test_a_round_of_refusals_halves_the_window_once() -> None:
    calls = window.Window(64)
    play(calls, 64, 0)
    assert calls.size == 32


def test_a_round_of_answers_widens_it_by_one_up_to_what_is_configured() -> None:
    calls = window.Window(32)
    play(calls, 32, 0)
    for expected in [*range(17, 33), 32, 32]:
        play(calls, 0, 32)
        assert calls.size == expected


def test_a_few_refusals_among_many_answers_leave_the_window_as_it_is() -> None:
    calls = window.Window(64)
    play(calls, 64, 0)
    for _ in range(10):
        play(calls, 3, 29)
    assert calls.size == 32


def test_the_window_never_closes() -> None:
    calls = window.Window(8)
    for _ in range(20):
        play(calls, 32, 0)
    assert calls.size == 1
    play(calls, 0, 32)
    assert calls.size == 2


def test_calls_from_before_a_step_do_not_count_after_it() -> None:
    calls = window.Window(64)
    before = calls.round_no
    play(calls, 64, 0)
    for _ in range(1000):
        calls.settled(before, refused=True)
    assert calls.size == 32


def test_estimates_follow_what_calls_use() -> None:
    ratio = estimate.Ratio()
    assert ratio.value == 1.0
    for _ in range(10):
        ratio.learn(1000, 50)
    assert ratio.value == pytest.approx(0.05)
    for _ in range(200):
        ratio.learn(1000, 100)
    assert ratio.value == pytest.approx(0.1, rel=0.02)


def test_nothing_estimated_teaches_nothing() -> None:
    ratio = estimate.Ratio()
    ratio.learn(0, 0)
    assert ratio.value == 1.0


@pytest.mark.parametrize(
    ("outcome", "counted"),
    [
        (None, (1, 0, 0)),
        (ErrorClass.PROMPT, (1, 0, 0)),  # it refused the prompt: it works
        (ErrorClass.TRANSIENT, (0, 1, 0)),
        (ErrorClass.OVERLOADED, (0, 1, 0)),
        (ErrorClass.TIMEOUT, (0, 1, 0)),
        (ErrorClass.RATE_LIMITED, (0, 0, 1)),
        (ErrorClass.AUTH, (0, 0, 0)),  # says nothing of whether it works
    ],
)
def test_outcomes_count_for_the_breaker_or_the_pause(
    outcome: ErrorClass | None, counted: tuple[int, int, int]
) -> None:
    sums = tally.Tally()
    sums.came_back(outcome, None, None)
    assert (sums.ok, sums.bad, sums.limited) == counted
    assert not sums.is_empty


def test_requests_of_a_day_are_told_apart_from_those_of_a_minute() -> None:
    heard = told.Told(requests_limit=5000, requests_remaining=0, requests_reset_s=1.5, requests_period="day")
    assert shared.windows(heard) == {"d": shared.ToldWindow(5000, 0, 1500.0)}
    minute = told.Told(requests_limit=50, tokens_limit=9, tokens_remaining=3)
    assert shared.windows(minute) == {"r": shared.ToldWindow(50), "t": shared.ToldWindow(9, 3)}
    assert shared.windows(told.Told()) == {}


def test_limits_that_the_registry_leaves_out_are_no_limits() -> None:
    assert shared.amounts(registry.Limits(rpm=5, output_tpm=7, concurrency=3)) == {"r": 5.0, "o": 7.0}


def test_the_state_of_a_scope_names_what_is_paused_and_what_was_learned() -> None:
    fields = {
        "breaker": "open",
        "open_until": "61000",
        "paused_until": "62000",
        "why": "rate limited",
        "told_r": "600",
        "trim": "0.9",
        "day_used": "12",
    }
    found = state.read("groq:default:openai/gpt:oss", fields, 60_000.0)
    assert (str(found.route), found.account) == ("groq/openai/gpt:oss", "default")
    assert found.breaker == "open" and found.probe_at is not None and found.probe_at.timestamp() == 61
    assert found.paused_until is not None and found.why_paused == "rate limited"
    assert (found.learned, found.rate_share, found.day_used) == ({"r": 600.0}, 0.9, 12)
    later = state.read("groq:default:m", fields, 63_000.0)
    assert (later.paused_until, later.why_paused) == (None, None)
