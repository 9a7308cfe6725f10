"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from worker.simulator import process


@pytest.fixture
def simulator() -> Iterator[process.Simulator]:
    """Simulated providers in a process of their own."""
    with process.running() as running:
        yield running
