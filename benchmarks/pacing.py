"""How much of a provider's limits four processes use together, and what that costs a call.

    python benchmarks/pacing.py [--quick]

The simulator counts strictly in sliding windows. Four cases run side by side, each with a provider and a pace
of its own: requests or tokens bind, and limits are in the registry or only in the headers. Used and refused are
read from the provider's own bill, over three minutes after thirty seconds of learning. `--quick` measures
twenty seconds of minutes that last fifteen.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import uvloop

from worker import settings as worker_settings
from worker.local import servers
from worker.pacing import pacer
from worker.providers import endpoint, http, told, types
from worker.routing import registry
from worker.simulator import billing, process
from worker.simulator import settings as simulator_settings

PROCESSES = 4
RPM, TPM = 6_000, 1_000_000
LATENCY_MS = 300.0
IN_FLIGHT = 64
MAX_OUTPUT_TOKENS = 400
DEADLINE_S = 30.0
PREFIX = "promptyard-simulated:"
HOT_CALLS = 100_000


class Case(NamedTuple):
    """Name of the provider, characters of a prompt, and whether the registry knows the limits."""

    name: str
    characters: int
    known: bool


CASES = (
    Case("requests-known", 40, True),
    Case("tokens-known", 1_600, True),
    Case("requests-learned", 40, False),
    Case("tokens-learned", 1_600, False),
)


class Member(NamedTuple):
    """What one process is told."""

    broker: str
    simulator: str
    minute_s: float
    until: float


async def one_case(member: Member, case: Case, client: http.Client) -> None:
    """Keep calls in flight until the end, as a worker does that has more prompts than time."""
    route = registry.Route(case.name, "m")
    provider = registry.Provider(
        dialect="openai_chat",
        base_url=f"{member.simulator}/{case.name}",
        models={"m": registry.Model(context_window=100_000)},
    )
    everything = registry.Registry(
        frontier=route, default_category="all", providers={case.name: provider}, categories={}
    )
    place = endpoint.endpoint(everything, route, None)
    limits = registry.Limits(rpm=RPM, tpm=TPM) if case.known else registry.Limits()
    pace = pacer.Pacer(member.broker, PREFIX, route, limits, window=IN_FLIGHT, minute_s=member.minute_s)
    await pace.start()

    async def lane(lane_no: int) -> None:
        number = 0
        while time.time() < member.until:
            number += 1
            prompt = f"{os.getpid()} {lane_no} {number} ".ljust(case.characters, "x")
            permit = await pace.admit(len(prompt) // 4, MAX_OUTPUT_TOKENS)
            body = place.build(json.dumps({"messages": [{"role": "user", "content": prompt}]}))
            reply = await client.post(place.url, place.headers, body, deadline_s=DEADLINE_S)
            heard = told.limits_told(provider, reply.headers)
            try:
                permit.settle(place.read(reply).usage, None, None, heard)
            except types.CallError as e:
                permit.settle(e.usage, e.error_class, e.retry_after_s, heard)

    lanes = [asyncio.create_task(lane(number)) for number in range(2 * IN_FLIGHT)]
    await asyncio.sleep(member.until - time.time())
    for task in lanes:
        task.cancel()
    await asyncio.wait(lanes)
    await pace.aclose()


async def run_member(member: Member) -> None:
    async with contextlib.AsyncExitStack() as stack:
        client = http.Client()
        stack.push_async_callback(client.aclose)
        await asyncio.gather(*(one_case(member, case, client) for case in CASES))


async def hot_path_us(broker: str, limits: registry.Limits) -> float:
    """Microseconds of admit and settle together, permits in hand, Redis exchanges included."""
    pace = pacer.Pacer(broker, PREFIX, registry.Route(f"hot-{limits.rpm}", "m"), limits, window=1_000)
    usage = types.Usage(input_tokens=100, output_tokens=100)
    await pace.start()
    for _ in range(20):  # until permits are there for as many calls as come
        await asyncio.sleep(0.1)
        (await pace.admit(100, 100)).settle(usage, None)
    cpu, started = time.process_time(), time.perf_counter()
    for number in range(HOT_CALLS):
        (await pace.admit(100, 100)).settle(usage, None)
        if number % 100 == 0:
            await asyncio.sleep(0)
    took = time.process_time() - cpu, time.perf_counter() - started
    await pace.aclose()
    return min(took) / HOT_CALLS * 1e6


def report(simulator: process.Simulator, case: Case, begin: float, end: float, minute_s: float) -> bool:
    """Print a line; whether the aims are met."""
    requests = tokens = refused = 0
    for call in simulator.calls(case.name):
        if begin <= call.answered_at_s < end:
            requests += call.status == 200
            refused += call.status == 429
            tokens += _tokens(call) if call.status == 200 else 0
    minutes = (end - begin) / minute_s
    used = max(requests / RPM, tokens / TPM) / minutes
    share = refused / max(1, requests + refused)
    print(
        f"{case.name:20}{requests / minutes:>12,.0f}{tokens / minutes:>14,.0f}{used:>10.1%}{share:>10.2%}",
        flush=True,
    )
    return used >= 0.95 and share < 0.01


def _tokens(call: billing.Call) -> int:
    return call.input_tokens + call.cache_read_tokens + call.cache_write_tokens + call.output_tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="half a minute instead of four")
    parser.add_argument("--member", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.member:
        return uvloop.run(run_member(Member(*json.loads(options.member))))
    minute_s, learning_s, measured_s = (15.0, 8.0, 20.0) if options.quick else (60.0, 30.0, 180.0)
    limits = simulator_settings.Limits(rpm=RPM, tpm=TPM, minute_s=minute_s)
    every = simulator_settings.ProviderSettings(latency_ms=LATENCY_MS, jitter="exponential", limits=limits)
    with tempfile.TemporaryDirectory() as home:
        broker = servers.use(
            worker_settings.Settings(home=Path(home), database_url=None, broker_url=None)
        ).broker
        print(
            f"admit and settle: {uvloop.run(hot_path_us(broker, registry.Limits())):.1f} us without limits, ",
            end="",
        )
        far = registry.Limits(rpm=10**9, tpm=10**12)
        print(f"{uvloop.run(hot_path_us(broker, far)):.1f} us with two\n", flush=True)
        chosen = simulator_settings.Settings(providers={simulator_settings.EVERY: every})
        with process.running(chosen) as simulator:
            begin = time.time() + 2 + learning_s
            end = begin + measured_s
            member = Member(broker, simulator.url, minute_s, end)
            members = [
                subprocess.Popen([sys.executable, __file__, "--member", json.dumps(member)])
                for _ in range(PROCESSES)
            ]
            failed = [one.wait() for one in members]
            print(f"{'case':20}{'requests/min':>12}{'tokens/min':>14}{'used':>10}{'refused':>10}")
            good = [report(simulator, case, begin, end, minute_s) for case in CASES]
    sys.exit(0 if all(good) and not any(failed) else 1)


if __name__ == "__main__":
    main()
