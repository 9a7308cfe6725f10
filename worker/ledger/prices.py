"""The `prices` table: kept up to date with genai-prices and the registry, with the history of each price."""

from __future__ import annotations

import dataclasses
import datetime
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext import asyncio as sa_asyncio

from worker.ledger import cost, rates, tables
from worker.routing.registry import Registry, Route

#: Lets one process at a time change prices; the number is arbitrary and only has to be our own.
_LOCK = 0x70726963  # "pric"

_CURRENT = sa.select(tables.prices).where(tables.prices.c.valid_to.is_(None))


@dataclasses.dataclass(frozen=True, slots=True)
class PriceBook:
    """The prices in force."""

    prices: Mapping[Route, cost.PriceList]
    frontier: Route  #: of the registry
    unknown: tuple[Route, ...]  #: models of the registry without a price: what they cost is NULL

    def get(self, route: Route) -> cost.PriceList | None:
        """The prices of a model, or None where they are unknown."""
        return self.prices.get(route)

    @property
    def baseline(self) -> cost.PriceList | None:
        """The prices of the frontier model, against which savings are measured."""
        return self.get(self.frontier)


async def sync(engine: sa_asyncio.AsyncEngine, registry: Registry) -> None:
    """Write the day's prices of all models of the registry, where they are not there yet.

    A price that changed closes its row (`valid_to`) and opens a new one; calls keep the row they were priced
    by. A price that did not change gets the new source and date. Prices that have become unknown are closed.
    Several processes may do this at once.
    """
    async with engine.connect() as connection:
        stored = _by_route((await connection.execute(_CURRENT)).all())
    # genai-prices dates its prices, so the same release can say something else tomorrow.
    if _up_to_date(stored, registry, datetime.datetime.now(datetime.UTC).date()):
        return
    async with engine.begin() as connection:
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        # Not now(), which is the transaction's start: another process may have written since.
        instant = (await connection.execute(sa.select(sa.func.clock_timestamp()))).scalar_one()
        quotes = rates.quotes(registry, instant)
        stored = _by_route((await connection.execute(_CURRENT)).all())
        for route in _routes(registry):
            await _write(connection, route, stored.get(route, ()), quotes.get(route), instant)


async def load(engine: sa_asyncio.AsyncEngine, registry: Registry) -> PriceBook:
    """Read the prices in force, those of models that have left the registry too."""
    async with engine.connect() as connection:
        stored = _by_route((await connection.execute(_CURRENT)).all())
    known = {route: cost.price_list([_price(row) for row in rows]) for route, rows in stored.items()}
    return PriceBook(
        prices=known,
        frontier=registry.frontier,
        unknown=tuple(route for route in _routes(registry) if route not in known),
    )


async def _write(
    connection: sa_asyncio.AsyncConnection,
    route: Route,
    stored: Sequence[sa.Row[Any]],
    quote: rates.Quote | None,
    instant: datetime.datetime,
) -> None:
    """Make the current rows of one model say what the quote says."""
    table = tables.prices
    stored_prices = {_price(row, with_id=False): row.id for row in stored}
    quoted = quote.prices if quote is not None else ()
    kept = [stored_prices[price] for price in quoted if price in stored_prices]
    gone = [row_id for price, row_id in stored_prices.items() if price not in quoted]
    new = [price for price in quoted if price not in stored_prices]
    if gone:
        await connection.execute(sa.update(table).where(table.c.id.in_(gone)).values(valid_to=instant))
    if quote is None:
        return
    origin = {"source": quote.source, "checked_on": instant.date()}
    if kept:
        await connection.execute(sa.update(table).where(table.c.id.in_(kept)).values(origin))
    for price in new:
        await connection.execute(
            sa.insert(table).values(
                provider=route.provider,
                model=route.model,
                above_input_tokens=price.above_input_tokens,
                input_usd_per_mtok=price.input_usd_per_mtok,
                cache_read_usd_per_mtok=price.cache_read_usd_per_mtok,
                cache_write_usd_per_mtok=price.cache_write_usd_per_mtok,
                output_usd_per_mtok=price.output_usd_per_mtok,
                valid_from=instant,
                **origin,
            )
        )


def _up_to_date(
    stored: Mapping[Route, Sequence[sa.Row[Any]]], registry: Registry, today: datetime.date
) -> bool:
    genai = rates.genai_source()
    for route in _routes(registry):
        rows = stored.get(route, ())
        own = registry.model(route).rates
        if own is not None:
            quote = rates.of_registry(own)
            same = {_price(row, with_id=False) for row in rows} == set(quote.prices)
            if not same or any(row.source != quote.source for row in rows):
                return False
        elif not rows or any(row.source != genai or row.checked_on != today for row in rows):
            return False
    return True


def _routes(registry: Registry) -> Iterable[Route]:
    for name, provider in registry.providers.items():
        for model in provider.models:
            yield Route(name, model)


def _by_route(
    rows: Iterable[sa.Row[Any]],
) -> dict[Route, list[sa.Row[Any]]]:
    grouped = defaultdict(list)
    for row in rows:
        grouped[Route(row.provider, row.model)].append(row)
    return dict(grouped)


def _price(row: sa.Row[Any], *, with_id: bool = True) -> cost.Price:
    return cost.Price(
        above_input_tokens=row.above_input_tokens,
        input_usd_per_mtok=row.input_usd_per_mtok,
        cache_read_usd_per_mtok=row.cache_read_usd_per_mtok,
        cache_write_usd_per_mtok=row.cache_write_usd_per_mtok,
        output_usd_per_mtok=row.output_usd_per_mtok,
        id=row.id if with_id else None,
    )
