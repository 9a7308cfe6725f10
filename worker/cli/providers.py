"""`promptyard providers`: the registry as it is read here."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli import show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker import settings
    from worker.ledger import health, rates
    from worker.routing import load
    from worker.routing.registry import Provider, Registry, Route

HELP = """Show the registry as it is read here. Models, prices, limits, keys present or missing, live workers.

Prices are US dollars for a million tokens. `place` says where a model stands in the chain of each category
it serves, 1 for the first tier. Keys are never shown. It starts no server: workers are counted where the
database is up.

With --check it calls each provider that has a key once, with a prompt of a few words (which costs next to
nothing), and says what is wrong and what to do. Exit status: 0, or 1 when a call failed.

Examples:

\b
    promptyard providers
    promptyard providers --check
    PROMPTYARD_REGISTRY=mine.toml promptyard providers --json | jq '.providers[] | .name, .key'
"""

#: How a limit is called in the table.
LIMITS = {
    "rpm": "requests/min",
    "tpm": "tokens/min",
    "input_tpm": "input tokens/min",
    "output_tpm": "output tokens/min",
    "rpd": "requests/day",
    "concurrency": "at once",
}


def register(app: typer.Typer) -> None:
    app.command("providers", help=HELP)(providers)


def providers(
    check: Annotated[bool, typer.Option("--check", help="Call each provider once.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="For scripts; prices are text with every digit.")
    ] = False,
) -> None:
    from worker import settings
    from worker.ledger import rates
    from worker.routing import load

    config = settings.load()
    registry = load.registry(config)
    usable = load.usable(registry)
    if check:
        _check(usable, as_json=as_json)
        return
    workers = _live(config, simulated=registry.simulated)
    quotes = rates.quotes(registry, datetime.datetime.now(datetime.UTC))
    origin = str(config.registry) if config.registry else load.SHIPPED
    described = [_described(name, usable, workers, quotes) for name in registry.providers]
    if as_json:
        show.print_json(
            {
                "registry": origin,
                "simulated": registry.simulated,
                "frontier": str(registry.frontier),
                "default_category": registry.default_category,
                "categories": {
                    name: [[str(route) for route in tier] for tier in category.chain]
                    for name, category in registry.categories.items()
                },
                "providers": described,
            }
        )
        return
    print(f"Registry: {origin}{', simulated' if registry.simulated else ''}")
    print(f"Savings are measured against {registry.frontier}.\n")
    show.table(*_provider_table(described))
    print()
    show.table(*_model_table(described))
    if left_out := usable.sentence():
        print(f"\n! {left_out}")
    if empty := usable.categories_without_provider:
        print(f"! Prompts of these categories are refused, since no provider is left: {', '.join(empty)}.")


def _check(usable: load.Usable, *, as_json: bool) -> None:
    from worker.cli import provider_checks, session

    found = session.run(provider_checks.all_of_them(usable))
    if as_json:
        show.print_json({"simulated": usable.registry.simulated, "checks": found})
    else:
        rows = [
            [
                "ok" if one.ok else one.error_class or "",
                one.provider,
                one.model,
                show.count(one.latency_ms),
                "" if one.ok else one.found,
                one.advice,
            ]
            for one in found
        ]
        show.table(["", "provider", "model", ">ms", "found", "what to do"], rows)
        if left_out := usable.sentence():
            show.note(left_out)
    failed = sum(not one.ok for one in found)
    if failed:
        show.note(f"{failed} of {len(found)} providers cannot be used now.")
        raise typer.Exit(1)


def _described(
    name: str, usable: load.Usable, workers: Mapping[str, int] | None, quotes: Mapping[Route, rates.Quote]
) -> dict[str, Any]:
    from worker.routing.registry import Route

    registry = usable.registry
    provider = registry.provider(name)
    routes = [Route(name, model) for model in provider.models]
    return {
        "name": name,
        "title": provider.title,
        "dialect": provider.dialect,
        "base_url": provider.base_url,
        "key": _key(name, provider, usable),
        "key_env": provider.key_env,
        "live_workers": None if workers is None else workers.get(name, 0),
        "limits": {limit: value for limit in LIMITS if (value := getattr(provider.limits, limit)) is not None},
        "models": [_model(route, registry, quotes.get(route)) for route in routes],
    }


def _key(name: str, provider: Provider, usable: load.Usable) -> str:
    if usable.registry.simulated:
        return "simulated"
    if provider.key_env is None:
        return "not needed"
    return "missing" if name in usable.missing else "present"


def _model(route: Route, registry: Registry, quote: rates.Quote | None) -> dict[str, Any]:
    model = registry.model(route)
    # Lowest first: the rows above are for longer inputs.
    prices = sorted(quote.prices, key=lambda price: price.above_input_tokens) if quote is not None else []
    return {
        "name": route.model,
        "prices": [
            {
                "above_input_tokens": price.above_input_tokens,
                "input_usd_per_mtok": price.input_usd_per_mtok,
                "cache_read_usd_per_mtok": price.cache_read_usd_per_mtok,
                "cache_write_usd_per_mtok": price.cache_write_usd_per_mtok,
                "output_usd_per_mtok": price.output_usd_per_mtok,
            }
            for price in prices
        ],
        "price_source": quote.source if quote is not None else None,
        "context_window": model.context_window,
        "max_output_tokens": model.max_output_tokens,
        "capabilities": sorted(model.capabilities),
        "place": {
            category: number
            for category, described in registry.categories.items()
            for number, tier in enumerate(described.chain, start=1)
            if route in tier
        },
    }


def _provider_table(described: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            provider["name"],
            provider["dialect"],
            f"{provider['key']}{' (' + provider['key_env'] + ')' if provider['key_env'] else ''}",
            show.count(provider["live_workers"]),
            ", ".join(f"{value:,} {LIMITS[limit]}" for limit, value in provider["limits"].items())
            or "not known",
            provider["base_url"],
        ]
        for provider in described
    ]
    return ["provider", "dialect", "key", ">workers", "limits", "endpoint"], rows


def _model_table(described: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            f"{provider['name']}/{model['name']}",
            _prices(model["prices"], "input_usd_per_mtok"),
            _prices(model["prices"], "output_usd_per_mtok"),
            show.count(model["context_window"]),
            show.count(model["max_output_tokens"]),
            ", ".join(f"{category} {place}" for category, place in model["place"].items()) or show.NOTHING,
        ]
        for provider in described
        for model in provider["models"]
    ]
    return ["model", ">input USD", ">output USD", ">context", ">max output", "place"], rows


def _prices(tiers: Sequence[Mapping[str, Any]], rate: str) -> str:
    """As `1.25`, or `1.25, 2.5 above 200,000` where longer inputs cost something else."""
    shown: list[str] = []
    before = None
    for tier in tiers:
        if tier[rate] != before:
            before = tier[rate]
            above = f" above {tier['above_input_tokens']:,}" if tier["above_input_tokens"] else ""
            shown.append(f"{show.plain_number(before)}{above}")
    return ", ".join(shown) or show.UNKNOWN


def _live(config: settings.Settings, *, simulated: bool) -> Mapping[str, int] | None:
    """Live workers by provider; None where the database is not up or has no schema of ours."""
    from worker.local import servers

    if config.database_url is None:
        embedded = {server.name: server for server in servers.state(config)}
        if not embedded["postgres"].up:
            show.note("The embedded database is not up, so workers are not counted.")
            return None
    from worker import errors
    from worker.cli import session
    from worker.ledger import database, health, schema

    async def work() -> Sequence[health.Live]:
        url = config.database_url or servers.use(config).database
        await schema.check(url)
        db = database.engine(url)
        try:
            async with db.connect() as connection:
                return await health.live_workers(connection)
        finally:
            await db.dispose()

    try:
        found = session.run(work())
    except errors.ServerError as e:
        show.note(f"Workers are not counted: {e}")
        return None
    return {live.provider: live.workers for live in found if live.simulated == simulated}
