"""Answers, attempts and the shards that follow, in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import asyncpg
import sqlalchemy as sa
import sqlalchemy.exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from worker.shards import book, claim

log = logging.getLogger(__name__)

#: Column, its SQL type and where it comes from.
_COLUMNS: Sequence[tuple[str, str, Callable[[book.Call], Any]]] = (
    ("batch_id", "bigint", lambda c: c.held.batch_id),
    ("prompt_no", "int", lambda c: c.prompt_no),
    ("shard_id", "uuid", lambda c: c.held.id),
    ("fence", "int", lambda c: c.held.fence),
    ("category", "text", lambda c: c.held.category),
    ("provider", "text", lambda c: c.held.route.provider),
    ("model", "text", lambda c: c.held.route.model),
    ("fallbacks", "smallint", lambda c: len(c.held.tried)),
    ("attempts", "smallint", lambda c: c.held.attempts_before + c.called),
    ("outcome", "text", lambda c: c.outcome),
    ("called", "bool", lambda c: c.called),
    ("final", "bool", lambda c: c.final),
    ("error_class", "text", lambda c: c.error_class),
    ("error_message", "text", lambda c: c.error_message),
    ("http_status", "smallint", lambda c: c.http_status),
    ("input_tokens", "int", lambda c: c.usage and c.usage.input_tokens),
    ("cache_read_tokens", "int", lambda c: c.usage and c.usage.cache_read_tokens),
    ("cache_write_tokens", "int", lambda c: c.usage and c.usage.cache_write_tokens),
    ("output_tokens", "int", lambda c: c.usage and c.usage.output_tokens),
    ("reasoning_tokens", "int", lambda c: c.usage and c.usage.reasoning_tokens),
    ("cost_usd", "numeric", lambda c: c.cost_usd),
    ("price_id", "bigint", lambda c: c.price_id),
    ("baseline_cost_usd", "numeric", lambda c: c.baseline_cost_usd),
    ("latency_ms", "int", lambda c: c.latency_ms),
    ("started_at", "timestamptz", lambda c: c.started_at),
    ("finished_at", "timestamptz", lambda c: c.finished_at),
    ("finish_reason", "text", lambda c: c.finish_reason),
    ("content", "text", lambda c: c.content),
    ("response", "text", lambda c: c.response),
)

#: Columns of an attempt that nobody knew while it was booked as unknown.
_KNOWN_LATER = (
    "outcome",
    "error_class",
    "error_message",
    "http_status",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_usd",
    "price_id",
    "latency_ms",
    "started_at",
    "finished_at",
)

# Attempts are keyed by the claim they were made under and results by their prompt: writing a flush again, or
# after another worker answered, adds nothing. A worker that was taken for dead may still say how its calls
# ended, which replaces what was booked as unknown. Only the owner of a shard may end a prompt as failed:
# whoever owns it now may still get an answer.
_INSERT = sa.text(f"""
    WITH call AS (
        SELECT * FROM unnest(CAST(:owned AS bool[]),
                {", ".join(f"CAST(:{name} AS {kind}[])" for name, kind, _ in _COLUMNS)})
            AS t(owned, {", ".join(name for name, _, _ in _COLUMNS)})
    ), attempt AS (
        INSERT INTO attempts (batch_id, prompt_no, shard_id, fence, worker_id, category, provider, model,
            provider_simulated, outcome, error_class, error_message, http_status, input_tokens,
            cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens, cost_usd, price_id,
            latency_ms, started_at, finished_at)
        SELECT batch_id, prompt_no, shard_id, fence, :worker_id, category, provider, model,
            :simulated, outcome, error_class, error_message, http_status, input_tokens,
            cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens, cost_usd, price_id,
            latency_ms, started_at, finished_at
        FROM call WHERE called
        ON CONFLICT (batch_id, prompt_no, shard_id, fence) DO UPDATE
        SET ({", ".join(_KNOWN_LATER)}) = ROW ({", ".join(f"excluded.{name}" for name in _KNOWN_LATER)})
        WHERE attempts.outcome = 'unknown' AND excluded.outcome <> 'unknown'
    )
    INSERT INTO results (batch_id, prompt_no, state, category, provider, model, provider_simulated, fallbacks,
        attempts, finish_reason, content, dialect, response, http_status, error_class, error_message,
        input_tokens, cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens, cost_usd,
        baseline_cost_usd, latency_ms, started_at, finished_at)
    SELECT batch_id, prompt_no, CASE outcome WHEN 'succeeded' THEN outcome ELSE 'failed' END,
        category, provider, model, :simulated, fallbacks,
        attempts, finish_reason, content, CASE WHEN response IS NOT NULL THEN :dialect END, response::json,
        http_status, error_class, error_message,
        input_tokens, cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens, cost_usd,
        baseline_cost_usd, latency_ms, started_at, finished_at
    FROM call
    WHERE final AND (outcome = 'succeeded' OR owned)
    ORDER BY batch_id, prompt_no
    ON CONFLICT DO NOTHING
""")  # noqa: S608 (the names come from the table above)

# Rows are locked in the order of their ids, here and wherever several shards change at once: no deadlocks.
_LOCK = sa.text("""
    SELECT id, fence FROM shards
    WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'running' AND worker_id = :worker_id
    ORDER BY id FOR UPDATE
""")

_KEEP = sa.text("UPDATE shards SET prompt_nos = :left WHERE id = :id")

CLOSE = sa.text("""
    UPDATE shards
    SET state = 'done', prompt_nos = '{}', lease_until = NULL, worker_id = NULL, finished_at = now()
    WHERE id = :id
""")

_HAND_BACK = sa.text("""
    UPDATE shards
    SET state = 'queued', prompt_nos = :left, lease_until = NULL, worker_id = NULL, published_at = NULL
    WHERE id = :id
""")

_NEW_SHARD = sa.text("""
    INSERT INTO shards (id, batch_id, category, queue, pinned, route, prompt_nos, state, attempt_no,
        attempts_before, tried, reason, not_before)
    SELECT :id, :batch_id, :category, :queue, :pinned, :route, :prompt_nos, :state, :attempt_no,
        :attempts_before, :tried, :reason, :not_before
    ON CONFLICT (id) DO NOTHING
""").bindparams(sa.bindparam("not_before", type_=sa.DateTime(timezone=True)))

# The batch is locked by a statement of its own, so that the next one sees the shards that a retry has added.
_LOCK_BATCHES = sa.text("""
    SELECT id FROM batches WHERE id = ANY(CAST(:ids AS bigint[])) AND state = 'running'
    ORDER BY id FOR NO KEY UPDATE
""")

# Looked at after the commit: of two workers that close the last two shards at once, the later one sees both.
_COMPLETE = sa.text("""
    UPDATE batches b SET state = 'completed', finished_at = now()
    WHERE b.id = ANY(CAST(:ids AS bigint[])) AND b.state = 'running'
      AND NOT EXISTS (
        SELECT FROM shards s WHERE s.batch_id = b.id AND s.state IN ('queued', 'waiting', 'running'))
""")


_REFUSALS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,
)


async def write(
    engine: AsyncEngine, flush: book.Flush, *, worker_id: int, dialect: str, simulated: bool
) -> None:
    """Write a flush. Safe to repeat when nobody knows whether the commit arrived.

    Shards whose lease was lost are marked so; their answers are booked, what is left of them is not touched.

    Raises:
        sqlalchemy.exc.DBAPIError: nothing was written, or, when the connection broke, nobody knows.
    """
    closed_batches = set()
    async with engine.begin() as connection:
        locked = await connection.execute(
            _LOCK, {"ids": [held.id for held in flush.touched], "worker_id": worker_id}
        )
        fences = {row.id: row.fence for row in locked}
        owned = {held for held in flush.touched if fences.get(held.id) == held.fence}
        if flush.calls:
            fixed = {"worker_id": worker_id, "dialect": dialect, "simulated": simulated}
            await _insert(connection, flush.calls, owned, fixed)
        await _insert_shards(connection, flush, owned)
        for held in sorted(owned, key=lambda held: held.id):
            ending, left = flush.endings[held]
            if ending is book.Ending.CLOSE:
                await connection.execute(CLOSE, {"id": held.id})
                closed_batches.add(held.batch_id)
            else:
                statement = _KEEP if ending is book.Ending.KEEP else _HAND_BACK
                await connection.execute(statement, {"id": held.id, "left": left})
    for held in flush.touched - owned:
        held.lost = True
    if closed_batches:
        await complete(engine, closed_batches)


async def complete(engine: AsyncEngine, batch_ids: set[int]) -> None:
    """Mark those of the batches as completed that have no open shard."""
    async with engine.begin() as connection:
        locked = await connection.execute(_LOCK_BATCHES, {"ids": sorted(batch_ids)})
        await connection.execute(_COMPLETE, {"ids": [row.id for row in locked]})


async def _insert_shards(connection: AsyncConnection, flush: book.Flush, owned: set[claim.Held]) -> None:
    for shard in flush.new_shards:
        prompt_nos = sorted(prompt_no for held, prompt_no in shard.prompts if held in owned)
        if not prompt_nos:
            continue
        await connection.execute(
            _NEW_SHARD,
            {
                "id": shard.id,
                "batch_id": shard.move.batch_id,
                "category": shard.move.category,
                "queue": shard.move.queue,
                "pinned": shard.move.pinned,
                "route": str(shard.move.route),
                "prompt_nos": prompt_nos,
                "state": "queued" if shard.not_before is None else "waiting",
                "attempt_no": shard.move.attempt_no,
                "attempts_before": shard.move.attempts_before,
                "tried": [str(route) for route in shard.move.tried],
                "reason": shard.move.reason,
                "not_before": shard.not_before,
            },
        )


async def _insert(
    connection: AsyncConnection, calls: Sequence[book.Call], owned: Set[claim.Held], fixed: Mapping[str, Any]
) -> None:
    """Insert the calls; one with a value that is refused is found by halving and stored without that."""
    values: dict[str, Any] = {name: [value(call) for call in calls] for name, _, value in _COLUMNS}
    values["owned"] = [call.held in owned for call in calls]
    try:
        async with connection.begin_nested():
            await connection.execute(_INSERT, {**values, **fixed})
    except sqlalchemy.exc.DBAPIError as e:
        if not _is_about_values(e):
            raise
        if len(calls) > 1:
            middle = len(calls) // 2
            await _insert(connection, calls[:middle], owned, fixed)
            await _insert(connection, calls[middle:], owned, fixed)
            return
        (call,) = calls
        if call.response is not None or call.content is not None:
            call.response = call.content = None
        elif call.usage is not None:
            # Numbers of tokens that no answer has: what the call cost is unknown.
            call.usage = call.cost_usd = call.price_id = call.baseline_cost_usd = None
        else:
            log.error("a call of batch %d cannot be booked (%s)", call.held.batch_id, type(_cause(e)).__name__)
            return
        call.outcome, call.error_class = "failed", "malformed"
        call.error_message = f"Postgres cannot store this answer ({type(_cause(e)).__name__})"
        await _insert(connection, calls, owned, fixed)


def _is_about_values(error: sqlalchemy.exc.DBAPIError) -> bool:
    """Whether a value was refused, by Postgres or by asyncpg before it was sent, and would be again.

    It is also when the batch was deleted meanwhile. SQLAlchemy has no class of its own for asyncpg's.
    """
    return isinstance(_cause(error), _REFUSALS)


def _cause(error: sqlalchemy.exc.DBAPIError) -> BaseException | None:
    return error.orig and error.orig.__cause__
