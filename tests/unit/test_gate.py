"""The gate before a provider that refuses every call."""

from __future__ import annotations

from worker.providers import types
from worker.shards import stops

REFUSED = stops.Stop(types.ErrorClass.AUTH, "Invalid API Key")


def test_an_open_gate_shuts_nobody_out() -> None:
    assert stops.Gate().shuts_out(1.0) is None


def test_a_shut_gate_shuts_out_until_it_is_time_for_one_probe() -> None:
    gate = stops.Gate()
    assert gate.shut(REFUSED, 100.0)
    assert gate.shuts_out(100.1) == REFUSED
    assert gate.shuts_out(100.0 + stops.PROBE_S) is None
    assert gate.shuts_out(100.0 + stops.PROBE_S) == REFUSED


def test_shutting_it_again_is_nothing_new() -> None:
    gate = stops.Gate()
    gate.shut(REFUSED, 100.0)
    assert not gate.shut(REFUSED, 101.0)


def test_an_answer_to_a_call_that_was_out_at_the_stop_does_not_open_it() -> None:
    gate = stops.Gate()
    gate.shut(REFUSED, 100.0)
    assert not gate.answered(began=99.9)
    assert gate.shuts_out(100.1) == REFUSED


def test_an_answer_to_a_probe_opens_it() -> None:
    gate = stops.Gate()
    gate.shut(REFUSED, 100.0)
    assert gate.answered(began=130.0)
    assert gate.shuts_out(130.1) is None
    assert not gate.answered(began=131.0)
