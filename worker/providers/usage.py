"""From what providers report to `Usage`: disjoint buckets, and an error for what cannot be.

Each function takes the JSON of the provider's usage object. By the vendors' documentation, OpenAI's prompt
includes the cached part and its completion the reasoning, Anthropic's input excludes the cache, and Gemini's
candidates exclude the thoughts.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from worker.providers.types import CallError, ErrorClass, Usage

#: No call uses as many tokens; a larger number is an error of the provider, or an attack on the ledger.
MAX_TOKENS = 10**9

T = TypeVar("T")


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _OpenAI(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class _Anthropic(msgspec.Struct):
    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None


class _Gemini(msgspec.Struct, rename="camel"):
    # A count that is zero is left out of the JSON.
    prompt_token_count: int = 0
    cached_content_token_count: int = 0
    candidates_token_count: int = 0
    thoughts_token_count: int = 0
    tool_use_prompt_token_count: int = 0


_openai = msgspec.json.Decoder(_OpenAI)
_anthropic = msgspec.json.Decoder(_Anthropic)
_gemini = msgspec.json.Decoder(_Gemini)


def openai(raw: bytes | msgspec.Raw) -> Usage:
    """Usage of a chat completion, of OpenAI or one that speaks like it.

    Raises:
        CallError: `MALFORMED`, for numbers that cannot be.
    """
    said = _decode(_openai, raw)
    prompt, completion, total = said.prompt_tokens, said.completion_tokens, said.total_tokens
    # Servers may leave out one of the three.
    if prompt is None and total is not None and completion is not None:
        prompt = total - completion
    if completion is None and total is not None and prompt is not None:
        completion = total - prompt
    if prompt is None or completion is None:
        raise _malformed("usage says neither prompt_tokens and completion_tokens nor their total")
    details, output_details = said.prompt_tokens_details, said.completion_tokens_details
    cached = (details.cached_tokens if details is not None else None) or 0
    written = (details.cache_write_tokens if details is not None else None) or 0
    reasoning = (output_details.reasoning_tokens if output_details is not None else None) or 0
    if reasoning and total == prompt + completion + reasoning:
        completion += reasoning  # some servers count reasoning beside the completion
    if cached + written > prompt:
        raise _malformed(f"usage says {cached} + {written} cached tokens of {prompt} prompt tokens")
    return _checked(prompt - cached - written, cached, written, completion, reasoning)


def anthropic(raw: bytes | msgspec.Raw) -> Usage:
    """Usage of an Anthropic message.

    Raises:
        CallError: `MALFORMED`, for numbers that cannot be.
    """
    said = _decode(_anthropic, raw)
    details = said.output_tokens_details
    return _checked(
        said.input_tokens,
        said.cache_read_input_tokens or 0,
        said.cache_creation_input_tokens or 0,
        said.output_tokens,
        (details.thinking_tokens if details is not None else None) or 0,
    )


def gemini(raw: bytes | msgspec.Raw) -> Usage:
    """Usage of a Gemini answer: thoughts are billed as output.

    Raises:
        CallError: `MALFORMED`, for numbers that cannot be.
    """
    said = _decode(_gemini, raw)
    prompt, cached = said.prompt_token_count, said.cached_content_token_count
    if cached > prompt:
        raise _malformed(f"usage says {cached} cached tokens of {prompt} prompt tokens")
    return _checked(
        prompt - cached + said.tool_use_prompt_token_count,
        cached,
        0,
        said.candidates_token_count + said.thoughts_token_count,
        said.thoughts_token_count,
    )


def _decode(decoder: msgspec.json.Decoder[T], raw: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _malformed(f"usage cannot be read: {str(error)[:200]}") from None


def _checked(fresh: int, cache_read: int, cache_write: int, output: int, reasoning: int) -> Usage:
    numbers = (fresh, cache_read, cache_write, output, reasoning)
    if min(numbers) < 0 or max(numbers) > MAX_TOKENS:
        names = ("fresh input", "cache read", "cache write", "output", "reasoning")
        shown = ", ".join(f"{name} {str(number)[:24]}" for name, number in zip(names, numbers, strict=True))
        raise _malformed(f"usage says impossible numbers of tokens: {shown}")
    if reasoning > output:
        raise _malformed(f"usage says {reasoning} reasoning tokens of {output} output tokens")
    return Usage(fresh, cache_read, cache_write, output, reasoning)


def _malformed(message: str) -> CallError:
    return CallError(ErrorClass.MALFORMED, message)
