"""What people do to a batch: pause, resume, cancel, retry.

                 pause                     cancel
    running  ───────────▶  paused    running, paused ─────▶  cancelled
       ▲ ◀───────────────────┘
       │         resume                    retry
       └──────────────────────────────  completed (with failed prompts)

Each function works in the caller's transaction, but for `cancel`, and takes locks in one order: the batch,
then its shards by id. The batch is locked FOR NO KEY UPDATE, since a worker that holds shards may insert
others, and their foreign key asks for a share of the batch's key.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from worker import errors
from worker.routing import load, queues

#: Prompts that get the result `cancelled` in one transaction.
CANCEL_BLOCK = 10_000

_LOCK_BATCH = sa.text("SELECT state FROM batches WHERE id = :batch_id FOR NO KEY UPDATE")

# Waits for the writes of workers that are under way, so that the next statement sees what they left.
_LOCK_SHARDS = sa.text("""
    SELECT count(*) FROM (
        SELECT FROM shards
        WHERE batch_id = :batch_id AND state IN ('queued', 'waiting', 'running')
        ORDER BY id FOR UPDATE
    ) AS locked
""")

_SET_STATE = sa.text("""
    UPDATE batches
    SET state = :state,
        finished_at = CASE WHEN :state IN ('completed', 'cancelled') THEN now() END
    WHERE id = :batch_id
""").bindparams(sa.bindparam("state", type_=sa.Text()))

_ANY_OPEN = sa.text("""
    SELECT EXISTS (
        SELECT FROM shards WHERE batch_id = :batch_id AND state IN ('queued', 'waiting', 'running')
    )
""")

# A message that arrived while the batch was paused found nothing to claim and is gone: publish all again.
_PUBLISH_AGAIN = sa.text("""
    UPDATE shards SET published_at = NULL
    WHERE batch_id = :batch_id AND state = 'queued' AND published_at IS NOT NULL
""")

# A worker that runs one of them finds it is no longer its own, and starts no further call of it.
_CANCEL_SHARDS = sa.text("""
    WITH open AS (
        SELECT id FROM shards
        WHERE batch_id = :batch_id AND state IN ('queued', 'waiting', 'running')
        ORDER BY id FOR UPDATE
    )
    UPDATE shards AS s
    SET state = 'cancelled', lease_until = NULL, worker_id = NULL, finished_at = now()
    FROM open WHERE s.id = open.id
""")

# A prompt has one result. A call that is out now is still booked in `attempts`, but its answer is too late.
_CANCEL_PROMPTS = sa.text("""
    INSERT INTO results (batch_id, prompt_no, state, category, provider_simulated, fallbacks, attempts,
        error_class, error_message, finished_at)
    SELECT p.batch_id, p.prompt_no, 'cancelled', p.category, b.simulated, 0,
        (SELECT count(*) FROM attempts AS a WHERE a.batch_id = p.batch_id AND a.prompt_no = p.prompt_no),
        'batch_cancelled', 'The batch was cancelled before this prompt had an answer.', now()
    FROM prompts AS p
    JOIN batches AS b ON b.id = p.batch_id
    WHERE p.batch_id = :batch_id AND p.prompt_no BETWEEN :first AND :last
      AND NOT EXISTS (SELECT FROM results AS r WHERE r.batch_id = p.batch_id AND r.prompt_no = p.prompt_no)
    ORDER BY p.prompt_no
    ON CONFLICT DO NOTHING
""")

_LAST_PROMPT = sa.text("SELECT coalesce(max(prompt_no), 0) FROM prompts WHERE batch_id = :batch_id")

_PROVIDERS = sa.text("SELECT providers FROM batches WHERE id = :batch_id")

_FAILED = sa.text("""
    SELECT DISTINCT p.category FROM results AS r JOIN prompts AS p USING (batch_id, prompt_no)
    WHERE r.batch_id = :batch_id AND r.state = 'failed'
""")

_LIFT_STOPS = sa.text("""
    DELETE FROM provider_stops
    WHERE simulated = (SELECT simulated FROM batches WHERE id = :batch_id)
""")

# The failed results go and their prompts are in exactly one new shard, as if nothing had been tried.
# `entries` is by category the list of [queue, route] where its shards begin, in turn.
_RETRY = sa.text("""
    WITH failed AS (
        DELETE FROM results WHERE batch_id = :batch_id AND state = 'failed' RETURNING batch_id, prompt_no
    ), part AS (
        SELECT p.prompt_no, p.category, p.pinned,
            (row_number() OVER same - 1) / :shard_prompts AS no
        FROM failed JOIN prompts AS p USING (batch_id, prompt_no)
        WINDOW same AS (PARTITION BY p.category, p.pinned ORDER BY p.prompt_no)
    ), shard AS (
        INSERT INTO shards (id, batch_id, category, queue, pinned, route, prompt_nos, state, attempt_no,
            attempts_before, tried, reason)
        SELECT gen_random_uuid(), :batch_id, category,
            CASE WHEN pinned IS NULL THEN entry ->> 0 ELSE category || '.' || split_part(pinned, '/', 1) END,
            pinned, coalesce(pinned, entry ->> 1), prompt_nos, 'queued', 1, 0, '{}', NULL
        FROM (
            SELECT category, pinned, no, array_agg(prompt_no ORDER BY prompt_no) AS prompt_nos
            FROM part GROUP BY category, pinned, no
        ) AS same, LATERAL (
            SELECT CAST(:entries AS json) -> category AS all_entries
        ) AS e, LATERAL (
            SELECT all_entries -> CAST(no % json_array_length(all_entries) AS int) AS entry
        ) AS turn
        RETURNING prompt_nos
    )
    SELECT coalesce(sum(cardinality(prompt_nos)), 0)::bigint FROM shard
""").bindparams(sa.bindparam("shard_prompts", type_=sa.BigInteger()))


async def pause(connection: AsyncConnection, batch_id: int) -> None:
    """Start no further call of the batch; those that are out end and are booked.

    Raises:
        BatchError: it does not exist or does not run.
    """
    await _lock(connection, batch_id, {"running"}, "paused")
    await _set_state(connection, batch_id, "paused")


async def resume(connection: AsyncConnection, batch_id: int) -> None:
    """Go on with a paused batch. Its queued shards count as unpublished after this: publish them.

    Raises:
        BatchError: it does not exist or is not paused.
    """
    await _lock(connection, batch_id, {"paused"}, "resumed")
    await connection.execute(_LOCK_SHARDS, {"batch_id": batch_id})
    await connection.execute(_PUBLISH_AGAIN, {"batch_id": batch_id})
    is_open = (await connection.execute(_ANY_OPEN, {"batch_id": batch_id})).scalar_one()
    await _set_state(connection, batch_id, "running" if is_open else "completed")


async def cancel(engine: AsyncEngine, batch_id: int) -> int:
    """End the batch: every prompt without a result gets the result `cancelled`.

    It is cancelled once this has begun. The results follow block by block, so that no lock is held for long;
    a cancel that was interrupted is finished by another.

    Returns:
        How many prompts that were.

    Raises:
        BatchError: it does not exist or has ended.
    """
    async with engine.begin() as connection:
        before = await _lock(connection, batch_id, {"running", "paused", "cancelled"}, "cancelled")
        await _set_state(connection, batch_id, "cancelled")
        # A worker whose write was under way may have left new shards, which only the next look finds. It
        # ends: a worker opens shards only while it holds one, and all that it can hold are cancelled here.
        while (await connection.execute(_ANY_OPEN, {"batch_id": batch_id})).scalar_one():
            await connection.execute(_CANCEL_SHARDS, {"batch_id": batch_id})
        last = (await connection.execute(_LAST_PROMPT, {"batch_id": batch_id})).scalar_one()
    count = 0
    for first in range(1, last + 1, CANCEL_BLOCK):
        block = {"batch_id": batch_id, "first": first, "last": first + CANCEL_BLOCK - 1}
        async with engine.begin() as connection:
            count += (await connection.execute(_CANCEL_PROMPTS, block)).rowcount
    if before == "cancelled" and not count:
        raise _forbidden(batch_id, before, "cancelled")
    return count


async def retry(connection: AsyncConnection, batch_id: int, *, usable: load.Usable, shard_prompts: int) -> int:
    """Give the failed prompts of a batch another run from the start of their chains. Publish them after this.

    Args:
        usable: what has a key now. They go to no provider that the batch was not submitted for.
        shard_prompts: prompts in a shard, at most.

    Returns:
        How many prompts that are; with none the batch stays as it is.

    Raises:
        BatchError: it does not exist, is paused or was cancelled.
        RegistryError: one of their categories has no provider that can be called.
    """
    await _lock(connection, batch_id, {"running", "completed"}, "retried")
    categories = [row.category for row in await connection.execute(_FAILED, {"batch_id": batch_id})]
    if not categories:
        return 0
    allowed = (await connection.execute(_PROVIDERS, {"batch_id": batch_id})).scalar_one()
    usable = usable.restricted(without=[name for name in usable.registry.providers if name not in allowed])
    for category in categories:
        usable.require(category)
    entries = {
        category: [(queue, route and str(route)) for queue, route in queues.entries(category, usable)]
        for category in categories
    }
    values = {"batch_id": batch_id, "shard_prompts": shard_prompts, "entries": json.dumps(entries)}
    count = int((await connection.execute(_RETRY, values)).scalar_one())
    # Somebody has mended what made them fail: the workers look again whether stopped providers are back.
    await connection.execute(_LIFT_STOPS, {"batch_id": batch_id})
    await _set_state(connection, batch_id, "running")
    return count


async def _lock(connection: AsyncConnection, batch_id: int, allowed: set[str], done: str) -> str:
    """Lock the batch and return its state."""
    state = (await connection.execute(_LOCK_BATCH, {"batch_id": batch_id})).scalar_one_or_none()
    if state is None:
        raise errors.BatchError(f"There is no batch {batch_id}. `promptyard status` lists them.")
    if state not in allowed:
        raise _forbidden(batch_id, state, done)
    return str(state)


def _forbidden(batch_id: int, state: str, done: str) -> errors.BatchError:
    advice = {
        "running": "It runs already.",
        "paused": f"Resume it first: `promptyard resume {batch_id}`.",
        "completed": "All its prompts have a result.",
        "cancelled": "That is final: submit its file again.",
    }
    if done == "paused" and state == "paused":
        advice["paused"] = "It waits already."
    return errors.BatchError(f"Batch {batch_id} is {state} and cannot be {done}. {advice[state]}")


async def _set_state(connection: AsyncConnection, batch_id: int, state: str) -> None:
    await connection.execute(_SET_STATE, {"batch_id": batch_id, "state": state})
