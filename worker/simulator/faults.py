"""Which call goes wrong."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from worker.simulator import settings as simulator_settings

_SCALE = float(1 << 64)


def chance(provider: str, digest: bytes, visit_no: int, purpose: bytes = b"fault") -> float:
    """A number in [0, 1) that belongs to a provider, a prompt and how often the prompt came there."""
    key = b"%s/%s/%d/" % (purpose, provider.encode(), visit_no)
    return int.from_bytes(hashlib.blake2b(key + digest, digest_size=8).digest()) / _SCALE


def ordered(faults: Sequence[simulator_settings.Fault]) -> tuple[simulator_settings.Fault, ...]:
    """The faults in the order they are tried: those that begin late come first, so that they prevail."""
    return tuple(sorted(faults, key=lambda fault: -fault.after_calls))


def choose(
    faults: Sequence[simulator_settings.Fault], draw: float, call_no: int
) -> simulator_settings.Fault | None:
    """The fault that a call meets.

    Each active fault owns a part of [0, 1) as wide as its share, one after the other, as given by `ordered`.

    Args:
        draw: the call's `chance`.
        call_no: number of the call since the settings were made, from 1.
    """
    edge = 0.0
    for fault in faults:
        if call_no > fault.after_calls:
            edge += fault.share
            if draw < edge:
                return fault
    return None


def latency_s(settings: simulator_settings.ProviderSettings, draw: float) -> float:
    """How long an answer takes. The exponential spread has the same mean and a long tail."""
    mean_s = settings.latency_ms / 1000
    return mean_s * -math.log(1.0 - draw) if settings.jitter == "exponential" else mean_s
