"""`promptyard spend`: what the calls cost."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli import show

if TYPE_CHECKING:
    from worker.ledger import spending

HELP = """Add up calls, tokens and cost. Every attempt counts, failed ones too.

Simulated calls are listed apart: they cost nothing, and show what the same calls would have. A cost that is
not known is `unknown`, never 0; `>=` stands before a sum in which some are missing. With --batch it also
says what the frontier model would have cost. Days are in UTC.

Examples:

\b
    promptyard spend
    promptyard spend --by provider,model --batch last
    promptyard spend --by day --since 2026-11-01 --json
"""

#: How a dimension is called in the head of its column and in --json, and its field in `spending.Spend`.
FIELDS = {"day": "day", "batch": "batch_id", "category": "category", "provider": "provider", "model": "model"}

#: What is added up, in the order of the columns.
TOKENS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")


def register(app: typer.Typer) -> None:
    app.command("spend", help=HELP)(spend)


def spend(
    by: Annotated[
        str, typer.Option(metavar="WHAT,…", help=f"Group by some of {', '.join(FIELDS)}.")
    ] = "provider,model",
    batch: Annotated[
        str | None, typer.Option(metavar="BATCH", help="Of one batch: its id, its name, or `last`.")
    ] = None,
    since: Annotated[
        datetime.datetime | None,
        typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help="From this day on."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="For scripts; money is text with every digit.")
    ] = False,
) -> None:
    from worker.cli import session

    dimensions = list(dict.fromkeys(name.strip() for name in by.split(",") if name.strip()))
    unknown = [name for name in dimensions if name not in FIELDS]
    if unknown:
        message = f"{unknown[0]} is none of {', '.join(FIELDS)}."
        raise typer.BadParameter(message, param_hint="--by")
    rows, savings = session.run(_read(dimensions, batch, since.date() if since else None))
    if as_json:
        shown = [{name: getattr(row, FIELDS[name]) for name in dimensions} | _sums(row) for row in rows]
        show.print_json({"spend": shown, "savings": savings})
        return
    if not rows:
        show.note("No call has been made yet that fits.")
        return
    print_tables(dimensions, rows, savings)


def print_tables(
    dimensions: Sequence[str], rows: Sequence[spending.Spend], savings: Sequence[spending.Savings]
) -> None:
    """Print real and simulated calls, each with their sum, and what routing saved."""
    for simulated in (False, True):
        part = [row for row in rows if row.provider_simulated is simulated]
        if part:
            if simulated:
                print("Simulated calls. Nothing of this was charged:")
            _table(dimensions, part)
    for line in savings_lines(savings):
        print(line)


async def _read(
    dimensions: Sequence[str], batch: str | None, since: datetime.date | None
) -> tuple[list[spending.Spend], list[spending.Savings]]:
    from worker.cli import session
    from worker.ledger import reads, spending

    async with session.opened() as here, here.db.connect() as connection:
        batch_id = (await reads.find_batch(connection, batch)).id if batch is not None else None
        rows = await spending.spend(connection, dimensions, batch_id=batch_id, since=since)
        savings = await spending.savings(connection, batch_id) if batch_id is not None else []
    return rows, savings


def savings_lines(savings: Sequence[spending.Savings]) -> list[str]:
    """What routing saved, a sentence for real calls and one for simulated ones."""
    lines = []
    for saved in savings:
        if saved.saved_usd is None or saved.baseline_cost_usd is None or saved.saved_share is None:
            lines.append(f"Savings against {saved.frontier}: unknown, since costs are.")
            continue
        what = "Saved" if saved.saved_usd >= 0 else "Spent more by"
        line = (
            f"{what} {show.usd(abs(saved.saved_usd))} USD ({abs(saved.saved_share):.1%}) against "
            f"{show.usd(saved.baseline_cost_usd)} USD for the same tokens at {saved.frontier}"
        )
        if saved.uncompared:
            line += f"; {saved.uncompared:,} answers could not be compared"
        lines.append(f"{line}{' (simulated)' if saved.provider_simulated else ''}.")
    return lines


def _table(dimensions: Sequence[str], rows: Sequence[spending.Spend]) -> None:
    tokens = [name for name in TOKENS if name in {"input_tokens", "output_tokens"} or any(_values(rows, name))]
    heads = [f">{name.removesuffix('_tokens').replace('_', ' ')}" for name in tokens]

    def line(first: Sequence[str], part: Sequence[spending.Spend]) -> list[str]:
        unpriced = sum(row.unpriced_calls for row in part)
        return [
            *first,
            show.count(sum(row.calls for row in part)),
            show.count(sum(row.calls - row.succeeded for row in part)),
            *(show.count(_total(part, name)) for name in tokens),
            show.usd(_cost(part), unpriced),
        ]

    show.table(
        [*dimensions, ">calls", ">errors", *heads, ">cost USD"],
        [line([_shown(row, name) for name in dimensions], [row]) for row in rows],
        total=line(["total", *[""] * (len(dimensions) - 1)], rows) if dimensions else None,
    )


def _shown(row: spending.Spend, dimension: str) -> str:
    value = getattr(row, FIELDS[dimension])
    return show.NOTHING if value is None else str(value)


def _sums(row: spending.Spend) -> dict[str, object]:
    names = (
        "provider_simulated",
        "calls",
        "succeeded",
        "failed",
        "unknown",
        *TOKENS,
        "cost_usd",
        "unpriced_calls",
    )
    return {name: getattr(row, name) for name in names}


def _values(rows: Sequence[spending.Spend], name: str) -> list[int]:
    return [value for row in rows if (value := getattr(row, name)) is not None]


def _total(rows: Sequence[spending.Spend], name: str) -> int | None:
    """The sum of what is known; None when nothing is."""
    values = _values(rows, name)
    return sum(values) if values else None


def _cost(rows: Sequence[spending.Spend]) -> Decimal | None:
    known = [row.cost_usd for row in rows if row.cost_usd is not None]
    return sum(known, Decimal(0)) if known else None
