from __future__ import annotations

import pytest

from worker import settings
from worker.providers import endpoint
from worker.routing import load
from worker.routing.registry import Route


@pytest.mark.parametrize(
    ("route", "url"),
    [
        ("groq/openai/gpt-oss-120b", "https://api.groq.com/openai/v1/chat/completions"),
        ("cerebras/gpt-oss-120b", "https://api.cerebras.ai/v1/chat/completions"),
        ("zai/glm-5.3", "https://api.z.ai/api/paas/v4/chat/completions"),
        ("openai/gpt-6.1-sol", "https://api.openai.com/v1/chat/completions"),
        ("anthropic/claude-opus-5-5", "https://api.anthropic.com/v1/messages"),
        (
            "gemini/gemini-3.8-flash",
            "https://generativelanguage.googleapis.com/v1beta/models/gemini-3.8-flash:generateContent",
        ),
    ],
)
def test_each_shipped_provider_is_called_at_its_documented_address(route: str, url: str) -> None:
    """Addresses from the vendors' API references, November 2026."""
    registry = load.registry(settings.Settings(registry=None))
    assert endpoint.endpoint(registry, Route.parse(route), "k").url == url
