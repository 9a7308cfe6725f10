"""Reading an answer with types, and writing it as the OpenAI chat completion that users get."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from worker.providers.types import CallError, ErrorClass, FinishReason, Usage

T = TypeVar("T")


def decode(decoder: msgspec.json.Decoder[T], raw: bytes | str | msgspec.Raw, usage: Usage | None = None) -> T:
    """A typed part of an answer.

    Raises:
        CallError: `MALFORMED`, with the usage where it is known.
    """
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        # What msgspec says names the place and the types, not the value.
        message = f"the answer cannot be read: {str(error)[:200]}"
        raise CallError(ErrorClass.MALFORMED, message, usage=usage) from None


def optional(
    decoder: msgspec.json.Decoder[T], raw: msgspec.Raw | msgspec.UnsetType, usage: Usage | None
) -> T | None:
    """A typed part that an answer may leave out.

    Raises:
        CallError: `MALFORMED`.
    """
    return decode(decoder, raw, usage) if raw is not msgspec.UNSET else None


def answer_text(body: bytes) -> str:
    """An answer's body as text."""
    return body.decode("utf-8", "replace")


def plain(text: str) -> str:
    """A text as Postgres can hold it: without the one character that it cannot."""
    return text.replace("\0", "\ufffd")


def completion(
    *,
    id: str,
    model: str,
    created: int,
    text: str,
    calls: list[dict[str, Any]],
    finish_reason: FinishReason,
    usage: Usage,
) -> dict[str, Any]:
    """A `chat.completion` object of one choice."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text or None if calls else text,
        "refusal": None,
    }
    if calls:
        message["tool_calls"] = calls
    return {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}],
        "usage": openai_usage(usage),
    }


def function_call(id: str, name: str, arguments: Any) -> dict[str, Any]:
    """A tool call as OpenAI writes it: its arguments as text."""
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    return {"id": id, "type": "function", "function": {"name": name, "arguments": text}}


def openai_usage(usage: Usage) -> dict[str, Any]:
    """Usage in OpenAI's terms: the prompt includes what was cached."""
    return {
        "prompt_tokens": usage.all_input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.all_input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
