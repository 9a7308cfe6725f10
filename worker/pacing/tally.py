"""What a process will tell the others with its next report."""

from __future__ import annotations

from collections.abc import Sequence

from worker.pacing import shared
from worker.providers import told as told_module
from worker.routing.failures import ErrorClass

#: Kinds of permits in the order of a `Cost`.
KINDS: tuple[shared.Kind, ...] = ("r", "t", "i", "o", "d")
#: Permits of each kind: requests, tokens, input tokens, output tokens, requests of a day.
Cost = tuple[float, float, float, float, float]

#: Failures of the provider itself. A call that it refused for what it asked for shows that it works.
_FAILURES = frozenset({ErrorClass.TRANSIENT, ErrorClass.OVERLOADED, ErrorClass.TIMEOUT})
_ANSWERS = frozenset({None, ErrorClass.PROMPT, ErrorClass.CONTEXT, ErrorClass.CONTENT})


class Tally:
    """Sums since the last report."""

    __slots__ = ("back", "bad", "calls", "largest", "limited", "ok", "pause_s", "settled", "told", "used")

    def __init__(self) -> None:
        self.back = [0.0] * len(KINDS)
        self.largest = [0.0] * len(KINDS)
        self.used = [0.0] * len(KINDS)  #: permits of the calls let go
        self.calls = self.settled = 0
        self.ok = self.bad = self.limited = 0
        self.pause_s = 0.0
        self.told: told_module.Told | None = None

    def went(self, cost: Cost) -> None:
        """A call was let go."""
        self.calls += 1
        used, largest = self.used, self.largest
        for kind, amount in enumerate(cost):
            used[kind] += amount
            if amount > largest[kind]:
                largest[kind] = amount

    def came_back(
        self, outcome: ErrorClass | None, retry_after_s: float | None, told: told_module.Told | None
    ) -> None:
        """A call has ended."""
        self.settled += 1
        if outcome in _ANSWERS:
            self.ok += 1
        elif outcome in _FAILURES:
            self.bad += 1
        elif outcome is ErrorClass.RATE_LIMITED:
            self.limited += 1
        if retry_after_s is not None and outcome is not None:
            self.pause_s = max(self.pause_s, retry_after_s)
        if told is not None:
            self.told = told

    def give_back(self, amounts: Sequence[float]) -> None:
        for kind, amount in enumerate(amounts):
            self.back[kind] += amount

    @property
    def is_empty(self) -> bool:
        return not (self.calls or self.settled or any(self.back))


def named(amounts: Sequence[float]) -> shared.Amounts:
    """Amounts in the order of `KINDS`, by their letters."""
    return dict(zip(KINDS, amounts, strict=True))
