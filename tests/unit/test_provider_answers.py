"""Answers of each dialect, read into one form and written as OpenAI chat completions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from worker.providers import dialects
from worker.providers.types import CallError, Completion, ErrorClass, Reply, Usage
from worker.routing import registry


def read(dialect: registry.Dialect, answer: Any, status: int = 200) -> Completion:
    return dialects.BY_NAME[dialect].read(Reply(status, {}, json.dumps(answer).encode()))


def failure(dialect: registry.Dialect, answer: Any) -> CallError:
    with pytest.raises(CallError) as caught:
        read(dialect, answer)
    return caught.value


def openai(message: Any, finish_reason: str | None = "stop", **more: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1711652795,
        "model": "gpt-x-2026-01-01",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 22, "completion_tokens": 2, "total_tokens": 24},
        **more,
    }


def anthropic(content: Any, stop_reason: str = "end_turn", **more: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 12, "cache_read_input_tokens": 10, "output_tokens": 2},
        **more,
    }


def gemini(parts: Any, finish_reason: str = "STOP", **more: Any) -> dict[str, Any]:
    return {
        "candidates": [
            {"content": {"parts": parts, "role": "model"}, "finishReason": finish_reason, "index": 0},
        ],
        "usageMetadata": {
            "promptTokenCount": 22,
            "cachedContentTokenCount": 10,
            "candidatesTokenCount": 1,
            "thoughtsTokenCount": 1,
            "totalTokenCount": 24,
        },
        "modelVersion": "gemini-x",
        "responseId": "r1",
        **more,
    }


OPENAI, CACHED, GEMINI = Usage(22, 0, 0, 2, 0), Usage(12, 10, 0, 2, 0), Usage(12, 10, 0, 2, 1)
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "s"}


@pytest.mark.parametrize(
    ("dialect", "answer", "text", "finish_reason", "used"),
    [
        ("openai_chat", openai({"role": "assistant", "content": "Hello."}), "Hello.", "stop", OPENAI),
        ("openai_chat", openai({"content": "Hel"}, "length"), "Hel", "length", OPENAI),
        (
            "openai_chat",
            openai({"content": None, "tool_calls": [CALL]}, "tool_calls"),
            "",
            "tool_calls",
            OPENAI,
        ),
        # some servers say stop all the same
        ("openai_chat", openai({"content": "", "tool_calls": [CALL]}), "", "tool_calls", OPENAI),
        ("openai_chat", openai({"content": "x"}, None), "x", "stop", OPENAI),
        # Z.ai: thinking ate the whole budget
        ("openai_chat", openai({"content": "", "reasoning_content": "hm"}, "length"), "", "length", OPENAI),
        # Mistral: the answer in parts
        (
            "openai_chat",
            openai({"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "x"}]}),
            "x",
            "stop",
            OPENAI,
        ),
        ("anthropic_messages", anthropic([{"type": "text", "text": "Hello."}]), "Hello.", "stop", CACHED),
        ("anthropic_messages", anthropic([THOUGHT], "max_tokens"), "", "length", CACHED),
        ("anthropic_messages", anthropic([], "model_context_window_exceeded"), "", "length", CACHED),
        (
            "anthropic_messages",
            anthropic([{"type": "text", "text": "a"}, THOUGHT, {"type": "text", "text": "b"}], "stop_sequence"),
            "ab",
            "stop",
            CACHED,
        ),
        (
            "anthropic_messages",
            anthropic(
                [{"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}}], "tool_use"
            ),
            "",
            "tool_calls",
            CACHED,
        ),
        ("gemini_generate_content", gemini([{"text": "Hel"}, {"text": "lo."}]), "Hello.", "stop", GEMINI),
        (
            "gemini_generate_content",
            gemini([{"text": "hm", "thought": True}, {"text": "x", "thoughtSignature": "s"}]),
            "x",
            "stop",
            GEMINI,
        ),
        (
            "gemini_generate_content",
            gemini([{"functionCall": {"name": "weather", "args": {"city": "Oslo"}}}]),
            "",
            "tool_calls",
            GEMINI,
        ),
        # thinking ate the whole budget: no content at all
        (
            "gemini_generate_content",
            gemini([], candidates=[{"finishReason": "MAX_TOKENS", "index": 0}]),
            "",
            "length",
            GEMINI,
        ),
    ],
)
def test_an_answer_is_read(
    dialect: registry.Dialect, answer: dict[str, Any], text: str, finish_reason: str, used: Usage
) -> None:
    done = read(dialect, answer)
    assert (done.text, done.finish_reason, done.usage) == (text, finish_reason, used)
    assert json.loads(done.body) == answer


@pytest.mark.parametrize(
    ("dialect", "answer", "error_class", "used"),
    [
        # refused: the tokens are billed all the same
        ("openai_chat", openai({"content": None, "refusal": "I can't."}), ErrorClass.CONTENT, OPENAI),
        ("openai_chat", openai({"content": ""}, "content_filter"), ErrorClass.CONTENT, OPENAI),
        ("openai_chat", openai({"content": ""}, "sensitive"), ErrorClass.CONTENT, OPENAI),
        ("anthropic_messages", anthropic([], "refusal"), ErrorClass.CONTENT, CACHED),
        ("gemini_generate_content", gemini([], "SAFETY"), ErrorClass.CONTENT, GEMINI),
        ("gemini_generate_content", gemini([], "RECITATION"), ErrorClass.CONTENT, GEMINI),
        ("gemini_generate_content", gemini([], "PROHIBITED_CONTENT"), ErrorClass.CONTENT, GEMINI),
        (
            "gemini_generate_content",
            {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 22}},
            ErrorClass.CONTENT,
            Usage(22),
        ),
        # the server broke within the answer
        ("openai_chat", openai({"content": "x"}, "network_error"), ErrorClass.TRANSIENT, OPENAI),
        ("gemini_generate_content", gemini([], "MALFORMED_FUNCTION_CALL"), ErrorClass.MALFORMED, GEMINI),
        # usage can be read and the rest cannot
        ("openai_chat", openai({"content": 5}), ErrorClass.MALFORMED, OPENAI),
        ("openai_chat", openai(None), ErrorClass.MALFORMED, OPENAI),
        ("openai_chat", openai({}, choices=[]), ErrorClass.MALFORMED, OPENAI),
        ("openai_chat", openai({}, choices="x"), ErrorClass.MALFORMED, OPENAI),
        ("anthropic_messages", anthropic("text"), ErrorClass.MALFORMED, CACHED),
        ("anthropic_messages", anthropic([], 5), ErrorClass.MALFORMED, CACHED),  # type: ignore[arg-type]  # as sent
        ("gemini_generate_content", gemini([], candidates=[]), ErrorClass.MALFORMED, GEMINI),
        ("gemini_generate_content", gemini("x"), ErrorClass.MALFORMED, GEMINI),
        # no usage, or an impossible one: nothing to book
        ("openai_chat", openai({"content": "x"}, usage=None), ErrorClass.MALFORMED, None),
        ("openai_chat", openai({"content": "x"}, usage={"prompt_tokens": -1}), ErrorClass.MALFORMED, None),
        ("openai_chat", {"choices": [{"message": {"content": "x"}}]}, ErrorClass.MALFORMED, None),
        ("anthropic_messages", {"content": []}, ErrorClass.MALFORMED, None),
        ("gemini_generate_content", {"candidates": []}, ErrorClass.MALFORMED, None),
        # an error with a good status, and the tokens it says
        (
            "openai_chat",
            {"error": {"message": "x", "code": 502}, "usage": {"prompt_tokens": 22, "completion_tokens": 2}},
            ErrorClass.TRANSIENT,
            OPENAI,
        ),
        (
            "anthropic_messages",
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            ErrorClass.OVERLOADED,
            None,
        ),
    ],
)
def test_what_is_no_answer_is_an_error_that_carries_the_usage(
    dialect: registry.Dialect, answer: dict[str, Any], error_class: ErrorClass, used: Usage | None
) -> None:
    error = failure(dialect, answer)
    assert (error.error_class, error.usage) == (error_class, used)


@pytest.mark.parametrize(
    ("dialect", "answer"),
    [
        ("openai_chat", openai({"content": "a\0b"})),
        ("anthropic_messages", anthropic([{"type": "text", "text": "a\0b"}])),
        ("gemini_generate_content", gemini([{"text": "a\0b"}])),
    ],
)
def test_a_text_comes_without_the_character_that_postgres_cannot_hold(
    dialect: registry.Dialect, answer: Any
) -> None:
    assert read(dialect, answer).text == "a\ufffdb"


def test_a_refusal_says_why() -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "It asks for an exploit."}
    assert failure("anthropic_messages", anthropic([], "refusal", stop_details=details)).message == (
        "It asks for an exploit."
    )
    assert failure("openai_chat", openai({"refusal": "I can't help."})).message == "I can't help."


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"[" * 100_000, b'{"choices":"\xff"}', b"<html>"])
@pytest.mark.parametrize("dialect", list(dialects.BY_NAME))
def test_what_cannot_be_read_is_malformed(dialect: registry.Dialect, body: bytes) -> None:
    with pytest.raises(CallError) as caught:
        dialects.BY_NAME[dialect].read(Reply(200, {}, body))
    assert caught.value.error_class is ErrorClass.MALFORMED


def completion(dialect: registry.Dialect, answer: Any) -> dict[str, Any]:
    return dialects.BY_NAME[dialect].chat_completion(json.dumps(answer), model="asked", created=1_700_000_000)


def test_openais_own_body_is_the_completion() -> None:
    answer = openai({"role": "assistant", "content": "Hello.", "refusal": None}, system_fingerprint="fp")
    assert completion("openai_chat", answer) == {
        **answer,
        "usage": {
            "prompt_tokens": 22,
            "completion_tokens": 2,
            "total_tokens": 24,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


def test_a_thin_server_gets_the_fields_that_readers_expect() -> None:
    thin = {
        "choices": [{"message": {"content": "x"}, "finish_reason": "model_length"}],
        "usage": {"prompt_tokens": 1, "total_tokens": 3},
    }
    done = completion("openai_chat", thin)
    assert (done["object"], done["model"], done["created"]) == ("chat.completion", "asked", 1_700_000_000)
    assert done["id"]
    assert done["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "x", "refusal": None},
            "logprobs": None,
            "finish_reason": "length",
        }
    ]
    assert done["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize(
    ("dialect", "answer", "id", "model", "reasoning"),
    [
        ("anthropic_messages", anthropic([{"type": "text", "text": "Hello."}]), "msg_1", "claude-x", 0),
        ("gemini_generate_content", gemini([{"text": "Hello."}]), "r1", "gemini-x", 1),
    ],
)
def test_other_dialects_are_written_as_openais(
    dialect: registry.Dialect, answer: Any, id: str, model: str, reasoning: int
) -> None:
    assert completion(dialect, answer) == {
        "id": id,
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello.", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 22,
            "completion_tokens": 2,
            "total_tokens": 24,
            "prompt_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        },
    }


@pytest.mark.parametrize(
    ("dialect", "answer", "id"),
    [
        (
            "anthropic_messages",
            anthropic(
                [{"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}}], "tool_use"
            ),
            "c1",
        ),
        (
            "gemini_generate_content",
            gemini([{"functionCall": {"name": "weather", "args": {"city": "Oslo"}}}]),
            "call_0",
        ),
    ],
)
def test_tool_calls_are_written_as_openais(dialect: registry.Dialect, answer: Any, id: str) -> None:
    choice = completion(dialect, answer)["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [{**CALL, "id": id}]
