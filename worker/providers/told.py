"""What a provider says of its rate limits in the headers of an answer.

The names, and whether requests are those of a minute or of a day, stand in the registry
(`rate_limit_headers`): Groq writes the requests of a day where OpenAI writes those of a minute.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Literal, NamedTuple

from worker.providers import waiting
from worker.routing import registry

Period = Literal["minute", "day"]

#: Larger numbers are no limit that anyone keeps.
_MAX_COUNT = 10**12


class Told(NamedTuple):
    """Limits as one answer tells of them; None for what it does not say.

    `limit` is what the window allows, `remaining` what is left of it, `reset_s` the seconds until it is full
    again. Tokens are those of a minute: of input and output together, or one kind of them.
    """

    requests_limit: int | None = None
    requests_remaining: int | None = None
    requests_reset_s: float | None = None
    requests_period: Period = "minute"
    tokens_limit: int | None = None
    tokens_remaining: int | None = None
    tokens_reset_s: float | None = None
    input_tokens_limit: int | None = None
    input_tokens_remaining: int | None = None
    input_tokens_reset_s: float | None = None
    output_tokens_limit: int | None = None
    output_tokens_remaining: int | None = None
    output_tokens_reset_s: float | None = None


class _Window(NamedTuple):
    limit: int | None = None
    remaining: int | None = None
    reset_s: float | None = None


_NOTHING = _Window()

#: What is read where the registry does not say it.
_OF_DIALECT: Mapping[registry.Dialect, registry.RateLimitHeaders] = {
    "openai_chat": registry.RateLimitHeaders(
        requests_minute="x-ratelimit-*-requests", tokens_minute="x-ratelimit-*-tokens"
    ),
    "anthropic_messages": registry.RateLimitHeaders(
        requests_minute="anthropic-ratelimit-requests-*",
        tokens_minute="anthropic-ratelimit-tokens-*",
        input_tokens_minute="anthropic-ratelimit-input-tokens-*",
        output_tokens_minute="anthropic-ratelimit-output-tokens-*",
    ),
    "gemini_generate_content": registry.RateLimitHeaders(),
}


def limits_told(provider: registry.Provider, headers: Mapping[str, str]) -> Told:
    """The limits that an answer's headers tell of. Never raises: what cannot be read is not said.

    Where a provider tells of the requests of a minute and of a day, `requests_*` are those of the window
    that has fewer left.

    Args:
        headers: looked up without regard to case, as those of `Reply` are.
    """
    names = provider.rate_limit_headers or _OF_DIALECT[provider.dialect]
    minute, day = _window(names.requests_minute, headers), _window(names.requests_day, headers)
    daily = _is_tighter(day, minute)
    return Told(
        *(day if daily else minute),
        "day" if daily else "minute",
        *_window(names.tokens_minute, headers),
        *_window(names.input_tokens_minute, headers),
        *_window(names.output_tokens_minute, headers),
    )


def _is_tighter(day: _Window, minute: _Window) -> bool:
    if day == _NOTHING or minute == _NOTHING:
        return day != _NOTHING
    return day.remaining is not None and (minute.remaining is None or day.remaining < minute.remaining)


def _window(pattern: str | None, headers: Mapping[str, str]) -> _Window:
    if pattern is None:
        return _NOTHING
    limit, remaining, reset = _names(pattern)
    reset_text = headers.get(reset)
    return _Window(
        _count(headers.get(limit)),
        _count(headers.get(remaining)),
        waiting.reset_s(reset_text, headers.get("date")) if reset_text is not None else None,
    )


@functools.cache
def _names(pattern: str) -> tuple[str, str, str]:
    return pattern.replace("*", "limit"), pattern.replace("*", "remaining"), pattern.replace("*", "reset")


def _count(text: str | None) -> int | None:
    """A whole number that is not negative; some servers write it with a fraction of zeros."""
    number = waiting.number(text)
    return int(number) if number is not None and 0 <= number <= _MAX_COUNT else None
