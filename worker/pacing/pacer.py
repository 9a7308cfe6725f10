"""The pace of one route in one process.

    pacer = Pacer(redis_url, prefix, route, limits, window=64)
    await pacer.start()
    permit = await pacer.admit(input_tokens, max_output_tokens)   # waits for its turn; gate.Open: not now
    try:
        ...                                                       # one call
        permit.settle(usage, None, None, told)                    # or the error's class and its Retry-After
    finally:
        permit.refund()                                           # no call was made; after `settle`, nothing

Permits are fetched ahead in blocks and reports go out in batches, one round trip for both every `TICK_S`, so
that neither `admit` nor `settle` waits for Redis. A pacer belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Coroutine, Iterator

import msgspec

from worker.pacing import bucket, gate, shared, tally
from worker.routing import registry

log = logging.getLogger(__name__)

#: Seconds between two exchanges with Redis while calls are made, and at least.
TICK_S = 0.1
MIN_TICK_S = 0.01
#: Seconds that calls are kept waiting for a pause or a new day: what the openai SDK honours. Beyond, `Open`.
MAX_WAIT_S = 120.0
#: Seconds between tries while Redis is away.
AWAY_RETRY_S = 0.5
#: Share of the rate where Redis was never there to tell how many workers there are.
UNKNOWN_SHARE = 0.25
#: Seconds to wait for a provider that refused without saying how long, while Redis is away.
AWAY_PAUSE_S = 1.0
#: Seconds until a caller that is not among the probes should come again.
HALF_OPEN_WAIT_S = 1.0


class Pacer:
    """Lets the calls of one process to one route go at the pace that all workers together may use."""

    def __init__(
        self,
        redis_url: str,
        prefix: str,
        route: registry.Route,
        limits: registry.Limits,
        *,
        window: int,
        account: str = "default",
        shared_concurrency: int | None = None,
        reserves_max_tokens: bool = False,
        minute_s: float = 60.0,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            redis_url: `redis://` or `rediss://`, with its credentials.
            prefix: Celery's `global_keyprefix`.
            limits: of the registry; headers correct them.
            window: calls of this process in flight, at most.
            account: a name for whose limits these are; never a key.
            shared_concurrency: calls in flight of all workers together, where the provider counts them.
            reserves_max_tokens: the provider counts the output that is allowed, not what is used.
            minute_s: length of a minute, for tests in a hurry.
        """
        self.route = route
        self._scope = shared.Scope(redis_url, shared.key(prefix, route, account))
        self._member = uuid.uuid4().hex[:12]
        self._limits = shared.amounts(limits)
        self._minute_s = minute_s
        self._shared_concurrency = shared_concurrency
        self._wake = asyncio.Event()
        self._gate = gate.Gate(route, self._wake, window=window, reserves_max_tokens=reserves_max_tokens)
        self._answer: shared.Answer | None = None
        self._open_until = 0.0
        self._closing = False
        self._before = tally.Tally()  #: what was reported last
        self._loop: asyncio.Task[None]

    async def start(self) -> None:
        """Begin to exchange permits and reports. Never fails: Redis may be away."""
        self._loop = asyncio.create_task(self._exchange_forever())

    async def aclose(self) -> None:
        """Report what is left and give permits back. Who still waits is cancelled."""
        self._closing = True
        self._loop.cancel()
        await asyncio.wait([self._loop])
        self._gate.close()
        with contextlib.suppress(*shared.AWAY_ERRORS):
            self._give_back_held()
            if not self._gate.tally.is_empty:
                await self._scope.exchange(self._report())
        await self._scope.aclose()

    def admit(self, input_tokens: int, max_output_tokens: int) -> Coroutine[None, None, gate.Permit]:
        """Wait until a call may go.

        Args:
            input_tokens: estimate of the input.
            max_output_tokens: what the answer may use, or an estimate of it.

        Raises:
            Open: it may not go for a longer time; nothing was called.
        """
        return self._gate.admit(input_tokens, max_output_tokens)

    async def _exchange_forever(self) -> None:
        while not self._closing:
            # Not wait_for: that of Python 3.11 may swallow a cancellation.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if self._is_idle() else TICK_S):
                    await self._wake.wait()
            self._wake.clear()
            report = self._report()
            try:
                self._apply(await self._exchange(report))
            except shared.AWAY_ERRORS as e:
                await self._pace_alone(e)
            await asyncio.sleep(MIN_TICK_S)

    async def _exchange(self, report: shared.Report) -> shared.Answer:
        if self._gate.buckets is None:
            return await self._scope.exchange(report)
        exchange = asyncio.create_task(self._scope.exchange(report))
        try:
            while not exchange.done():  # Redis may well let us wait again
                await asyncio.wait([exchange], timeout=2 * MIN_TICK_S)
                self._gate.go()
            return exchange.result()
        finally:
            exchange.cancel()

    def _is_idle(self) -> bool:
        waiting = self._gate.is_wanted or any(self._gate.held)
        return not waiting and self._gate.tally.is_empty and not self._before.calls

    # Reporting

    def _report(self) -> shared.Report:
        now = time.monotonic()
        if now < self._gate.paused_until or self._open_until or not self._is_busy():
            self._give_back_held()
        told, self._gate.tally = self._gate.tally, tally.Tally()
        self._before = told
        must, like = self._gate.wanted(told.calls, told.used)
        return shared.Report(
            member=self._member,
            limits=self._limits,
            minute_ms=self._minute_s * 1000,
            paused_ms=max(0.0, self._gate.paused_until - now) * 1000,
            open_ms=max(0.0, self._open_until - now) * 1000,
            day_used=self._answer.day_used if self._answer else 0.0,
            back=tally.named(told.back),
            largest=tally.named(told.largest),
            ok=told.ok,
            bad=told.bad,
            limited=told.limited,
            pause_ms=told.pause_s * 1000,
            told=shared.windows(told.told) if told.told else {},
            like=tally.named(like),
            must=msgspec.UNSET if must is None else tally.named(must),
        )

    def _is_busy(self) -> bool:
        return self._gate.is_wanted or self._gate.tally.calls > 0

    def _give_back_held(self) -> None:
        self._gate.tally.give_back(self._gate.held)
        self._gate.held = [0.0] * len(tally.KINDS)

    # What the others decided

    def _apply(self, answer: shared.Answer) -> None:
        now, doors = time.monotonic(), self._gate
        if doors.buckets is not None:
            log.warning("Redis is back: %s is paced together with the other workers again", self.route)
            doors.buckets = None
        self._answer, self._limits = answer, answer.limits
        doors.told = answer.told
        doors.kinds = tuple(n for n, kind in enumerate(tally.KINDS) if kind in answer.limits)
        for n in doors.kinds:
            doors.held[n] += answer.given.get(tally.KINDS[n], 0.0)
        if answer.paused_ms > 0:
            doors.paused_until = now + answer.paused_ms / 1000
        elif doors.paused_until > now or now - doors.paused_until > shared.RAMP_MS / 1000:
            doors.paused_until = 0.0
        shared_by = max(1, answer.members)
        doors.widen(self._shared_concurrency // shared_by if self._shared_concurrency else None)
        doors.unshut()
        self._open_until = now + answer.open_ms / 1000 if answer.breaker != "closed" else 0.0
        if answer.breaker == "open":
            doors.shut("breaker", answer.open_ms / 1000)
        elif answer.breaker == "half":
            if answer.may:
                doors.go_one()  # the probe
            doors.shut("breaker", HALF_OPEN_WAIT_S)
        else:
            doors.go()
            if answer.day_ms > MAX_WAIT_S * 1000 and doors.held[tally.KINDS.index("d")] < 1:
                doors.shut("day", answer.day_ms / 1000)
            elif answer.paused_ms > MAX_WAIT_S * 1000:
                doors.shut("paused", answer.paused_ms / 1000)

    # Redis is away

    async def _pace_alone(self, error: Exception) -> None:
        """Go on with the share of the rate that this process had, until it is time to try Redis again."""
        now, before, doors = time.monotonic(), self._before, self._gate
        if before.told:
            told = shared.windows(before.told)
            self._limits = self._limits | {kind: float(w.limit) for kind, w in told.items() if w.limit}
        if before.limited or before.pause_s:
            doors.paused_until = max(doors.paused_until, now + (before.pause_s or AWAY_PAUSE_S))
        if doors.buckets is None:
            log.warning(
                "Redis is away (%s): %s is paced alone until it is back", type(error).__name__, self.route
            )
            doors.held = [0.0] * len(tally.KINDS)
        known = None if doors.buckets is None else {tally.KINDS[n] for n, _ in doors.buckets}
        if known != self._limits.keys() - {"d"}:
            doors.buckets = list(self._own_buckets(now))
        doors.unshut()
        doors.widen(None)
        while time.monotonic() < now + AWAY_RETRY_S:
            doors.go()
            await asyncio.sleep(2 * MIN_TICK_S)

    def _own_buckets(self, now: float) -> Iterator[tuple[int, bucket.Bucket]]:
        answer = self._answer
        share = UNKNOWN_SHARE if answer is None else 1 / max(1, answer.members)
        for n, kind in enumerate(tally.KINDS):
            limit = self._limits.get(kind)
            if limit is not None and kind != "d":
                together_per_s = answer.per_s.get(kind) if answer else None
                per_s = share * (together_per_s or 0.95 * limit / self._minute_s)
                yield n, bucket.Bucket(per_s, max(1.0, 0.01 * limit * share), now)
