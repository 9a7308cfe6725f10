"""The numbers of the views and of what reads them, against rows that can be added up by hand."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import ledger_rows as rows
import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker import errors
from worker.ledger import database, reads, spending

DAY = datetime.date(2026, 11, 20)


@pytest_asyncio.fixture
async def connection(database_url: str) -> AsyncIterator[AsyncConnection]:
    engine = database.engine(database_url)
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


async def select(connection: AsyncConnection, query: str, **values: Any) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in await connection.execute(sa.text(query), values)]


async def spent(connection: AsyncConnection) -> int:
    """A batch of 5: three answered (one after a fallback, one of unknown price), one failed, one open."""
    batch_id = await rows.batch(connection, 4, prompt_count=5, rejected_count=1)
    await rows.prompt(connection, batch_id, 5, category="simple_qa")
    await rows.attempt(connection, batch_id, 1)
    await rows.result(connection, batch_id, 1)
    # broken off at groq, answered by openai a day later
    await rows.failed_attempt(connection, batch_id, 2)
    elsewhere = {
        "provider": "openai",
        "model": "gpt-5",
        "finished_at": rows.NOON + datetime.timedelta(days=1),
    }
    await rows.attempt(connection, batch_id, 2, cost_usd=Decimal("0.01"), **elsewhere)
    await rows.result(
        connection, batch_id, 2, cost_usd=Decimal("0.01"), baseline_cost_usd=Decimal("0.01"), **elsewhere
    )
    await rows.attempt(connection, batch_id, 3, cost_usd=None)
    await rows.result(connection, batch_id, 3, cost_usd=None)
    # a failure that was charged, and one that nobody saw the end of
    await rows.failed_attempt(
        connection,
        batch_id,
        4,
        http_status=200,
        error_class="malformed",
        input_tokens=100,
        output_tokens=3,
        cost_usd=Decimal("0.0000001"),
    )
    await rows.failed_attempt(connection, batch_id, 4, outcome="unknown", error_class="lost", http_status=None)
    await rows.failed_result(connection, batch_id, 4, error_class="lost", error_message="the worker died")
    return batch_id


async def test_progress_counts_the_results(connection: AsyncConnection) -> None:
    batch_id = await spent(connection)
    found = await reads.batch_progress(connection, batch_id)
    assert (found.prompt_count, found.rejected_count) == (5, 1)
    assert (found.succeeded, found.failed, found.cancelled) == (3, 1, 0)
    assert (found.done, found.remaining) == (4, 1)


async def test_spend_adds_up_calls_tokens_and_cost(connection: AsyncConnection) -> None:
    batch_id = await spent(connection)
    first, second = await select(connection, "SELECT * FROM spend ORDER BY day")
    assert first == {
        "day": DAY,
        "batch_id": batch_id,
        "category": "code",
        "provider": "groq",
        "model": "llama",
        "provider_simulated": False,
        "calls": 5,
        "succeeded": 2,
        "failed": 2,
        "unknown": 1,
        "input_tokens": 300,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "output_tokens": 23,
        "reasoning_tokens": 0,
        "cost_usd": Decimal("0.0010001"),
        # the answer without a price and the call that nobody saw the end of; the 500 cost nothing
        "unpriced_calls": 2,
    }
    assert (second["day"], second["provider"], second["cost_usd"]) == (
        DAY + datetime.timedelta(days=1),
        "openai",
        Decimal("0.01"),
    )


async def test_the_days_of_spend_are_days_in_utc(connection: AsyncConnection) -> None:
    await connection.execute(sa.text("SET LOCAL TIME ZONE 'Asia/Tokyo'"))
    batch_id = await rows.batch(connection, 1)
    late = datetime.datetime(2026, 11, 20, 23, 59, 59, tzinfo=datetime.UTC)
    await rows.attempt(connection, batch_id, 1, finished_at=late)
    assert [row["day"] for row in await select(connection, "SELECT day FROM spend")] == [DAY]


@pytest.mark.parametrize("dimension", ["provider", "category", "day"])
async def test_spend_by_one_dimension_has_the_same_total(connection: AsyncConnection, dimension: str) -> None:
    await spent(connection)
    sums = "sum(calls) AS calls, sum(output_tokens) AS output_tokens, sum(cost_usd) AS cost_usd"
    (whole,) = await select(connection, f"SELECT {sums} FROM spend")
    (parts,) = await select(connection, f"SELECT {sums} FROM spend_by_{dimension}")
    assert parts == whole
    assert whole["cost_usd"] == Decimal("0.0110001")


async def test_a_provider_that_only_answered_errors_cost_nothing(connection: AsyncConnection) -> None:
    batch_id = await rows.batch(connection, 1)
    await rows.failed_attempt(connection, batch_id, 1)
    (row,) = await select(connection, "SELECT cost_usd, unpriced_calls FROM spend_by_provider")
    assert row == {"cost_usd": 0, "unpriced_calls": 0}


async def test_an_unknown_price_is_null_and_flagged(connection: AsyncConnection) -> None:
    batch_id = await rows.batch(connection, 1)
    await rows.attempt(connection, batch_id, 1, cost_usd=None)
    (row,) = await select(connection, "SELECT cost_usd, unpriced_calls FROM spend_by_provider")
    assert row == {"cost_usd": None, "unpriced_calls": 1}


async def test_simulated_money_is_not_added_to_real_money(connection: AsyncConnection) -> None:
    for simulated in (True, False):
        batch_id = await rows.batch(connection, 1, simulated=simulated)
        await rows.attempt(connection, batch_id, 1, provider_simulated=simulated)
    for view in ("spend_by_provider", "spend_by_category", "spend_by_day"):
        found = await select(connection, f"SELECT provider_simulated, calls FROM {view} ORDER BY 1")
        assert found == [
            {"provider_simulated": False, "calls": 1},
            {"provider_simulated": True, "calls": 1},
        ]


async def test_savings_compare_all_that_was_spent_with_the_frontier(connection: AsyncConnection) -> None:
    batch_id = await rows.batch(connection, 2)
    await rows.prompt(connection, batch_id, 3, category="simple_qa")
    for prompt_no, category in ((1, "code"), (2, "code"), (3, "simple_qa")):
        await rows.attempt(connection, batch_id, prompt_no, category=category)
        await rows.result(connection, batch_id, prompt_no, category=category)
    charged = {"http_status": 200, "error_class": "malformed", "input_tokens": 1}
    await rows.failed_attempt(connection, batch_id, 1, cost_usd=Decimal("0.002"), **charged)
    (whole,) = await spending.savings(connection, batch_id)
    assert (whole.category, whole.frontier) == (None, "openai/gpt-5")
    assert (whole.calls, whole.compared, whole.uncompared, whole.unpriced_calls) == (4, 3, 0, 0)
    assert whole.cost_usd == Decimal("0.005")
    assert whole.baseline_cost_usd == Decimal("0.03")
    assert whole.saved_usd == Decimal("0.025")
    assert whole.saved_share is not None
    assert round(whole.saved_share, 6) == Decimal("0.833333")
    code, simple_qa = await spending.savings(connection, batch_id, by_category=True)
    assert (code.category, code.cost_usd, code.saved_usd) == ("code", Decimal("0.004"), Decimal("0.016"))
    assert (simple_qa.category, simple_qa.saved_usd) == ("simple_qa", Decimal("0.009"))
    assert simple_qa.saved_share == Decimal("0.9")


async def test_savings_leave_out_on_both_sides_what_cannot_be_compared(connection: AsyncConnection) -> None:
    batch_id = await rows.batch(connection, 3)
    known, no_price, no_baseline = 1, 2, 3
    await rows.attempt(connection, batch_id, known)
    await rows.result(connection, batch_id, known)
    await rows.attempt(connection, batch_id, no_price, cost_usd=None)
    await rows.result(connection, batch_id, no_price, cost_usd=None)
    await rows.attempt(connection, batch_id, no_baseline, cost_usd=Decimal(5))
    await rows.result(connection, batch_id, no_baseline, cost_usd=Decimal(5), baseline_cost_usd=None)
    (whole,) = await spending.savings(connection, batch_id)
    assert (whole.compared, whole.uncompared, whole.unpriced_calls) == (1, 2, 1)
    assert whole.cost_usd == Decimal("5.001"), "all that is known to have been spent"
    assert whole.baseline_cost_usd == Decimal("0.01")
    assert whole.saved_usd == Decimal("0.009")
    assert whole.saved_share == Decimal("0.9")


async def test_savings_of_a_batch_that_failed_throughout_are_unknown(connection: AsyncConnection) -> None:
    batch_id = await rows.batch(connection, 1)
    assert await spending.savings(connection, batch_id) == []
    await rows.failed_attempt(connection, batch_id, 1)
    await rows.failed_result(connection, batch_id, 1)
    (whole,) = await spending.savings(connection, batch_id)
    assert (whole.calls, whole.compared, whole.cost_usd) == (1, 0, Decimal(0))
    assert (whole.baseline_cost_usd, whole.saved_usd, whole.saved_share) == (None, None, None)


async def test_waste_is_what_gave_no_answer(connection: AsyncConnection) -> None:
    await spent(connection)
    found = await select(
        connection,
        """
        SELECT outcome, error_class, calls, output_tokens, cost_usd, unpriced_calls
        FROM waste ORDER BY error_class
        """,
    )
    assert [tuple(row.values()) for row in found] == [
        ("unknown", "lost", 1, None, None, 1),
        ("failed", "malformed", 1, 3, Decimal("0.0000001"), 0),
        ("failed", "transient", 1, None, 0, 0),
    ]


async def test_health_is_that_of_the_last_hour(connection: AsyncConnection) -> None:
    batch_id = await rows.batch(connection, 10)
    now = (await connection.execute(sa.text("SELECT now()"))).scalar_one()
    minute = datetime.timedelta(minutes=1)
    for prompt_no in (1, 2, 3):
        await rows.attempt(
            connection, batch_id, prompt_no, latency_ms=100 * prompt_no, finished_at=now - 30 * minute
        )
    await rows.failed_attempt(
        connection, batch_id, 4, error_class="timeout", finished_at=now - 2 * minute, latency_ms=120_000
    )
    await rows.failed_attempt(connection, batch_id, 5, error_class="auth", finished_at=now - 90 * minute)
    await rows.worker(connection, "groq", calls_in_flight=7)
    await rows.worker(connection, "groq", stopped_at=now)
    await rows.worker(connection, "groq", heartbeat_at=now - minute)
    await rows.worker(connection, "zai")
    groq, zai = await select(connection, "SELECT * FROM provider_health ORDER BY provider")
    assert groq == {
        "provider": "groq",
        "live_workers": 1,
        "calls_in_flight": 7,
        "calls_5min": 1,
        "failure_share_5min": 1,
        "calls_1h": 4,
        "failure_share_1h": Decimal("0.25"),
        "p50_latency_ms": 200,
        "p95_latency_ms": 300,
        "last_error_class": "timeout",
        "last_error_at": now - 2 * minute,
    }
    assert (zai["live_workers"], zai["calls_1h"], zai["failure_share_1h"]) == (1, 0, None)


async def test_progress_names_providers_queues_rate_and_spend(connection: AsyncConnection) -> None:
    now = (await connection.execute(sa.text("SELECT now()"))).scalar_one()
    second = datetime.timedelta(seconds=1)
    batch_id = await rows.batch(connection, 5, created_at=now - 20 * second)
    await rows.attempt(connection, batch_id, 1, finished_at=now - second)
    await rows.result(connection, batch_id, 1)
    await rows.failed_attempt(connection, batch_id, 2, finished_at=now - second)
    worker_id = await rows.worker(connection, "groq", calls_in_flight=1)
    await rows.worker(connection, "groq", simulated=True)
    await rows.worker(connection, "openai")
    await rows.shard(connection, batch_id, [], state="done")
    await rows.shard(connection, batch_id, [2], state="waiting", queue="code.groq", not_before=now + second)
    await rows.shard(connection, batch_id, [3], state="running", worker_id=worker_id, lease_until=now + second)
    await rows.shard(connection, batch_id, [4, 5], created_at=now - 9 * second)
    other = await rows.batch(connection, 1)
    await rows.shard(connection, other, [1])

    found = await reads.progress(connection, batch_id)
    assert found.batch.remaining == 4
    assert found.answers_per_s == pytest.approx(1 / 20)
    assert found.eta_s == pytest.approx(80)
    assert (found.cost_usd, found.unpriced_calls) == (Decimal("0.001"), 0)
    assert list(found.providers) == [
        reads.ProviderProgress("groq", 1, 1, 2, 1, 1, Decimal("0.001"), 0),
        reads.ProviderProgress("openai", 1, 0, 0, 0, 0, Decimal(0), 0),
    ]
    code, groq = found.queues
    assert (code.queue, code.queued_shards, code.queued_prompts) == ("code", 1, 2)
    assert (code.running_shards, code.running_prompts, code.next_due_at) == (1, 1, None)
    assert code.oldest_queued_at == now - 9 * second
    assert (groq.queue, groq.waiting_shards, groq.waiting_prompts) == ("code.groq", 1, 1)
    assert groq.next_due_at == now + second
    all_code, _ = await reads.queues(connection)
    assert (all_code.queued_shards, all_code.queued_prompts) == (2, 3)


async def test_progress_of_a_provider_is_its_spend(connection: AsyncConnection) -> None:
    batch_id = await spent(connection)
    found = (await reads.progress(connection, batch_id)).providers
    expected = await spending.spend(connection, ["provider"], batch_id=batch_id)
    assert [(p.provider, p.calls, p.succeeded, p.failed, p.cost_usd, p.unpriced_calls) for p in found] == [
        (s.provider, s.calls, s.succeeded, s.failed + s.unknown, s.cost_usd, s.unpriced_calls)
        for s in sorted(expected, key=lambda row: str(row.provider))
    ]


async def test_progress_of_a_batch_that_nobody_works_on(connection: AsyncConnection) -> None:
    batch_id = await rows.batch(connection, 1)
    found = await reads.progress(connection, batch_id)
    assert (list(found.providers), list(found.queues)) == ([], [])
    assert (found.cost_usd, found.answers_per_s, found.eta_s) == (Decimal(0), 0.0, None)


async def test_spend_is_grouped_by_what_is_asked_for(connection: AsyncConnection) -> None:
    batch_id = await spent(connection)
    (total,) = await spending.spend(connection)
    assert (total.calls, total.cost_usd, total.provider, total.day) == (6, Decimal("0.0110001"), None, None)
    by_both = await spending.spend(connection, ["provider", "day"])
    assert [(row.day, row.provider, row.batch_id, row.calls) for row in by_both] == [
        (DAY, "groq", None, 5),
        (DAY + datetime.timedelta(days=1), "openai", None, 1),
    ]
    dearest_first = await spending.spend(connection, ["model"])
    assert [row.model for row in dearest_first] == ["gpt-5", "llama"]
    (since,) = await spending.spend(connection, since=DAY + datetime.timedelta(days=1))
    assert since.calls == 1
    assert await spending.spend(connection, ["batch"], batch_id=batch_id + 1) == []
    with pytest.raises(errors.SettingsError, match=r"colour.*Choose from day, batch, category"):
        await spending.spend(connection, ["day", "colour"])


async def test_a_batch_is_found_by_id_name_or_as_last(connection: AsyncConnection) -> None:
    with pytest.raises(errors.BatchError, match="promptyard status"):
        await reads.find_batch(connection, "last")
    first = await rows.batch(connection, name="nightly")
    second = await rows.batch(connection, name=str(first))
    assert (await reads.find_batch(connection, str(first))).id == first, "an id comes before a name"
    assert (await reads.find_batch(connection, "nightly")).id == first
    last = await reads.find_batch(connection, "last")
    assert (last.id, last.name, list(last.providers)) == (second, str(first), ["groq", "openai"])
    for ref in ("nobody", "0", "99999999999999999999", "-1", "²"):
        with pytest.raises(errors.BatchError, match=f"no batch {ref}"):
            await reads.find_batch(connection, ref)
    assert [batch.batch_id for batch in await reads.list_batches(connection)] == [second, first]
    assert len(await reads.list_batches(connection, limit=1)) == 1


async def test_the_same_input_is_found_again_unless_it_was_cancelled(connection: AsyncConnection) -> None:
    first = await rows.batch(connection, input_digest="d1", state="completed")
    await rows.batch(connection, input_digest="d1", state="cancelled")
    await rows.batch(connection, input_digest="d1", simulated=True)
    found = await reads.find_by_digest(connection, "d1", simulated=False)
    assert found is not None
    assert found.id == first
    assert await reads.find_by_digest(connection, "d2", simulated=False) is None


async def test_failures_are_counted_by_reason(connection: AsyncConnection) -> None:
    batch_id = await rows.batch(connection, 4)
    for prompt_no in (2, 3):
        await rows.failed_result(connection, batch_id, prompt_no)
    await rows.failed_result(connection, batch_id, 1, error_class="prompt", error_message="no")
    await rows.result(connection, batch_id, 4)
    assert await reads.failures(connection, batch_id) == [
        reads.Failure("transient", "server error", "groq", 2, "id-2"),
        reads.Failure("prompt", "no", "groq", 1, "id-1"),
    ]
    assert len(await reads.failures(connection, batch_id, limit=1)) == 1
