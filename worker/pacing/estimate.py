"""What calls will use: the callers' estimates, corrected by what calls used."""

from __future__ import annotations

#: What a call of the past weighs after each further one: the last fifty or so count.
FADE = 0.98


class Ratio:
    """Used tokens for each estimated one, over the last calls; 1 before the first."""

    __slots__ = ("_estimated", "_used", "value")

    def __init__(self) -> None:
        self._estimated = self._used = 0.0
        self.value = 1.0

    def learn(self, estimated: int, used: int) -> None:
        """Take in a call that ended."""
        self._estimated = self._estimated * FADE + estimated
        self._used = self._used * FADE + used
        if self._estimated > 0:
            self.value = self._used / self._estimated
