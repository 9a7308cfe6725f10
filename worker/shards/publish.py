"""From Postgres to Redis: shards that are queued and not yet published."""

from __future__ import annotations

import asyncio

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from worker import celery

#: Shards published in one transaction.
BLOCK = 1000

# SKIP LOCKED: two publishers share the work. The rows stay locked until they are marked, so that a shard is
# published twice only when a publisher dies in between; the second message finds it claimed and is dropped.
_UNPUBLISHED = sa.text("""
    SELECT s.id, s.queue
    FROM shards s JOIN batches b ON b.id = s.batch_id
    WHERE s.state = 'queued' AND s.published_at IS NULL AND b.state = 'running' AND b.simulated = :simulated
      AND (CAST(:batch_id AS bigint) IS NULL OR s.batch_id = :batch_id)
    ORDER BY s.created_at, s.prompt_nos[1]
    LIMIT :block
    FOR UPDATE OF s SKIP LOCKED
""")

_MARK = sa.text("UPDATE shards SET published_at = now() WHERE id = ANY(CAST(:ids AS uuid[]))")


async def publish(engine: AsyncEngine, *, simulated: bool, batch_id: int | None = None) -> int:
    """Publish every queued shard that was not published yet, and return how many there were.

    Raises:
        ServerError: the broker cannot be reached. Nothing is lost: the shards wait in Postgres.
    """
    published = 0
    while True:
        async with engine.begin() as connection:
            found = await connection.execute(
                _UNPUBLISHED, {"simulated": simulated, "batch_id": batch_id, "block": BLOCK}
            )
            shards = [(row.id, row.queue) for row in found]
            if shards:
                await asyncio.to_thread(celery.publish, shards)
                await connection.execute(_MARK, {"ids": [shard_id for shard_id, _ in shards]})
        published += len(shards)
        if len(shards) < BLOCK:
            return published
