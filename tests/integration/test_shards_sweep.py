"""The sweeper puts right what nobody is there to do: real Postgres, real Valkey."""

from __future__ import annotations

import asyncio
import datetime
import uuid
from collections.abc import AsyncIterator
from typing import Any

import ledger_rows
import pytest
import pytest_asyncio
import redis
import shard_work
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from worker import settings
from worker.ledger import database
from worker.shards import publish, sweep

PAST = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
SOON = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)


@pytest_asyncio.fixture
async def engine(
    database_url: str, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AsyncEngine]:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("BROKER_URL", broker_url)
    settings.load.cache_clear()
    engine = database.engine(database_url)
    yield engine
    await engine.dispose()


async def swept(engine: AsyncEngine, *, lease_s: float | None = 12.0, idle_s: float = 600.0) -> bool:
    return await sweep.sweep(engine, shard_work.ROUTER, simulated=False, lease_s=lease_s, idle_s=idle_s)


async def a_shard(
    engine: AsyncEngine, prompt_nos: list[int], *, providers: list[str] = shard_work.PROVIDERS, **columns: Any
) -> uuid.UUID:
    async with engine.begin() as connection:
        batch_id = await ledger_rows.batch(connection, max(prompt_nos), providers=providers)
        return await ledger_rows.shard(connection, batch_id, prompt_nos, **columns)


async def a_lost_shard(engine: AsyncEngine, prompt_nos: list[int], **columns: Any) -> uuid.UUID:
    """A shard whose worker gives no sign of life any more."""
    async with engine.begin() as connection:
        worker_id = await ledger_rows.worker(connection, "cerebras")
    lost = {"state": "running", "worker_id": worker_id, "lease_until": PAST, "fence": 3}
    return await a_shard(
        engine, prompt_nos, **{"queue": "code.cerebras", "route": str(shard_work.GPT_OSS), **lost, **columns}
    )


async def test_a_shard_whose_time_has_come_is_queued(engine: AsyncEngine) -> None:
    due = await a_shard(engine, [1], state="waiting", not_before=PAST)
    await a_shard(engine, [1], state="waiting", not_before=SOON)
    paused = await a_shard(engine, [1], state="waiting", not_before=PAST)
    await shard_work.execute(
        engine,
        "UPDATE batches SET state = 'paused' WHERE id = (SELECT batch_id FROM shards WHERE id = :id)",
        id=paused,
    )
    assert await swept(engine)
    assert await shard_work.rows(engine, "SELECT id, not_before FROM shards WHERE state = 'queued'") == [
        (due, None)
    ]


async def test_the_shard_of_a_dead_worker_runs_again_and_its_calls_are_booked_as_unknown(
    engine: AsyncEngine,
) -> None:
    shard_id = await a_lost_shard(engine, [1, 2, 3])
    async with engine.begin() as connection:
        await ledger_rows.result(connection, 1, 2)
    assert await swept(engine)
    assert await shard_work.rows(
        engine,
        "SELECT state, queue, route, prompt_nos, attempt_no, attempts_before, reason, worker_id, "
        "lease_until, published_at FROM shards",
    ) == [("queued", "code.cerebras", str(shard_work.GPT_OSS), [1, 2, 3], 2, 1, "lost", None, None, None)]
    assert await shard_work.rows(
        engine,
        "SELECT prompt_no, shard_id, fence, outcome, error_class, cost_usd, provider FROM attempts ORDER BY 1",
    ) == [(number, shard_id, 3, "unknown", "lost", None, "cerebras") for number in (1, 3)]


async def test_a_shard_that_has_lost_three_workers_goes_to_the_next_provider(engine: AsyncEngine) -> None:
    await a_lost_shard(engine, [1], attempt_no=3, attempts_before=2)
    await swept(engine)
    assert await shard_work.rows(
        engine, "SELECT state, queue, attempt_no, attempts_before, tried FROM shards"
    ) == [("queued", "code.groq", 1, 3, [str(shard_work.GPT_OSS)])]


async def test_a_prompt_that_has_lost_every_worker_ends_as_failed(engine: AsyncEngine) -> None:
    await a_lost_shard(engine, [1, 2], providers=["cerebras"], attempt_no=3, attempts_before=2)
    async with engine.begin() as connection:
        await ledger_rows.result(connection, 1, 2)
    await swept(engine)
    assert await shard_work.rows(
        engine, "SELECT prompt_no, state, error_class, attempts FROM results ORDER BY 1"
    ) == [(1, "failed", "lost", 3), (2, "succeeded", None, 1)]
    assert await shard_work.rows(engine, "SELECT state, prompt_nos FROM shards") == [("done", [])]
    assert await shard_work.rows(engine, "SELECT state FROM batches") == [("completed",)]


async def test_a_worker_that_froze_in_a_transaction_does_not_keep_its_shards(
    engine: AsyncEngine, database_url: str
) -> None:
    # Given a worker that froze between two statements, and holds the lock of its shard
    await a_lost_shard(engine, [1])
    frozen = database.engine(database_url, idle_in_transaction_s=0.2)
    connection = await frozen.connect()
    await connection.execute(sa.text("SELECT FROM shards FOR UPDATE"))
    # When the others sweep, Postgres has ended the transaction before long
    async with asyncio.timeout(30):
        while not await swept(engine):
            await asyncio.sleep(0.05)
    assert await shard_work.rows(engine, "SELECT state FROM shards") == [("queued",)]
    await connection.invalidate()
    await connection.close()
    await frozen.dispose()


async def test_a_lease_that_holds_or_that_nobody_could_renew_is_left(engine: AsyncEngine) -> None:
    await a_lost_shard(engine, [1])
    assert not await swept(engine, lease_s=None)
    await shard_work.execute(engine, "UPDATE shards SET lease_until = :soon", soon=SOON)
    assert not await swept(engine)
    assert await shard_work.rows(engine, "SELECT state, fence FROM shards") == [("running", 3)]
    assert await shard_work.numbers(engine, "attempts") == []


async def test_the_prompts_of_a_simulated_batch_are_left_to_simulated_workers(engine: AsyncEngine) -> None:
    await a_lost_shard(engine, [1])
    await shard_work.execute(engine, "UPDATE batches SET simulated = true")
    assert not await swept(engine)
    assert await shard_work.rows(engine, "SELECT state FROM shards") == [("running",)]


async def test_one_sweep_at_a_time(engine: AsyncEngine) -> None:
    await a_shard(engine, [1], state="waiting", not_before=PAST)
    async with engine.begin() as other:
        await other.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": sweep._LOCK_KEY})
        assert not await swept(engine)
        assert await shard_work.rows(engine, "SELECT state FROM shards") == [("waiting",)]
    assert await swept(engine)


async def test_what_nobody_has_published_yet_is_found(engine: AsyncEngine) -> None:
    await a_shard(engine, [1])
    assert await swept(engine)
    assert await publish.publish(engine, simulated=False) == 1
    assert not await swept(engine)
    assert await publish.publish(engine, simulated=False) == 0


async def test_what_redis_has_forgotten_is_published_again(engine: AsyncEngine, broker_url: str) -> None:
    await a_shard(engine, [1])
    await publish.publish(engine, simulated=False)
    long_ago = "UPDATE shards SET published_at = now() - make_interval(secs => 2 * :s)"
    await shard_work.execute(engine, long_ago, s=sweep.VANISHED_S)
    # Its message is still there: the workers have only been busy.
    assert not await swept(engine)

    with redis.Redis.from_url(broker_url) as client:
        client.flushall()
    assert await swept(engine)
    assert await publish.publish(engine, simulated=False) == 1
    with redis.Redis.from_url(broker_url) as client:
        assert sum(client.llen(key) for key in client.scan_iter(_type="list")) == 1


async def test_what_was_published_just_now_is_given_time(engine: AsyncEngine, broker_url: str) -> None:
    await a_shard(engine, [1])
    await publish.publish(engine, simulated=False)
    with redis.Redis.from_url(broker_url) as client:
        client.flushall()
    assert not await swept(engine)


async def test_a_batch_whose_last_worker_died_before_it_said_so_is_completed(engine: AsyncEngine) -> None:
    await a_shard(engine, [1])
    await shard_work.execute(engine, "UPDATE shards SET state = 'done', prompt_nos = '{}'")
    await swept(engine)
    assert await shard_work.rows(engine, "SELECT state FROM batches") == [("completed",)]


async def test_a_worker_without_a_heartbeat_for_a_minute_counts_as_stopped(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        gone = await ledger_rows.worker(connection, heartbeat_at=PAST, calls_in_flight=5)
        await ledger_rows.worker(connection)
    await swept(engine)
    assert await shard_work.rows(
        engine, "SELECT id, stopped_at, calls_in_flight FROM workers WHERE stopped_at IS NOT NULL"
    ) == [(gone, PAST, 0)]
