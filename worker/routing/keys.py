"""The providers' keys. Read where a request is built and kept nowhere."""

from __future__ import annotations

import os
from collections.abc import Mapping

from worker.routing import registry

#: What is sent to the simulator in place of a key, so that no real key ever leaves for it.
SIMULATED_KEY = "simulated"


def key(
    provider: registry.Provider, env: Mapping[str, str] = os.environ, *, simulated: bool = False
) -> str | None:
    """The provider's key, or None where the variable is unset or empty, or the provider needs none."""
    if provider.key_env is None:
        return None
    if simulated:
        return SIMULATED_KEY
    return env.get(provider.key_env, "").strip() or None


def is_usable(
    provider: registry.Provider, env: Mapping[str, str] = os.environ, *, simulated: bool = False
) -> bool:
    """Whether the provider can be called: it needs no key, or has one."""
    return provider.key_env is None or key(provider, env, simulated=simulated) is not None
