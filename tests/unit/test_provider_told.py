"""Limits as each provider's headers tell of them, with the names and meanings of the shipped registry."""

from __future__ import annotations

import pytest

from worker.providers import told
from worker.providers.told import Told
from worker.routing import load, registry

DATE = "Mon, 23 Nov 2026 10:00:00 GMT"
REGISTRY = load.parse('extends = "default"', source="the test")

OPENAI = {
    "x-ratelimit-limit-requests": "5000",
    "x-ratelimit-remaining-requests": "4999",
    "x-ratelimit-reset-requests": "12ms",
    "x-ratelimit-limit-tokens": "1000000",
    "x-ratelimit-remaining-tokens": "993000",
    "x-ratelimit-reset-tokens": "6m0s",
}
GROQ = {
    "x-ratelimit-limit-requests": "14400",
    "x-ratelimit-remaining-requests": "14370",
    "x-ratelimit-reset-requests": "2m59.56s",
    "x-ratelimit-limit-tokens": "18000",
    "x-ratelimit-remaining-tokens": "17997",
    "x-ratelimit-reset-tokens": "7.66s",
}
ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "1000",
    "anthropic-ratelimit-requests-remaining": "999",
    "anthropic-ratelimit-requests-reset": "2026-11-23T10:00:01Z",
    "anthropic-ratelimit-input-tokens-limit": "450000",
    "anthropic-ratelimit-input-tokens-remaining": "440000",
    "anthropic-ratelimit-input-tokens-reset": "2026-11-23T10:00:02Z",
    "anthropic-ratelimit-output-tokens-limit": "90000",
    "anthropic-ratelimit-output-tokens-remaining": "80000",
    "anthropic-ratelimit-output-tokens-reset": "2026-11-23T10:00:07Z",
    "anthropic-ratelimit-tokens-limit": "540000",
    "anthropic-ratelimit-tokens-remaining": "520000",
    "anthropic-ratelimit-tokens-reset": "2026-11-23T10:00:02Z",
}
CEREBRAS = {
    "x-ratelimit-limit-requests-day": "14400",
    "x-ratelimit-remaining-requests-day": "14400",
    "x-ratelimit-reset-requests-day": "33011.382867",
    "x-ratelimit-limit-tokens-minute": "60000",
    "x-ratelimit-remaining-tokens-minute": "59800",
    "x-ratelimit-reset-tokens-minute": "11.38",
}
CEREBRAS_MINUTE = {
    "x-ratelimit-limit-requests-minute": "30",
    "x-ratelimit-remaining-requests-minute": "29",
    "x-ratelimit-reset-requests-minute": "11.38",
}


@pytest.mark.parametrize(
    ("provider", "headers", "expected"),
    [
        ("openai", OPENAI, Told(5000, 4999, 0.012, "minute", 1_000_000, 993_000, 360.0)),
        ("groq", GROQ, Told(14400, 14370, 179.56, "day", 18000, 17997, 7.66)),
        (
            "anthropic",
            ANTHROPIC,
            Told(
                *(1000, 999, 1.0, "minute", 540_000, 520_000, 2.0),
                *(450_000, 440_000, 2.0, 90_000, 80_000, 7.0),
            ),
        ),
        ("cerebras", CEREBRAS, Told(14400, 14400, 33011.382867, "day", 60000, 59800, 11.38)),
        # both: the one that has fewer left
        ("cerebras", {**CEREBRAS, **CEREBRAS_MINUTE}, Told(30, 29, 11.38, "minute", 60000, 59800, 11.38)),
        (
            "cerebras",
            {**CEREBRAS, **CEREBRAS_MINUTE, "x-ratelimit-remaining-requests-day": "3"},
            Told(14400, 3, 33011.382867, "day", 60000, 59800, 11.38),
        ),
        ("gemini", OPENAI, Told()),  # it sends none; what a proxy adds is not Gemini's
        ("zai", {}, Told()),
        ("openai", {"x-ratelimit-limit-requests": "many", "x-ratelimit-reset-requests": "soon"}, Told()),
        ("openai", {"x-ratelimit-remaining-requests": "-1", "x-ratelimit-limit-tokens": "1e99"}, Told()),
        ("openai", {"x-ratelimit-remaining-requests": "7"}, Told(requests_remaining=7)),
    ],
)
def test_limits_are_read_as_the_provider_means_them(
    provider: str, headers: dict[str, str], expected: Told
) -> None:
    found = told.limits_told(REGISTRY.provider(provider), {"date": DATE, **headers})
    assert found == tuple(pytest.approx(v) if isinstance(v, float) else v for v in expected)


def test_a_server_of_ones_own_names_its_headers_in_the_registry() -> None:
    mine = registry.Provider.model_validate_json(
        """{"dialect": "openai_chat", "base_url": "http://h/v1",
            "models": {"m": {"context_window": 1}},
            "rate_limit_headers": {"requests_minute": "X-RateLimit-*"}}"""
    )
    headers = {
        "date": DATE,
        "x-ratelimit-limit": "20",
        "x-ratelimit-remaining": "19",
        "x-ratelimit-reset": "1795428060000",  # milliseconds since 1970
    }
    assert told.limits_told(mine, headers) == Told(20, 19, 60.0)
    assert told.limits_told(mine, OPENAI) == Told()


@pytest.mark.parametrize("name", ["x-ratelimit-requests", "x-*-*", "x ratelimit *", "*\r\nx: *"])
def test_a_name_of_headers_without_its_star_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="requests_minute"):
        registry.RateLimitHeaders(requests_minute=name)
