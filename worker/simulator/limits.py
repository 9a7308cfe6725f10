"""Rate limits, counted strictly: never more in any window than allowed, to the request and to the token."""

from __future__ import annotations

import collections
from typing import NamedTuple

from worker.simulator import settings as simulator_settings

_DAY_S = 86_400.0


class SlidingWindow:
    """At most `limit` units in any span of `span_s` seconds. Times are those of one monotonic clock."""

    def __init__(self, limit: int, span_s: float) -> None:
        self.limit = limit
        self.span_s = span_s
        self.used = 0
        self._taken: collections.deque[tuple[float, int]] = collections.deque()

    def wait_s(self, amount: int, now: float) -> float:
        """Seconds until `amount` fits in, 0 when it does now. More than the limit never fits: the span."""
        self._forget(now)
        excess = self.used + amount - self.limit
        if excess <= 0:
            return 0.0
        for at, taken in self._taken:
            excess -= taken
            if excess <= 0:
                return max(at + self.span_s - now, 0.001)
        return self.span_s

    def take(self, amount: int, now: float) -> None:
        self._taken.append((now, amount))
        self.used += amount

    def remaining(self) -> int:
        return max(self.limit - self.used, 0)

    def reset_s(self, now: float) -> float:
        """Seconds until nothing is used any more."""
        return max(self._taken[-1][0] + self.span_s - now, 0.0) if self._taken else 0.0

    def _forget(self, now: float) -> None:
        taken = self._taken
        while taken and taken[0][0] + self.span_s <= now:
            self.used -= taken.popleft()[1]


class Exceeded(NamedTuple):
    """A limit that a call would break."""

    scope: simulator_settings.Scope
    limit: int
    wait_s: float


class Limiter:
    """The limits of one provider."""

    def __init__(self, limits: simulator_settings.Limits) -> None:
        self.limits = limits
        self.requests = SlidingWindow(limits.rpm, limits.minute_s) if limits.rpm else None
        self.day = SlidingWindow(limits.rpd, _DAY_S) if limits.rpd else None
        self.tokens = SlidingWindow(limits.tpm, limits.minute_s) if limits.tpm else None
        scopes: dict[simulator_settings.Scope, SlidingWindow | None] = {
            "day": self.day,
            "requests": self.requests,
            "tokens": self.tokens,
        }
        self._windows = [(scope, window) for scope, window in scopes.items() if window is not None]

    @property
    def counts(self) -> bool:
        """Whether there is anything to tell in headers."""
        return bool(self._windows)

    def admit(self, tokens: int, in_flight: int, now: float) -> Exceeded | None:
        """Count a call in, or say which limit forbids it; a call that is refused is not counted."""
        allowed = self.limits.concurrency
        if allowed is not None and in_flight >= allowed:
            return Exceeded("concurrency", allowed, 1.0)
        amounts = [(scope, window, tokens if scope == "tokens" else 1) for scope, window in self._windows]
        for scope, window, amount in amounts:
            wait_s = window.wait_s(amount, now)
            if wait_s > 0:
                return Exceeded(scope, window.limit, wait_s)
        for _, window, amount in amounts:
            window.take(amount, now)
        return None
