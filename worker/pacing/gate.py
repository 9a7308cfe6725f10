"""Where calls wait for their turn, within one process: permits in hand, calls in flight, pauses.

Nothing here waits for Redis. `pacer` fetches the permits and says what all workers have decided.
"""

from __future__ import annotations

import asyncio
import collections
import datetime
import itertools
import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

from worker import errors
from worker.pacing import bucket, estimate, shared, tally
from worker.pacing import window as windows
from worker.providers import told as told_module
from worker.providers import types
from worker.routing import registry

#: Calls in flight until the first answer, of a provider whose limits nobody knows: it may tell them.
PROBE_CALLS = 4
#: Waiting calls that permits are fetched for at once, at most.
LOOK_AHEAD_CALLS = 512
#: Failures since the last report, if they are most of the calls, that others must know of at once.
ALARM_FAILURES = 5
#: Seconds that a shut gate is taken for granted; who comes later has Redis asked again.
SHUT_S = 1.0
_ROUNDING = 1e-6

#: Failures of calls that the provider may have counted although nobody saw its answer.
_IN_DOUBT = frozenset({types.ErrorClass.TIMEOUT, types.ErrorClass.LOST})
_NOTHING: tally.Cost = (0.0, 0.0, 0.0, 0.0, 0.0)

Reason = Literal["breaker", "paused", "day"]


class Open(errors.PromptyardError):
    """The provider is not to be called for now; the prompt is better off elsewhere, or later.

    Attributes:
        reason: `breaker`: it fails; `paused`: it asked for a long wait; `day`: the day's requests are used up.
        retry_at: when it may be called again, UTC.
    """

    def __init__(self, route: registry.Route, reason: Reason, wait_s: float) -> None:
        super().__init__(f"{route} is not called for another {wait_s:.0f} s ({reason})")
        self.reason = reason
        self.retry_at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=wait_s)


class Permit:
    """Leave for one call. Settle it when the call has ended, or refund it when none was made."""

    __slots__ = ("_cost", "_gate", "_input", "_output", "_round_no", "_settled")

    def __init__(
        self, gate: Gate, cost: tally.Cost, input_tokens: int, output_tokens: int, round_no: int
    ) -> None:
        self._gate = gate
        self._cost = cost
        self._input = input_tokens
        self._output = output_tokens
        self._round_no = round_no
        self._settled = False

    def settle(
        self,
        usage: types.Usage | None,
        outcome: types.ErrorClass | None,
        retry_after_s: float | None = None,
        told: told_module.Told | None = None,
    ) -> None:
        """Say how the call ended. Only the first time counts.

        Args:
            usage: tokens it used, where the provider said so.
            outcome: None for an answer.
            retry_after_s: seconds that the provider asked to wait.
            told: what its headers say of limits.
        """
        if not self._settled:
            self._settled = True
            self._gate.give_back(self._unused(usage, outcome))
            self._gate.learn(self._round_no, outcome, retry_after_s, told)

    def refund(self) -> None:
        """Give everything back: the call was not made. Does nothing after `settle`."""
        if not self._settled:
            self._settled = True
            self._gate.give_back(self._cost)

    def _unused(self, usage: types.Usage | None, outcome: types.ErrorClass | None) -> tally.Cost:
        """What was reserved and not used; negative where more was used."""
        _, tokens, input_, output, _ = self._cost
        if usage is None:
            if outcome is None or outcome in _IN_DOUBT:
                return _NOTHING
            return 0.0, tokens, input_, output, 0.0
        used_input, used_output = usage.all_input_tokens, usage.output_tokens
        gate = self._gate
        gate.input_ratio.learn(self._input, used_input)
        if gate.reserves_max_tokens:
            used_output = max(used_output, self._output)
        else:
            gate.output_ratio.learn(self._output, used_output)
        return 0.0, tokens - used_input - used_output, input_ - used_input, output - used_output, 0.0


class _Waiter(NamedTuple):
    cost: tally.Cost
    turn: asyncio.Future[None]


class Gate:
    """Lets calls through, first come first served."""

    def __init__(
        self, route: registry.Route, wake: asyncio.Event, *, window: int, reserves_max_tokens: bool
    ) -> None:
        """Prepare, shut until `widen` is called.

        Args:
            wake: set when permits are wanted, or something was learned that others must know at once.
        """
        self.route = route
        self.reserves_max_tokens = reserves_max_tokens
        self.input_ratio, self.output_ratio = estimate.Ratio(), estimate.Ratio()
        self.tally = tally.Tally()
        self.held = [0.0] * len(tally.KINDS)
        self.kinds: tuple[int, ...] = ()  #: limited kinds, as indexes
        #: the share of the rate in place of permits held, while Redis is away
        self.buckets: list[tuple[int, bucket.Bucket]] | None = None
        self.told = False  #: limits are known from headers
        self.paused_until = 0.0  #: by the monotonic clock; in the past while the pace rises again, then 0
        self._wake = wake
        self._window = windows.Window(window)
        self._waiters: collections.deque[_Waiter] = collections.deque()
        self._in_flight = 0
        self._width = 0
        self._most: int | None = None
        self._heard = False
        self._shut: Reason = "breaker"
        self._shut_until = self._ask_again_at = 0.0

    @property
    def is_wanted(self) -> bool:
        return bool(self._waiters)

    async def admit(self, input_tokens: int, max_output_tokens: int) -> Permit:
        """See `Pacer.admit`."""
        input_ = input_tokens * self.input_ratio.value
        output = max_output_tokens * self.output_ratio.value
        cost = (1.0, input_ + output, input_, output, 1.0)
        if self._shut_until and (now := time.monotonic()) < self._ask_again_at:
            raise Open(self.route, self._shut, self._shut_until - now)
        if self._waiters or self._shut_until or not self._fits(cost):
            await self._wait(cost)
        else:
            self._take(cost)
        return Permit(self, cost, input_tokens, max_output_tokens, self._window.round_no)

    def go(self) -> None:
        """Let waiting calls go as far as they may."""
        while self.go_one():
            pass

    def go_one(self) -> bool:
        """Let the first waiting call go, if it may."""
        waiters = self._waiters
        while waiters and waiters[0].turn.done():  # cancelled
            waiters.popleft()
        if not waiters or self._shut_until or not self._fits(waiters[0].cost):
            return False
        self._take(waiters[0].cost)
        waiters.popleft().turn.set_result(None)
        return True

    def shut(self, reason: Reason, wait_s: float) -> None:
        """Let nobody through for a time, and tell who waits."""
        now = time.monotonic()
        self._shut, self._shut_until, self._ask_again_at = reason, now + wait_s, now + min(wait_s, SHUT_S)
        while self._waiters:
            turn = self._waiters.popleft().turn
            if not turn.done():
                turn.set_exception(Open(self.route, reason, wait_s))

    def unshut(self) -> None:
        self._shut_until = 0.0

    def close(self) -> None:
        """Cancel who waits."""
        while self._waiters:
            self._waiters.popleft().turn.cancel()

    def widen(self, most: int | None) -> None:
        """Allow calls in flight: as the window says, and `most` at most."""
        self._most = most
        width = self._window.size
        if not self.kinds and not self.buckets:
            if not self._heard:
                width = min(width, PROBE_CALLS)
            if self.paused_until:  # there is no rate to raise slowly, so it is the calls in flight
                after_ms = (time.monotonic() - self.paused_until) * 1000
                ramp = min(1.0, 0.25 + 0.75 * after_ms / shared.RAMP_MS)
                width = max(1, int(width * max(0.0, ramp)))
        self._width = width if most is None else min(width, max(1, most))

    def wanted(self, calls: int, used: Sequence[float]) -> tuple[list[float] | None, list[float]]:
        """Permits for the next call, None where nobody is expected, and those liked beyond it.

        Args:
            calls: that went since the last report: as many are expected before the next one.
            used: permits that they took.
        """
        free = max(0, self._width - self._in_flight) + calls + 1
        waiting = [waiter.cost for waiter in itertools.islice(self._waiters, min(free, LOOK_AHEAD_CALLS))]
        if not waiting and not calls:
            return None, [0.0] * len(used)
        first = waiting[0] if waiting else [amount / calls for amount in used]
        must, like = [], []
        for kind, held in enumerate(self.held):
            must.append(max(0.0, first[kind] - held))
            wanted = max(sum([cost[kind] for cost in waiting]), 2 * used[kind])
            like.append(max(0.0, wanted - held - must[kind]))
        return must, like

    # Turns

    def _fits(self, cost: tally.Cost) -> bool:
        if self._in_flight >= self._width:
            return False
        if self.paused_until or self.buckets is not None:
            now = time.monotonic()
            if now < self.paused_until:
                return False
            if self.buckets is not None:
                return all(each.wait_s(cost[kind], now) <= 0 for kind, each in self.buckets)
        held = self.held
        return all([held[kind] + _ROUNDING >= cost[kind] for kind in self.kinds])

    def _take(self, cost: tally.Cost) -> None:
        self._in_flight += 1
        self.tally.went(cost)
        if self.buckets is not None:
            for kind, each in self.buckets:
                each.take(cost[kind])
        else:
            held = self.held
            for kind in self.kinds:
                held[kind] -= cost[kind]

    async def _wait(self, cost: tally.Cost) -> None:
        waiter = _Waiter(cost, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        if len(self._waiters) == 1:
            self._wake.set()
        try:
            await waiter.turn
        except asyncio.CancelledError:
            turn = waiter.turn
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.give_back(cost)  # its turn came in the same moment
            raise

    # What comes back

    def give_back(self, unused: tally.Cost) -> None:
        """A call has ended, and what it did not use goes back."""
        self._in_flight -= 1
        if self.buckets is not None:
            for kind, each in self.buckets:
                each.take(-unused[kind])
        else:
            self.tally.give_back(unused)
        if self._waiters:
            self.go()

    def learn(
        self,
        round_no: int,
        outcome: types.ErrorClass | None,
        retry_after_s: float | None,
        told: told_module.Told | None,
    ) -> None:
        """A call has ended, and says something of the provider."""
        self._heard = True
        self.tally.came_back(outcome, retry_after_s, told)
        if outcome is not None and retry_after_s is not None and retry_after_s > shared.SHORT_WAIT_S:
            # Whatever the others find, this one was meant.
            self.paused_until = max(self.paused_until, time.monotonic() + retry_after_s)
        limited = outcome is types.ErrorClass.RATE_LIMITED
        # Where headers tell the limits, it was the pace that was wrong, not the calls in flight.
        refused = outcome is types.ErrorClass.OVERLOADED or (limited and not self.told)
        self._window.settled(round_no, refused=refused)
        if told is not None and not self.told and told_module.Told() != told and shared.windows(told):
            self._width = 0  # nothing more goes before all workers know
            self._wake.set()
        elif self._width:
            self.widen(self._most)
            failing = self.tally.bad >= ALARM_FAILURES and self.tally.bad > self.tally.ok
            if limited or retry_after_s is not None or failing:
                self._wake.set()
