"""What each dialect writes as a chat completion is one to openai's own types, and is read from real answers."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pydantic
import pytest
from google.genai import types as gemini_types
from openai.types import chat as openai_chat

from worker.providers import dialects
from worker.routing import registry

CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
OPENAI_ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1763892000,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
ANTHROPIC_ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


def openai_answer(message: dict[str, Any], finish_reason: str, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return {**OPENAI_ANSWER, "choices": [choice], **more}


LOGPROBS = {"content": [{"token": "x", "logprob": -0.1, "bytes": [120], "top_logprobs": []}], "refusal": None}
GROQ_USAGE = {
    "queue_time": 0.02,
    "prompt_tokens": 1,
    "prompt_time": 0.01,
    "completion_tokens": 1,
    "total_tokens": 2,
    "prompt_tokens_details": {"cached_tokens": 0},
}
ANSWERS: list[tuple[registry.Dialect, Any, Any]] = [
    ("openai_chat", OPENAI_ANSWER, openai_chat.ChatCompletion),
    (
        "openai_chat",
        openai_answer({"role": "assistant", "content": None, "tool_calls": [CALL]}, "tool_calls"),
        openai_chat.ChatCompletion,
    ),
    ("anthropic_messages", ANTHROPIC_ANSWER, anthropic.types.Message),
    (
        "anthropic_messages",
        {
            **ANTHROPIC_ANSWER,
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "Let me look."},
                {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}},
            ],
            "stop_reason": "tool_use",
        },
        anthropic.types.Message,
    ),
    (
        "gemini_generate_content",
        {
            "candidates": [
                {
                    "content": {
                        "role": "model",
                        "parts": [
                            {"text": "hm", "thought": True},
                            {"functionCall": {"name": "weather", "args": {"city": "Oslo"}}},
                        ],
                    },
                    "finishReason": "STOP",
                }
            ],
            "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5},
            "responseId": "r",
            "modelVersion": "gemini",
        },
        gemini_types.GenerateContentResponse,
    ),
    # Servers that speak OpenAI's dialect with an accent; None: no vendor's type says what they send.
    (
        "openai_chat",
        openai_answer(
            {
                "role": "assistant",
                "content": "x",
                "annotations": [{"type": "document_citation"}],
                "reasoning": "hm",
            },
            "stop",
            service_tier="on_demand",
            x_groq={"id": "req_1"},
            usage=GROQ_USAGE,
        ),
        None,
    ),
    (
        "openai_chat",
        openai_answer({"content": "", "reasoning_content": "hm"}, "model_length", created=1763892000.7, id=7),
        None,
    ),
    (
        "openai_chat",
        openai_answer(
            {"content": "", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Oslo"}}}]},
            "stop",
            system_fingerprint=5,
        ),
        None,
    ),
    (
        "openai_chat",
        openai_answer({"content": [{"type": "text", "text": "x"}]}, "stop", model=None, object="chat"),
        None,
    ),
]


@pytest.mark.parametrize(("dialect", "answer", "vendor"), ANSWERS)
def test_the_completion_of_every_dialect_is_one_to_openais_sdk(
    dialect: registry.Dialect, answer: dict[str, Any], vendor: type[pydantic.BaseModel] | None
) -> None:
    if vendor is not None:
        vendor.model_validate_json(json.dumps(answer))  # the example is one to the vendor's own SDK
    answer = answer if "usageMetadata" in answer or "usage" in answer else {**answer, "usageMetadata": {}}
    completion = dialects.BY_NAME[dialect].chat_completion(json.dumps(answer), model="m", created=1763892000)
    typed = openai_chat.ChatCompletion.model_validate_json(json.dumps(completion), strict=True)
    assert typed.usage is not None
    assert typed.usage.total_tokens == typed.usage.prompt_tokens + typed.usage.completion_tokens
    (choice,) = typed.choices
    for call in choice.message.tool_calls or []:
        assert call.type == "function"
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Oslo"})
    assert (choice.finish_reason == "tool_calls") == bool(choice.message.tool_calls)


def test_logprobs_are_kept_where_they_are_openais() -> None:
    def written(logprobs: Any) -> Any:
        answer = openai_answer({"content": "x"}, "stop")
        answer["choices"][0]["logprobs"] = logprobs
        return dialects.BY_NAME["openai_chat"].chat_completion(json.dumps(answer), model="m", created=1)

    assert written(LOGPROBS)["choices"][0]["logprobs"] == LOGPROBS
    assert written({"tokens": ["x"]})["choices"][0]["logprobs"] is None
    openai_chat.ChatCompletion.model_validate_json(json.dumps(written(LOGPROBS)), strict=True)
