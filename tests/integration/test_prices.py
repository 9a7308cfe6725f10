from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext import asyncio as sa_asyncio

from worker import settings
from worker.ledger import cost, database, prices, rates, tables
from worker.providers.types import Usage
from worker.routing import load
from worker.routing.registry import Registry, Route

LOCAL = Route("local", "tiny")
OPUS = Route("anthropic", "claude-opus-5-5")
TIERED = Route("openai", "gpt-6.1-sol")


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[sa_asyncio.AsyncEngine]:
    engine = database.engine(database_url)
    yield engine
    await engine.dispose()


def shipped() -> Registry:
    return load.registry(settings.Settings(registry=None))


def with_local(rates_line: str = "") -> Registry:
    return load.parse(
        'extends = "default"\n[providers.local]\ndialect = "openai_chat"\nbase_url = "http://127.0.0.1:1/v1"\n'
        f"[providers.local.models.tiny]\ncontext_window = 1000\n{rates_line}\n",
        source="test",
    )


async def rows(engine: sa_asyncio.AsyncEngine, route: Route | None = None) -> list[dict[str, Any]]:
    """The rows of a model, or of all: tier by tier, oldest first."""
    table = tables.prices
    query = sa.select(table).order_by(table.c.above_input_tokens, table.c.valid_from)
    if route is not None:
        query = query.where(table.c.provider == route.provider, table.c.model == route.model)
    async with engine.connect() as connection:
        return [dict(row) for row in (await connection.execute(query)).mappings()]


async def age(engine: sa_asyncio.AsyncEngine, route: Route, **values: object) -> None:
    """Make the current rows of a model look as an earlier day left them."""
    table = tables.prices
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    async with engine.begin() as connection:
        await connection.execute(
            sa.update(table)
            .where(table.c.provider == route.provider, table.c.model == route.model)
            .values(valid_from=yesterday, checked_on=yesterday.date(), **values)
        )


async def test_every_model_of_the_shipped_registry_gets_its_price_with_source_and_date(
    engine: sa_asyncio.AsyncEngine,
) -> None:
    registry = shipped()
    before = datetime.datetime.now(datetime.UTC).date()
    await prices.sync(engine, registry)
    after = datetime.datetime.now(datetime.UTC).date()
    stored = await rows(engine)
    models = {Route(name, model) for name, p in registry.providers.items() for model in p.models}
    assert {Route(row["provider"], row["model"]) for row in stored} == models
    assert {row["source"] for row in stored} == {rates.genai_source()}
    assert all(before <= row["checked_on"] <= after for row in stored)
    assert all(row["valid_to"] is None for row in stored)


async def test_the_book_prices_a_call_as_the_source_does_and_names_its_row(
    engine: sa_asyncio.AsyncEngine,
) -> None:
    registry = shipped()
    await prices.sync(engine, registry)
    book = await prices.load(engine, registry)
    assert book.unknown == ()
    by_id = {row["id"]: row for row in await rows(engine)}
    quotes = rates.quotes(registry, datetime.datetime.now(datetime.UTC))
    for usage in (Usage(600, 100, 50, 300, 20), Usage(280_000, 0, 0, 1)):
        for route, quote in quotes.items():
            stored = book.get(route)
            assert stored is not None
            found, price_id = cost.cost_usd(usage, stored)
            assert found == cost.cost_usd(usage, quote.prices)[0]
            assert price_id is not None
            assert Route(by_id[price_id]["provider"], by_id[price_id]["model"]) == route
    assert book.baseline == book.get(OPUS)


async def test_a_tiered_price_has_a_row_for_each_tier(engine: sa_asyncio.AsyncEngine) -> None:
    await prices.sync(engine, shipped())
    assert [row["above_input_tokens"] for row in await rows(engine, TIERED)] == [0, 272_000]


async def test_a_second_sync_of_the_day_writes_nothing(engine: sa_asyncio.AsyncEngine) -> None:
    await prices.sync(engine, shipped())
    query = sa.text("SELECT id, xmin::text FROM prices ORDER BY id")
    async with engine.connect() as connection:
        first = (await connection.execute(query)).all()
    await prices.sync(engine, shipped())
    async with engine.connect() as connection:
        assert (await connection.execute(query)).all() == first


async def test_a_changed_price_closes_its_row_and_opens_another(engine: sa_asyncio.AsyncEngine) -> None:
    await prices.sync(engine, shipped())
    await age(engine, OPUS, output_usd_per_mtok=Decimal("99"), source="genai-prices 0.0.1")
    await prices.sync(engine, shipped())
    old, new = await rows(engine, OPUS)
    assert (old["output_usd_per_mtok"], old["source"]) == (Decimal("99"), "genai-prices 0.0.1")
    assert old["valid_to"] == new["valid_from"]
    assert (new["source"], new["valid_to"]) == (rates.genai_source(), None)
    assert new["output_usd_per_mtok"] != Decimal("99")


async def test_an_unchanged_price_keeps_its_row_and_gets_the_new_date(engine: sa_asyncio.AsyncEngine) -> None:
    await prices.sync(engine, shipped())
    (first,) = await rows(engine, OPUS)
    await age(engine, OPUS)
    await prices.sync(engine, shipped())
    (again,) = await rows(engine, OPUS)
    assert again["id"] == first["id"]
    assert again["checked_on"] >= first["checked_on"]
    assert again["valid_to"] is None


async def test_a_changed_tier_leaves_the_other_tiers_row_alone(engine: sa_asyncio.AsyncEngine) -> None:
    await prices.sync(engine, shipped())
    low, high = await rows(engine, TIERED)
    table = tables.prices
    await age(engine, TIERED)
    async with engine.begin() as connection:
        await connection.execute(
            sa.update(table).where(table.c.id == high["id"]).values(output_usd_per_mtok=Decimal("77"))
        )
    await prices.sync(engine, shipped())
    current = [row for row in await rows(engine, TIERED) if row["valid_to"] is None]
    assert [row["above_input_tokens"] for row in current] == [0, 272_000]
    assert current[0]["id"] == low["id"]
    assert current[1]["output_usd_per_mtok"] == high["output_usd_per_mtok"]


async def test_the_registrys_own_rates_win(engine: sa_asyncio.AsyncEngine) -> None:
    registry = with_local("rates = { input = 0.125, output = 0.5, cache_read = 0 }")
    await prices.sync(engine, registry)
    (row,) = await rows(engine, LOCAL)
    assert row["source"] == "registry"
    assert [row[f"{kind}_usd_per_mtok"] for kind in ("input", "cache_read", "cache_write", "output")] == [
        Decimal("0.125"),
        Decimal("0"),
        Decimal("0.125"),
        Decimal("0.5"),
    ]
    await prices.sync(engine, with_local("rates = { input = 0.125, output = 0.75, cache_read = 0 }"))
    assert [row["valid_to"] is None for row in await rows(engine, LOCAL)] == [False, True]


async def test_a_model_without_a_price_has_no_row_and_is_named_as_unknown(
    engine: sa_asyncio.AsyncEngine,
) -> None:
    await prices.sync(engine, with_local())
    book = await prices.load(engine, with_local())
    assert book.get(LOCAL) is None
    assert book.unknown == (LOCAL,)


async def test_a_price_that_is_no_longer_known_is_closed(engine: sa_asyncio.AsyncEngine) -> None:
    await prices.sync(engine, with_local("rates = { input = 1, output = 1 }"))
    await prices.sync(engine, with_local())
    (row,) = await rows(engine, LOCAL)
    assert row["valid_to"] is not None
    assert (await prices.load(engine, with_local())).get(LOCAL) is None


async def test_prices_of_a_model_that_left_the_registry_can_still_be_read(
    engine: sa_asyncio.AsyncEngine,
) -> None:
    await prices.sync(engine, with_local("rates = { input = 1, output = 1 }"))
    await prices.sync(engine, shipped())
    assert (await prices.load(engine, shipped())).get(LOCAL) is not None


async def test_processes_that_sync_at_once_write_each_price_once(database_url: str) -> None:
    engines = [database.engine(database_url) for _ in range(4)]
    try:
        await asyncio.gather(*(prices.sync(engine, shipped()) for engine in engines))
        await age(engines[0], OPUS, output_usd_per_mtok=Decimal("99"))
        await asyncio.gather(*(prices.sync(engine, shipped()) for engine in engines))
        stored = await rows(engines[0])
    finally:
        for engine in engines:
            await engine.dispose()
    current = [
        (row["provider"], row["model"], row["above_input_tokens"]) for row in stored if not row["valid_to"]
    ]
    assert len(current) == len(set(current)) == len(stored) - 1
