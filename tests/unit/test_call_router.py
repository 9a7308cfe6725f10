"""Where a prompt goes within the registry, and with what its batch may use."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

from worker import settings
from worker.providers import types
from worker.routing import decide, load
from worker.routing.registry import Route
from worker.shards import call, claim

NOW = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC)
REGISTRY = load.registry(settings.Settings(simulator="http://127.0.0.1:1"))
ROUTER = call.Router(REGISTRY, load.usable(REGISTRY, {}).windows)
LLAMA = Route("groq", "llama-3.3-70b-versatile")
EVERY = frozenset(REGISTRY.providers)


def after(error_class: types.ErrorClass, **changes: Any) -> decide.Decision:
    values: dict[str, Any] = {
        "id": uuid.uuid4(),
        "batch_id": 1,
        "category": "simple_qa",
        "queue": "simple_qa",
        "pinned": None,
        "route": LLAMA,
        "attempt_no": 1,
        "attempts_before": 0,
        "tried": (),
        "reason": None,
        "providers": EVERY,
        "fence": 1,
        "frontier": REGISTRY.frontier,
        "left": {1},
    }
    held = claim.Held(**{**values, **changes})
    return ROUTER.after(held, decide.Failure(error_class), now=NOW, jitter=0.5)


def test_a_refused_key_sends_the_prompt_to_the_next_provider_of_the_chain() -> None:
    assert after(types.ErrorClass.AUTH) == decide.Fallback(Route("cerebras", "gpt-oss-120b"), (LLAMA,))


def test_a_provider_that_the_batch_may_not_use_is_passed_over() -> None:
    decision = after(types.ErrorClass.AUTH, providers=frozenset({"groq", "gemini"}))
    assert decision == decide.Fallback(Route("gemini", "gemini-3.5-flash-lite"), (LLAMA,))


def test_with_one_provider_alone_there_is_nowhere_to_fall_back_to() -> None:
    assert isinstance(after(types.ErrorClass.AUTH, providers=frozenset({"groq"})), decide.Fail)


def test_a_pinned_prompt_stays() -> None:
    assert isinstance(after(types.ErrorClass.AUTH, pinned=str(LLAMA)), decide.Fail)
    assert isinstance(after(types.ErrorClass.TRANSIENT, pinned=str(LLAMA)), decide.Retry)


def test_a_category_that_has_left_the_registry_fails_and_breaks_nothing() -> None:
    assert isinstance(after(types.ErrorClass.AUTH, category="poetry"), decide.Fail)


def test_two_refusals_by_a_content_policy_are_final() -> None:
    assert isinstance(after(types.ErrorClass.CONTENT), decide.Fallback)
    assert isinstance(after(types.ErrorClass.CONTENT, reason="content_refused"), decide.Fail)
