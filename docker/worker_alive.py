"""Tell Docker whether this container's worker is alive.

Healthy means that a worker of this host has written its heartbeat lately: its event loop turns and it reaches
Postgres. Asking the row takes a fraction of the processor time of `celery inspect ping`, which starts a whole
Celery for each question.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys

import asyncpg

#: Seconds without a heartbeat after which the worker counts as dead. Well over the lease, so that a short
#: outage of Postgres is not taken for a dead worker.
STALE_AFTER_S = 60

ALIVE = """
SELECT EXISTS (
    SELECT FROM workers
    WHERE hostname = $1 AND stopped_at IS NULL AND heartbeat_at > now() - make_interval(secs => $2)
)
"""


async def alive(url: str, hostname: str) -> bool:
    connection = await asyncpg.connect(url, timeout=5)
    try:
        return bool(await connection.fetchval(ALIVE, hostname, STALE_AFTER_S))
    finally:
        await connection.close()


if __name__ == "__main__":
    if not asyncio.run(alive(os.environ["DATABASE_URL"], socket.gethostname())):
        sys.exit(f"no worker of this host has given a sign of life for {STALE_AFTER_S} s")
