"""What is paused, stopped and learned, for `status`."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Literal, NamedTuple, cast

import redis.asyncio
import redis.exceptions

from worker import errors
from worker.pacing import shared
from worker.routing import registry


class ScopeState(NamedTuple):
    """One provider's account and model, as all workers see it."""

    route: registry.Route
    account: str
    breaker: Literal["closed", "open", "half"]  #: `half`: a few probes are out
    probe_at: datetime.datetime | None  #: of an open breaker, UTC
    paused_until: datetime.datetime | None  #: of a pause that is on, UTC
    why_paused: str | None
    learned: Mapping[shared.Kind, float]  #: limits that the headers told
    rate_share: float  #: of what limits allow: below 1 after pauses
    day_used: int  #: requests since the day began


async def states(redis_url: str, prefix: str) -> list[ScopeState]:
    """Every scope that was paced in the last day, by name.

    Raises:
        ServerError: Redis cannot be reached.
    """
    client = redis.asyncio.Redis.from_url(redis_url, decode_responses=True, socket_timeout=5)
    start = f"{prefix}pace:"
    try:
        async with client:
            seconds, microseconds = await client.time()
            keys = sorted([key async for key in client.scan_iter(match=f"{start}*", count=1000)])
            found = [cast(dict[str, str], await client.hgetall(key)) for key in keys]
    except shared.AWAY_ERRORS as e:
        raise errors.ServerError(
            f"The pace cannot be read from Redis ({type(e).__name__}). Start it, or correct BROKER_URL."
        ) from e
    now_ms = seconds * 1000 + microseconds / 1000
    return [
        read(key.removeprefix(start), fields, now_ms) for key, fields in zip(keys, found, strict=True) if fields
    ]


def read(name: str, fields: Mapping[str, str], now_ms: float) -> ScopeState:
    """Understand a scope's hash; `pace.lua` lists its fields."""
    provider, account, model = name.split(":", 2)

    def number(field: str, default: float = 0.0) -> float:
        return float(fields.get(field, default))

    def ahead(field: str) -> datetime.datetime | None:
        at_ms = number(field)
        return datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC) if at_ms > now_ms else None

    said = fields.get("breaker")
    breaker: Literal["closed", "open", "half"] = (
        "open" if said == "open" else "half" if said == "half" else "closed"
    )
    paused_until = ahead("paused_until")
    kinds: tuple[shared.Kind, ...] = ("r", "t", "i", "o", "d")
    return ScopeState(
        registry.Route(provider, model),
        account,
        breaker,
        ahead("open_until") if breaker == "open" else None,
        paused_until,
        fields.get("why") if paused_until else None,
        {kind: number(f"told_{kind}") for kind in kinds if f"told_{kind}" in fields},
        number("trim", 1.0),
        round(number("day_used")),
    )
