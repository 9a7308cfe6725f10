"""The health check of the worker containers, run as Docker runs it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

SCRIPT = Path(__file__).parents[2] / "docker" / "worker_alive.py"


async def register(database_url: str, *, hostname: str, heartbeat_age_s: int, stopped: bool = False) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(
            """
            INSERT INTO workers (provider, hostname, pid, simulated, heartbeat_at, stopped_at)
            VALUES ('groq', $1, 1, false, now() - make_interval(secs => $2), CASE WHEN $3 THEN now() END)
            """,
            hostname,
            heartbeat_age_s,
            stopped,
        )
    finally:
        await connection.close()


def check(database_url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={**os.environ, "DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=30,
    )


async def test_a_worker_with_a_fresh_heartbeat_is_healthy(database_url: str) -> None:
    await register(database_url, hostname=socket.gethostname(), heartbeat_age_s=5)

    assert check(database_url).returncode == 0


@pytest.mark.parametrize(
    ("hostname", "heartbeat_age_s", "stopped"),
    [
        (socket.gethostname(), 90, False),  # its loop stands still, or Postgres is out of reach
        (socket.gethostname(), 5, True),  # it has signed off
        ("another-container", 5, False),
    ],
)
async def test_no_fresh_heartbeat_of_this_host_is_unhealthy(
    database_url: str, hostname: str, heartbeat_age_s: int, stopped: bool
) -> None:
    await register(database_url, hostname=hostname, heartbeat_age_s=heartbeat_age_s, stopped=stopped)

    answer = check(database_url)

    assert answer.returncode == 1
    assert "no worker of this host" in answer.stderr
