"""Signs of life: the worker's row and the leases of its shards."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

_REGISTER = sa.text("""
    INSERT INTO workers (provider, hostname, pid, simulated)
    VALUES (:provider, :hostname, :pid, :simulated) RETURNING id
""")

# A worker that was silent for so long that it counted as stopped is there again.
_BEAT = sa.text("""
    UPDATE workers SET heartbeat_at = now(), calls_in_flight = :calls, stopped_at = NULL WHERE id = :id
""")

# One statement for all shards that the worker holds. What it does not return is no longer this worker's. A
# shard that is this worker's by Postgres alone, since the answer to its claim was lost, is left to run out.
_RENEW = sa.text("""
    WITH mine AS (
        SELECT s.id, b.state FROM shards s JOIN batches b ON b.id = s.batch_id
        WHERE s.id = ANY(CAST(:held AS uuid[])) AND s.worker_id = :id AND s.state = 'running'
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
    engine: AsyncEngine, worker_id: int, held: Sequence[uuid.UUID], *, lease_s: float, calls_in_flight: int
) -> dict[tuple[uuid.UUID, int], str]:
    """Renew the leases of the shards that the worker holds.

    Returns:
        For each shard that is still this worker's, by id and fencing number, the state of its batch.
    """
    async with engine.begin() as connection:
        await connection.execute(_BEAT, {"id": worker_id, "calls": calls_in_flight})
        rows = await connection.execute(_RENEW, {"id": worker_id, "held": held, "lease_s": lease_s})
        return {(row.id, row.fence): row.batch_state for row in rows}


async def sign_off(engine: AsyncEngine, worker_id: int) -> None:
    """Say that the worker has stopped."""
    async with engine.begin() as connection:
        await connection.execute(_STOPPED, {"id": worker_id})
