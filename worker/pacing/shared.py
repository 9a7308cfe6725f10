"""What a process tells the others through Redis, and what it gets: one round trip of `pace.lua`.

Everything is counted in five kinds of permits, by their letters: requests `r`, tokens `t`, input tokens `i`,
output tokens `o` of a minute, and requests of a day `d`.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Awaitable
from typing import Literal, cast

import msgspec
import redis.asyncio
import redis.exceptions

from worker.providers import told as told_module
from worker.routing import registry

Kind = Literal["r", "t", "i", "o", "d"]
Amounts = dict[Kind, float]

#: What is raised when Redis is away, or answers what is no answer to us.
AWAY_ERRORS = (redis.exceptions.RedisError, OSError, TimeoutError, msgspec.MsgspecError)

#: Seconds that an answer of Redis may take. Beyond, it is as good as away.
REDIS_DEADLINE_S = 1.0
#: Milliseconds of the rate that one grant may hold beyond the call it is for.
AHEAD_MS = 250.0
#: Milliseconds from a quarter of the rate to the whole of it, after a pause.
RAMP_MS = 3000.0
#: Seconds up to which a wait that is asked for may be meant for one call rather than for all.
SHORT_WAIT_S = 2.0
#: Failures among the last few tens of calls that open the breaker, if they are also half of them.
BREAKER_FAILURES = 10
#: Milliseconds before the first probe; doubled each time the probes fail, up to a minute.
COOL_DOWN_MS = 5000.0


class ToldWindow(msgspec.Struct, omit_defaults=True):
    """What headers say of one window."""

    limit: int | None = None
    remaining: int | None = None
    reset_ms: float | None = None


class Report(msgspec.Struct):
    """To `pace.lua`. Times in milliseconds."""

    member: str
    #: limits as the registry has them or as they were learned
    limits: Amounts
    minute_ms: float
    #: remembered, for a Redis that has lost it
    paused_ms: float
    open_ms: float
    day_used: float
    #: since the last report: permits given back (negative: used beyond them), largest call, outcomes
    back: Amounts
    largest: Amounts
    ok: int
    bad: int
    limited: int
    pause_ms: float  #: what the provider asked to wait
    told: dict[Kind, ToldWindow]
    #: permits for the next call, and what is liked beyond; absent where nobody waits
    like: Amounts
    must: Amounts | msgspec.UnsetType = msgspec.UNSET
    ahead_ms: float = AHEAD_MS
    ramp_ms: float = RAMP_MS
    short_wait_ms: float = SHORT_WAIT_S * 1000
    breaker_failures: int = BREAKER_FAILURES
    cool_down_ms: float = COOL_DOWN_MS
    now_ms: float | msgspec.UnsetType = msgspec.UNSET  #: for tests that cannot wait; the server's clock without


class Answer(msgspec.Struct, frozen=True):
    """From `pace.lua`."""

    may: bool  #: the call that was asked for may go
    given: Amounts
    limits: Amounts
    per_s: Amounts  #: what all workers together may use
    told: bool  #: the provider's headers are where limits come from
    members: int  #: workers that want permits
    paused_ms: float
    breaker: Literal["closed", "open", "half"]
    open_ms: float
    day_ms: float  #: until a new day, where this one is used up
    day_used: float


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Answer).decode


class Scope:
    """One provider's account and model in Redis."""

    def __init__(self, redis_url: str, key: str) -> None:
        self._client = redis.asyncio.Redis.from_url(
            redis_url,
            socket_timeout=REDIS_DEADLINE_S,
            socket_connect_timeout=REDIS_DEADLINE_S,
            # The next report is the retry.
            retry=None,
        )
        self._key = key
        source = importlib.resources.files("worker.pacing").joinpath("pace.lua").read_text("utf-8")
        self._script = self._client.register_script(source)

    async def exchange(self, report: Report) -> Answer:
        """Report, and get the next permits.

        Raises:
            RedisError, OSError, TimeoutError, MsgspecError: see `AWAY_ERRORS`. The report may have arrived.
        """
        answer = await cast(Awaitable[bytes], self._script(keys=[self._key], args=[_encode(report)]))
        return _decode(answer)

    async def aclose(self) -> None:
        await self._client.aclose()


def key(prefix: str, route: registry.Route, account: str) -> str:
    """Where a scope lives. The prefix is Celery's, so that simulated calls never pace real ones."""
    return f"{prefix}pace:{route.provider}:{account}:{route.model}"


def amounts(limits: registry.Limits) -> Amounts:
    """The registry's limits by their letters."""
    found: dict[Kind, int | None] = {
        "r": limits.rpm,
        "t": limits.tpm,
        "i": limits.input_tpm,
        "o": limits.output_tpm,
        "d": limits.rpd,
    }
    return {kind: float(limit) for kind, limit in found.items() if limit is not None}


def windows(told: told_module.Told) -> dict[Kind, ToldWindow]:
    """What headers say, by its letters."""
    requests: Kind = "d" if told.requests_period == "day" else "r"
    found: dict[Kind, tuple[int | None, int | None, float | None]] = {
        requests: (told.requests_limit, told.requests_remaining, told.requests_reset_s),
        "t": (told.tokens_limit, told.tokens_remaining, told.tokens_reset_s),
        "i": (told.input_tokens_limit, told.input_tokens_remaining, told.input_tokens_reset_s),
        "o": (told.output_tokens_limit, told.output_tokens_remaining, told.output_tokens_reset_s),
    }
    return {
        kind: ToldWindow(limit or None, remaining, reset_s * 1000 if reset_s is not None else None)
        for kind, (limit, remaining, reset_s) in found.items()
        if limit or remaining is not None
    }
