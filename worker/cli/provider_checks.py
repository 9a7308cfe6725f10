"""The calls of `promptyard providers --check`: one to each provider, as small as a call can be."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from worker import errors
from worker.providers import endpoint, http, types
from worker.providers.types import CallError, ErrorClass
from worker.routing import keys, load
from worker.routing.registry import Provider, Registry, Route

#: Longer than a healthy provider takes for a few words.
DEADLINE_S = 30.0
#: A model that thinks first may use all of it up, and has shown that it can be called all the same.
PROMPT = '{"messages":[{"role":"user","content":"Answer with the word ok."}],"max_completion_tokens":32}'


@dataclass(frozen=True, slots=True)
class Check:
    """How one call went."""

    provider: str
    model: str
    ok: bool
    latency_ms: int | None  #: of the whole answer; None where no call was made
    error_class: str | None = None
    http_status: int | None = None
    found: str = "ok"  #: what the provider said, or what broke
    advice: str = ""


async def all_of_them(usable: load.Usable) -> list[Check]:
    """Call every provider that has a key or needs none, all at once.

    Raises:
        SettingsError: there is none.
    """
    if not usable.providers:
        variables = ", ".join(usable.missing.values())
        raise errors.SettingsError(
            f"No provider has a key, so there is nothing to check. Set one of {variables}."
        )
    client = http.Client()
    try:
        return await asyncio.gather(*(_one(client, usable.registry, name) for name in usable.providers))
    finally:
        await client.aclose()


async def _one(client: http.Client, registry: Registry, name: str) -> Check:
    provider = registry.provider(name)
    route = _route(registry, name)
    started: float | None = None
    try:
        place = endpoint.endpoint(registry, route, keys.key(provider, simulated=registry.simulated))
        request = place.build(PROMPT)
        started = time.monotonic()
        reply = await client.post(place.url, place.headers, request, deadline_s=DEADLINE_S)
        place.read(reply)
    except CallError as error:
        return Check(
            name,
            route.model,
            ok=False,
            latency_ms=_since_ms(started),
            error_class=error.error_class.value,
            http_status=error.status,
            found=" ".join(error.message.split()),
            advice=advice(error, provider, route),
        )
    except errors.SettingsError as error:
        return Check(name, route.model, ok=False, latency_ms=None, error_class="auth", found=str(error))
    return Check(name, route.model, ok=True, latency_ms=_since_ms(started), http_status=reply.status)


def _since_ms(started: float | None) -> int | None:
    return None if started is None else round((time.monotonic() - started) * 1000)


def _route(registry: Registry, name: str) -> Route:
    """The provider's model that comes first in a chain, or else in its table."""
    routes = [route for category in registry.categories.values() for route in category.routes()]
    return next(
        (route for route in routes if route.provider == name),
        Route(name, next(iter(registry.provider(name).models))),
    )


def advice(error: types.CallError, provider: Provider, route: Route) -> str:
    """What to do about a failed call."""
    key = provider.key_env or "the key"
    account = provider.title or route.provider
    match error.error_class:
        case ErrorClass.AUTH:
            if provider.key_env is None:
                return f"give [providers.{route.provider}] a key_env in the registry: it asks for a key"
            return f"check {key}, and that its account may use {route.model} from here"
        case ErrorClass.QUOTA:
            return (
                f"add credit or raise the limit of the account at {account}; until then others take its prompts"
            )
        case ErrorClass.CONFIG:
            return f"check base_url ({provider.base_url}) and the name {route.model} in the registry"
        case ErrorClass.RATE_LIMITED:
            return "the key works; wait, or lower the provider's limits in the registry if it happens in a run"
        case ErrorClass.OVERLOADED:
            return f"the key works and {account} has too much to do; try again later"
        case ErrorClass.TRANSIENT | ErrorClass.TIMEOUT if error.status is None:
            return f"check that {provider.base_url} can be reached from here, and that the server runs"
        case ErrorClass.TRANSIENT | ErrorClass.TIMEOUT:
            return f"{account} is in trouble itself; try again later"
        case ErrorClass.MALFORMED:
            return f"check that {provider.base_url} speaks the dialect {provider.dialect}"
        case _:
            return f"{account} refuses even a small prompt: check the dialect and the model {route.model}"
