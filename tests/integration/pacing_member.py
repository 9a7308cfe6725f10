"""One of several processes that call a simulated provider at the shared pace, for the tests of pacing.

    python pacing_member.py MEMBER

MEMBER is `Member` as JSON. It prints how often it was told `Open`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time

import msgspec

from worker.pacing import gate, pacer
from worker.providers import endpoint, http, told, types
from worker.routing import registry

PREFIX = "promptyard-simulated:"
LANES = 48
DEADLINE_S = 10.0


class Member(msgspec.Struct, frozen=True):
    """What a process is told."""

    broker: str
    simulator: str
    until: float
    rpm: int | None = None
    minute_s: float = 60.0
    window: int = 16


async def run(member: Member) -> int:
    """Keep calls in flight until the end."""
    route = registry.Route("openai", "m")
    provider = registry.Provider(
        dialect="openai_chat",
        base_url=f"{member.simulator}/openai",
        key_env="NONE",
        models={"m": registry.Model(context_window=100_000)},
    )
    everything = registry.Registry(
        frontier=route, default_category="all", providers={"openai": provider}, categories={}
    )
    place = endpoint.endpoint(everything, route, "simulated")
    client = http.Client()
    limits = registry.Limits(rpm=member.rpm)
    pace = pacer.Pacer(member.broker, PREFIX, route, limits, window=member.window, minute_s=member.minute_s)
    await pace.start()
    told_open = 0

    async def lane(lane_no: int) -> None:
        nonlocal told_open
        number = 0
        while time.time() < member.until:
            number += 1
            prompt = f"{member.until} {lane_no} {number}"
            try:
                permit = await pace.admit(10, 100)
            except gate.Open:
                told_open += 1
                await asyncio.sleep(0.2)
                continue
            try:
                body = place.build(json.dumps({"messages": [{"role": "user", "content": prompt}]}))
                reply = await client.post(place.url, place.headers, body, deadline_s=DEADLINE_S)
                heard = told.limits_told(provider, reply.headers)
                permit.settle(place.read(reply).usage, None, None, heard)
            except types.CallError as e:
                permit.settle(e.usage, e.error_class, e.retry_after_s)
            finally:
                permit.refund()

    lanes = [asyncio.create_task(lane(number)) for number in range(LANES)]
    await asyncio.sleep(member.until - time.time())
    await asyncio.wait(lanes, timeout=1)
    for task in lanes:  # those that still wait for their turn
        task.cancel()
    await asyncio.wait(lanes)
    await pace.aclose()
    await client.aclose()
    return told_open


def start(member: Member) -> subprocess.Popen[str]:
    """Run a member as a process of its own."""
    command = [sys.executable, __file__, msgspec.json.encode(member).decode()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def told_open(process: subprocess.Popen[str]) -> int:
    """Wait for a member's end, and get how often it was told `Open`."""
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return int(said)


if __name__ == "__main__":
    print(asyncio.run(run(msgspec.json.decode(sys.argv[1].encode(), type=Member))))
