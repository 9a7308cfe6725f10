"""Which queues nobody works on."""

from __future__ import annotations

import pytest

from worker import settings
from worker.cli import alarms
from worker.routing import load

REGISTRY = load.registry(settings.Settings(registry=None, simulator=None))


def warnings(prompts: dict[str, int], *live: str, simulated: bool = False) -> list[str]:
    return alarms.unserved(prompts, frozenset(live), REGISTRY, simulated=simulated)


def test_a_category_is_served_by_a_worker_of_its_first_tier_alone() -> None:
    assert warnings({"simple_qa": 7}, "groq") == []
    (said,) = warnings({"simple_qa": 7}, "openai")
    assert "simple_qa: 7 prompts" in said
    assert "`promptyard worker groq`" in said


def test_any_provider_of_the_first_tier_will_do() -> None:
    assert warnings({"complex_reasoning": 1}, "anthropic") == []
    (said,) = warnings({"complex_reasoning": 1})
    assert "`promptyard worker openai` or `promptyard worker anthropic`" in said


def test_the_queue_of_a_provider_is_served_by_it_alone() -> None:
    assert warnings({"code.openai": 2}, "openai") == []
    assert "`promptyard worker openai`" in warnings({"code.openai": 2}, "cerebras")[0]


def test_queues_that_the_same_worker_would_serve_are_one_warning() -> None:
    (said,) = warnings({"simple_qa": 1_000, "code.groq": 500})
    assert "simple_qa, code.groq: 1,500 prompts" in said


def test_a_queue_without_prompts_needs_nobody() -> None:
    assert warnings({"simple_qa": 0}) == []


def test_a_simulated_batch_asks_for_a_simulated_worker() -> None:
    assert "PROMPTYARD_SIMULATOR" in warnings({"simple_qa": 1}, simulated=True)[0]


@pytest.mark.parametrize("queue", ["poetry", "code.acme"])
def test_a_queue_that_the_registry_lacks_is_no_crash(queue: str) -> None:
    (said,) = warnings({queue: 1}, "groq")
    assert "The registry does not have it" in said
