"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yard as yards

from worker.simulator import process


@pytest.fixture
def simulator() -> Iterator[process.Simulator]:
    """Simulated providers in a process of their own."""
    with process.running() as running:
        yield running


@pytest.fixture
def yard(
    database_url: str, broker_url: str, simulator: process.Simulator, tmp_path: Path
) -> Iterator[yards.Yard]:
    """A database, a broker and simulated providers; no worker yet."""
    found = yards.Yard(database_url, broker_url, simulator, tmp_path)
    try:
        yield found
    finally:
        found.close()
