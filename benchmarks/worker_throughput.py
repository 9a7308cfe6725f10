"""Prompts a second of one worker process on one core, everything on, as a ratio to a bare aiohttp loop.

    python benchmarks/worker_throughput.py --quick

The client under test, worker or bare loop, runs on the first core; the instant simulator, Postgres and Valkey
run on the second. The loop only posts the same bodies to the same server and reads the answers; the worker also
takes shards from Celery, reads the prompts, understands and prices the answers and writes results and attempts.
The loop is measured before and after the worker, so that a machine that changes its speed is seen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

PROVIDER, CATEGORY = "groq", "simple_qa"
CLIENT_CORE, SERVER_CORE = 0, 1
IN_FLIGHT = 128

#: A batch may have the provider for itself.
REGISTRY = f"""
extends = "default"
[providers.{PROVIDER}.limits]
concurrency = {IN_FLIGHT}
"""

RATE = """
    SELECT count(*), extract(epoch FROM max(finished_at) - min(started_at)), sum(cost_usd) IS NOT NULL
    FROM attempts WHERE batch_id = $1 AND outcome = 'succeeded'
"""


def prompt(number: int) -> dict[str, str]:
    return {
        "prompt": f"Question {number}: which country lies {number % 97} places after the first in the list? "
        "Answer with its name and one sentence about it.",
        "category": CATEGORY,
    }


async def bare_loop(url: str, requests: int) -> float:
    """Requests a second of aiohttp with nothing around it."""
    import aiohttp

    left = iter(range(requests))
    headers = {"Content-Type": "application/json", "Authorization": "Bearer simulated"}

    async def lane(session: aiohttp.ClientSession) -> None:
        for number in left:
            message = {"role": "user", "content": prompt(number)["prompt"]}
            body = json.dumps({"model": "m", "messages": [message]}).encode()
            async with session.post(url, data=body, headers=headers) as reply:
                await reply.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        started = time.perf_counter()
        await asyncio.gather(*(lane(session) for _ in range(IN_FLIGHT)))
        return requests / (time.perf_counter() - started)


def on_client_core(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {CLIENT_CORE}),
    )


def measure_bare_loop(url: str, requests: int) -> float:
    with on_client_core(__file__, "--bare", url, "--prompts", str(requests)) as process:
        assert process.stdout is not None
        return float(process.stdout.read())


async def measure_worker(prompts: int) -> tuple[float, float]:
    """Prompts a second between the first call and the last answer, and the worker's peak memory in MB."""
    import asyncpg

    import worker as promptyard
    from worker import settings
    from worker.local import servers

    async def items() -> AsyncIterator[dict[str, str]]:
        for number in range(prompts):
            yield prompt(number)

    batch = await promptyard.asubmit(items())
    connection = await asyncpg.connect(servers.use(settings.load()).database)
    process = on_client_core("-m", "worker", "worker", PROVIDER, "--log-level", "warning")
    try:
        while await connection.fetchval("SELECT state FROM batches WHERE id = $1", batch.id) == "running":
            if process.poll() is not None:
                raise SystemExit("the worker has stopped")
            await asyncio.sleep(0.5)
        peak_mb = int(Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
        row = await connection.fetchrow(RATE, batch.id)
        assert row is not None
        count, seconds, priced = row
        assert count == prompts and priced
        return count / float(seconds), peak_mb
    finally:
        process.terminate()
        process.wait(60)
        await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20,000 prompts instead of 100,000")
    parser.add_argument("--prompts", type=int)
    parser.add_argument("--bare", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    prompts = options.prompts or (20_000 if options.quick else 100_000)
    if options.bare:
        import uvloop

        print(uvloop.run(bare_loop(options.bare, prompts)))
        return
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("This benchmark needs two cores.")
    # What is started from here on inherits it; the clients choose the other core.
    os.sched_setaffinity(0, {SERVER_CORE})
    from worker.simulator import process

    with tempfile.TemporaryDirectory(prefix="promptyard-benchmark-") as home, process.running() as simulator:
        registry = Path(home, "registry.toml")
        registry.write_text(REGISTRY)
        os.environ.update(
            PROMPTYARD_HOME=home, PROMPTYARD_REGISTRY=str(registry), PROMPTYARD_SIMULATOR=simulator.url
        )
        url = f"{simulator.url}/{PROVIDER}/chat/completions"
        before = measure_bare_loop(url, prompts)
        rate, peak_mb = asyncio.run(measure_worker(prompts))
        after = measure_bare_loop(url, prompts)
    bare = (before + after) / 2
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{machine}, {prompts:,} prompts")
    print(f"bare aiohttp loop   {before:8,.0f} /s before, {after:,.0f} /s after")
    print(f"worker              {rate:8,.0f} /s, {rate / bare:.2f} of the bare loop, peak {peak_mb:.0f} MB")


if __name__ == "__main__":
    main()
