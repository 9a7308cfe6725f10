"""Claims, leases and signs of life, against a real Postgres."""

from __future__ import annotations

import asyncio
import datetime
import uuid
from collections.abc import AsyncIterator

import ledger_rows
import pytest
import pytest_asyncio
import shard_work
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.ledger import database
from worker.shards import lease

SOON = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)


@pytest_asyncio.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = database.engine(database_url)
    yield engine
    await engine.dispose()


async def a_shard(engine: AsyncEngine, prompts: int = 3, **columns: object) -> tuple[uuid.UUID, int]:
    """A batch with one shard; returns the shard and a worker that could take it."""
    async with engine.begin() as connection:
        batch_id = await ledger_rows.batch(connection, prompts, providers=shard_work.PROVIDERS)
        shard_id = await ledger_rows.shard(connection, batch_id, list(range(1, prompts + 1)), **columns)
        return shard_id, await ledger_rows.worker(connection, "cerebras")


async def test_a_claim_gives_the_prompts_and_makes_the_worker_the_owner(engine: AsyncEngine) -> None:
    shard_id, worker_id = await a_shard(engine)
    found = await shard_work.claimed(engine, shard_id, worker_id)
    assert found is not None
    assert found.bodies == [(number, '{"messages":[]}') for number in (1, 2, 3)]
    assert found.held.left == {1, 2, 3} and found.held.fence == 1
    assert found.held.providers == set(shard_work.PROVIDERS)
    assert await shard_work.rows(
        engine, "SELECT state, worker_id, fence, route, lease_until > now() FROM shards"
    ) == [("running", worker_id, 1, "cerebras/gpt-oss-120b", True)]


async def test_a_shard_is_claimed_once_however_many_ask_for_it(engine: AsyncEngine) -> None:
    shard_id, worker_id = await a_shard(engine)
    found = await asyncio.gather(*(shard_work.claimed(engine, shard_id, worker_id) for _ in range(5)))
    assert sum(one is not None for one in found) == 1
    assert await shard_work.claimed(engine, shard_id, worker_id) is None


async def test_a_shard_of_a_providers_own_queue_keeps_its_route(engine: AsyncEngine) -> None:
    shard_id, worker_id = await a_shard(engine, queue="code.groq", route=str(shard_work.LLAMA))
    held = await shard_work.held(engine, shard_id, worker_id)
    assert held.route == shard_work.LLAMA


async def test_what_has_a_result_is_not_called_again(engine: AsyncEngine) -> None:
    shard_id, worker_id = await a_shard(engine)
    async with engine.begin() as connection:
        await ledger_rows.result(connection, 1, 2)
    found = await shard_work.claimed(engine, shard_id, worker_id)
    assert found is not None
    assert [number for number, _ in found.bodies] == [1, 3] and found.held.left == {1, 3}


@pytest.mark.parametrize("state", ["paused", "cancelled", "completed"])
async def test_a_batch_that_does_not_run_has_nothing_to_claim(engine: AsyncEngine, state: str) -> None:
    shard_id, worker_id = await a_shard(engine)
    await shard_work.execute(engine, "UPDATE batches SET state = :state", state=state)
    assert await shard_work.claimed(engine, shard_id, worker_id) is None
    assert await shard_work.rows(engine, "SELECT state, fence FROM shards") == [("queued", 0)]


async def test_a_simulated_worker_does_not_take_a_real_prompt(engine: AsyncEngine) -> None:
    shard_id, worker_id = await a_shard(engine)
    assert await shard_work.claimed(engine, shard_id, worker_id, simulated=True) is None


async def test_a_shard_that_waits_or_does_not_exist_is_not_to_be_had(engine: AsyncEngine) -> None:
    shard_id, worker_id = await a_shard(engine, state="waiting", not_before=SOON)
    assert await shard_work.claimed(engine, shard_id, worker_id) is None
    assert await shard_work.claimed(engine, uuid.uuid4(), worker_id) is None


async def test_a_heartbeat_renews_what_is_the_workers_and_names_the_state_of_its_batch(
    engine: AsyncEngine,
) -> None:
    shard_id, worker_id = await a_shard(engine)
    other_id, _ = await a_shard(engine)
    held = await shard_work.held(engine, shard_id, worker_id)
    other = await lease.register(engine, "cerebras", simulated=False)
    await shard_work.held(engine, other_id, other)
    ends = "SELECT lease_until FROM shards WHERE id = :id"
    before = await shard_work.rows(engine, ends, id=shard_id)

    await shard_work.execute(engine, "UPDATE batches SET state = 'paused' WHERE id = 1")
    mine = await lease.renew(engine, worker_id, [shard_id, other_id], lease_s=600, calls_in_flight=7)

    assert mine == {(shard_id, held.fence): "paused"}
    assert await shard_work.rows(engine, ends, id=shard_id) > before
    assert await shard_work.rows(
        engine, "SELECT calls_in_flight FROM workers WHERE id = :id", id=worker_id
    ) == [(7,)]


async def test_a_worker_that_signs_off_is_no_longer_live(engine: AsyncEngine) -> None:
    worker_id = await lease.register(engine, "groq", simulated=True)
    await lease.sign_off(engine, worker_id)
    assert await shard_work.rows(
        engine, "SELECT provider, simulated, stopped_at IS NOT NULL, calls_in_flight FROM workers"
    ) == [("groq", True, True, 0)]
