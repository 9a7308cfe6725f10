"""What a call cost: tokens times price, exact to the last digit."""

from __future__ import annotations

import decimal
from collections.abc import Sequence
from decimal import Decimal
from typing import Protocol

import msgspec

#: Exact or an error, whatever the caller's own decimal context says: nothing here is rounded.
_EXACT = decimal.Context(prec=100, traps=[decimal.Inexact, decimal.InvalidOperation])
#: Prices are for a million tokens.
_PER_MTOK = -6


class Tokens(Protocol):
    """Tokens of one call in disjoint buckets; reasoning tokens are part of the output."""

    @property
    def input_tokens(self) -> int: ...
    @property
    def cache_read_tokens(self) -> int: ...
    @property
    def cache_write_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...


class Price(msgspec.Struct, frozen=True):
    """One row of `prices`, in US dollars for a million tokens."""

    above_input_tokens: int  #: it prices calls with more input than this, cached input included
    input_usd_per_mtok: Decimal
    cache_read_usd_per_mtok: Decimal
    cache_write_usd_per_mtok: Decimal
    output_usd_per_mtok: Decimal
    id: int | None = None  #: of the row, once it is stored


#: The rows of one model, the highest `above_input_tokens` first.
PriceList = tuple[Price, ...]


def price_list(rows: Sequence[Price]) -> PriceList:
    """Order the rows of one model for `cost_usd`.

    Raises:
        ValueError: no row is for calls of any size.
    """
    ordered = tuple(sorted(rows, key=lambda price: price.above_input_tokens, reverse=True))
    if not ordered or ordered[-1].above_input_tokens != 0:
        raise ValueError("a model's prices need a row above 0 input tokens")
    return ordered


def cost_usd(usage: Tokens, prices: PriceList) -> tuple[Decimal, int | None]:
    """Price a call, and say by which row.

    A tier prices the whole call, not only the tokens above its threshold: so the providers and genai-prices.
    """
    fresh, read, write = usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens
    price = prices[0]
    if len(prices) > 1:
        all_input = fresh + read + write
        # The last row is for calls of any size, those without input too.
        price = next((price for price in prices[:-1] if all_input > price.above_input_tokens), prices[-1])
    total = _EXACT.multiply(price.output_usd_per_mtok, usage.output_tokens)
    total = _EXACT.fma(price.input_usd_per_mtok, fresh, total)
    if read:
        total = _EXACT.fma(price.cache_read_usd_per_mtok, read, total)
    if write:
        total = _EXACT.fma(price.cache_write_usd_per_mtok, write, total)
    return _EXACT.scaleb(total, _PER_MTOK), price.id
