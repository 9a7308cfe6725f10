"""Puts right what nobody is there to do: shards that are due, lost with their worker, or vanished from Redis.

Every worker tries this twice a second; an advisory lock lets one of them through.
"""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from worker import celery, errors
from worker.providers import types
from worker.routing import decide
from worker.shards import book, call, claim, idle, write

#: Key of the advisory lock; held by the transaction of one sweep.
_LOCK_KEY = 0x50524D5459415244  # "PRMTYARD"
#: Shards handled in one sweep.
BLOCK = 500
#: Seconds after which a published shard that nobody took, in a queue that is empty in Redis, has vanished.
VANISHED_S = 5

_LOCK = sa.text("SELECT pg_try_advisory_xact_lock(:key)")

# The condition stands in the UPDATE again: between the SELECT and the lock another may have taken the row.
_DUE = sa.text("""
    UPDATE shards SET state = 'queued', not_before = NULL, published_at = NULL
    WHERE state = 'waiting' AND not_before <= now() AND id IN (
        SELECT s.id FROM shards s JOIN batches b ON b.id = s.batch_id
        WHERE s.state = 'waiting' AND s.not_before <= now()
          AND b.state = 'running' AND b.simulated = :simulated
        ORDER BY s.not_before LIMIT :block FOR UPDATE OF s SKIP LOCKED)
""")

_EXPIRED = sa.text("""
    SELECT s.id, s.batch_id, s.category, s.queue, s.pinned, s.route, s.prompt_nos, s.attempt_no,
           s.attempts_before, s.tried, s.reason, s.fence, b.frontier, b.providers
    FROM shards s JOIN batches b ON b.id = s.batch_id
    WHERE s.state = 'running' AND s.lease_until < now() AND b.simulated = :simulated
    ORDER BY s.id LIMIT :block FOR UPDATE OF s SKIP LOCKED
""")

# What a dead worker had out nobody knows: each prompt without an answer counts as one call of unknown cost.
_IN_DOUBT = sa.text("""
    INSERT INTO attempts (batch_id, prompt_no, shard_id, fence, worker_id, category, provider, model,
        provider_simulated, outcome, error_class, error_message, finished_at)
    SELECT s.batch_id, p.prompt_no, s.id, s.fence, s.worker_id, s.category, :provider, :model,
        :simulated, 'unknown', 'lost', 'the worker died while the call may have been out', now()
    FROM shards s CROSS JOIN unnest(s.prompt_nos) AS p (prompt_no)
    WHERE s.id = :id
      AND NOT EXISTS (SELECT FROM results r WHERE r.batch_id = s.batch_id AND r.prompt_no = p.prompt_no)
    ON CONFLICT DO NOTHING
""")

_POISON = sa.text("""
    INSERT INTO results (batch_id, prompt_no, state, category, provider, model, provider_simulated, fallbacks,
        attempts, error_class, error_message, finished_at)
    SELECT s.batch_id, p.prompt_no, 'failed', s.category, :provider, :model, :simulated, cardinality(s.tried),
        s.attempts_before + 1, 'lost', 'its workers died: ' || :reason, now()
    FROM shards s CROSS JOIN unnest(s.prompt_nos) AS p (prompt_no)
    WHERE s.id = :id
    ON CONFLICT DO NOTHING
""")

_PUBLISHED_LONG_AGO = sa.text("""
    SELECT s.queue FROM shards s JOIN batches b ON b.id = s.batch_id
    WHERE s.state = 'queued' AND s.published_at < now() - make_interval(secs => :vanished_s)
      AND b.state = 'running' AND b.simulated = :simulated
    GROUP BY s.queue
""")

_UNPUBLISH = sa.text("""
    UPDATE shards SET published_at = NULL WHERE id IN (
        SELECT s.id FROM shards s JOIN batches b ON b.id = s.batch_id
        WHERE s.state = 'queued' AND s.queue = ANY(:queues)
          AND s.published_at < now() - make_interval(secs => :vanished_s)
          AND b.state = 'running' AND b.simulated = :simulated
        ORDER BY s.published_at LIMIT :block FOR UPDATE OF s SKIP LOCKED)
""")

# Besides what this sweep has put right: a publisher may have died between its commit and its messages.
_UNPUBLISHED = sa.text("""
    SELECT EXISTS (
        SELECT FROM shards s JOIN batches b ON b.id = s.batch_id
        WHERE s.state = 'queued' AND s.published_at IS NULL
          AND b.state = 'running' AND b.simulated = :simulated)
""")

_OPEN_BATCHES = sa.text("SELECT id FROM batches WHERE state = 'running' AND simulated = :simulated")

_DEAD_WORKERS = sa.text("""
    UPDATE workers SET stopped_at = heartbeat_at, calls_in_flight = 0
    WHERE stopped_at IS NULL AND heartbeat_at < now() - make_interval(mins => 1)
""")


async def sweep(
    engine: AsyncEngine, router: call.Router, *, simulated: bool, lease_s: float | None, idle_s: float
) -> bool:
    """Do one sweep, unless another worker is at it.

    Args:
        lease_s: how long a lease is. None: leave alone those that ran out, since Postgres was away just now
            and no worker could renew.
        idle_s: how long a queue may have no worker before its shards move on.

    Returns:
        Whether there are shards to publish.
    """
    began = time.monotonic()
    async with engine.begin() as connection:
        if not (await connection.execute(_LOCK, {"key": _LOCK_KEY})).scalar_one():
            return False
        await connection.execute(_DUE, {"simulated": simulated, "block": BLOCK})
        # A server that froze under this sweep froze the workers' heartbeats as well.
        if lease_s is not None and time.monotonic() - began < lease_s / 4:
            expired = await connection.execute(_EXPIRED, {"simulated": simulated, "block": BLOCK})
            for row in expired.all():
                await _lost(connection, row, router, simulated=simulated)
            await connection.execute(_DEAD_WORKERS)
            await idle.move_on(connection, router, simulated=simulated, idle_s=idle_s)
        await _find_vanished(connection, simulated=simulated)
        unpublished = bool(await connection.scalar(_UNPUBLISHED, {"simulated": simulated}))
        batches = {row.id for row in await connection.execute(_OPEN_BATCHES, {"simulated": simulated})}
    if batches:
        await write.complete(engine, batches)
    return unpublished


async def _lost(connection: AsyncConnection, row: sa.Row[Any], router: call.Router, *, simulated: bool) -> None:
    """Send the shard of a dead worker on.

    It counts as an attempt, so that a prompt that kills its workers ends as failed.
    """
    held = claim.held(row)
    route = {"provider": held.route.provider, "model": held.route.model, "simulated": simulated}
    await connection.execute(_IN_DOUBT, {"id": held.id, **route})
    decision = router.after(
        held, decide.Failure(types.ErrorClass.LOST), now=datetime.now(UTC), jitter=random.random()
    )
    if isinstance(decision, decide.Fail):
        await connection.execute(_POISON, {"id": held.id, "reason": decision.reason, **route})
        await connection.execute(write.CLOSE, {"id": held.id})
        return
    move = book.move(held, decision, types.ErrorClass.LOST, called=True)
    # The wait of a retry is for a provider that is unwell; here a worker was.
    await connection.execute(idle.MOVE, idle.values(held, move))


async def _find_vanished(connection: AsyncConnection, *, simulated: bool) -> None:
    """Publish again what Postgres has published and Redis does not have.

    A message may also be in the hands of a worker that waits for room. Its shard is then published twice at
    most: the second message fills the queue, and an empty queue is the condition.
    """
    found = await connection.execute(_PUBLISHED_LONG_AGO, {"simulated": simulated, "vanished_s": VANISHED_S})
    queues = [row.queue for row in found]
    if not queues:
        return
    try:
        waiting = await asyncio.to_thread(celery.messages_waiting, queues)
    except errors.ServerError:
        return  # Redis is away; the next sweep looks again
    empty = [queue for queue, messages in waiting.items() if not messages]
    if empty:
        values = {"queues": empty, "vanished_s": VANISHED_S, "simulated": simulated, "block": BLOCK}
        await connection.execute(_UNPUBLISH, values)
