"""What the database itself refuses, whoever writes to it."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import ledger_rows as rows
import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.ledger import database

Write = Callable[[AsyncConnection, int], Awaitable[Any]]


@pytest_asyncio.fixture
async def connection(database_url: str) -> AsyncIterator[AsyncConnection]:
    engine = database.engine(database_url)
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


NOW = datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC)

REFUSED: dict[str, tuple[str, Write]] = {
    "a batch in an unknown state": ("ck_batches_state", lambda c, b: rows.batch(c, state="begun")),
    "two batches of one name": ("uq_batches_name", lambda c, b: rows.batch(c, name="taken")),
    "a prompt of no batch": ("fk_prompts_batch_id", lambda c, b: rows.prompt(c, b + 1, 1)),
    "a second prompt of the same number": ("pk_prompts", lambda c, b: rows.prompt(c, b, 1, custom_id="x")),
    "a second prompt of the same custom_id": (
        "uq_prompts_batch_id_custom_id",
        lambda c, b: rows.prompt(c, b, 3, custom_id="id-1"),
    ),
    "a category from nowhere": (
        "ck_prompts_category_source",
        lambda c, b: rows.prompt(c, b, 3, category_source="guessed"),
    ),
    "a shard in an unknown state": ("ck_shards_state", lambda c, b: rows.shard(c, b, [1], state="lost")),
    "a running shard without a lease": (
        "ck_shards_lease",
        lambda c, b: rows.shard(c, b, [1], state="running", worker_id=1),
    ),
    "a running shard without a worker": (
        "ck_shards_worker",
        lambda c, b: rows.shard(c, b, [1], state="running", lease_until=NOW),
    ),
    "a queued shard with a lease": (
        "ck_shards_lease",
        lambda c, b: rows.shard(c, b, [1], lease_until=NOW),
    ),
    "a waiting shard that is never due": (
        "ck_shards_waiting",
        lambda c, b: rows.shard(c, b, [1], state="waiting"),
    ),
    "a done shard with prompts to do": ("ck_shards_done", lambda c, b: rows.shard(c, b, [1], state="done")),
    "a result of no prompt": ("fk_results_batch_id_prompt_no", lambda c, b: rows.result(c, b, 99)),
    "a second result of a prompt": ("pk_results", lambda c, b: rows.result(c, b, 1)),
    "a result in an unknown state": ("ck_results_state", lambda c, b: rows.failed_result(c, b, 2, state="?")),
    "a failed result without a reason": (
        "ck_results_error",
        lambda c, b: rows.failed_result(c, b, 2, error_class=None),
    ),
    "an answer with an error": ("ck_results_error", lambda c, b: rows.result(c, b, 2, error_class="lost")),
    "an answer from nobody": ("ck_results_provider", lambda c, b: rows.result(c, b, 2, provider=None)),
    "an attempt of no prompt": ("fk_attempts_batch_id_prompt_no", lambda c, b: rows.attempt(c, b, 99)),
    "a second attempt under one claim": (
        "pk_attempts",
        lambda c, b: rows.attempt(c, b, 1, shard_id=uuid.UUID(int=1)),
    ),
    "an attempt with an unknown outcome": (
        "ck_attempts_outcome",
        lambda c, b: rows.failed_attempt(c, b, 2, outcome="maybe"),
    ),
    "a failed attempt without a reason": (
        "ck_attempts_error",
        lambda c, b: rows.failed_attempt(c, b, 2, error_class=None),
    ),
    "an attempt at a price that does not exist": (
        "fk_attempts_price_id",
        lambda c, b: rows.attempt(c, b, 2, price_id=99),
    ),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_the_database_refuses(connection: AsyncConnection, what: str) -> None:
    constraint, write = REFUSED[what]
    batch_id = await rows.batch(connection, 2, name="taken")
    await rows.attempt(connection, batch_id, 1, shard_id=uuid.UUID(int=1))
    await rows.result(connection, batch_id, 1)
    with pytest.raises(sa.exc.IntegrityError, match=f'"{constraint}"'):
        await write(connection, batch_id)


async def test_only_one_price_of_a_model_is_current(connection: AsyncConnection) -> None:
    insert = sa.text("""
        INSERT INTO prices (provider, model, above_input_tokens, input_usd_per_mtok, cache_read_usd_per_mtok,
            cache_write_usd_per_mtok, output_usd_per_mtok, source, checked_on, valid_from)
        VALUES ('groq', 'llama', 0, 1, 1, 1, 1, 'registry', '2026-11-01', :valid_from)
    """)
    await connection.execute(insert, {"valid_from": NOW})
    with pytest.raises(sa.exc.IntegrityError, match="ix_prices_current"):
        await connection.execute(insert, {"valid_from": NOW + datetime.timedelta(days=1)})


async def test_a_deleted_batch_takes_all_its_rows_with_it(connection: AsyncConnection) -> None:
    batch_id = await rows.batch(connection, 2)
    await rows.shard(connection, batch_id, [2])
    await rows.attempt(connection, batch_id, 1)
    await rows.result(connection, batch_id, 1)
    await connection.execute(sa.text("DELETE FROM batches WHERE id = :id"), {"id": batch_id})
    for table in ("prompts", "shards", "attempts", "results"):
        count = (await connection.execute(sa.text(f"SELECT count(*) FROM {table}"))).scalar_one()
        assert count == 0, table
