"""What the command shows of batches: progress, queues, failures."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker import errors
from worker.ledger import tables

#: A worker is live while its last sign of life is no older; the view `provider_health` says the same.
LIVE_S = 30


@dataclass(frozen=True, slots=True)
class Batch:
    """A row of `batches`."""

    id: int
    name: str | None
    state: str  #: running, paused, cancelled or completed
    simulated: bool
    source: str
    input_digest: str | None
    prompt_count: int
    rejected_count: int
    frontier: str
    providers: Sequence[str]
    created_at: datetime.datetime
    finished_at: datetime.datetime | None


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """A row of the view `batch_progress`: numbers of prompts."""

    batch_id: int
    name: str | None
    state: str
    simulated: bool
    prompt_count: int
    rejected_count: int
    succeeded: int
    failed: int
    cancelled: int
    done: int  #: succeeded, failed and cancelled
    remaining: int
    created_at: datetime.datetime
    finished_at: datetime.datetime | None


@dataclass(frozen=True, slots=True)
class ProviderProgress:
    """What one provider did for a batch. A provider with a live worker is listed before its first call."""

    provider: str
    live_workers: int
    calls_in_flight: int  #: of its live workers, whatever the batch
    calls: int
    succeeded: int
    failed: int  #: calls that failed or whose end nobody knows
    cost_usd: Decimal | None  #: of all its calls; None when no cost is known
    unpriced_calls: int  #: calls whose cost is missing in `cost_usd`


@dataclass(frozen=True, slots=True)
class ProviderStop:
    """A provider that no worker calls at the moment."""

    provider: str
    error_class: str  #: auth or quota
    error_message: str  #: what the provider said
    stopped_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class Queue:
    """Open work of one queue. Shards and prompts by state."""

    queue: str
    queued_shards: int
    queued_prompts: int
    waiting_shards: int
    waiting_prompts: int
    running_shards: int
    running_prompts: int
    next_due_at: datetime.datetime | None  #: when the first waiting shard goes on
    oldest_queued_at: datetime.datetime | None  #: since when the first queued shard is there


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a batch is."""

    batch: BatchProgress
    providers: Sequence[ProviderProgress]
    queues: Sequence[Queue]
    answers_per_s: float  #: over the last minute, or since the start of the batch when that is nearer
    cost_usd: Decimal | None  #: of all calls so far; None when there are some and no cost is known
    unpriced_calls: int
    stops: Sequence[ProviderStop] = ()

    @property
    def eta_s(self) -> float | None:
        """Seconds until the last prompt at the present rate; None while nothing is answered."""
        if not self.batch.remaining:
            return 0.0
        return self.batch.remaining / self.answers_per_s if self.answers_per_s else None


@dataclass(frozen=True, slots=True)
class Failure:
    """Failed prompts with the same reason."""

    error_class: str
    error_message: str | None
    provider: str | None  #: the last one asked
    prompts: int
    custom_id: str  #: of the first of them


_BATCHES = sa.select(*(tables.batches.c[name] for name in Batch.__slots__)).order_by(tables.batches.c.id.desc())

_view = sa.table("batch_progress", *(sa.column(name) for name in BatchProgress.__slots__))
_PROGRESS = sa.select(*_view.c)

# The numbers are those of the view `spend`; this does not sort them by day, which would cost as much again.
_PROVIDERS = sa.text("""
    SELECT
        coalesce(c.provider, w.provider) AS provider,
        coalesce(w.live_workers, 0) AS live_workers,
        coalesce(w.calls_in_flight, 0) AS calls_in_flight,
        coalesce(c.calls, 0) AS calls,
        coalesce(c.succeeded, 0) AS succeeded,
        coalesce(c.failed, 0) AS failed,
        CASE WHEN c.calls > 0 THEN c.cost_usd ELSE 0 END AS cost_usd,
        coalesce(c.unpriced_calls, 0) AS unpriced_calls
    FROM (
        SELECT
            provider,
            count(*) AS calls,
            count(*) FILTER (WHERE outcome = 'succeeded') AS succeeded,
            count(*) FILTER (WHERE outcome <> 'succeeded') AS failed,
            sum(CASE WHEN cost_usd IS NULL AND http_status >= 400 AND input_tokens IS NULL THEN 0
                ELSE cost_usd END) AS cost_usd,
            count(*) FILTER (
                WHERE cost_usd IS NULL
                    AND (http_status IS NULL OR http_status < 400 OR input_tokens IS NOT NULL)
            ) AS unpriced_calls
        FROM attempts WHERE batch_id = :batch_id
        GROUP BY provider
    ) AS c
    FULL JOIN (
        SELECT provider, count(*) AS live_workers, sum(calls_in_flight)::bigint AS calls_in_flight
        FROM workers
        WHERE stopped_at IS NULL AND heartbeat_at > now() - make_interval(secs => :live_s)
            AND simulated = (SELECT simulated FROM batches WHERE id = :batch_id)
        GROUP BY provider
    ) AS w ON w.provider = c.provider
    ORDER BY provider
""")

_QUEUES = """
    SELECT
        queue,
        count(*) FILTER (WHERE state = 'queued') AS queued_shards,
        coalesce(sum(cardinality(prompt_nos)) FILTER (WHERE state = 'queued'), 0) AS queued_prompts,
        count(*) FILTER (WHERE state = 'waiting') AS waiting_shards,
        coalesce(sum(cardinality(prompt_nos)) FILTER (WHERE state = 'waiting'), 0) AS waiting_prompts,
        count(*) FILTER (WHERE state = 'running') AS running_shards,
        coalesce(sum(cardinality(prompt_nos)) FILTER (WHERE state = 'running'), 0) AS running_prompts,
        min(not_before) FILTER (WHERE state = 'waiting') AS next_due_at,
        min(created_at) FILTER (WHERE state = 'queued') AS oldest_queued_at
    FROM shards
    WHERE state IN ('queued', 'waiting', 'running'){}
    GROUP BY queue
    ORDER BY queue
"""
_ALL_QUEUES = sa.text(_QUEUES.format(""))
_QUEUES_OF_BATCH = sa.text(_QUEUES.format(" AND batch_id = :batch_id"))

# Over the last minute by the index on the time, not over the whole batch.
_RATE = sa.text("""
    SELECT count(*) / greatest(1, least(60, extract(epoch FROM now() - b.created_at)))::float AS answers_per_s
    FROM batches AS b
    LEFT JOIN attempts AS a
        ON a.batch_id = b.id AND a.outcome = 'succeeded' AND a.finished_at > now() - interval '1 minute'
    WHERE b.id = :batch_id AND a.batch_id IS NOT NULL
    GROUP BY b.id
""")

_STOPS = sa.text("""
    SELECT provider, error_class, error_message, stopped_at FROM provider_stops
    WHERE simulated = (SELECT simulated FROM batches WHERE id = :batch_id)
    ORDER BY provider
""")

_FAILURES = sa.text("""
    SELECT f.error_class, f.error_message, f.provider, f.prompts, p.custom_id
    FROM (
        SELECT error_class, error_message, provider, count(*) AS prompts, min(prompt_no) AS prompt_no
        FROM results
        WHERE batch_id = :batch_id AND state = 'failed'
        GROUP BY error_class, error_message, provider
    ) AS f
    JOIN prompts AS p ON p.batch_id = :batch_id AND p.prompt_no = f.prompt_no
    ORDER BY f.prompts DESC, f.prompt_no
    LIMIT :limit
""")


async def find_batch(connection: AsyncConnection, ref: str) -> Batch:
    """Find a batch by its id, its name, or as `last`, the newest.

    An id comes before a name that looks like one.

    Raises:
        BatchError: there is none.
    """
    query = _BATCHES.limit(1)
    if ref != "last":
        # 18 digits fit into a bigint
        number = int(ref) if ref.isascii() and ref.isdigit() and len(ref) <= 18 else None
        has_id = tables.batches.c.id == number
        query = (
            query.where(has_id | (tables.batches.c.name == ref))
            .order_by(None)
            .order_by(has_id.desc().nulls_last())
        )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise _no_batch(ref)
    return Batch(*row)


async def find_by_digest(connection: AsyncConnection, digest: str, *, simulated: bool) -> Batch | None:
    """Find the newest batch with the same input and options that was not cancelled."""
    batches = tables.batches.c
    query = _BATCHES.where(
        batches.input_digest == digest, batches.simulated == simulated, batches.state != "cancelled"
    ).limit(1)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else Batch(*row)


async def list_batches(connection: AsyncConnection, *, limit: int = 20) -> list[BatchProgress]:
    """List the newest batches, newest first."""
    query = _PROGRESS.order_by(_view.c.batch_id.desc()).limit(limit)
    return [BatchProgress(*row) for row in await connection.execute(query)]


async def batch_progress(connection: AsyncConnection, batch_id: int) -> BatchProgress:
    """Count the prompts of a batch. The cheap part of `progress`.

    Raises:
        BatchError: there is no such batch.
    """
    row = (await connection.execute(_PROGRESS.where(_view.c.batch_id == batch_id))).one_or_none()
    if row is None:
        raise _no_batch(batch_id)
    return BatchProgress(*row)


async def progress(connection: AsyncConnection, batch_id: int) -> Progress:
    """Say all there is to say about how a batch is doing. Reads every attempt of the batch.

    Raises:
        BatchError: there is no such batch.
    """
    of_batch = {"batch_id": batch_id}
    batch = await batch_progress(connection, batch_id)
    rows = await connection.execute(_PROVIDERS, {**of_batch, "live_s": LIVE_S})
    providers = [ProviderProgress(*row) for row in rows]
    queues = [Queue(*row) for row in await connection.execute(_QUEUES_OF_BATCH, of_batch)]
    rate = (await connection.execute(_RATE, of_batch)).scalar_one_or_none()
    known = [p.cost_usd for p in providers if p.calls and p.cost_usd is not None]
    unpriced = sum(p.unpriced_calls for p in providers)
    return Progress(
        batch=batch,
        providers=providers,
        queues=queues,
        answers_per_s=rate or 0.0,
        cost_usd=sum(known, Decimal(0)) if known or not unpriced else None,
        unpriced_calls=unpriced,
        stops=[ProviderStop(*row) for row in await connection.execute(_STOPS, of_batch)],
    )


async def queues(connection: AsyncConnection) -> list[Queue]:
    """Open work of every queue, over all batches."""
    return [Queue(*row) for row in await connection.execute(_ALL_QUEUES)]


async def failures(connection: AsyncConnection, batch_id: int, *, limit: int = 20) -> list[Failure]:
    """Count the failed prompts of a batch by reason, the most frequent first."""
    rows = await connection.execute(_FAILURES, {"batch_id": batch_id, "limit": limit})
    return [Failure(*row) for row in rows]


def _no_batch(ref: str | int) -> errors.BatchError:
    return errors.BatchError(f"There is no batch {ref}. `promptyard status` lists them.")
