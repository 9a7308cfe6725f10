"""Signs of life: the worker's row and the leases of its shards."""

from __future__ import annotations

import os
import socket
import uuid

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

_REGISTER = sa.text("""
    INSERT INTO workers (provider, hostname, pid, simulated)
    VALUES (:provider, :hostname, :pid, :simulated) RETURNING id
""")

_BEAT = sa.text("UPDATE workers SET heartbeat_at = now(), calls_in_flight = :calls WHERE id = :id")

# One statement for all shards of the worker. What it does not return is no longer this worker's.
_RENEW = sa.text("""
    WITH mine AS (
        SELECT s.id, b.state FROM shards s JOIN batches b ON b.id = s.batch_id
        WHERE s.worker_id = :id AND s.state = 'running'
        ORDER BY s.id FOR UPDATE OF s
    )
    UPDATE shards s SET lease_until = now() + make_interval(secs => :lease_s)
    FROM mine WHERE s.id = mine.id
    RETURNING s.id, s.fence, mine.state AS batch_state
""")

_STOPPED = sa.text("UPDATE workers SET stopped_at = now(), calls_in_flight = 0 WHERE id = :id")


async def register(engine: AsyncEngine, provider: str, *, simulated: bool) -> int:
    """Insert this process's row and return its id."""
    async with engine.begin() as connection:
        values = {
            "provider": provider,
            "hostname": socket.gethostname(),
            "pid": os.getpid(),
            "simulated": simulated,
        }
        return int((await connection.execute(_REGISTER, values)).scalar_one())


async def renew(
    engine: AsyncEngine, worker_id: int, *, lease_s: float, calls_in_flight: int
) -> dict[tuple[uuid.UUID, int], str]:
    """Renew all leases of the worker.

    Returns:
        For each shard that is still this worker's, by id and fencing number, the state of its batch.
    """
    async with engine.begin() as connection:
        await connection.execute(_BEAT, {"id": worker_id, "calls": calls_in_flight})
        rows = await connection.execute(_RENEW, {"id": worker_id, "lease_s": lease_s})
        return {(row.id, row.fence): row.batch_state for row in rows}


async def sign_off(engine: AsyncEngine, worker_id: int) -> None:
    """Say that the worker has stopped."""
    async with engine.begin() as connection:
        await connection.execute(_STOPPED, {"id": worker_id})
