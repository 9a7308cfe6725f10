"""One prompt, one call: from the canonical request to a booked outcome, and what follows from a failure."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from worker.ledger import cost, prices
from worker.providers import endpoint, http, types
from worker.routing import decide, queues, registry
from worker.shards import book, claim, stops

log = logging.getLogger(__name__)


class Router:
    """Decides where a prompt goes whose call failed."""

    def __init__(self, registry_: registry.Registry, windows: Mapping[registry.Route, int]) -> None:
        self._registry = registry_
        self._windows = windows
        self._policy = decide.Policy()
        self._chain = functools.cache(self._cut)

    def after(
        self, held: claim.Held, failure: decide.Failure, *, now: datetime, jitter: float
    ) -> decide.Decision:
        """Decide for any prompt of the shard: they all have the same history."""
        return self._decide(held, failure, held.providers, now, jitter)

    def elsewhere(self, held: claim.Held, live: frozenset[str]) -> decide.Fallback | None:
        """Where prompts go that no worker takes: the next route whose provider has one, if there is any."""
        failure = decide.Failure(types.ErrorClass.NO_WORKER)
        allowed = held.providers & (live | {held.route.provider})
        decision = self._decide(held, failure, allowed, datetime.now(UTC), 0.0)
        return decision if isinstance(decision, decide.Fallback) else None

    def consumers(self, queue: str) -> list[str]:
        """The providers whose workers consume a queue."""
        return queues.consumers(queue, self._registry)

    def first_route(self, queue: str) -> registry.Route:
        """The first choice of the category that a queue belongs to."""
        return self._registry.categories[queue.partition(".")[0]].chain[0][0]

    def _decide(
        self,
        held: claim.Held,
        failure: decide.Failure,
        providers: frozenset[str],
        now: datetime,
        jitter: float,
    ) -> decide.Decision:
        place = decide.Place(
            category=held.category,
            route=held.route,
            attempt_no=held.attempt_no,
            attempts_before=held.attempts_before,
            tried=held.tried,
            pinned=held.pinned is not None,
            reason=types.ErrorClass(held.reason) if held.reason else None,
        )
        chain = self._chain(held.category, providers)
        return decide.after(failure, place, chain, self._policy, now, jitter, windows=self._windows)

    def _cut(self, category: str, providers: frozenset[str]) -> decide.Chain:
        """The category's chain without the providers that the batch may not use."""
        found = self._registry.categories.get(category)
        tiers = found.chain if found else ()
        return [[route for route in tier if route.provider in providers] for tier in tiers]


class Caller:
    """Makes the calls of one worker."""

    def __init__(
        self,
        client: http.Client,
        registry_: registry.Registry,
        price_book: prices.PriceBook,
        *,
        key: str | None,
        deadline_s: float,
    ) -> None:
        self._client = client
        self._registry = registry_
        self._prices = price_book
        self._key = key
        self._deadline_s = deadline_s
        self._endpoints: dict[registry.Route, endpoint.Endpoint] = {}

    async def answer(
        self, held: claim.Held, prompt_no: int, body: str
    ) -> tuple[book.Call, types.CallError | None]:
        """Call the provider once. Whatever comes of it, there is a `Call` to book."""
        started_at, started = datetime.now(UTC), time.monotonic()
        called = False
        try:
            place = self._endpoint(held.route)
            request = place.build(body)
            called = True
            reply = await self._client.post(place.url, place.headers, request, deadline_s=self._deadline_s)
            completion = place.read(reply)
            call = self._ended(held, prompt_no, started_at, started, "succeeded", completion.usage)
        except types.CallError as e:
            error = e
        except Exception as e:
            # A defect of ours must not take the worker's other prompts with it. The text of the exception may
            # quote the prompt, so it stays out of the log.
            log.error("a call to %s broke with %s, %s", held.route, type(e).__name__, _where(e))
            error = types.CallError(types.ErrorClass.MALFORMED, f"internal error: {type(e).__name__}")
        else:
            call.final = True
            call.http_status = reply.status
            call.finish_reason = completion.finish_reason
            # Postgres has no NUL in text.
            call.content = completion.text.replace("\x00", "")
            call.response = completion.body
            return call, None
        call = self._ended(held, prompt_no, started_at, started, "failed", error.usage)
        call.called = called
        call.error_class, call.http_status = error.error_class.value, error.status
        call.error_message = error.message.replace("\x00", "")
        return call, error

    def in_doubt(
        self, held: claim.Held, prompt_no: int, started_at: datetime
    ) -> tuple[book.Call, types.CallError]:
        """Book a call that was given up while it was out."""
        error = types.CallError(types.ErrorClass.LOST, "the worker was stopped while the call was out")
        call = self._ended(held, prompt_no, started_at, time.monotonic(), "unknown", None)
        call.error_class, call.error_message = error.error_class.value, error.message
        return call, error

    def passed_over(
        self, held: claim.Held, prompt_no: int, stop: stops.Stop
    ) -> tuple[book.Call, types.CallError]:
        """Book a call that is not made, since the provider refuses them all."""
        error = types.CallError(stop.error_class, f"{held.route.provider} is stopped: {stop.message}")
        call = self._ended(held, prompt_no, datetime.now(UTC), time.monotonic(), "failed", None)
        call.called = False
        call.error_class, call.error_message = error.error_class.value, error.message
        return call, error

    def _endpoint(self, route: registry.Route) -> endpoint.Endpoint:
        found = self._endpoints.get(route)
        if found is None:
            found = self._endpoints[route] = endpoint.endpoint(self._registry, route, self._key)
        return found

    def _ended(
        self,
        held: claim.Held,
        prompt_no: int,
        started_at: datetime,
        started: float,
        outcome: str,
        usage: types.Usage | None,
    ) -> book.Call:
        call = book.Call(
            held=held,
            prompt_no=prompt_no,
            outcome=outcome,
            called=True,
            final=False,
            started_at=started_at,
            finished_at=datetime.now(UTC),
            latency_ms=round((time.monotonic() - started) * 1000),
            usage=usage,
        )
        if usage is not None:
            price = self._prices.get(held.route)
            if price is not None:
                call.cost_usd, call.price_id = cost.cost_usd(usage, price)
            baseline = self._prices.get(held.frontier)
            if baseline is not None:
                call.baseline_cost_usd, _ = cost.cost_usd(usage, baseline)
        return call


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
