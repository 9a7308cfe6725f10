"""What a call costs in the HTTP client: ours against aiohttp and httpx, in one run against one static server.

    python benchmarks/http_client.py [--quick]

The clients take turns, so that a busy machine is busy for all of them; the median turn counts. CPU is that of
the client's process: the server runs in its own.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple, cast

import aiohttp
import httpx
import uvloop

from worker.providers import http

IN_FLIGHT = 128
DEADLINE_S = 60.0
HEADERS = {"authorization": "Bearer simulated", "content-type": "application/json"}
REQUEST = b'{"model":"m","messages":[{"role":"user","content":"What is the capital of France, and why?"}]}'
ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1711652795,"model":"m","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"Paris, since the tenth century, with some breaks."},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":22,"completion_tokens":12,"total_tokens":34}}'
)

Call = Callable[[], Awaitable[object]]


class Turn(NamedTuple):
    per_s: float
    cpu_us: float


class Static(asyncio.Protocol):
    """Answers every request with the same bytes."""

    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(ANSWER),
        ANSWER,
    )

    def __init__(self) -> None:
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:end].lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            if len(self.received) < end + 4 + length:
                return
            self.received = self.received[end + 4 + length :]
            self.transport.write(self.answer)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Static, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def turn(call: Call, requests: int) -> Turn:
    left = iter(range(requests))

    async def caller() -> None:
        for _ in left:
            await call()

    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return Turn(requests / (time.perf_counter() - started), (time.process_time() - cpu) / requests * 1_000_000)


async def measure(url: str, requests: int, turns: int) -> dict[str, Turn]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        http.Client() as ours,
        httpx.AsyncClient(transport=http.Client()) as over_ours,
        httpx.AsyncClient(limits=limits) as plain,
    ):

        async def bare() -> None:
            async with session.post(url, data=REQUEST, headers=HEADERS) as response:
                await response.read()

        async def post() -> None:
            await ours.post(url, HEADERS, REQUEST, deadline_s=DEADLINE_S)

        async def transport() -> None:
            await ours.handle_async_request(httpx.Request("POST", url, headers=HEADERS, content=REQUEST))

        async def client() -> None:
            await over_ours.post(url, headers=HEADERS, content=REQUEST)

        async def alone() -> None:
            await plain.post(url, headers=HEADERS, content=REQUEST)

        calls: dict[str, tuple[Call, int]] = {
            "bare aiohttp": (bare, requests),
            "ours, as workers call it": (post, requests),
            "ours, as an httpx transport": (transport, requests),
            "httpx client over ours": (client, requests),
            "httpx client alone": (alone, max(requests // 10, IN_FLIGHT)),  # too slow for more
        }
        taken: dict[str, list[Turn]] = {name: [] for name in calls}
        for warm in (True, *[False] * turns):
            for name, (call, count) in calls.items():
                result = await turn(call, IN_FLIGHT if warm else count)
                if not warm:
                    taken[name].append(result)
    return {
        name: Turn(statistics.median(t.per_s for t in all), statistics.median(t.cpu_us for t in all))
        for name, all in taken.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds instead of half a minute")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return uvloop.run(serve())
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1/chat/completions"
        requests, turns = (1_000, 3) if options.quick else (5_000, 7)
        results = uvloop.run(measure(url, requests, turns))
    finally:
        server.terminate()
        server.wait()
    base = results["bare aiohttp"]
    print(f"{IN_FLIGHT} in flight, uvloop, Python {sys.version.split()[0]}, aiohttp {aiohttp.__version__}\n")
    print(f"{'client':30}{'requests/s':>12}{'CPU us':>10}{'CPU, of aiohttp':>18}")
    for name, result in results.items():
        print(f"{name:30}{result.per_s:12,.0f}{result.cpu_us:10.0f}{result.cpu_us / base.cpu_us:18.2f}")
    return None


if __name__ == "__main__":
    main()
