"""Flushes: answers, attempts and what becomes of the shards, in one transaction."""

from __future__ import annotations

import asyncio
import datetime
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal

import ledger_rows
import pytest_asyncio
import shard_work
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.ledger import database, steer
from worker.providers import types
from worker.routing import decide
from worker.shards import book, claim

SOON = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)


@pytest_asyncio.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = database.engine(database_url)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture
async def worker_id(engine: AsyncEngine) -> int:
    async with engine.begin() as connection:
        return await ledger_rows.worker(connection, "cerebras")


async def batch_of(engine: AsyncEngine, *shards: list[int]) -> list[uuid.UUID]:
    """A batch, cut into these shards."""
    prompts = sum(len(prompt_nos) for prompt_nos in shards)
    async with engine.begin() as connection:
        batch_id = await ledger_rows.batch(connection, prompts, providers=shard_work.PROVIDERS)
        return [await ledger_rows.shard(connection, batch_id, prompt_nos) for prompt_nos in shards]


@pytest_asyncio.fixture
async def held(engine: AsyncEngine, worker_id: int) -> claim.Held:
    """A claimed shard with the prompts 1 to 4, the only one of its batch."""
    (shard_id,) = await batch_of(engine, [1, 2, 3, 4])
    return await shard_work.held(engine, shard_id, worker_id)


async def shards(engine: AsyncEngine) -> list[tuple[object, ...]]:
    return await shard_work.rows(engine, "SELECT state, prompt_nos FROM shards ORDER BY created_at, id")


async def batch_state(engine: AsyncEngine) -> list[tuple[object, ...]]:
    return await shard_work.rows(engine, "SELECT state, finished_at IS NOT NULL FROM batches")


async def test_the_last_answers_close_the_shard_and_complete_the_batch(
    engine: AsyncEngine, worker_id: int, held: claim.Held
) -> None:
    flush = shard_work.flush_of(*(shard_work.ended(held, number) for number in (1, 2, 3, 4)))
    await shard_work.write_down(engine, flush, worker_id)
    assert await shards(engine) == [("done", [])]
    assert await batch_state(engine) == [("completed", True)]
    assert await shard_work.rows(
        engine,
        "SELECT state, provider, model, attempts, fallbacks, cost_usd, content, dialect, count(*) "
        "FROM results GROUP BY 1, 2, 3, 4, 5, 6, 7, 8",
    ) == [("succeeded", *shard_work.GPT_OSS, 1, 0, Decimal("0.001"), "an answer", "openai_chat", 4)]
    assert await shard_work.rows(
        engine,
        "SELECT outcome, worker_id, fence, input_tokens, cost_usd, count(*) FROM attempts "
        "GROUP BY 1, 2, 3, 4, 5",
    ) == [("succeeded", worker_id, 1, 100, Decimal("0.001"), 4)]


async def test_some_answers_leave_the_rest_in_the_shard(
    engine: AsyncEngine, worker_id: int, held: claim.Held
) -> None:
    flush = shard_work.flush_of(shard_work.ended(held, 2), shard_work.ended(held, 3))
    await shard_work.write_down(engine, flush, worker_id)
    assert await shards(engine) == [("running", [1, 4])]
    assert await batch_state(engine) == [("running", False)]


async def test_writing_a_flush_again_adds_nothing(
    engine: AsyncEngine, worker_id: int, held: claim.Held
) -> None:
    to = book.move(held, decide.Retry(SOON), "transient", called=True)
    flush = book.Flush()
    flush.send_on(held, 4, to, SOON)
    for call in (shard_work.ended(held, 1), shard_work.failed(held, 4, final=False)):
        held.left.discard(call.prompt_no)
        flush.add(call)
    flush.seal()
    await shard_work.write_down(engine, flush, worker_id)
    first = [await shards(engine), await shard_work.rows(engine, "SELECT * FROM attempts ORDER BY 2")]
    await shard_work.write_down(engine, flush, worker_id)
    assert [await shards(engine), await shard_work.rows(engine, "SELECT * FROM attempts ORDER BY 2")] == first
    assert await shard_work.numbers(engine, "results") == [1]
    assert len(first[0]) == 2


async def test_what_is_handed_back_waits_in_its_queue_to_be_published(
    engine: AsyncEngine, worker_id: int, held: claim.Held
) -> None:
    await shard_work.execute(engine, "UPDATE shards SET published_at = now()")
    held.handing_back = True
    await shard_work.write_down(engine, shard_work.flush_of(shard_work.ended(held, 1)), worker_id)
    assert await shard_work.rows(
        engine, "SELECT state, prompt_nos, worker_id, lease_until, published_at FROM shards"
    ) == [("queued", [2, 3, 4], None, None, None)]


async def test_prompts_that_move_on_become_a_shard_that_waits(
    engine: AsyncEngine, worker_id: int, held: claim.Held
) -> None:
    flush = book.Flush()
    to = book.move(held, decide.Fallback(shard_work.LLAMA, (held.route,)), "transient", called=True)
    for number in (4, 1, 3, 2):
        flush.send_on(held, number, to, SOON)
        held.left.discard(number)
        flush.add(shard_work.failed(held, number, final=False))
    flush.seal()
    await shard_work.write_down(engine, flush, worker_id)
    assert await shard_work.rows(
        engine,
        "SELECT queue, route, prompt_nos, state, attempt_no, attempts_before, tried, reason, not_before "
        "FROM shards WHERE state <> 'done'",
    ) == [
        (
            "code.groq",
            str(shard_work.LLAMA),
            [1, 2, 3, 4],
            "waiting",
            1,
            1,
            [str(shard_work.GPT_OSS)],
            "transient",
            SOON,
        )
    ]
    assert await batch_state(engine) == [("running", False)]
    assert await shard_work.numbers(engine, "results") == []
    assert await shard_work.rows(engine, "SELECT DISTINCT outcome, http_status, cost_usd FROM attempts") == [
        ("failed", 500, None)
    ]


async def test_who_has_lost_the_lease_books_its_calls_and_ends_no_prompt_as_failed(
    engine: AsyncEngine, worker_id: int, held: claim.Held
) -> None:
    await shard_work.execute(engine, "UPDATE shards SET fence = fence + 1")
    flush = book.Flush()
    flush.send_on(held, 3, book.move(held, decide.Retry(SOON), "transient", called=True), SOON)
    for call in (
        shard_work.ended(held, 1),
        shard_work.failed(held, 2),
        shard_work.failed(held, 3, final=False),
    ):
        held.left.discard(call.prompt_no)
        flush.add(call)
    flush.seal()
    await shard_work.write_down(engine, flush, worker_id)
    assert held.lost
    assert await shard_work.numbers(engine, "attempts") == [1, 2, 3]
    assert await shard_work.numbers(engine, "results") == [1]
    assert await shards(engine) == [("running", [1, 2, 3, 4])]


async def test_what_was_booked_as_unknown_is_replaced_when_it_is_known(
    engine: AsyncEngine, worker_id: int, held: claim.Held
) -> None:
    doubt = {"outcome": "unknown", "error_class": "lost", "final": False}
    await shard_work.write_down(
        engine,
        shard_work.flush_of(*(shard_work.failed(held, number, **doubt) for number in (1, 2))),
        worker_id,
    )
    later = shard_work.flush_of(shard_work.ended(held, 1), shard_work.failed(held, 2, **doubt))
    await shard_work.write_down(engine, later, worker_id)
    # And what is known stays so.
    await shard_work.write_down(engine, shard_work.flush_of(shard_work.failed(held, 1, **doubt)), worker_id)
    assert await shard_work.rows(
        engine,
        "SELECT prompt_no, outcome, error_class, http_status, output_tokens, cost_usd FROM attempts ORDER BY 1",
    ) == [(1, "succeeded", None, 200, 10, Decimal("0.001")), (2, "unknown", "lost", 500, None, None)]


async def test_a_prompt_that_ends_in_doubt_has_failed(
    engine: AsyncEngine, worker_id: int, held: claim.Held
) -> None:
    call = shard_work.failed(held, 1, outcome="unknown", error_class="lost", http_status=None)
    await shard_work.write_down(engine, shard_work.flush_of(call), worker_id)
    assert await shard_work.rows(engine, "SELECT state, error_class FROM results") == [("failed", "lost")]
    assert await shard_work.rows(engine, "SELECT outcome FROM attempts") == [("unknown",)]


async def test_what_was_refused_before_it_was_sent_has_a_result_and_no_attempt(
    engine: AsyncEngine, worker_id: int, held: claim.Held
) -> None:
    call = shard_work.failed(held, 1, called=False, error_class="prompt", http_status=None)
    await shard_work.write_down(engine, shard_work.flush_of(call), worker_id)
    assert await shard_work.rows(engine, "SELECT state, attempts FROM results") == [("failed", 0)]
    assert await shard_work.numbers(engine, "attempts") == []


async def test_an_answer_that_postgres_cannot_store_does_not_take_the_others_with_it(
    engine: AsyncEngine, worker_id: int, held: claim.Held
) -> None:
    calls = [shard_work.ended(held, number) for number in (1, 2, 3, 4)]
    calls[2].response = '{"broken'
    await shard_work.write_down(engine, shard_work.flush_of(*calls), worker_id)
    assert await shard_work.rows(
        engine, "SELECT prompt_no, state, error_class, cost_usd FROM results ORDER BY 1"
    ) == [
        (1, "succeeded", None, Decimal("0.001")),
        (2, "succeeded", None, Decimal("0.001")),
        (3, "failed", "malformed", Decimal("0.001")),
        (4, "succeeded", None, Decimal("0.001")),
    ]
    assert await shard_work.rows(engine, "SELECT count(*), sum(cost_usd) FROM attempts") == [
        (4, Decimal("0.004"))
    ]
    assert await batch_state(engine) == [("completed", True)]


async def test_numbers_of_tokens_that_no_column_holds_are_unknown(
    engine: AsyncEngine, worker_id: int, held: claim.Held
) -> None:
    calls = [shard_work.ended(held, 1), shard_work.ended(held, 2, usage=types.Usage(input_tokens=2**40))]
    await shard_work.write_down(engine, shard_work.flush_of(*calls), worker_id)
    assert await shard_work.rows(
        engine, "SELECT prompt_no, outcome, input_tokens, cost_usd FROM attempts ORDER BY 1"
    ) == [(1, "succeeded", 100, Decimal("0.001")), (2, "failed", None, None)]
    assert await shard_work.rows(engine, "SELECT state, error_class FROM results WHERE prompt_no = 2") == [
        ("failed", "malformed")
    ]


async def test_of_two_workers_that_close_the_last_shards_at_once_one_completes_the_batch(
    engine: AsyncEngine, worker_id: int
) -> None:
    for _ in range(10):
        await shard_work.execute(engine, "TRUNCATE batches RESTART IDENTITY CASCADE")
        both = [
            await shard_work.held(engine, shard_id, worker_id) for shard_id in await batch_of(engine, [1], [2])
        ]
        flushes = [shard_work.flush_of(shard_work.ended(held, min(held.left))) for held in both]
        await asyncio.gather(*(shard_work.write_down(engine, flush, worker_id) for flush in flushes))
        assert await batch_state(engine) == [("completed", True)]


async def test_an_answer_to_a_cancelled_batch_is_paid_for_and_comes_too_late(
    engine: AsyncEngine, worker_id: int, held: claim.Held
) -> None:
    assert await steer.cancel(engine, held.batch_id) == 4
    await shard_work.write_down(engine, shard_work.flush_of(shard_work.ended(held, 1)), worker_id)
    assert held.lost
    assert await shard_work.rows(engine, "SELECT outcome, cost_usd FROM attempts") == [
        ("succeeded", Decimal("0.001"))
    ]
    assert await shard_work.rows(engine, "SELECT state, count(*) FROM results GROUP BY 1") == [("cancelled", 4)]
    assert await shards(engine) == [("cancelled", [1, 2, 3, 4])]
    assert await shard_work.rows(engine, "SELECT state FROM batches") == [("cancelled",)]


async def test_a_batch_with_an_open_shard_is_not_completed(engine: AsyncEngine, worker_id: int) -> None:
    first, _ = await batch_of(engine, [1], [2])
    held = await shard_work.held(engine, first, worker_id)
    await shard_work.write_down(engine, shard_work.flush_of(shard_work.ended(held, 1)), worker_id)
    assert await batch_state(engine) == [("running", False)]
    async with engine.connect() as connection:
        left = await connection.scalar(sa.text("SELECT count(*) FROM shards WHERE state = 'queued'"))
    assert left == 1
