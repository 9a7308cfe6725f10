"""`python -m worker.simulator [PORT]`: settings as a line of JSON on standard input, its URL on the output.

It runs until it is told to stop or standard input ends, which it does when its parent dies. Where it cannot
run, standard output says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

from worker import errors
from worker.simulator import server
from worker.simulator import settings as simulator_settings


async def _run(settings: simulator_settings.Settings, port: int) -> None:
    loop = asyncio.get_running_loop()
    serving = asyncio.ensure_future(server.serve(settings, port=port, ready=lambda url: print(url, flush=True)))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.cancel)
    loop.add_reader(sys.stdin.fileno(), _end_with_parent, serving)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def _end_with_parent(serving: asyncio.Future[None]) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        serving.cancel()


def main() -> int:
    try:
        settings = simulator_settings.parse(sys.stdin.buffer.readline())
        server.run(_run(settings, int(sys.argv[1]) if len(sys.argv) > 1 else 0))
    except errors.PromptyardError as e:
        print(e, flush=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
