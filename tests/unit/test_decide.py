from __future__ import annotations

import dataclasses
import datetime

import hypothesis
import pytest
from hypothesis import strategies as st

from worker.routing import decide
from worker.routing.decide import Fail, Failure, Fallback, Place, Policy, Retry
from worker.routing.failures import ErrorClass
from worker.routing.registry import Route

NOW = datetime.datetime(2026, 11, 23, 12, 0, tzinfo=datetime.UTC)

FIRST = Route("groq", "llama")
BESIDE = Route("cerebras", "oss")
SAME_PROVIDER = Route("groq", "oss")
LARGE = Route("openai", "sol")
LAST = Route("gemini", "flash")
CHAIN = ((FIRST, BESIDE), (SAME_PROVIDER,), (LARGE,), (LAST,))
WINDOWS = {FIRST: 100, BESIDE: 100, SAME_PROVIDER: 50, LARGE: 1000, LAST: 500}
POLICY = Policy()

FRESH = Place(category="code", route=FIRST, attempt_no=1, attempts_before=0)
WORN_OUT = dataclasses.replace(FRESH, attempt_no=3, attempts_before=2)
AT_THE_END = Place("code", LAST, attempt_no=3, attempts_before=5, tried=(FIRST, BESIDE, SAME_PROVIDER, LARGE))

LATER = "later"
FAIL = "fail"


def outcome(error_class: ErrorClass, place: Place, retry_after_s: float | None = None) -> Route | str:
    decision = decide.after(
        Failure(error_class, retry_after_s), place, CHAIN, POLICY, NOW, 0.5, windows=WINDOWS
    )
    if isinstance(decision, Fallback):
        return decision.route
    return LATER if isinstance(decision, Retry) else FAIL


@pytest.mark.parametrize(
    ("error_class", "fresh", "worn_out", "at_the_end"),
    [
        # refused everywhere alike
        (ErrorClass.PROMPT, FAIL, FAIL, FAIL),
        # only LARGE and LAST take more than FIRST; nothing after LAST does
        (ErrorClass.CONTEXT, LARGE, LARGE, FAIL),
        (ErrorClass.CONTENT, BESIDE, BESIDE, FAIL),
        # a throttle is no refusal: where nobody else is left, it is waited out
        (ErrorClass.RATE_LIMITED, LATER, BESIDE, LATER),
        (ErrorClass.OVERLOADED, LATER, BESIDE, LATER),
        (ErrorClass.TRANSIENT, LATER, BESIDE, FAIL),
        (ErrorClass.TIMEOUT, LATER, BESIDE, FAIL),
        (ErrorClass.MALFORMED, LATER, BESIDE, FAIL),
        (ErrorClass.LOST, LATER, BESIDE, FAIL),
        # the same call would end the same way
        (ErrorClass.QUOTA, BESIDE, BESIDE, FAIL),
        (ErrorClass.AUTH, BESIDE, BESIDE, FAIL),
        (ErrorClass.CONFIG, BESIDE, BESIDE, FAIL),
    ],
)
def test_each_class_has_its_way_at_the_first_failure_the_third_and_the_end_of_the_chain(
    error_class: ErrorClass, fresh: Route | str, worn_out: Route | str, at_the_end: Route | str
) -> None:
    assert outcome(error_class, FRESH) == fresh
    assert outcome(error_class, WORN_OUT) == worn_out
    assert outcome(error_class, AT_THE_END) == at_the_end


@pytest.mark.parametrize("error_class", list(ErrorClass))
def test_a_pinned_prompt_never_leaves_its_route(error_class: ErrorClass) -> None:
    pinned = dataclasses.replace(FRESH, pinned=True)
    worn_out = dataclasses.replace(WORN_OUT, pinned=True)
    assert outcome(error_class, pinned) == (LATER if error_class in decide.RETRIED else FAIL)
    assert outcome(error_class, worn_out) == (LATER if error_class in decide.THROTTLED else FAIL)


@pytest.mark.parametrize("error_class", list(ErrorClass))
def test_the_total_of_calls_ends_everything(error_class: ErrorClass) -> None:
    place = dataclasses.replace(FRESH, attempts_before=POLICY.max_attempts_total - 1)
    assert outcome(error_class, place) == FAIL


def test_fallback_goes_through_the_same_tier_first_then_down_and_never_back() -> None:
    place = FRESH
    visited = [place.route]
    while True:
        decision = decide.after(Failure(ErrorClass.CONFIG), place, CHAIN, POLICY, NOW, 0.5, windows=WINDOWS)
        if isinstance(decision, Fail):
            break
        assert isinstance(decision, Fallback)
        assert decision.tried == tuple(visited)
        visited.append(decision.route)
        place = Place("code", decision.route, 1, place.attempts_before + 1, decision.tried)
    assert visited == [FIRST, BESIDE, SAME_PROVIDER, LARGE, LAST]


def test_a_lower_tier_does_not_go_back_up_to_a_route_that_was_skipped() -> None:
    place = Place("code", LARGE, 1, 3, tried=(FIRST,))
    assert outcome(ErrorClass.CONFIG, place) == LAST


@pytest.mark.parametrize("error_class", [ErrorClass.AUTH, ErrorClass.QUOTA])
def test_a_refused_account_takes_its_other_models_along(error_class: ErrorClass) -> None:
    place = Place("code", FIRST, 1, 1, tried=(BESIDE,))
    assert outcome(error_class, place) == LARGE
    assert outcome(ErrorClass.CONFIG, place) == SAME_PROVIDER


def test_refused_content_gets_one_try_elsewhere() -> None:
    second = Place("code", BESIDE, 1, 1, tried=(FIRST,), reason=ErrorClass.CONTENT)
    assert outcome(ErrorClass.CONTENT, second) == FAIL
    after_another_cause = dataclasses.replace(second, reason=ErrorClass.TRANSIENT)
    assert outcome(ErrorClass.CONTENT, after_another_cause) == SAME_PROVIDER


def test_a_route_that_has_left_the_chain_falls_back_to_its_beginning() -> None:
    place = Place("code", Route("gone", "model"), 1, 0)
    assert outcome(ErrorClass.AUTH, place) == FIRST


def test_a_long_wait_moves_the_prompt_on_and_is_kept_where_nobody_else_is_left() -> None:
    hour_s = 3600.0
    assert outcome(ErrorClass.RATE_LIMITED, FRESH, retry_after_s=hour_s) == BESIDE
    decision = decide.after(
        Failure(ErrorClass.RATE_LIMITED, hour_s), AT_THE_END, CHAIN, POLICY, NOW, 0.5, windows=WINDOWS
    )
    assert decision == Retry(NOW + datetime.timedelta(seconds=hour_s))


@pytest.mark.parametrize(
    ("attempt_no", "jitter", "expected_s"),
    [
        (1, 0.0, 0.0),
        (1, 0.5, 0.25),  # half of base
        (2, 0.5, 0.5),  # half of base * 2
        (3, 0.5, 1.0),  # half of base * 4
        (7, 0.5, 15.0),  # base * 64 is 32: the cap of 30 holds
        (5000, 0.5, 15.0),  # and no overflow
    ],
)
def test_backoff_grows_to_its_cap_with_full_jitter(attempt_no: int, jitter: float, expected_s: float) -> None:
    assert decide.backoff_s(attempt_no, POLICY, jitter) == expected_s


@pytest.mark.parametrize(("asked_s", "expected_s"), [(None, 0.25), (0.1, 0.25), (7.5, 7.5)])
def test_a_wait_that_the_provider_asks_for_is_the_least(asked_s: float | None, expected_s: float) -> None:
    decision = decide.after(
        Failure(ErrorClass.RATE_LIMITED, asked_s), FRESH, CHAIN, POLICY, NOW, 0.5, windows=WINDOWS
    )
    assert decision == Retry(NOW + datetime.timedelta(seconds=expected_s))


@pytest.mark.parametrize(
    ("error_class", "place", "words"),
    [
        (ErrorClass.AUTH, dataclasses.replace(FRESH, pinned=True), "pinned to groq/llama"),
        (ErrorClass.CONTEXT, AT_THE_END, "longer prompt"),
        (ErrorClass.TRANSIENT, AT_THE_END, "no other provider for code"),
        (ErrorClass.TRANSIENT, dataclasses.replace(FRESH, attempts_before=11), "12 calls"),
    ],
)
def test_the_end_says_why(error_class: ErrorClass, place: Place, words: str) -> None:
    decision = decide.after(Failure(error_class), place, CHAIN, POLICY, NOW, 0.5, windows=WINDOWS)
    assert isinstance(decision, Fail)
    assert words in decision.reason


@hypothesis.given(
    story=st.lists(
        st.tuples(st.sampled_from(list(ErrorClass)), st.floats(0, 0.999), st.floats(0, 10_000)), min_size=12
    ),
    start=st.sampled_from([route for tier in CHAIN for route in tier]),
    pinned=st.booleans(),
)
def test_every_story_of_failures_ends_within_the_total_and_asks_no_route_twice(
    story: list[tuple[ErrorClass, float, float]], start: Route, pinned: bool
) -> None:
    place = Place("code", start, 1, 0, pinned=pinned)
    for error_class, jitter, retry_after_s in story:
        decision = decide.after(
            Failure(error_class, retry_after_s), place, CHAIN, POLICY, NOW, jitter, windows=WINDOWS
        )
        calls = place.attempts_before + 1
        if isinstance(decision, Fail):
            return
        if isinstance(decision, Fallback):
            assert not pinned
            assert decision.route not in (place.route, *place.tried)
            place = Place("code", decision.route, 1, calls, decision.tried, reason=error_class)
        else:
            assert decision.not_before >= NOW + datetime.timedelta(seconds=retry_after_s)
            place = dataclasses.replace(
                place, attempt_no=place.attempt_no + 1, attempts_before=calls, reason=error_class
            )
    raise AssertionError("twelve calls did not end it")
