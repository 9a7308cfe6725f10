"""Providers that refuse every call: a refused key, no money, no quota left.

The first worker that is told so stops its provider for all: nobody calls it any more, and its prompts move on
without a call. Now and then one call is let through; once it is answered, all go on.
"""

from __future__ import annotations

import dataclasses

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.providers import types

#: Failures that hold for every call of the account.
STOPPING = frozenset({types.ErrorClass.AUTH, types.ErrorClass.QUOTA})
#: Seconds between two calls that are let through to see whether the provider is back.
PROBE_S = 30.0

_STOP = sa.text("""
    INSERT INTO provider_stops (provider, simulated, error_class, error_message)
    VALUES (:provider, :simulated, :error_class, :error_message)
    ON CONFLICT (provider, simulated) DO UPDATE
    SET error_class = excluded.error_class, error_message = excluded.error_message
""")
_LIFT = sa.text("DELETE FROM provider_stops WHERE provider = :provider AND simulated = :simulated")
_READ = sa.text("""
    SELECT error_class, error_message FROM provider_stops
    WHERE provider = :provider AND simulated = :simulated
""")


@dataclasses.dataclass(frozen=True, slots=True)
class Stop:
    """Why a provider is not called."""

    error_class: types.ErrorClass
    message: str


class Gate:
    """Whether this worker's provider may be called. Pure: time is passed in."""

    def __init__(self) -> None:
        self.stop: Stop | None = None
        self._shut_at = self._probe_at = 0.0

    def shut(self, stop: Stop, now: float) -> bool:
        """Stop calling. Returns whether that is new."""
        new = self.stop is None
        self.stop = stop
        if new:
            self._shut_at, self._probe_at = now, now + PROBE_S
        return new

    def answered(self, began: float) -> bool:
        """A call that began then was answered. Returns whether that opens the gate.

        An answer to a call that was out when the provider stopped says nothing.
        """
        return began > self._shut_at and self.open()

    def open(self) -> bool:
        """Go on. Returns whether it was shut."""
        was_shut = self.stop is not None
        self.stop = None
        return was_shut

    def shuts_out(self, now: float) -> Stop | None:
        """Why the next call is not to be made; None when it is: the gate is open, or it is time for a probe."""
        if self.stop is not None and now >= self._probe_at:
            self._probe_at = now + PROBE_S
            return None
        return self.stop


async def publish(engine: AsyncEngine, provider: str, stop: Stop | None, *, simulated: bool) -> None:
    """Tell all workers that the provider is stopped, or with None that it is back."""
    values: dict[str, object] = {"provider": provider, "simulated": simulated}
    statement = _LIFT
    if stop is not None:
        statement = _STOP
        values |= {"error_class": stop.error_class.value, "error_message": stop.message}
    async with engine.begin() as connection:
        await connection.execute(statement, values)


async def read(engine: AsyncEngine, provider: str, *, simulated: bool) -> Stop | None:
    """Look whether another worker has stopped the provider."""
    async with engine.connect() as connection:
        row = (await connection.execute(_READ, {"provider": provider, "simulated": simulated})).first()
    return None if row is None else Stop(types.ErrorClass(row.error_class), row.error_message)
