"""What `promptyard doctor` makes of what it finds."""

from __future__ import annotations

import pytest

from worker.cli import checks


@pytest.mark.parametrize(
    ("info", "verdict"),
    [
        ({"aof_enabled": 1}, "ok"),
        ({"aof_enabled": 0, "rdb_saves": 3, "rdb_last_save_time": 1_700_000_000}, "ok"),
        ({"aof_enabled": 0, "rdb_saves": 0, "rdb_last_save_time": 1_700_000_000}, "warning"),
    ],
)
def test_a_broker_that_keeps_nothing_is_worth_a_warning(info: dict[str, int], verdict: str) -> None:
    assert checks.persistence(info).verdict == verdict
