"""What the models of a registry cost now, by the registry's own word or by genai-prices."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING

from worker.ledger import cost
from worker.routing.registry import Model, Rates, Registry, Route

if TYPE_CHECKING:
    import genai_prices.types

#: `prices.source` of rates that the registry gives.
REGISTRY_SOURCE = "registry"
#: Providers that genai-prices calls by another name.
_GENAI_PROVIDERS = {"gemini": "google"}
#: Prices of text that four rates a token cannot express. A model that has one counts as unknown: better no
#: cost than a wrong one.
_INEXPRESSIBLE = frozenset(
    {"requests_kcount", "output_reasoning_mtok", "input_text_mtok", "output_text_mtok", "input_mchars"}
)


@dataclasses.dataclass(frozen=True, slots=True)
class Quote:
    """The prices of one model and where they are from."""

    prices: cost.PriceList
    source: str


def genai_source() -> str:
    """`prices.source` of rates that the installed genai-prices gives."""
    return f"genai-prices {importlib.metadata.version('genai-prices')}"


def quotes(registry: Registry, now: datetime.datetime) -> dict[Route, Quote]:
    """The prices at this instant of every model of the registry that has a known one."""
    found: dict[Route, Quote] = {}
    for name, provider in registry.providers.items():
        for model_name, model in provider.models.items():
            route = Route(name, model_name)
            quote = of_registry(model.rates) if model.rates is not None else of_genai(route, model, now)
            if quote is not None:
                found[route] = quote
    return found


def of_registry(rates: Rates) -> Quote:
    """The rates that a registry gives; cached input costs what fresh input does, if nothing else is said."""
    price = cost.Price(
        above_input_tokens=0,
        input_usd_per_mtok=rates.input,
        cache_read_usd_per_mtok=rates.input if rates.cache_read is None else rates.cache_read,
        cache_write_usd_per_mtok=rates.input if rates.cache_write is None else rates.cache_write,
        output_usd_per_mtok=rates.output,
    )
    return Quote((price,), REGISTRY_SOURCE)


def of_genai(route: Route, model: Model, now: datetime.datetime) -> Quote | None:
    """What genai-prices says, or None where it does not know the model."""
    # It takes 0.17 s to import, and most commands find the day's prices in the database.
    from genai_prices import data_snapshot

    provider_name, model_name = Route.parse(model.price) if model.price else route
    provider_id = _GENAI_PROVIDERS.get(provider_name, provider_name)
    snapshot = data_snapshot.get_snapshot()
    # By its exact id: genai-prices' own search also takes names that only look alike, and a server called
    # openai-local does not cost what OpenAI does.
    provider = next((provider for provider in snapshot.providers if provider.id == provider_id), None)
    if provider is None:
        return None
    try:
        _, info = snapshot.find_provider_model(model_name, provider, None, None)
    except LookupError:
        return None
    prices = price_list(info.get_prices(now))
    return None if prices is None else Quote(prices, genai_source())


def price_list(found: genai_prices.types.ModelPrice) -> cost.PriceList | None:
    """One row for each threshold at which a rate changes, or None where four rates do not tell the price."""
    known: Mapping[str, Decimal | genai_prices.types.TieredPrices] = {
        key: value for key, value in vars(found).items() if value is not None
    }
    if "input_mtok" not in known or "output_mtok" not in known or known.keys() & _INEXPRESSIBLE:
        return None
    # genai-prices counts cached input as plain input where it has no rate of its own.
    fresh, output = known["input_mtok"], known["output_mtok"]
    read, write = known.get("cache_read_mtok", fresh), known.get("cache_write_mtok", fresh)
    starts = {0}
    for value in (fresh, read, write, output):
        if not isinstance(value, Decimal):
            starts.update(tier.start for tier in value.tiers)
    return cost.price_list(
        [
            cost.Price(
                above_input_tokens=start,
                input_usd_per_mtok=_rate_above(start, fresh),
                cache_read_usd_per_mtok=_rate_above(start, read),
                cache_write_usd_per_mtok=_rate_above(start, write),
                output_usd_per_mtok=_rate_above(start, output),
            )
            for start in starts
        ]
    )


def _rate_above(start: int, value: Decimal | genai_prices.types.TieredPrices) -> Decimal:
    """The rate of calls with more input tokens than `start`, up to the next threshold."""
    if isinstance(value, Decimal):
        return value
    reached = [tier for tier in value.tiers if tier.start <= start]
    return reached[-1].price if reached else value.base
