"""Queues that no worker consumes: after a while their shards move on to a provider that has one."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.ledger import reads
from worker.providers import types
from worker.shards import book, call, claim

#: Shards moved in one sweep.
BLOCK = 500

_LIVE = sa.text("""
    SELECT DISTINCT provider FROM workers
    WHERE stopped_at IS NULL AND simulated = :simulated
      AND heartbeat_at > now() - make_interval(secs => :live_s)
""")

# `published_at`, since a shard counts from when somebody could have taken it.
_QUEUES = sa.text("""
    SELECT DISTINCT s.queue FROM shards s JOIN batches b ON b.id = s.batch_id
    WHERE s.state = 'queued' AND s.published_at < now() - make_interval(secs => :idle_s)
      AND s.pinned IS NULL AND b.state = 'running' AND b.simulated = :simulated
""")

_SHARDS = sa.text("""
    SELECT s.id, s.batch_id, s.category, s.queue, s.pinned, coalesce(s.route, :route) AS route, s.prompt_nos,
           s.attempt_no, s.attempts_before, s.tried, s.reason, s.fence, b.frontier, b.providers
    FROM shards s JOIN batches b ON b.id = s.batch_id
    WHERE s.queue = :queue AND s.state = 'queued'
      AND s.published_at < now() - make_interval(secs => :idle_s)
      AND s.pinned IS NULL AND b.state = 'running' AND b.simulated = :simulated
    ORDER BY s.id LIMIT :block FOR UPDATE OF s SKIP LOCKED
""")

MOVE = sa.text("""
    UPDATE shards SET state = 'queued', queue = :queue, route = :route, attempt_no = :attempt_no,
        attempts_before = :attempts_before, tried = :tried, reason = :reason,
        lease_until = NULL, worker_id = NULL, published_at = NULL
    WHERE id = :id
""")


async def move_on(connection: AsyncConnection, router: call.Router, *, simulated: bool, idle_s: float) -> None:
    """Move shards that were published longer ago than `idle_s` and whose queue has no live worker.

    Those that have nowhere to go, since no other provider of their chain has a worker either, stay.
    """
    waited = {"idle_s": idle_s, "simulated": simulated}
    names = [row.queue for row in await connection.execute(_QUEUES, waited)]
    if not names:
        return
    rows = await connection.execute(_LIVE, {"live_s": reads.LIVE_S, "simulated": simulated})
    live = frozenset(row.provider for row in rows)
    for queue in names:
        if live.intersection(router.consumers(queue)):
            continue
        values = {"queue": queue, "route": str(router.first_route(queue)), "block": BLOCK, **waited}
        for row in (await connection.execute(_SHARDS, values)).all():
            await _move(connection, claim.held(row), router, live)


async def _move(
    connection: AsyncConnection, held: claim.Held, router: call.Router, live: frozenset[str]
) -> None:
    fallback = router.elsewhere(held, live)
    if fallback is not None:
        to = book.move(held, fallback, types.ErrorClass.NO_WORKER, called=False)
        await connection.execute(MOVE, values(held, to))


def values(held: claim.Held, to: book.Move) -> dict[str, Any]:
    """What `MOVE` needs to send a whole shard on."""
    return {
        "id": held.id,
        "queue": to.queue,
        "route": str(to.route),
        "attempt_no": to.attempt_no,
        "attempts_before": to.attempts_before,
        "tried": [str(route) for route in to.tried],
        "reason": to.reason,
    }
