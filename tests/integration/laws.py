"""What holds at the end of every job, whatever happened in it: the laws, and the bill."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction

import yard as yards

from worker.simulator import billing

#: Each finds what must not be there.
BROKEN = {
    "a prompt of an ended batch has no result": """
        SELECT p.batch_id, p.prompt_no FROM prompts p JOIN batches b ON b.id = p.batch_id
        LEFT JOIN results r USING (batch_id, prompt_no)
        WHERE b.state IN ('completed', 'cancelled') AND r.state IS NULL""",
    "a batch counts other prompts than it has": """
        SELECT b.id FROM batches b
        WHERE b.prompt_count <> (SELECT count(*) FROM prompts p WHERE p.batch_id = b.id)""",
    "a shard of an ended batch is open": """
        SELECT s.batch_id, s.id, s.state FROM shards s JOIN batches b ON b.id = s.batch_id
        WHERE b.state IN ('completed', 'cancelled') AND s.state NOT IN ('done', 'cancelled')""",
    "a shard of a completed batch still has prompts": """
        SELECT s.batch_id, s.id, s.prompt_nos FROM shards s JOIN batches b ON b.id = s.batch_id
        WHERE b.state = 'completed' AND cardinality(s.prompt_nos) > 0""",
    "an answer lacks its category, route, tokens or cost": """
        SELECT batch_id, prompt_no FROM results WHERE state = 'succeeded' AND num_nulls(category, provider,
            model, input_tokens, output_tokens, cost_usd, latency_ms, started_at, response) > 0""",
    "an answer has no attempt of the same route, tokens and cost": """
        SELECT r.batch_id, r.prompt_no FROM results r
        WHERE r.state = 'succeeded' AND NOT EXISTS (
            SELECT FROM attempts a
            WHERE (a.batch_id, a.prompt_no) = (r.batch_id, r.prompt_no) AND a.outcome = 'succeeded'
              AND (a.provider, a.model, a.input_tokens, a.output_tokens, a.cost_usd)
                = (r.provider, r.model, r.input_tokens, r.output_tokens, r.cost_usd))""",
    "an attempt with a cost has no price, or one without has": """
        SELECT batch_id, prompt_no FROM attempts WHERE (cost_usd IS NULL) <> (price_id IS NULL)""",
    "an unknown price is 0": """
        SELECT batch_id, prompt_no FROM attempts WHERE cost_usd = 0 AND input_tokens IS NULL""",
}
#: What must not be there either, as long as no worker is taken for dead that lives.
DOUBLED = {
    "a prompt was answered twice": """
        SELECT batch_id, prompt_no FROM attempts WHERE outcome = 'succeeded'
        GROUP BY batch_id, prompt_no HAVING count(*) > 1""",
    "a result miscounts its attempts": """
        SELECT r.batch_id, r.prompt_no, r.attempts, made.calls FROM results r, LATERAL (
            SELECT count(*) AS calls FROM attempts a
            WHERE (a.batch_id, a.prompt_no) = (r.batch_id, r.prompt_no)) AS made
        WHERE r.state <> 'cancelled' AND r.attempts <> made.calls""",
}


async def assert_laws(yard: yards.Yard, *keys: str, may_double: bool = False) -> None:
    """Check the laws of everything that the yard's database and broker hold.

    Args:
        keys: that were in the environment, and must be nowhere else.
        may_double: a worker was taken for dead while it lived, so that two may have called for one prompt.
    """
    for what, sql in (BROKEN if may_double else BROKEN | DOUBLED).items():
        found = await yard.rows(sql)
        assert not found, f"{what}: {found[:5]}, {len(found)} in all"
    said = yard.everything_in_redis() + "".join(command.said for command in yard.commands)
    for secret in (yards.PROMPT_MARK, *keys):
        where = [line for line in said.splitlines() if secret in line]
        assert not where, f"in Redis or a log: {where[0][:500]}"
    for (table,) in await yard.rows(
        "SELECT quote_ident(table_name) FROM information_schema.tables "
        "WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
    ):
        for key in keys:
            # A row as text holds all its columns.
            assert not await yard.count(f"{table} AS t", "strpos(t::text, $1) > 0", key), f"a key is in {table}"


async def billed_usd(yard: yards.Yard, calls: Iterable[billing.Call]) -> Fraction:
    """What the providers charge for the calls: their token counts times the price table."""
    prices = collections.defaultdict(list)
    for provider, model, above, *usd in await yard.rows(
        "SELECT provider, model, above_input_tokens, input_usd_per_mtok, cache_read_usd_per_mtok, "
        "cache_write_usd_per_mtok, output_usd_per_mtok FROM prices WHERE valid_to IS NULL"
    ):
        prices[provider, model].append((above, [Fraction(price) for price in usd]))
    tokens: dict[tuple[str, str, int], list[int]] = collections.defaultdict(lambda: [0, 0, 0, 0])
    for call in calls:
        if not call.billed:
            continue
        used = [call.input_tokens, call.cache_read_tokens, call.cache_write_tokens, call.output_tokens]
        tiers = [above for above, _ in prices[call.provider, call.model]]
        tier = max(above for above in tiers if above == 0 or sum(used[:3]) > above)
        sums = tokens[call.provider, call.model, tier]
        sums[:] = [before + more for before, more in zip(sums, used, strict=True)]
    total = Fraction()
    for (provider, model, tier), sums in tokens.items():
        (usd,) = (usd for above, usd in prices[provider, model] if above == tier)
        total += sum((count * price for count, price in zip(sums, usd, strict=True)), Fraction())
    return total / 1_000_000


async def assert_bill(yard: yards.Yard, batch_id: int, calls: list[billing.Call]) -> None:
    """Check that our ledger of a batch is the providers' bill: the same calls, and the same cost.

    Args:
        calls: all that the providers have answered for this batch.
    """
    theirs = collections.Counter((call.provider, call.model) for call in calls)
    ours = {
        (provider, model): count
        for provider, model, count in await yard.rows(
            "SELECT provider, model, count(*) FROM attempts WHERE batch_id = $1 GROUP BY 1, 2", batch_id
        )
    }
    assert ours == theirs
    booked: Decimal = await yard.value(
        "SELECT coalesce(sum(cost_usd), 0) FROM attempts WHERE batch_id = $1", batch_id
    )
    # Only the provider knows what an answer cost that arrived in pieces.
    readable = [call for call in calls if call.fault != "malformed"]
    assert Fraction(booked) == await billed_usd(yard, readable)
    unreadable = sum(call.billed for call in calls if call.fault == "malformed")
    unpriced = "batch_id = $1 AND outcome = 'failed' AND cost_usd IS NULL AND http_status = 200"
    assert await yard.count("attempts", unpriced, batch_id) == unreadable
