"""What a simulated provider keeps about its one customer."""

from __future__ import annotations

from worker.simulator import faults, limits
from worker.simulator import settings as simulator_settings


class Account:
    """What a provider knows about us."""

    def __init__(self, settings: simulator_settings.ProviderSettings) -> None:
        self.in_flight = 0
        self.configure(settings, limits.Limiter(settings.limits))

    def configure(self, settings: simulator_settings.ProviderSettings, limiter: limits.Limiter) -> None:
        self.settings = settings
        self.limiter = limiter
        self.faults = faults.ordered(settings.faults)
        self.calls = 0
        self.draws = settings.jitter != "none" or any(fault.share < 1 for fault in settings.faults)
        #: How often each prompt came, by eight bytes of its digest; kept only where chance depends on it.
        self.visits: dict[int, int] = {}

    def change(self, settings: simulator_settings.ProviderSettings) -> None:
        """Take new settings. Windows go on counting where their limits stay the same."""
        same = settings.limits == self.settings.limits
        self.configure(settings, self.limiter if same else limits.Limiter(settings.limits))

    def visit(self, digest: bytes) -> int:
        key = int.from_bytes(digest[:8])
        number = self.visits[key] = self.visits.get(key, 0) + 1
        return number
