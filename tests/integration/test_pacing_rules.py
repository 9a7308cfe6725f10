"""What all workers decide together in Redis, on a real one, with the time passed in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import redis

from worker.pacing import shared, state
from worker.routing import registry

ROUTE = registry.Route("openai", "m")
KEY = shared.key("promptyard:", ROUTE, "default")
NOTHING: shared.Amounts = {"r": 0, "t": 0, "i": 0, "o": 0, "d": 0}


class Clocked:
    """A scope whose clock stands still until it is moved."""

    def __init__(self, scope: shared.Scope) -> None:
        self.scope = scope
        self.now_ms = 1_800_000_000_000.0

    async def ask(
        self, after_s: float = 0.0, *, calls: float = 0, tokens: float = 0, **given: Any
    ) -> shared.Answer:
        """Report what is given, and ask for so many calls of so many tokens in all."""
        self.now_ms += after_s * 1000
        first = {"r": 1, "t": tokens / calls, "i": 0, "o": 0, "d": 1} if calls else None
        more = (
            {"r": calls - 1, "t": tokens - tokens / calls, "i": 0, "o": 0, "d": calls - 1} if calls else NOTHING
        )
        report: dict[str, Any] = {
            "member": "a",
            "limits": {},
            "minute_ms": 60_000.0,
            "paused_ms": 0.0,
            "open_ms": 0.0,
            "day_used": 0.0,
            "back": NOTHING,
            "largest": NOTHING,
            "ok": 0,
            "bad": 0,
            "limited": 0,
            "pause_ms": 0.0,
            "told": {},
            "like": more,
            "must": first or msgspec.UNSET,
            "now_ms": self.now_ms,
        }
        return await self.scope.exchange(shared.Report(**(report | given)))


@pytest.fixture
async def clocked(broker_url: str) -> AsyncIterator[Clocked]:
    scope = shared.Scope(broker_url, KEY)
    yield Clocked(scope)
    await scope.aclose()


async def test_a_minute_gives_nearly_all_of_the_limit_and_never_more(clocked: Clocked) -> None:
    given = [(await clocked.ask(0.1, calls=100, limits={"r": 6000.0})).given.get("r", 0) for _ in range(2400)]
    for first in range(0, 1800, 7):
        assert 0.95 * 6000 <= sum(given[first : first + 600]) <= 6000


async def test_one_call_larger_than_the_burst_goes_and_the_next_one_waits_for_it(clocked: Clocked) -> None:
    limits = {"t": 60_000.0}
    await clocked.ask(limits=limits)
    assert (await clocked.ask(1, calls=1, tokens=6_000, limits=limits)).given["t"] == 6_000
    largest = NOTHING | {"t": 6_000}
    assert not (await clocked.ask(5, calls=1, tokens=6_000, limits=limits, largest=largest)).may
    assert (await clocked.ask(3, calls=1, tokens=6_000, limits=limits)).may


async def test_permits_given_back_are_there_for_others(clocked: Clocked) -> None:
    limits = {"t": 60_000.0}
    await clocked.ask(limits=limits)
    assert (await clocked.ask(1, calls=1, tokens=6_000, limits=limits)).may
    assert not (await clocked.ask(calls=1, tokens=600, limits=limits, member="b")).may
    answer = await clocked.ask(calls=1, tokens=600, limits=limits, member="b", back=NOTHING | {"t": 6_000})
    assert answer.may


async def test_workers_that_want_permits_share_them(clocked: Clocked) -> None:
    limits = {"r": 60_000.0}
    await clocked.ask(limits=limits)
    alone = await clocked.ask(0.5, calls=1000, limits=limits)
    assert alone.given["r"] == pytest.approx(1 + 0.98 * 250, abs=1)
    await clocked.ask(0.5, calls=1000, limits=limits, member="b")
    shared_by_two = await clocked.ask(0.5, calls=1000, limits=limits)
    assert shared_by_two.members == 2
    assert shared_by_two.given["r"] == pytest.approx(1 + 0.98 * 125, abs=1)
    assert (await clocked.ask(3, calls=1, limits=limits)).members == 1


async def test_what_headers_tell_replaces_the_registry_for_everyone(clocked: Clocked) -> None:
    told = {"r": shared.ToldWindow(limit=600, remaining=590)}
    answer = await clocked.ask(limits={"r": 6000.0}, told=told)
    assert (answer.limits, answer.told) == ({"r": 600}, True)
    other = await clocked.ask(1, calls=1, limits={"r": 6000.0}, member="b")
    assert other.limits == {"r": 600} and other.per_s["r"] == pytest.approx(9.8)


async def test_a_limit_that_was_not_known_begins_with_the_debt_of_what_was_called(clocked: Clocked) -> None:
    told = {"r": shared.ToldWindow(limit=6000, remaining=5950)}
    assert not (await clocked.ask(calls=1, told=told)).may
    assert not (await clocked.ask(0.4, calls=1)).may
    assert (await clocked.ask(0.2, calls=1)).may


async def test_the_provider_s_count_of_what_is_left_is_believed(clocked: Clocked) -> None:
    limits = {"r": 6000.0}
    await clocked.ask(limits=limits)
    used_by_others = {"r": shared.ToldWindow(limit=6000, remaining=0)}
    assert not (await clocked.ask(1, calls=1, limits=limits, told=used_by_others)).may


async def test_one_refusal_pauses_everyone_and_the_pace_rises_slowly_after(clocked: Clocked) -> None:
    limits = {"r": 60_000.0}
    await clocked.ask(limits=limits)
    told_off = await clocked.ask(1, calls=1, limits=limits, limited=1, pause_ms=4000.0)
    assert (told_off.may, told_off.paused_ms) == (False, 4000)
    # Those that were on their way do not make it longer.
    late = await clocked.ask(1, calls=1, limits=limits, limited=5, pause_ms=3000.0, member="b")
    assert (late.may, late.paused_ms) == (False, 3000)
    assert not (await clocked.ask(2.9, calls=1, limits=limits)).may
    rising = [(await clocked.ask(0.1, calls=1000, limits=limits)).given.get("r", 0) for _ in range(32)]
    assert 0 < sum(rising[1:6]) < 0.5 * sum(rising[-5:])


async def test_refusals_without_a_time_pause_longer_each_time(clocked: Clocked) -> None:
    paused = []
    for _ in range(4):
        answer = await clocked.ask(limited=20)
        paused.append(answer.paused_ms)
        await clocked.ask(answer.paused_ms / 1000 + 0.5)
    assert paused == [1000, 2000, 4000, 8000]


async def test_a_few_refusals_among_many_answers_do_not_pause_again_and_again(clocked: Clocked) -> None:
    await clocked.ask(ok=90, limited=10, pause_ms=1000.0)
    await clocked.ask(2, ok=900)
    pauses = [(await clocked.ask(0.1, ok=90, limited=10, pause_ms=1000.0)).paused_ms for _ in range(50)]
    assert pauses == [0] * 50
    assert (await clocked.ask(0.1, ok=90, limited=10, pause_ms=30_000.0)).paused_ms == 30_000


async def test_the_breaker_opens_for_all_and_closes_after_a_probe(clocked: Clocked) -> None:
    assert (await clocked.ask(bad=9)).breaker == "closed"
    opened = await clocked.ask(bad=1, member="b")
    assert (opened.breaker, opened.open_ms) == ("open", 5000)
    assert not (await clocked.ask(4.9, calls=1)).may
    probes = [await clocked.ask(0.1, calls=1) for _ in range(4)]
    assert [(probe.breaker, probe.may) for probe in probes] == [("half", True)] * 3 + [("half", False)]
    closed = await clocked.ask(0.1, ok=1, calls=1)
    assert (closed.breaker, closed.may) == ("closed", True)


async def test_a_probe_that_fails_opens_it_for_twice_as_long(clocked: Clocked) -> None:
    await clocked.ask(bad=10)
    assert (await clocked.ask(5, calls=1)).breaker == "half"
    again = await clocked.ask(0.1, bad=1)
    assert (again.breaker, again.open_ms) == ("open", 10_000)


async def test_probes_that_never_come_back_are_sent_again(clocked: Clocked) -> None:
    await clocked.ask(bad=10)
    assert [(await clocked.ask(5, calls=1)).may for _ in range(4)] == [True, True, True, False]
    assert not (await clocked.ask(1, calls=1)).may
    assert (await clocked.ask(20, calls=1)).may


async def test_failures_among_as_many_answers_leave_the_breaker_closed(clocked: Clocked) -> None:
    for _ in range(20):
        assert (await clocked.ask(0.1, ok=11, bad=10)).breaker == "closed"


async def test_many_good_answers_before_do_not_keep_the_breaker_closed_for_long(clocked: Clocked) -> None:
    for _ in range(50):
        await clocked.ask(0.1, ok=100)
    opened = [(await clocked.ask(0.1, bad=10)).breaker for _ in range(6)]
    assert opened[0] == "closed" and opened[-1] == "open"


async def test_failures_long_ago_do_not_count(clocked: Clocked) -> None:
    await clocked.ask(bad=9)
    assert (await clocked.ask(30, bad=9)).breaker == "closed"


async def test_the_day_s_requests_are_spent_as_fast_as_they_are_wanted_and_no_further(clocked: Clocked) -> None:
    limits = {"d": 100.0}
    assert (await clocked.ask(calls=100, limits=limits)).given["d"] == 100
    empty = await clocked.ask(1, calls=1, limits=limits)
    assert (empty.may, empty.day_ms) == (False, 86_399_000)
    assert (await clocked.ask(calls=1, limits=limits, back=NOTHING | {"d": 1})).may
    assert (await clocked.ask(86_400, calls=1, limits=limits)).may


async def test_a_day_that_the_provider_says_is_over_ends_when_it_says(clocked: Clocked) -> None:
    told = {"d": shared.ToldWindow(limit=5000, remaining=0, reset_ms=90_000.0)}
    assert (await clocked.ask(calls=1, told=told)).day_ms == 90_000
    assert (await clocked.ask(91, calls=1)).may


async def test_a_redis_that_lost_everything_is_told_of_the_pause_and_the_breaker(
    clocked: Clocked, broker_url: str
) -> None:
    with redis.Redis.from_url(broker_url) as client:
        client.flushall()
    answer = await clocked.ask(calls=1, paused_ms=2000.0, open_ms=7000.0, day_used=30.0, limits={"d": 31.0})
    assert (answer.paused_ms, answer.breaker, answer.open_ms, answer.day_used) == (2000, "open", 7000, 30)


async def test_everything_in_redis_expires_and_status_can_read_it(clocked: Clocked, broker_url: str) -> None:
    scope = shared.Scope(broker_url, KEY)
    await clocked.ask(told={"r": shared.ToldWindow(limit=600)}, bad=10)
    with redis.Redis.from_url(broker_url) as client:
        assert client.keys() == [KEY.encode()]
        assert client.type(KEY) == b"hash"
        assert 0 < int(str(client.ttl(KEY))) <= 90_000
    [found] = await state.states(broker_url, "promptyard:")
    assert (found.route, found.breaker, found.learned) == (ROUTE, "open", {"r": 600.0})
    await scope.aclose()
