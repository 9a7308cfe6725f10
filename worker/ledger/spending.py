"""What the calls cost, grouped any way, and what routing saved."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker import errors

Dimension = Literal["day", "batch", "category", "provider", "model"]


@dataclass(frozen=True, slots=True)
class Spend:
    """Calls and what they cost. A dimension that was not asked for is None."""

    day: datetime.date | None
    batch_id: int | None
    category: str | None
    provider: str | None
    model: str | None
    provider_simulated: bool
    calls: int
    succeeded: int
    failed: int
    unknown: int
    input_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    cost_usd: Decimal | None  #: None when no cost is known
    unpriced_calls: int


@dataclass(frozen=True, slots=True)
class Savings:
    """Cost of a batch against the same tokens at its frontier model."""

    category: str | None  #: None for the whole batch
    frontier: str
    provider_simulated: bool
    calls: int
    unpriced_calls: int
    compared: int  #: answers of which both costs are known
    uncompared: int  #: other answers, left out of `baseline_cost_usd`, `saved_usd` and `saved_share`
    cost_usd: Decimal | None
    baseline_cost_usd: Decimal | None
    saved_usd: Decimal | None
    saved_share: Decimal | None  #: of the baseline, at most 1; below 0 when it cost more


_SPEND = sa.table("spend", *(sa.column(name) for name in Spend.__slots__))
#: Dimension -> column of the view, in the order of `Spend`.
_DIMENSIONS = {name: "batch_id" if name == "batch" else name for name in get_args(Dimension)}
_SUMS = Spend.__slots__[len(_DIMENSIONS) + 1 :]


async def spend(
    connection: AsyncConnection,
    by: Sequence[str] = (),
    *,
    batch_id: int | None = None,
    since: datetime.date | None = None,
) -> list[Spend]:
    """Add up the calls, grouped by any of the dimensions; simulated calls always stand apart from real ones.

    Args:
        by: some of `Dimension`; with none there is one row for all calls.
        since: the first day, in UTC.

    Raises:
        SettingsError: a name in `by` is not a dimension.
    """
    unknown = [name for name in by if name not in _DIMENSIONS]
    if unknown:
        raise errors.SettingsError(
            f"Spend cannot be grouped by {unknown[0]}. Choose from {', '.join(_DIMENSIONS)}."
        )
    asked = [_SPEND.c[column] for name, column in _DIMENSIONS.items() if name in by]
    columns: list[sa.ColumnElement[Any]] = [
        _SPEND.c[column] if name in by else sa.null().label(column) for name, column in _DIMENSIONS.items()
    ]
    sums = {name: _sum(_SPEND.c[name]) for name in _SUMS}
    columns += [_SPEND.c.provider_simulated, *sums.values()]
    query = (
        sa.select(*columns)
        .group_by(*asked, _SPEND.c.provider_simulated)
        .order_by(
            *(column for column in asked if column.name == "day"),
            sums["cost_usd"].desc().nulls_last(),
            *asked,
        )
    )
    if batch_id is not None:
        query = query.where(_SPEND.c.batch_id == batch_id)
    if since is not None:
        query = query.where(_SPEND.c.day >= since)
    return [Spend(*row) for row in await connection.execute(query)]


async def savings(connection: AsyncConnection, batch_id: int, *, by_category: bool = False) -> list[Savings]:
    """Compare the cost of a batch with its frontier model: one row, or one a category; none before a call."""
    view = sa.table(
        "savings_by_category" if by_category else "savings",
        *(sa.column(name) for name in ["batch_id", *Savings.__slots__]),
    )
    category = view.c.category if by_category else sa.null()
    rest = (view.c[name] for name in Savings.__slots__[1:])
    query = (
        sa.select(category.label("category"), *rest)
        .where(view.c.batch_id == batch_id)
        .order_by(sa.text("category"), view.c.provider_simulated)
    )
    return [Savings(*row) for row in await connection.execute(query)]


def _sum(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The sum in the column's own kind: Postgres makes a numeric of the sum of bigints."""
    total = sa.func.sum(column)
    return total if column.name == "cost_usd" else sa.cast(total, sa.BigInteger)
