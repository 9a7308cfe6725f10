"""A share of the rate for as long as Redis is away."""

from __future__ import annotations


class Bucket:
    """A token bucket that may go into debt for one large call. Times are seconds of one monotonic clock.

    A call goes when the bucket holds its amount or is full; what is missing then is debt that later calls
    wait for. So no span of time sees more than what is refilled in it, the burst, and one call.
    """

    __slots__ = ("_at", "_level", "burst", "per_s")

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        """Start empty: what was there is spent, as far as anyone knows."""
        self.per_s = per_s
        self.burst = burst
        self._level = 0.0
        self._at = now

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until the amount may be taken; 0 when it may be now."""
        self._level = min(self.burst, self._level + self.per_s * max(0.0, now - self._at))
        self._at = max(self._at, now)
        missing = min(amount, self.burst) - self._level
        # A float's rounding is no reason to wait.
        return missing / self.per_s if missing > 1e-9 * self.burst else 0.0

    def take(self, amount: float) -> None:
        """Take an amount that may be taken, or give back with a negative one."""
        self._level = min(self.burst, self._level - amount)
