"""What is alive: workers, over all batches, and the work that lies there for them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.ledger import reads


@dataclass(frozen=True, slots=True)
class Live:
    """The live workers of one provider."""

    provider: str
    simulated: bool
    workers: int
    calls_in_flight: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """Prompts that no worker has in hand, of running batches, in one queue."""

    queue: str
    simulated: bool
    prompts: int


_LIVE = sa.text("""
    SELECT provider, simulated, count(*), sum(calls_in_flight)::bigint
    FROM workers
    WHERE stopped_at IS NULL AND heartbeat_at > now() - make_interval(secs => :live_s)
    GROUP BY provider, simulated
    ORDER BY provider, simulated
""")

_BACKLOG = sa.text("""
    SELECT s.queue, b.simulated, sum(cardinality(s.prompt_nos))::bigint
    FROM shards AS s JOIN batches AS b ON b.id = s.batch_id
    WHERE s.state IN ('queued', 'waiting') AND b.state = 'running'
    GROUP BY s.queue, b.simulated
    ORDER BY s.queue, b.simulated
""")


async def live_workers(connection: AsyncConnection) -> Sequence[Live]:
    """The workers that gave a sign of life within `reads.LIVE_S`, by provider."""
    return [Live(*row) for row in await connection.execute(_LIVE, {"live_s": reads.LIVE_S})]


async def backlog(connection: AsyncConnection) -> Sequence[Backlog]:
    """What waits for a worker, by queue."""
    return [Backlog(*row) for row in await connection.execute(_BACKLOG)]


async def clock(connection: AsyncConnection) -> datetime.datetime:
    """What time it is in Postgres."""
    now: datetime.datetime = (await connection.execute(sa.select(sa.func.clock_timestamp()))).scalar_one()
    return now
