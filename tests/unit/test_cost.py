from __future__ import annotations

import datetime
import decimal
import itertools
from decimal import Decimal

import genai_prices
import hypothesis
import pytest
from hypothesis import strategies as st

from worker import settings
from worker.ledger import cost, rates
from worker.providers.types import Usage
from worker.routing import load
from worker.routing.registry import Model, Rates, Route

NOW = datetime.datetime(2026, 11, 23, 12, 0, tzinfo=datetime.UTC)
NEW_YEAR = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)
REGISTRY = load.registry(settings.Settings(registry=None))
QUOTES = rates.quotes(REGISTRY, NOW)
COUNTS = [0, 1, 7, 1_000, 99_999, 100_000, 100_001, 272_000, 272_001, 1_000_000]

UNTIERED = cost.price_list([cost.Price(0, Decimal("2"), Decimal("0.5"), Decimal("2.5"), Decimal("8"), id=7)])


def by_genai_prices(route: Route, usage: Usage, at: datetime.datetime = NOW) -> Decimal:
    """What genai-prices says; it counts cached input inside the input."""
    return genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=usage.all_input_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            output_tokens=usage.output_tokens,
        ),
        route.model,
        provider_id={"gemini": "google"}.get(route.provider, route.provider),
        genai_request_timestamp=at,
    ).total_price


@pytest.mark.parametrize("route", QUOTES, ids=str)
def test_every_model_costs_what_genai_prices_says_to_the_last_digit(route: Route) -> None:
    prices = QUOTES[route].prices
    for fresh, read, write in itertools.product(COUNTS, [0, 1, 50_000, 272_000], [0, 1, 50_000]):
        usage = Usage(fresh, read, write, output_tokens=fresh // 3)
        assert cost.cost_usd(usage, prices)[0] == by_genai_prices(route, usage)


tokens = st.integers(0, 2_000_000) | st.sampled_from(COUNTS)


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(st.sampled_from(list(QUOTES)), tokens, tokens, tokens, tokens)
def test_any_usage_costs_what_genai_prices_says(
    route: Route, fresh: int, read: int, write: int, output: int
) -> None:
    usage = Usage(fresh, read, write, output, reasoning_tokens=output // 2)
    assert cost.cost_usd(usage, QUOTES[route].prices)[0] == by_genai_prices(route, usage)


def test_a_price_that_changes_on_a_date_is_taken_at_its_date() -> None:
    route = Route("gemini", "gemini-3.8-flash")
    usage = Usage(input_tokens=1_000, output_tokens=100)
    later = rates.of_genai(route, REGISTRY.model(route), NEW_YEAR)
    assert later is not None
    assert cost.cost_usd(usage, later.prices)[0] == by_genai_prices(route, usage, at=NEW_YEAR)
    assert later.prices != QUOTES[route].prices


def test_reasoning_tokens_are_part_of_the_output_and_cost_nothing_on_top() -> None:
    silent = Usage(input_tokens=100, output_tokens=50)
    thoughtful = Usage(input_tokens=100, output_tokens=50, reasoning_tokens=40)
    assert cost.cost_usd(thoughtful, UNTIERED) == cost.cost_usd(silent, UNTIERED)


def test_each_kind_of_token_has_its_own_rate() -> None:
    # 1000 * 2 + 400 * 0.5 + 200 * 2.5 + 50 * 8 = 3100 millionths
    assert cost.cost_usd(Usage(1_000, 400, 200, 50), UNTIERED) == (Decimal("0.0031"), 7)


def test_a_tier_starts_above_its_threshold_counts_cached_input_and_prices_the_whole_call() -> None:
    low = cost.Price(0, Decimal(1), Decimal(1), Decimal(1), Decimal(1), id=1)
    high = cost.Price(100, Decimal(2), Decimal(2), Decimal(2), Decimal(3), id=2)
    prices = cost.price_list([low, high])
    assert cost.cost_usd(Usage(40, 30, 30, 10), prices) == (Decimal("0.000110"), 1)
    assert cost.cost_usd(Usage(40, 30, 31, 10), prices) == (Decimal("0.000232"), 2)
    assert cost.cost_usd(Usage(output_tokens=10), prices) == (Decimal("0.000010"), 1)


def test_nothing_is_rounded_even_in_a_coarse_decimal_context() -> None:
    rate = Decimal("0.1234567890123456789")
    prices = cost.price_list([cost.Price(0, rate, rate, rate, rate)])
    with decimal.localcontext(prec=3):
        found, _ = cost.cost_usd(Usage(999_999, 999_998, 999_997, 999_996), prices)
    # 3999990 * 1234567890123456789 / 10^25, in whole numbers
    assert found * 10**25 == 3_999_990 * 1_234_567_890_123_456_789


def test_a_price_list_needs_a_row_for_calls_of_any_size() -> None:
    with pytest.raises(ValueError, match="above 0 input tokens"):
        cost.price_list([cost.Price(100, Decimal(1), Decimal(1), Decimal(1), Decimal(1))])


# Where the rates come from


def test_the_registrys_own_rates_win_and_cached_input_costs_what_fresh_input_does() -> None:
    model = REGISTRY.model(Route("openai", "gpt-6-luna")).model_copy(
        update={"rates": Rates(input=Decimal("0.3"), output=Decimal("0.6"))}
    )
    assert model.rates is not None
    quote = rates.of_registry(model.rates)
    assert quote.source == "registry"
    assert cost.cost_usd(Usage(10, 10, 10, 10), quote.prices)[0] == Decimal("0.000015")


def test_price_names_a_model_that_genai_prices_calls_otherwise() -> None:
    renamed = Model(context_window=1_000, price="groq/llama-3.3-70b-versatile")
    quote = rates.of_genai(Route("proxy", "our-llama"), renamed, NOW)
    assert quote is not None
    assert quote.prices == QUOTES[Route("groq", "llama-3.3-70b-versatile")].prices
    assert quote.source == rates.genai_source()


@pytest.mark.parametrize(
    "route",
    [
        Route("groq", "no-such-model"),
        Route("local", "qwen3:8b"),
        # a name that only looks like a provider's
        Route("openai-local", "gpt-6-luna"),
        # priced by the request as well as by the token
        Route("perplexity", "sonar"),
    ],
)
def test_a_price_that_is_not_known_for_sure_is_unknown(route: Route) -> None:
    assert rates.of_genai(route, Model(context_window=1_000), NOW) is None
