"""Raw usage of each provider to disjoint buckets."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.providers import usage
from worker.providers.types import CallError, ErrorClass, Usage


def raw(**fields: Any) -> bytes:
    return msgspec.json.encode(fields)


@pytest.mark.parametrize(
    ("said", "normal"),
    [
        # OpenAI: the prompt includes what was cached and what was written, the completion the reasoning.
        (
            raw(
                prompt_tokens=1000,
                completion_tokens=300,
                total_tokens=1300,
                prompt_tokens_details={"cached_tokens": 600, "cache_write_tokens": 100, "audio_tokens": 0},
                completion_tokens_details={"reasoning_tokens": 250},
            ),
            Usage(300, 600, 100, 300, 250),
        ),
        # Groq: times beside the tokens.
        (
            raw(prompt_tokens=18, completion_tokens=5, total_tokens=23, queue_time=0.03, total_time=0.05),
            Usage(18, 0, 0, 5, 0),
        ),
        # Z.ai: thinking ate the whole budget.
        (
            raw(
                prompt_tokens=20,
                completion_tokens=64,
                total_tokens=84,
                prompt_tokens_details={"cached_tokens": 4},
                completion_tokens_details={"reasoning_tokens": 64},
            ),
            Usage(16, 4, 0, 64, 64),
        ),
        # Cerebras: every field is optional; the total stands in for one.
        (raw(prompt_tokens=20, total_tokens=84), Usage(20, 0, 0, 64, 0)),
        (raw(completion_tokens=20, total_tokens=84, prompt_tokens_details=None), Usage(64, 0, 0, 20, 0)),
        # xAI and its like: reasoning stands beside the completion, as the total shows.
        (
            raw(
                prompt_tokens=10,
                completion_tokens=5,
                total_tokens=65,
                completion_tokens_details={"reasoning_tokens": 50},
            ),
            Usage(10, 0, 0, 55, 50),
        ),
    ],
)
def test_openai_counts_the_cache_in_the_prompt(said: bytes, normal: Usage) -> None:
    assert usage.openai(said) == normal


def test_anthropic_counts_the_cache_beside_the_input() -> None:
    # The worked call of claude-sonnet-4-5: 200 fresh, 100 written, 700 read, 100 out.
    said = raw(
        input_tokens=200,
        cache_creation_input_tokens=100,
        cache_creation={"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 0},
        cache_read_input_tokens=700,
        output_tokens=100,
        output_tokens_details={"thinking_tokens": 40},
        service_tier="standard",
    )
    assert usage.anthropic(said) == Usage(200, 700, 100, 100, 40)
    assert usage.anthropic(said).all_input_tokens == 1000


def test_gemini_counts_thoughts_beside_the_candidates_and_bills_them_as_output() -> None:
    # The worked call of gemini-2.5-flash: 1000 prompt of which 400 cached, 50 candidates, 200 thoughts.
    said = raw(
        promptTokenCount=1000,
        cachedContentTokenCount=400,
        candidatesTokenCount=50,
        thoughtsTokenCount=200,
        totalTokenCount=1250,
    )
    assert usage.gemini(said) == Usage(600, 400, 0, 250, 200)
    assert usage.gemini(raw(promptTokenCount=7, toolUsePromptTokenCount=3)) == Usage(10, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("said", "named"),
    [
        (
            raw(prompt_tokens=10, completion_tokens=1, prompt_tokens_details={"cached_tokens": 11}),
            ("11", "10"),
        ),
        (
            raw(
                prompt_tokens=10,
                completion_tokens=1,
                prompt_tokens_details={"cached_tokens": 6, "cache_write_tokens": 5},
            ),
            ("6", "5", "10"),
        ),
        (
            raw(prompt_tokens=1, completion_tokens=5, completion_tokens_details={"reasoning_tokens": 6}),
            ("6", "5"),
        ),
        (raw(prompt_tokens=-3, completion_tokens=5), ("-3",)),
        (raw(prompt_tokens=30, total_tokens=20), ("-10",)),
        (raw(prompt_tokens=10**30, completion_tokens=5), ()),
        (raw(prompt_tokens=True, completion_tokens=5), ("bool", "prompt_tokens")),
        (raw(prompt_tokens="12", completion_tokens=5), ("str", "prompt_tokens")),
        (raw(prompt_tokens=12.5, completion_tokens=5), ("float", "prompt_tokens")),
        (raw(prompt_tokens=12), ("completion_tokens",)),
        (raw(), ("prompt_tokens",)),
        (b"null", ()),
    ],
)
def test_usage_that_cannot_be_is_malformed_and_named(said: bytes, named: tuple[str, ...]) -> None:
    with pytest.raises(CallError) as caught:
        usage.openai(said)
    assert caught.value.error_class is ErrorClass.MALFORMED
    assert [word for word in named if word not in caught.value.message] == []


def test_gemini_cannot_have_cached_more_than_the_prompt() -> None:
    with pytest.raises(CallError, match="20 cached tokens of 10 prompt tokens"):
        usage.gemini(raw(promptTokenCount=10, cachedContentTokenCount=20))


COUNT = st.integers(0, 10**6)


@settings(max_examples=60, deadline=None)
@given(COUNT, COUNT, COUNT, COUNT, COUNT)
def test_the_buckets_add_up_to_the_total_of_every_provider(
    fresh: int, read: int, written: int, said: int, reasoning: int
) -> None:
    output = said + reasoning
    openai = raw(
        prompt_tokens=fresh + read + written,
        completion_tokens=output,
        total_tokens=fresh + read + written + output,
        prompt_tokens_details={"cached_tokens": read, "cache_write_tokens": written},
        completion_tokens_details={"reasoning_tokens": reasoning},
    )
    anthropic = raw(
        input_tokens=fresh,
        cache_read_input_tokens=read,
        cache_creation_input_tokens=written,
        output_tokens=output,
        output_tokens_details={"thinking_tokens": reasoning},
    )
    gemini = raw(
        promptTokenCount=fresh + read,
        cachedContentTokenCount=read,
        candidatesTokenCount=said,
        thoughtsTokenCount=reasoning,
    )
    assert usage.openai(openai) == usage.anthropic(anthropic) == Usage(fresh, read, written, output, reasoning)
    assert usage.gemini(gemini) == Usage(fresh, read, 0, output, reasoning)
