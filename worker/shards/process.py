"""One worker process: the engine in a thread of its own beside Celery's."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Callable

from worker import errors, settings
from worker.ledger import database, prices, schema
from worker.local import servers
from worker.providers import http
from worker.routing import keys, load, registry
from worker.shards import call, engine, lease, stops

log = logging.getLogger(__name__)

#: Connections to Postgres of one process: claims of four threads, flush, heartbeat, sweep, publish.
POOL_SIZE = 8


class Process:
    """Runs an engine for one provider. Used from Celery's threads."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._config = settings.load()
        self._ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, name="promptyard-loop", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine: engine.Engine | None = None
        self._stop: asyncio.Event | None = None
        self.crashed = False  #: a loop of the engine broke by a defect

    def start(self) -> None:
        """Start the loop and wait until it can take shards.

        Raises:
            PromptyardError: it cannot work: no key, no schema, no server; the message says what to do.
        """
        self._thread.start()
        self._ready.result()

    def take(self, shard_id: str) -> None:
        """Wait for room and claim the shard; see `worker.shards.engine.Engine.take`.

        Raises:
            Stopping: the message belongs back in its queue.
        """
        if self._engine is None or self._loop is None:
            raise engine.Stopping
        future = asyncio.run_coroutine_threadsafe(self._engine.take(uuid.UUID(shard_id)), self._loop)
        try:
            future.result()
        except concurrent.futures.CancelledError:
            raise engine.Stopping from None

    def refuse(self) -> None:
        """Take no more shards, and let go of the threads that wait for room."""
        if self._loop is not None and self._engine is not None:
            self._loop.call_soon_threadsafe(self._engine.refuse)

    def stop(self) -> None:
        """Finish within the grace period and end the loop."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            try:
                runner.run(self._main())
            except BaseException as e:
                if self._ready.done():
                    raise
                self._ready.set_exception(e)

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self._prepared() as prepared:
            self._engine = prepared
            prepared.start()
            # What is alive now stays: the collector need not look at it again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(50_000, 20, 50)
            self._ready.set_result(None)
            await self._stop.wait()
            await prepared.drain(self._config.grace_s)

    @contextlib.asynccontextmanager
    async def _prepared(self) -> AsyncIterator[engine.Engine]:
        found = load.registry(self._config)
        usable = load.usable(found)
        provider = found.providers.get(self._provider)
        if provider is None:
            raise errors.SettingsError(
                f"There is no provider {self._provider}. The registry has {', '.join(found.providers)}."
            )
        if self._provider in usable.missing:
            raise errors.SettingsError(
                f"{self._provider} has no key. Set {usable.missing[self._provider]} and start again."
            )
        url = servers.use(self._config).database
        db = database.engine(url, pool_size=POOL_SIZE, idle_in_transaction_s=self._config.lease_s)
        try:
            await schema.prepare(url, embedded=self._config.database_url is None)
            await prices.sync(db, found)
            # Somebody has started a worker: with a new key, perhaps, or after paying. A call will tell.
            await stops.publish(db, self._provider, None, simulated=found.simulated)
            async with contextlib.aclosing(http.Client()) as client:
                yield engine.Engine(
                    db,
                    call.Caller(
                        client,
                        found,
                        await prices.load(db, found),
                        key=keys.key(provider, simulated=found.simulated),
                        deadline_s=self._config.call_deadline_s,
                    ),
                    call.Router(found, usable.windows),
                    engine.Identity(
                        worker_id=await lease.register(db, self._provider, simulated=found.simulated),
                        provider=self._provider,
                        dialect=provider.dialect,
                        simulated=found.simulated,
                        routes=_first_routes(found, self._provider),
                    ),
                    self._config,
                    window=provider.limits.concurrency or self._config.window,
                    on_crash=self._crash,
                )
        finally:
            await db.dispose()

    def _crash(self) -> None:
        """End the process in good order, and let it be seen from its exit status."""
        self.crashed = True
        os.kill(os.getpid(), signal.SIGTERM)


def _first_routes(found: registry.Registry, provider: str) -> dict[str, registry.Route]:
    """For each category whose first tier has the provider, its route there."""
    return {
        name: route
        for name, category in found.categories.items()
        for route in category.chain[0]
        if route.provider == provider
    }


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if sys.platform == "win32":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop
