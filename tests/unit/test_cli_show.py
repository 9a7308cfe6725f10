"""How the command prints numbers and tables."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from decimal import Decimal

import pytest

from worker.cli import show


@pytest.mark.parametrize(
    ("amount", "unpriced_calls", "shown"),
    [
        (None, 3, "unknown"),  # never 0
        (Decimal(0), 0, "0.000000"),
        (Decimal("0.0000004"), 0, "<0.000001"),  # not nothing
        (Decimal("1234.5678914"), 0, "1,234.567891"),
        (Decimal("0.25"), 2, ">=0.250000"),  # two calls are missing in it
    ],
)
def test_an_amount_never_hides_what_is_not_known(
    amount: Decimal | None, unpriced_calls: int, shown: str
) -> None:
    assert show.usd(amount, unpriced_calls) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (200, "3 min 20 s"),
        (3600, "1 h 0 min"),
        (93_784, "1 d 2 h"),
    ],
)
def test_a_duration_is_shown_in_two_units(seconds: float, shown: str) -> None:
    assert show.duration(seconds) == shown


@pytest.mark.parametrize(("part", "whole", "shown"), [(0, 0, "-"), (999, 1000, "99 %"), (1000, 1000, "100 %")])
def test_a_hundred_percent_means_all(part: int, whole: int, shown: str) -> None:
    assert show.share(part, whole) == shown


def test_a_plain_table_is_aligned_and_never_cut() -> None:
    long_id = "x" * 300
    assert show.aligned(["id", ">calls"], [[long_id, "1"], ["b", "1,000"]]) == [
        "id" + " " * 298 + "  calls",
        long_id + "      1",
        "b" + " " * 299 + "  1,000",
    ]


@dataclass
class Row:
    cost_usd: Decimal | None
    at: datetime.datetime


def test_json_has_money_as_text_without_an_exponent(capsys: pytest.CaptureFixture[str]) -> None:
    noon = datetime.datetime(2026, 11, 20, 12, tzinfo=datetime.UTC)
    show.print_json({"rows": [Row(Decimal("1E-7"), noon), Row(None, noon)]})
    assert json.loads(capsys.readouterr().out) == {
        "rows": [
            {"cost_usd": "0.0000001", "at": "2026-11-20T12:00:00+00:00"},
            {"cost_usd": None, "at": "2026-11-20T12:00:00+00:00"},
        ]
    }
