"""Requests held against the vendors' own SDKs: they send what we build, and their types know every field."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import openai
import pydantic
import pytest
from anthropic.types import message_create_params
from google import genai
from google.genai import types as gemini_types
from openai.types.chat import completion_create_params

from worker.providers import dialects
from worker.routing import registry

CAPABLE = registry.Model(
    context_window=128_000,
    capabilities=frozenset(
        ("tools", "images", "json_object", "json_schema", "seed", "stop", "reasoning_effort")
    ),
)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Look.", "parameters": SCHEMA}}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Where is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
            {"type": "image_url", "image_url": {"url": "https://example.org/a.jpg"}},
        ],
    },
    {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": '{"degrees":3}'},
]
AS_SCHEMA = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}
#: What every dialect has words for.
COMMON: dict[str, Any] = {
    "messages": MESSAGES,
    "tools": [WEATHER],
    "max_completion_tokens": 50,
    "stop": ["END", "STOP"],
    "reasoning_effort": "low",
    "response_format": AS_SCHEMA,
}
#: Anthropic's SDK has them no more.
SAMPLING = {"temperature": 0.5, "top_p": 0.9}
CHOICES: list[Any] = ["auto", "required", "none", {"type": "function", "function": {"name": "weather"}}]


class Asked(threading.Event):
    """What a client of the loopback server sent."""

    url = ""
    path = ""
    body: Any = None


@contextmanager
def listening(answer: dict[str, Any]) -> Iterator[Asked]:
    """A server that keeps a request and answers it."""
    asked = Asked()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.path = self.path
            asked.body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        asked.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


def built(dialect: registry.Dialect, request: dict[str, Any], model: str = "m") -> dict[str, Any]:
    body: dict[str, Any] = json.loads(dialects.BY_NAME[dialect].build(json.dumps(request), model, CAPABLE))
    return body


def is_of(kind: Any, body: dict[str, Any]) -> None:
    """Whether a body is of a vendor's typed dict: every field known, every value of its type.

    Pydantic reads an `Iterable` only as far as it is asked to, and leaves out fields it does not know; so what
    it has read is gone through and compared.
    """
    assert listed(pydantic.TypeAdapter(kind).validate_python(body)) == body


def listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: listed(each) for key, each in value.items()}
    return (
        [listed(each) for each in value]
        if isinstance(value, Iterable) and not isinstance(value, str)
        else value
    )


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
GEMINI_ANSWER = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "hi"}]}, "finishReason": "STOP"}]
}


@pytest.mark.parametrize("choice", CHOICES)
def test_openais_sdk_sends_what_we_build(choice: Any) -> None:
    body = built(
        "openai_chat",
        {
            **COMMON,
            **SAMPLING,
            "tool_choice": choice,
            "seed": 7,
            "parallel_tool_calls": False,
            "user": "u",
            "logprobs": True,
        },
    )
    is_of(completion_create_params.CompletionCreateParamsNonStreaming, body)
    with listening(OPENAI_ANSWER) as asked, openai.OpenAI(api_key="k", base_url=asked.url) as client:
        client.chat.completions.create(**body)
    assert asked.path == "/chat/completions"
    assert asked.body == body


@pytest.mark.parametrize("choice", CHOICES)
def test_anthropics_sdk_sends_what_we_build(choice: Any) -> None:
    body = built("anthropic_messages", {**COMMON, "tool_choice": choice, "user": "u"})
    is_of(message_create_params.MessageCreateParamsNonStreaming, body)
    with listening(ANTHROPIC_ANSWER) as asked, anthropic.Anthropic(api_key="k", base_url=asked.url) as client:
        client.messages.create(**body)
    assert asked.path == "/v1/messages"
    assert asked.body == body


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("model", ["gemini-3.8-flash", "gemini-2.5-flash"])
def test_geminis_sdk_sends_what_we_build(model: str, choice: Any) -> None:
    body = built("gemini_generate_content", {**COMMON, **SAMPLING, "tool_choice": choice, "seed": 7}, model)
    config = {
        **body["generationConfig"],
        **{k: v for k, v in body.items() if k not in ("contents", "generationConfig")},
    }
    with listening(GEMINI_ANSWER) as asked:
        options = gemini_types.HttpOptions(base_url=asked.url, api_version="v1beta")
        with genai.Client(api_key="k", http_options=options) as client:
            client.models.generate_content(
                model=model,
                # Google's models forbid fields that they do not know.
                contents=[gemini_types.Content.model_validate(content) for content in body["contents"]],
                config=gemini_types.GenerateContentConfig.model_validate(config),
            )
    assert asked.path == f"/v1beta/models/{model}:generateContent"
    assert camel(asked.body) == body


def camel(value: Any) -> Any:
    """With field names as in Google's documentation; the SDK writes some of them with underscores."""
    if isinstance(value, list):
        return [camel(each) for each in value]
    if isinstance(value, dict):
        return {
            re.sub(r"_(\w)", lambda found: found[1].upper(), key): camel(each) for key, each in value.items()
        }
    return value
