"""One process's pacer on a real Redis, and without one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import pytest

from worker.pacing import gate, pacer, state
from worker.providers import told, types
from worker.routing import registry

PREFIX = "promptyard:"
ROUTE = registry.Route("openai", "m")
USAGE = types.Usage(input_tokens=10, output_tokens=10)


@contextlib.asynccontextmanager
async def pacing(
    url: str, *, window: int = 8, shared_concurrency: int | None = None, **limits: int
) -> AsyncIterator[pacer.Pacer]:
    found = pacer.Pacer(
        url, PREFIX, ROUTE, registry.Limits(**limits), window=window, shared_concurrency=shared_concurrency
    )
    await found.start()
    try:
        yield found
    finally:
        await found.aclose()


async def admitted(pace: pacer.Pacer, within_s: float, tokens: int = 10) -> gate.Permit | None:
    try:
        return await asyncio.wait_for(pace.admit(tokens, 0), within_s)
    except TimeoutError:
        return None


def nowhere() -> str:
    """The address of a Redis that is not there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"redis://127.0.0.1:{free.getsockname()[1]}/0"


async def test_a_refunded_call_makes_room_for_the_next_and_a_settled_one_does_not(broker_url: str) -> None:
    async with pacing(broker_url, tpm=60_000) as pace:
        large = await admitted(pace, 5, tokens=6_000)
        assert large is not None
        assert await admitted(pace, 0.3, tokens=6_000) is None
        large.refund()
        again = await admitted(pace, 0.5, tokens=6_000)
        assert again is not None
        again.settle(types.Usage(input_tokens=6_000), None)
        again.refund()
        assert await admitted(pace, 0.5, tokens=6_000) is None


async def test_tokens_of_a_failed_call_come_back(broker_url: str) -> None:
    async with pacing(broker_url, tpm=60_000) as pace:
        failed = await admitted(pace, 5, tokens=6_000)
        assert failed is not None
        failed.settle(None, types.ErrorClass.TRANSIENT)
        assert await admitted(pace, 0.5, tokens=6_000) is not None


async def test_no_more_calls_are_in_flight_than_the_window_allows(broker_url: str) -> None:
    async with pacing(broker_url, window=3, rpm=1_000_000) as pace:
        out = [await admitted(pace, 5) for _ in range(3)]
        assert await admitted(pace, 0.3) is None
        assert out[0] is not None
        out[0].settle(USAGE, None)
        assert await admitted(pace, 0.3) is not None


async def test_workers_share_the_calls_in_flight_that_an_account_may_have(broker_url: str) -> None:
    async with (
        pacing(broker_url, shared_concurrency=4, rpm=1_000_000) as one,
        pacing(broker_url, shared_concurrency=4, rpm=1_000_000) as other,
    ):
        first = [await admitted(pace, 5) for pace in (one, other)]
        for permit, pace in zip(first, (one, other), strict=True):
            assert permit is not None
            permit.settle(USAGE, None)
            assert await admitted(pace, 5) is not None
        await asyncio.sleep(0.3)  # three exchanges: both know of each other
        assert [await admitted(pace, 0.3) is not None for pace in (one, other)] == [True, True]
        assert [await admitted(pace, 0.3) for pace in (one, other)] == [None, None]


async def test_a_provider_that_nobody_knows_is_probed_with_a_few_calls(broker_url: str) -> None:
    async with pacing(broker_url, window=64) as pace:
        out = [await admitted(pace, 5) for _ in range(4)]
        assert await admitted(pace, 0.2) is None
        assert out[0] is not None
        out[0].settle(USAGE, None)
        assert all([await admitted(pace, 0.2) is not None for _ in range(40)])


async def test_a_call_that_was_given_up_while_it_waited_takes_nothing(broker_url: str) -> None:
    async with pacing(broker_url, window=1, rpm=1_000_000) as pace:
        out = await admitted(pace, 5)
        assert out is not None
        assert await admitted(pace, 0.1) is None
        out.settle(USAGE, None)
        assert await admitted(pace, 0.3) is not None


async def test_a_long_wait_is_told_at_once_with_its_end(broker_url: str) -> None:
    async with pacing(broker_url) as pace:
        permit = await admitted(pace, 5)
        assert permit is not None
        permit.settle(None, types.ErrorClass.RATE_LIMITED, 600.0)
        with pytest.raises(gate.Open) as raised:
            await asyncio.wait_for(pace.admit(10, 10), 2)
        assert raised.value.reason == "paused"
        assert 590 < raised.value.retry_at.timestamp() - time.time() <= 600
        [found] = await state.states(broker_url, PREFIX)
        assert found.why_paused == "rate limited"


async def test_a_day_that_is_used_up_is_told_at_once(broker_url: str) -> None:
    async with pacing(broker_url, rpd=3) as pace:
        for _ in range(3):
            assert await admitted(pace, 5) is not None
        with pytest.raises(gate.Open) as raised:
            await asyncio.wait_for(pace.admit(10, 10), 2)
        assert raised.value.reason == "day"


async def test_the_breaker_tells_who_waits_and_who_comes(broker_url: str) -> None:
    async with pacing(broker_url, window=10, rpm=1_000_000) as pace:
        out = [await admitted(pace, 5) for _ in range(10)]
        waiting = asyncio.create_task(pace.admit(10, 10))
        await asyncio.sleep(0)  # it waits
        for permit in out:
            assert permit is not None
            permit.settle(None, types.ErrorClass.TRANSIENT)
        (await waiting).settle(None, types.ErrorClass.TRANSIENT)
        with pytest.raises(gate.Open) as raised:
            while True:
                permit = await asyncio.wait_for(pace.admit(10, 10), 2)
                permit.settle(None, types.ErrorClass.TRANSIENT)
                await asyncio.sleep(0.02)
        assert raised.value.reason == "breaker"
        assert 3 < raised.value.retry_at.timestamp() - time.time() <= 5
        with pytest.raises(gate.Open):
            await pace.admit(10, 10)


async def test_without_redis_calls_go_at_a_cautious_share_of_the_registry_s_rate() -> None:
    async with pacing(nowhere(), rpm=2_400) as pace:  # 40 a second, of which a quarter
        begin, went = time.monotonic(), 0
        while time.monotonic() < begin + 3:
            permit = await admitted(pace, 1)
            assert permit is not None
            permit.settle(USAGE, None)
            went += 1
    assert 15 <= went <= 40


async def test_without_redis_limits_are_learned_from_headers_too() -> None:
    async with pacing(nowhere()) as pace:
        permit = await admitted(pace, 5)
        assert permit is not None
        permit.settle(USAGE, None, None, told.Told(requests_limit=240, requests_remaining=239))
        begin, went = time.monotonic(), 0
        while time.monotonic() < begin + 3:
            if (permit := await admitted(pace, 0.5)) is not None:
                permit.settle(USAGE, None)
                went += 1
    assert went <= 8


async def test_without_redis_or_limits_only_the_window_holds_calls_back() -> None:
    async with pacing(nowhere(), window=5) as pace:
        permit = await admitted(pace, 5)
        assert permit is not None
        permit.settle(USAGE, None)
        assert all([await admitted(pace, 0.5) is not None for _ in range(5)])
        assert await admitted(pace, 0.3) is None
