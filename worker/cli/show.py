"""How the command prints: tables, numbers, JSON. Light: rich is imported only for a table on a terminal."""

from __future__ import annotations

import dataclasses
import datetime
import json
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

#: Smallest amount that a table shows; more digits are in the JSON and in Postgres.
SMALLEST_USD = Decimal("0.000001")

#: Takes away a count that stands in the terminal's last line.
CLEAR_LINE = "\r\x1b[K"

UNKNOWN = "unknown"
NOTHING = "-"


def note(text: str) -> None:
    """Print for people: on standard error, so that standard output stays fit for scripts."""
    print(f"{CLEAR_LINE if sys.stderr.isatty() else ''}{text}", file=sys.stderr, flush=True)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, total: Sequence[str] | None = None) -> None:
    """Print a table to standard output: drawn on a terminal, else aligned by blanks and never cut.

    Args:
        headers: one that begins with `>` belongs to a column of numbers.
        total: a last row, set off.
    """
    if sys.stdout.isatty():
        _drawn(headers, rows, total)
    else:
        for line in aligned(headers, [*rows, *([total] if total else [])]):
            print(line)


def aligned(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out a table as lines of text, two blanks between columns."""
    numeric = [header.startswith(">") for header in headers]
    lines = [[header.removeprefix(">") for header in headers], *rows]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    ]


def _drawn(headers: Sequence[str], rows: Sequence[Sequence[str]], total: Sequence[str] | None) -> None:
    from rich import box, console
    from rich import table as rich_table

    made = rich_table.Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=total is not None)
    for number, header in enumerate(headers):
        made.add_column(
            header.removeprefix(">"),
            footer=total[number] if total else "",
            justify="right" if header.startswith(">") else "left",
            overflow="fold",  # an id that is cut short is of no use
        )
    for row in rows:
        made.add_row(*row)
    # Names from the registry and from users are text, never markup.
    console.Console(markup=False, emoji=False, highlight=False).print(made)


def print_json(value: object, *, in_one_line: bool = False) -> None:
    """Print as JSON: dataclasses as objects, money as text with every digit, times as ISO 8601."""
    indent = None if in_one_line else 2
    print(json.dumps(value, default=_plain, ensure_ascii=False, indent=indent), flush=in_one_line)


def _plain(value: object) -> Any:
    if isinstance(value, Decimal):
        return format(value, "f")  # never 1E-7
    if isinstance(value, datetime.date):  # datetimes too
        return value.isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no JSON form")


def count(number: int | None) -> str:
    return NOTHING if number is None else f"{number:,}"


def usd(amount: Decimal | None, unpriced_calls: int = 0) -> str:
    """US dollars; an unknown price is never shown as 0.

    Args:
        unpriced_calls: calls whose cost is missing in the amount, which is then the least it can be.
    """
    if amount is None:
        return UNKNOWN
    shown = f"{amount:,.6f}"
    if unpriced_calls:
        return f">={shown}"
    return f"<{SMALLEST_USD}" if 0 < amount < SMALLEST_USD else shown


def plain_number(number: Decimal) -> str:
    """All its digits, without an exponent and without zeros at the end."""
    return format(number.normalize(), "f")


def share(part: int, whole: int) -> str:
    """Percent, rounded down: 100 % means all."""
    return f"{part * 100 // whole} %" if whole else NOTHING


def duration(seconds: float) -> str:
    """A length of time in its two greatest units."""
    left = round(seconds)
    for size, unit, smaller, smaller_unit in (
        (86_400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if left >= size:
            return f"{left // size} {unit} {left % size // smaller} {smaller_unit}"
    return f"{left} s"


def instant(time: datetime.datetime | None) -> str:
    """To the second, in UTC."""
    return NOTHING if time is None else f"{time.astimezone(datetime.UTC):%Y-%m-%d %H:%M:%SZ}"
