"""The worker's own loop: a window of calls in flight over all the shards it holds.

Celery's threads hand shard ids in with `take`; everything else runs in one asyncio loop:

    take -> claim -> todo -> lanes (one call each) -> flush -> Postgres
                                                         └──> new shards -> publish

A lane is a coroutine that makes one call after the other; there are as many as the window is wide.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy.exc
from sqlalchemy.ext.asyncio import AsyncEngine

from worker import errors, settings
from worker.providers import types
from worker.routing import decide, registry
from worker.shards import book, call, claim, lease, publish, stops, sweep, write

log = logging.getLogger(__name__)

#: Finished calls that wait to be written, at most, in windows. Beyond, the lanes wait for Postgres.
UNWRITTEN_WINDOWS = 8
#: Characters of answers that wait to be written, at most.
UNWRITTEN_CHARACTERS = 64 * 1024 * 1024
#: Finished calls, and characters of their answers, that are written without waiting for the flush interval.
FLUSH_CALLS = 500
FLUSH_CHARACTERS = 8 * 1024 * 1024
#: Seconds between two tries when Postgres or Redis is away.
AWAY_RETRY_S = 1.0
SWEEP_INTERVAL_S = 0.5
#: Seconds between two looks at whether the provider was stopped by another worker.
GATE_INTERVAL_S = 1.0
#: Seconds that the last write of a stopping worker gets beyond its grace period: without it, calls were paid
#: for nothing.
LAST_WRITE_S = 3.0

#: What a connection to Postgres raises when it, or the statement, fails.
DB_ERRORS = (sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError, OSError)


class Stopping(errors.PromptyardError):
    """The worker is stopping and takes no more shards."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this worker is."""

    worker_id: int
    provider: str
    dialect: str
    simulated: bool
    #: for each category whose shared queue it consumes, the route it takes there
    routes: dict[str, registry.Route]


class Engine:
    """Runs shards. It is made and used inside one loop."""

    def __init__(
        self,
        db: AsyncEngine,
        caller: call.Caller,
        router: call.Router,
        identity: Identity,
        config: settings.Settings,
        *,
        window: int,
        on_crash: Callable[[], None],
    ) -> None:
        """Prepare; `start` begins.

        Args:
            window: calls in flight, at most.
            on_crash: called when one of the loops breaks by a defect; the process should end.
        """
        self._db = db
        self._caller = caller
        self._router = router
        self._identity = identity
        self._config = config
        self._window = window
        self._on_crash = on_crash
        self._stopping = False
        self._drained = False
        self._held: dict[tuple[uuid.UUID, int], claim.Held] = {}
        self._todo: asyncio.Queue[tuple[claim.Held, int, str] | None] = asyncio.Queue()
        #: prompts claimed and not yet called
        self._in_hand = 0
        self._room = asyncio.Event()
        #: by lane, what is out
        self._out: dict[int, tuple[claim.Held, int, str, datetime]] = {}
        self._flush = self._new_flush()
        self._flush_now = asyncio.Event()
        #: finished calls that are not written, and characters of their answers
        self._unwritten = self._unwritten_characters = 0
        self._writable = asyncio.Event()
        self._writable.set()
        self._publish_now = asyncio.Event()
        self._gate = stops.Gate()
        self._gate_changed = asyncio.Event()
        #: how often this worker has moved the gate, and how often it has said so
        self._gate_moves = self._gate_told = 0
        self._postgres_back_at = time.monotonic()
        self._lanes: list[asyncio.Task[None]] = []
        self._writer: asyncio.Task[None]
        self._loops: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the lanes and the loops around them."""
        self._lanes = [asyncio.create_task(self._lane(number)) for number in range(self._window)]
        self._writer = asyncio.create_task(self._write_forever())
        loops = (
            self._beat_forever(),
            self._sweep_forever(),
            self._publish_forever(),
            self._watch_gate_forever(),
        )
        self._loops = [asyncio.create_task(loop) for loop in loops]
        for task in (*self._lanes, self._writer, *self._loops):
            task.add_done_callback(self._ended)

    async def take(self, shard_id: uuid.UUID) -> None:
        """Wait for room, then claim the shard. Returns when it is claimed, or was not to be had.

        From then on Postgres knows who has it, and its message is no longer needed.

        Raises:
            Stopping: the worker stops; the message belongs back in its queue.
        """
        while self._in_hand >= self._window and not self._stopping:
            self._room.clear()
            await self._room.wait()
        # Counted before the claim is made, so that several takes at once do not overshoot together.
        self._in_hand += self._config.shard_prompts
        taken = 0
        try:
            claimed = await self._claim(shard_id)
            if claimed is not None:
                taken = len(claimed.bodies)
                self._hold(claimed)
        finally:
            self._leave(self._config.shard_prompts - taken)

    def refuse(self) -> None:
        """Take no more shards; who waits in `take` gets `Stopping`."""
        self._stopping = True
        self._room.set()

    async def drain(self, grace_s: float) -> None:
        """Stop: finish the calls that are out within the grace period, write, and hand back the rest."""
        self.refuse()
        for held in self._held.values():
            self._stop(held)
        for _ in self._lanes:
            self._todo.put_nowait(None)
        deadline = time.monotonic() + grace_s
        await asyncio.wait(self._lanes, timeout=grace_s)
        await _cancel(self._lanes)
        for held, prompt_no, body, started_at in self._out.values():
            held.calls_out -= 1
            self._book(*self._caller.in_doubt(held, prompt_no, started_at), body)
        self._drained = True
        self._flush_now.set()
        await asyncio.wait([self._writer], timeout=max(LAST_WRITE_S, deadline - time.monotonic()))
        await _cancel([self._writer, *self._loops])
        if self._unwritten:
            log.error("stopped with %d answers not written: Postgres did not take them", self._unwritten)
            return
        with contextlib.suppress(errors.ServerError, *DB_ERRORS):
            await publish.publish(self._db, simulated=self._identity.simulated)
            await lease.sign_off(self._db, self._identity.worker_id)

    # Taking

    async def _claim(self, shard_id: uuid.UUID) -> claim.Claimed | None:
        while True:
            if self._stopping:
                raise Stopping
            try:
                if self._gate.stop is not None:
                    await self._look_at_gate()
                return await claim.claim(
                    self._db,
                    shard_id,
                    worker_id=self._identity.worker_id,
                    lease_s=self._config.lease_s,
                    routes=self._identity.routes,
                    simulated=self._identity.simulated,
                )
            except DB_ERRORS as e:
                await self._away("claim", e)

    def _hold(self, claimed: claim.Claimed) -> None:
        held = claimed.held
        self._held[held.id, held.fence] = held
        if not claimed.bodies:
            self._touch(held)
        for prompt_no, body in claimed.bodies:
            self._todo.put_nowait((held, prompt_no, body))
        if self._stopping:
            self._stop(held)

    def _leave(self, prompts: int) -> None:
        self._in_hand -= prompts
        if self._in_hand < self._window:
            self._room.set()

    # Calling

    async def _lane(self, number: int) -> None:
        while (prompt := await self._todo.get()) is not None:
            held, prompt_no, body = prompt
            self._leave(1)
            await self._writable.wait()
            if held.stopped:
                continue
            began = time.monotonic()
            stop = self._gate.shuts_out(began)
            if stop is not None:
                self._book(*self._caller.passed_over(held, prompt_no, stop), body)
                continue
            held.calls_out += 1
            self._out[number] = held, prompt_no, body, datetime.now(UTC)
            ended, error = await self._caller.answer(held, prompt_no, body)
            del self._out[number]
            held.calls_out -= 1
            self._learn(error, began)
            self._book(ended, error, body)

    def _learn(self, error: types.CallError | None, began: float) -> None:
        """Shut the gate when the provider refuses every call, and open it when it answers."""
        if error is None:
            changed = self._gate.answered(began)
        elif error.error_class in stops.STOPPING:
            stop = stops.Stop(error.error_class, error.message)
            changed = self._gate.shut(stop, time.monotonic())
        else:
            return
        if changed:
            self._gate_moves += 1
            self._gate_changed.set()

    def _book(self, ended: book.Call, error: types.CallError | None, body: str) -> None:
        """Have a finished call written, and its prompt sent on when it has no answer."""
        if error is not None:
            self._send_on(ended, error, len(body))
        ended.held.left.discard(ended.prompt_no)
        self._flush.add(ended)
        self._unwritten += 1
        self._unwritten_characters += ended.size
        if not self._has_room_to_write():
            self._writable.clear()
        full = len(self._flush.calls) >= FLUSH_CALLS or self._flush.size >= FLUSH_CHARACTERS
        if full or not ended.held.left:
            self._flush_now.set()

    def _has_room_to_write(self) -> bool:
        calls = UNWRITTEN_WINDOWS * max(self._window, FLUSH_CALLS)
        return self._unwritten < calls and self._unwritten_characters < UNWRITTEN_CHARACTERS

    def _send_on(self, ended: book.Call, error: types.CallError, size: int) -> None:
        failure = decide.Failure(error.error_class, error.retry_after_s)
        decision = self._router.after(ended.held, failure, now=datetime.now(UTC), jitter=random.random())
        if isinstance(decision, decide.Fail):
            ended.final = True
            ended.error_message = f"{ended.error_message} ({decision.reason})"
            return
        to = book.move(ended.held, decision, error.error_class.value, called=ended.called)
        not_before = decision.not_before if isinstance(decision, decide.Retry) else None
        if error.error_class is types.ErrorClass.LOST:
            not_before = None  # the wait is for a provider that is unwell; here it is the worker that ends
        self._flush.send_on(ended.held, ended.prompt_no, to, not_before, size=size)

    # Writing

    async def _write_forever(self) -> None:
        while self._flush or not self._drained:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.flush_interval_s):
                    await self._flush_now.wait()
            self._flush_now.clear()
            if self._flush:
                await self._write()

    async def _write(self) -> None:
        flush, self._flush = self._flush, self._new_flush()
        flush.seal()
        written_characters = flush.size
        while True:
            try:
                await write.write(
                    self._db,
                    flush,
                    worker_id=self._identity.worker_id,
                    dialect=self._identity.dialect,
                    simulated=self._identity.simulated,
                )
                break
            except DB_ERRORS as e:
                await self._away("write", e)
        self._unwritten -= len(flush.calls)
        self._unwritten_characters -= written_characters
        if self._has_room_to_write():
            self._writable.set()
        if flush.new_shards:
            self._publish_now.set()
        for held, (ending, _) in flush.endings.items():
            if held.lost or ending is not book.Ending.KEEP:
                self._held.pop((held.id, held.fence), None)

    def _new_flush(self) -> book.Flush:
        return book.Flush(self._config.shard_prompts)

    def _touch(self, held: claim.Held) -> None:
        self._flush.touched.add(held)
        self._flush_now.set()

    def _stop(self, held: claim.Held) -> None:
        """Start no more calls for the shard. The rest goes back when the last call has returned."""
        if not held.handing_back:
            held.handing_back = True
            self._touch(held)

    # Around it

    async def _beat_forever(self) -> None:
        while True:
            await asyncio.sleep(self._config.lease_s / 4)
            before = list(self._held.values())
            try:
                mine = await lease.renew(
                    self._db,
                    self._identity.worker_id,
                    [held.id for held in before],
                    lease_s=self._config.lease_s,
                    calls_in_flight=len(self._out),
                )
            except DB_ERRORS as e:
                await self._away("heartbeat", e)
                continue
            for held in before:
                batch_state = mine.get((held.id, held.fence))
                if batch_state is None:
                    # Cancelled, another worker's by now, or closed since.
                    held.lost = True
                elif batch_state == "paused":
                    self._stop(held)

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S * (0.75 + random.random() / 2))
            # While Postgres was away nobody could renew: give every worker the time of a heartbeat first.
            began = time.monotonic()
            settled = began - self._postgres_back_at > self._config.lease_s / 2
            try:
                unpublished = await sweep.sweep(
                    self._db,
                    self._router,
                    simulated=self._identity.simulated,
                    lease_s=self._config.lease_s if settled else None,
                    idle_s=self._config.idle_queue_s,
                )
            except DB_ERRORS as e:
                await self._away("sweep", e)
                continue
            if time.monotonic() - began > self._config.lease_s / 4:
                self._postgres_back_at = time.monotonic()
            if unpublished:
                self._publish_now.set()

    async def _watch_gate_forever(self) -> None:
        """Tell the other workers of the provider when the gate moves, and move it as they say."""
        name, simulated = self._identity.provider, self._identity.simulated
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATE_INTERVAL_S):
                    await self._gate_changed.wait()
            try:
                self._gate_changed.clear()
                if self._gate_told < self._gate_moves:
                    told = self._gate_moves
                    await stops.publish(self._db, name, self._gate.stop, simulated=simulated)
                    self._gate_told = told
                    log.warning("%s is %s", name, "stopped" if self._gate.stop else "back")
                else:
                    await self._look_at_gate()
            except DB_ERRORS as e:
                await self._away("gate", e)

    async def _look_at_gate(self) -> None:
        """Move the gate as the other workers say, or the one who had the failed prompts run again."""
        moves = self._gate_moves
        found = await stops.read(self._db, self._identity.provider, simulated=self._identity.simulated)
        if self._gate_moves != moves or self._gate_told < moves:
            return  # it has moved here since, or nobody was told yet: what was read is old
        if found is None:
            self._gate.open()
        else:
            self._gate.shut(found, time.monotonic())

    async def _publish_forever(self) -> None:
        while True:
            await self._publish_now.wait()
            self._publish_now.clear()
            try:
                await publish.publish(self._db, simulated=self._identity.simulated)
            except errors.ServerError as e:
                log.warning("%s", e)
                await asyncio.sleep(AWAY_RETRY_S)
                self._publish_now.set()
            except DB_ERRORS as e:
                await self._away("publish", e)
                self._publish_now.set()

    async def _away(self, what: str, error: Exception) -> None:
        # Only the type: the text of a database error quotes the statement's values.
        log.warning("Postgres: %s failed (%s), again in %.0f s", what, type(error).__name__, AWAY_RETRY_S)
        await asyncio.sleep(AWAY_RETRY_S)
        self._postgres_back_at = time.monotonic()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.critical("a loop of the worker broke", exc_info=task.exception())
            self._on_crash()


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
