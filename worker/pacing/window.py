"""How many calls one process keeps in flight where nothing else tells how many are right."""

from __future__ import annotations

from collections.abc import Callable

#: Calls are judged in rounds of a window's width, and of this many at least: fewer say little.
MIN_ROUND_CALLS = 32
#: Share of a round's calls turned away that halves the window. Well above what a provider that fails at random
#: does: against that, fewer calls at once do not help.
HALVE_SHARE = 0.25
#: Share up to which the window grows.
GROW_SHARE = 0.02


class Window:
    """Additive increase, multiplicative decrease (Chiu and Jain, 1989), at most one step a round trip.

    A round begins with a step and ends when as many calls as the window is wide have come back that were made
    since: calls from before a step say nothing of it.
    """

    __slots__ = ("_back", "_limit", "_refused", "_round_calls", "round_no", "size")

    def __init__(self, limit: int) -> None:
        """Begin at the limit, which is what the user configured."""
        self._limit = limit
        self.size = limit
        self.round_no = 0
        self._begin()

    def _begin(self) -> None:
        self._back = self._refused = 0
        self._round_calls = max(self.size, MIN_ROUND_CALLS)

    def settled(self, round_no: int, *, refused: bool) -> None:
        """Count a call that came back.

        Args:
            round_no: what the attribute of that name was when the call was made.
            refused: it was turned away for too much at once.
        """
        if round_no != self.round_no:
            return
        self._back += 1
        self._refused += refused
        if self._refused >= HALVE_SHARE * self._round_calls:
            self._step(lambda size: size // 2)
        elif self._back >= self._round_calls:
            grows = self._refused <= GROW_SHARE * self._back
            self._step(lambda size: size + 1 if grows else size)

    def _step(self, change: Callable[[int], int]) -> None:
        self.size = min(self._limit, max(1, change(self.size)))
        self.round_no += 1
        self._begin()
