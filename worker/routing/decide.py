"""What to do with a prompt after a failed call. Pure: time and chance are passed in.

| class | what happens |
| --- | --- |
| `prompt` | fail |
| `context_length` | the next route with a larger context window, or fail |
| `content_refused` | one try elsewhere, then fail |
| `rate_limited`, `overloaded` | the same provider later, then the next route; if none is left, later again |
| `transient`, `timeout`, `malformed`, `lost` | the same provider later, then the next route |
| `quota`, `auth`, `config` | the next route at once |

A pinned prompt never leaves its route. When no route is left, or `max_attempts_total` calls were made, the
prompt fails.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence

from worker.routing.failures import ErrorClass
from worker.routing.registry import Route

#: Worth another call at the same place.
RETRIED = frozenset(
    {
        ErrorClass.RATE_LIMITED,
        ErrorClass.OVERLOADED,
        ErrorClass.TRANSIENT,
        ErrorClass.TIMEOUT,
        ErrorClass.MALFORMED,
        ErrorClass.LOST,
    }
)
#: "Not now" rather than "no": patience helps, where nobody else can be asked.
THROTTLED = frozenset({ErrorClass.RATE_LIMITED, ErrorClass.OVERLOADED})
#: Holds for the whole account: another model of the same provider fails alike.
OF_THE_ACCOUNT = frozenset({ErrorClass.QUOTA, ErrorClass.AUTH})


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """How patient to be."""

    max_attempts: int = 3  #: calls at one provider before the next is asked
    max_attempts_total: int = 12  #: calls for one prompt in all
    base_backoff_s: float = 0.5
    max_backoff_s: float = 30.0
    max_wait_s: float = 120.0  #: a provider that asks for a longer wait loses the prompt to the next route


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """How the call ended."""

    error_class: ErrorClass
    retry_after_s: float | None = None  #: what the provider asked to wait


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where the prompt stood when the call failed."""

    category: str
    route: Route
    attempt_no: int  #: of the failed call at this route, from 1
    attempts_before: int  #: calls made for the prompt before the failed one, anywhere
    tried: tuple[Route, ...] = ()  #: routes given up before this one
    pinned: bool = False
    reason: ErrorClass | None = None  #: what moved the prompt here; None for its first call


@dataclasses.dataclass(frozen=True, slots=True)
class Retry:
    """The same route again, not before this instant."""

    not_before: datetime.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Fallback:
    """On to another route, at once."""

    route: Route
    tried: tuple[Route, ...]  #: the routes given up by now, for the next place


@dataclasses.dataclass(frozen=True, slots=True)
class Fail:
    """No call is worth making any more."""

    reason: str  #: why not, for people


Decision = Retry | Fallback | Fail
Chain = Sequence[Sequence[Route]]


def after(
    failure: Failure,
    place: Place,
    chain: Chain,
    policy: Policy,
    now: datetime.datetime,
    jitter: float,
    *,
    windows: Mapping[Route, int],
) -> Decision:
    """Decide what follows a failed call.

    Args:
        chain: the tiers that are usable for the prompt's category (`Usable.chains`).
        now: the present instant; `Retry.not_before` counts from it.
        jitter: a uniform random number in [0, 1).
        windows: context window of each route, in tokens (`Usable.windows`).
    """
    if failure.error_class is ErrorClass.PROMPT:
        return Fail("the prompt itself is refused")
    if place.attempts_before + 1 >= policy.max_attempts_total:
        return Fail(f"{policy.max_attempts_total} calls were made for it, the most allowed")
    fallback = None if place.pinned else _fallback(failure, place, chain, windows)
    if failure.error_class in RETRIED and _stays(failure, place, policy, fallback):
        return Retry(now + datetime.timedelta(seconds=_wait_s(failure, place, policy, jitter)))
    if fallback is not None:
        return fallback
    return Fail(_nowhere_left(failure, place))


def backoff_s(attempt_no: int, policy: Policy, jitter: float) -> float:
    """Wait after the `attempt_no`-th failure in a row, in seconds: exponential, capped, with full jitter.

    Source: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    # 2.0 ** 1024 overflows, and long before that the cap decides
    ceiling_s = min(policy.max_backoff_s, policy.base_backoff_s * 2.0 ** min(attempt_no - 1, 64))
    return jitter * ceiling_s


def _wait_s(failure: Failure, place: Place, policy: Policy, jitter: float) -> float:
    return max(backoff_s(place.attempt_no, policy, jitter), failure.retry_after_s or 0.0)


def _stays(failure: Failure, place: Place, policy: Policy, fallback: Fallback | None) -> bool:
    if fallback is None and failure.error_class in THROTTLED:
        return True  # max_attempts_total ends it
    if fallback is not None and (failure.retry_after_s or 0.0) > policy.max_wait_s:
        return False
    return place.attempt_no < policy.max_attempts


def _fallback(failure: Failure, place: Place, chain: Chain, windows: Mapping[Route, int]) -> Fallback | None:
    if failure.error_class is ErrorClass.CONTENT and place.reason is ErrorClass.CONTENT:
        return None
    tried = (*place.tried, place.route)
    for route in _ahead(place.route, chain):
        if route not in tried and not _as_bad(route, failure, place, windows):
            return Fallback(route, tried)
    return None


def _ahead(route: Route, chain: Chain) -> list[Route]:
    """The routes of the same tier and of those after it; all of them if the chain does not hold the route."""
    here = next((number for number, tier in enumerate(chain) if route in tier), 0)
    return [candidate for tier in chain[here:] for candidate in tier]


def _as_bad(route: Route, failure: Failure, place: Place, windows: Mapping[Route, int]) -> bool:
    """Whether the call would fail there for the same cause."""
    if failure.error_class is ErrorClass.CONTEXT:
        return windows.get(route, 0) <= windows.get(place.route, 0)
    return failure.error_class in OF_THE_ACCOUNT and route.provider == place.route.provider


def _nowhere_left(failure: Failure, place: Place) -> str:
    if place.pinned:
        return f"it is pinned to {place.route}, which does not answer it"
    if failure.error_class is ErrorClass.CONTEXT:
        return f"no other model for {place.category} takes a longer prompt"
    if failure.error_class is ErrorClass.CONTENT:
        return "a content policy refuses it"
    return f"no other provider for {place.category} is left to ask"
