"""Pause, resume, cancel and retry, alone and against a worker that writes at the same time."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from typing import Any

import ledger_rows as rows
import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from worker import errors, settings
from worker.ledger import database, steer
from worker.routing import load

#: Every provider has a key, as with a simulator.
USABLE = load.usable(load.registry(settings.Settings(simulator="http://127.0.0.1:1")), {})
SOON = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


@pytest_asyncio.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = database.engine(database_url)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture
async def connection(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with engine.connect() as connection:
        yield connection


async def value(connection: AsyncConnection, query: str, **values: Any) -> Any:
    return (await connection.execute(sa.text(query), values)).scalar_one()


async def state(connection: AsyncConnection, batch_id: int) -> str:
    return str(await value(connection, "SELECT state FROM batches WHERE id = :id", id=batch_id))


async def running_shard(connection: AsyncConnection, batch_id: int, prompt_nos: list[int]) -> Any:
    worker_id = await rows.worker(connection)
    return await rows.shard(
        connection, batch_id, prompt_nos, state="running", worker_id=worker_id, lease_until=SOON
    )


async def test_cancel_gives_every_open_prompt_its_result(
    engine: AsyncEngine, connection: AsyncConnection
) -> None:
    batch_id = await rows.batch(connection, 6)
    await rows.result(connection, batch_id, 1)
    await rows.failed_result(connection, batch_id, 2)
    await rows.failed_attempt(connection, batch_id, 3)
    await rows.shard(connection, batch_id, [3], state="waiting", not_before=SOON)
    await running_shard(connection, batch_id, [4])
    await rows.shard(connection, batch_id, [5, 6])

    await connection.commit()

    assert await steer.cancel(engine, batch_id) == 4

    found = await connection.execute(
        sa.text("SELECT prompt_no, state, attempts, error_class FROM results ORDER BY prompt_no")
    )
    assert [tuple(row) for row in found] == [
        (1, "succeeded", 1, None),
        (2, "failed", 1, "transient"),
        (3, "cancelled", 1, "batch_cancelled"),
        (4, "cancelled", 0, "batch_cancelled"),
        (5, "cancelled", 0, "batch_cancelled"),
        (6, "cancelled", 0, "batch_cancelled"),
    ]
    states = await connection.execute(sa.text("SELECT DISTINCT state FROM shards"))
    assert states.scalars().all() == ["cancelled"]
    assert await state(connection, batch_id) == "cancelled"
    assert await value(connection, "SELECT finished_at IS NOT NULL FROM batches")


async def test_cancel_can_be_finished_after_it_was_interrupted(
    engine: AsyncEngine, connection: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steer, "CANCEL_BLOCK", 2)
    batch_id = await rows.batch(connection, 5)
    await rows.shard(connection, batch_id, [1, 2, 3, 4, 5])
    await connection.commit()
    assert await steer.cancel(engine, batch_id) == 5
    await connection.execute(sa.text("DELETE FROM results WHERE prompt_no > 2"))
    await connection.commit()
    assert await steer.cancel(engine, batch_id) == 3


async def test_cancel_leaves_other_batches_alone(engine: AsyncEngine, connection: AsyncConnection) -> None:
    batch_id, other = await rows.batch(connection, 1), await rows.batch(connection, 1)
    await rows.shard(connection, other, [1])
    await connection.commit()
    await steer.cancel(engine, batch_id)
    assert await state(connection, other) == "running"
    assert await value(connection, "SELECT state FROM shards") == "queued"


async def test_cancel_also_ends_what_a_worker_was_just_handing_on(engine: AsyncEngine) -> None:
    # Given a worker in the middle of the transaction that closes its shard and opens another
    async with engine.begin() as setup:
        batch_id = await rows.batch(setup, 2)
        shard_id = await running_shard(setup, batch_id, [1, 2])
    async with engine.connect() as worker, engine.connect() as looker:
        lock = sa.text("SELECT FROM shards WHERE id = :id FOR UPDATE")
        await worker.execute(lock, {"id": shard_id})
        # When the batch is cancelled, it waits for the worker
        cancelling = asyncio.create_task(steer.cancel(engine, batch_id))
        await until_one_waits_for_a_lock(looker)
        await rows.shard(worker, batch_id, [2], queue="code.openai")
        await rows.result(worker, batch_id, 1)
        close = "UPDATE shards SET state = 'done', prompt_nos = '{}', lease_until = NULL, worker_id = NULL"
        await worker.execute(sa.text(f"{close} WHERE id = :id"), {"id": shard_id})
        await worker.commit()
        # Then it finds the worker's answer and its new shard
        assert await cancelling == 1
        states = await looker.execute(sa.text("SELECT state FROM shards ORDER BY state"))
        assert states.scalars().all() == ["cancelled", "done"]
        found = await looker.execute(sa.text("SELECT prompt_no, state FROM results ORDER BY 1"))
        assert [tuple(row) for row in found] == [(1, "succeeded"), (2, "cancelled")]


async def until_one_waits_for_a_lock(connection: AsyncConnection) -> None:
    waiting = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(10):
        while not (await connection.execute(waiting)).scalar_one():
            await connection.rollback()  # the statistics are fixed within a transaction
            await asyncio.sleep(0.01)
    await connection.rollback()


async def test_a_paused_batch_goes_on_and_its_shards_are_published_again(connection: AsyncConnection) -> None:
    batch_id = await rows.batch(connection, 2)
    await rows.shard(connection, batch_id, [1], published_at=rows.NOON)
    await rows.shard(connection, batch_id, [2], state="waiting", not_before=SOON)
    await steer.pause(connection, batch_id)
    assert await state(connection, batch_id) == "paused"
    await steer.resume(connection, batch_id)
    assert await state(connection, batch_id) == "running"
    assert await value(connection, "SELECT count(*) FROM shards WHERE published_at IS NULL") == 2


async def test_a_batch_whose_last_calls_ended_while_it_was_paused_is_completed(
    connection: AsyncConnection,
) -> None:
    batch_id = await rows.batch(connection, 1, state="paused")
    await rows.shard(connection, batch_id, [], state="done")
    await rows.result(connection, batch_id, 1)
    await steer.resume(connection, batch_id)
    assert await state(connection, batch_id) == "completed"
    assert await value(connection, "SELECT finished_at IS NOT NULL FROM batches")


async def test_retry_cuts_the_failed_prompts_into_new_shards(connection: AsyncConnection) -> None:
    batch_id = await rows.batch(
        connection, 6, state="completed", finished_at=rows.NOON, providers=list(USABLE.providers)
    )
    await rows.prompt(connection, batch_id, 7, pinned="groq/openai/gpt-oss-120b")
    await rows.prompt(connection, batch_id, 8, category="simple_qa")
    await rows.result(connection, batch_id, 1)
    for prompt_no in range(2, 9):
        await rows.failed_result(connection, batch_id, prompt_no)

    assert await steer.retry(connection, batch_id, usable=USABLE, shard_prompts=3) == 7

    found = await connection.execute(
        sa.text("""
            SELECT queue, category, pinned, route, prompt_nos,
                attempt_no, attempts_before, tried, state, published_at
            FROM shards ORDER BY prompt_nos
        """)
    )
    fresh: tuple[Any, ...] = (1, 0, [], "queued", None)
    pin = "groq/openai/gpt-oss-120b"
    assert [tuple(row) for row in found] == [
        ("code", "code", None, None, [2, 3, 4], *fresh),
        ("code", "code", None, None, [5, 6], *fresh),
        ("code.groq", "code", pin, pin, [7], *fresh),
        ("simple_qa", "simple_qa", None, None, [8], *fresh),
    ]
    assert await value(connection, "SELECT count(*) FROM results") == 1
    assert await state(connection, batch_id) == "running"
    assert await value(connection, "SELECT finished_at IS NULL FROM batches")


async def test_retry_stays_with_the_providers_that_the_batch_was_submitted_for(
    connection: AsyncConnection,
) -> None:
    batch_id = await rows.batch(connection, 1, state="completed", providers=["openai"])
    await rows.failed_result(connection, batch_id, 1)
    assert await steer.retry(connection, batch_id, usable=USABLE, shard_prompts=3) == 1
    assert await value(connection, "SELECT queue FROM shards") == "code.openai"


async def test_retry_without_a_failed_prompt_changes_nothing(connection: AsyncConnection) -> None:
    batch_id = await rows.batch(connection, 1, state="completed")
    await rows.result(connection, batch_id, 1)
    assert await steer.retry(connection, batch_id, usable=USABLE, shard_prompts=200) == 0
    assert await state(connection, batch_id) == "completed"
    assert await value(connection, "SELECT count(*) FROM shards") == 0


FORBIDDEN = [
    ("pause", "paused", "It waits already"),
    ("pause", "completed", "All its prompts have a result"),
    ("pause", "cancelled", "submit its file again"),
    ("resume", "running", "It runs already"),
    ("resume", "completed", "All its prompts have a result"),
    ("resume", "cancelled", "submit its file again"),
    ("cancel", "completed", "All its prompts have a result"),
    ("cancel", "cancelled", "submit its file again"),
    ("retry", "paused", "promptyard resume"),
    ("retry", "cancelled", "submit its file again"),
]


@pytest.mark.parametrize(("verb", "batch_state", "advice"), FORBIDDEN)
async def test_what_a_state_forbids_is_refused_with_the_reason(
    engine: AsyncEngine, connection: AsyncConnection, verb: str, batch_state: str, advice: str
) -> None:
    batch_id = await rows.batch(connection, 1, state=batch_state)
    await rows.result(connection, batch_id, 1)
    await connection.commit()
    options: dict[str, Any] = {"usable": USABLE, "shard_prompts": 200} if verb == "retry" else {}
    with pytest.raises(errors.BatchError, match=advice):
        await getattr(steer, verb)(engine if verb == "cancel" else connection, batch_id, **options)
    assert await state(connection, batch_id) == batch_state


async def test_a_batch_that_does_not_exist_is_said_to_be_none(connection: AsyncConnection) -> None:
    with pytest.raises(errors.BatchError, match="There is no batch 42"):
        await steer.pause(connection, 42)
