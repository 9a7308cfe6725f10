"""Several real processes at one pace, against a simulated provider that counts strictly."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Callable

import pacing_member
import redis

from worker.simulator import billing, process
from worker.simulator import settings as simulator_settings

#: Seconds for the processes to start in.
START_S = 2.0


def allow(simulator: process.Simulator, *, latency_ms: float = 50.0, **limits: float) -> None:
    every = simulator_settings.ProviderSettings(
        latency_ms=latency_ms, limits=simulator_settings.Limits.model_validate(limits)
    )
    simulator.set(simulator_settings.Settings(providers={simulator_settings.EVERY: every}))


def calls(simulator: process.Simulator) -> list[billing.Call]:
    return list(simulator.calls("openai"))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


def gaps_s(all_calls: list[billing.Call]) -> list[float]:
    at = sorted(call.answered_at_s for call in all_calls)
    return [after - before for before, after in itertools.pairwise(at)]


def members(number: int, member: pacing_member.Member) -> list[subprocess.Popen[str]]:
    return [pacing_member.start(member) for _ in range(number)]


def test_four_processes_use_what_is_allowed_and_are_not_told_off_even_if_redis_loses_everything(
    broker_url: str, simulator: process.Simulator
) -> None:
    minute_s, rpm = 10.0, 2_000
    allow(simulator, rpm=rpm, minute_s=minute_s)
    until = time.time() + START_S + 1.5 * minute_s
    member = pacing_member.Member(broker_url, simulator.url, until, rpm=rpm, minute_s=minute_s)
    started = members(4, member)
    time.sleep(until - 0.5 * minute_s - time.time())
    with redis.Redis.from_url(broker_url) as client:
        client.flushall()
    assert [pacing_member.told_open(one) for one in started] == [0] * 4
    made = calls(simulator)
    begin = made[0].answered_at_s + 1  # all have started by then
    answered = sum(call.status == 200 for call in made if begin <= call.answered_at_s < until)
    assert answered >= 0.9 * rpm * (until - begin) / minute_s
    answered = sum(call.status == 200 for call in made)
    assert len(made) - answered < 0.01 * len(made)


def test_limits_that_nobody_knows_are_learned_from_the_headers(
    broker_url: str, simulator: process.Simulator
) -> None:
    minute_s, rpm = 10.0, 2_000
    allow(simulator, rpm=rpm, minute_s=minute_s)
    until = time.time() + START_S + 1.2 * minute_s
    started = members(2, pacing_member.Member(broker_url, simulator.url, until, minute_s=minute_s))
    assert [pacing_member.told_open(one) for one in started] == [0] * 2
    made = calls(simulator)
    answered = sum(call.status == 200 for call in made)
    assert answered >= 0.9 * rpm
    assert len(made) - answered < 0.01 * len(made)


def test_one_refusal_pauses_all_processes(broker_url: str, simulator: process.Simulator) -> None:
    allow(simulator)
    started = members(2, pacing_member.Member(broker_url, simulator.url, time.time() + START_S + 6))
    wait_for(lambda: len(calls(simulator)) > 100)
    simulator.set_faults("openai:rate_limited,retry_after_s=3")
    wait_for(lambda: any(call.status == 429 for call in calls(simulator)))
    simulator.set_faults()
    assert [pacing_member.told_open(one) for one in started] == [0] * 2
    made = calls(simulator)
    assert max(gaps_s(made)) > 2.5
    assert made[-1].status == 200


def test_the_breaker_stops_all_processes_and_lets_them_go_on_when_the_provider_is_well_again(
    broker_url: str, simulator: process.Simulator
) -> None:
    allow(simulator)
    started = members(2, pacing_member.Member(broker_url, simulator.url, time.time() + START_S + 9))
    wait_for(lambda: len(calls(simulator)) > 100)
    simulator.set_faults("openai:server_error")
    wait_for(lambda: sum(call.status == 500 for call in calls(simulator)) >= 10)
    time.sleep(2)  # the provider goes on failing, and nobody calls it
    simulator.set_faults()
    assert all(pacing_member.told_open(one) > 0 for one in started)
    made = calls(simulator)
    assert max(gaps_s(made)) > 4
    assert made[-1].status == 200
