"""The simulated providers speak as the real ones do, and refuse what the real ones refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import simulator_client as client

from worker.simulator import process

#: Enough prompts that some have cached input and some make a model think.
PROMPTS = [f"Question number {n}: why is it so?" for n in range(40)]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with process.running() as simulator:
        yield simulator.url


@pytest.mark.parametrize("provider", client.OPENAI_CHAT)
def test_a_chat_completion_has_the_form_of_its_provider(url: str, provider: str) -> None:
    answers = [client.ask(url, provider, prompt) for prompt in PROMPTS]
    for answer in answers:
        body = answer.json
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert body["object"] == "chat.completion" and body["model"] == client.MODELS[provider]
        assert body["choices"][0]["finish_reason"] == "stop"
        assert body["choices"][0]["message"]["role"] == "assistant"
    bodies = [answer.json for answer in answers]
    messages = [body["choices"][0]["message"] for body in bodies]
    assert any(client.buckets(provider, answer)[1] for answer in answers), "none has cached input"
    assert any(client.buckets(provider, answer)[4] for answer in answers), "none has reasoning"
    assert any("reasoning_content" in message for message in messages) == (provider == "zai")
    assert all("x_groq" in body and "queue_time" in body["usage"] for body in bodies) == (provider == "groq")
    assert all("time_info" in body for body in bodies) == (provider == "cerebras")


def test_a_message_of_anthropic_counts_its_cache_apart(url: str) -> None:
    answers = [client.ask(url, "anthropic", prompt) for prompt in PROMPTS]
    for answer in answers:
        body = answer.json
        assert answer.status == 200 and "request-id" in answer.headers
        assert (body["type"], body["role"], body["stop_reason"]) == ("message", "assistant", "end_turn")
        assert (
            body["usage"]["cache_creation"]["ephemeral_5m_input_tokens"]
            == (body["usage"]["cache_creation_input_tokens"])
        )
    found = [client.buckets("anthropic", answer) for answer in answers]
    assert any(read for _, read, _, _, _ in found) and any(written for _, _, written, _, _ in found)


def test_the_version_in_anthropic_s_path_may_be_left_to_the_base_url(url: str) -> None:
    asked = client.request("anthropic", "hello")
    long, short = (
        client.post(url, "/anthropic/v1/messages", asked),
        client.post(url, "/anthropic/messages", asked),
    )
    assert client.text("anthropic", long) == client.text("anthropic", short)


def test_a_response_of_gemini_counts_its_thoughts_apart(url: str) -> None:
    answers = [client.ask(url, "gemini", prompt) for prompt in PROMPTS]
    for answer in answers:
        assert answer.status == 200
        assert answer.json["candidates"][0]["finishReason"] == "STOP"
        assert answer.json["modelVersion"] == client.MODELS["gemini"]
    found = [client.buckets("gemini", answer) for answer in answers]
    assert any(read for _, read, _, _, _ in found) and any(thought for *_, thought in found)


def test_a_server_of_another_name_speaks_plain_chat_completions_and_needs_no_key(url: str) -> None:
    answer = client.post(url, "/my-vllm/chat/completions", client.request("my-vllm", "hello"), {})
    assert answer.status == 200 and answer.json["model"] == "llama"


def test_the_answer_depends_on_the_prompt_only(url: str) -> None:
    texts = {client.text(p, client.ask(url, p, "the same")) for p in client.PROVIDERS for _ in range(2)}
    assert len(texts) == 1
    assert texts != {client.text("groq", client.ask(url, "groq", "another"))}


@pytest.mark.parametrize(
    ("provider", "finish"),
    [
        ("openai", "length"),
        ("groq", "length"),
        ("cerebras", "length"),
        ("zai", "length"),
        ("anthropic", "max_tokens"),
        ("gemini", "MAX_TOKENS"),
    ],
)
def test_an_answer_over_the_limit_is_cut(url: str, provider: str, finish: str) -> None:
    answer = client.ask(url, provider, max_tokens=5)
    body = answer.json
    if provider == "anthropic":
        assert body["stop_reason"] == finish
    elif provider == "gemini":
        assert body["candidates"][0]["finishReason"] == finish
    else:
        assert body["choices"][0]["finish_reason"] == finish
    assert client.buckets(provider, answer)[3] == 5


def test_a_conversation_of_several_turns_and_parts_is_understood_alike(url: str) -> None:
    chat = {
        "model": "gpt-4o",
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
            {"role": "assistant", "content": "Hi"},
            {"role": "user", "content": "Bye"},
        ],
    }
    messages = {
        "model": "claude",
        "max_tokens": 4096,
        "system": "Be short.",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
            {"role": "assistant", "content": "Hi"},
            {"role": "user", "content": "Bye"},
        ],
    }
    contents = {
        "systemInstruction": {"parts": [{"text": "Be short."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Hello"}]},
            {"role": "model", "parts": [{"text": "Hi"}]},
            {"role": "user", "parts": [{"text": "Bye"}]},
        ],
    }
    said = {
        client.text("openai", client.post(url, client.path("openai"), chat)),
        client.text("anthropic", client.post(url, client.path("anthropic"), messages)),
        client.text("gemini", client.post(url, client.path("gemini"), contents)),
    }
    assert len(said) == 1


@pytest.mark.parametrize(
    ("provider", "without", "status", "error"),
    [
        ("openai", "authorization", 401, {"type": "invalid_request_error"}),
        ("groq", "authorization", 401, {"code": "invalid_api_key"}),
        ("zai", "authorization", 401, {"code": "1001"}),
        ("anthropic", "x-api-key", 401, {"type": "authentication_error"}),
        ("anthropic", "anthropic-version", 400, {"type": "invalid_request_error"}),
        ("gemini", "x-goog-api-key", 403, {"code": 403, "status": "PERMISSION_DENIED"}),
    ],
)
def test_a_request_without_its_header_is_refused_in_the_provider_s_words(
    url: str, provider: str, without: str, status: int, error: dict[str, object]
) -> None:
    headers = {name: value for name, value in client.KEYS.items() if name != without}
    answer = client.post(url, client.path(provider), client.request(provider, "hi"), headers)
    assert answer.status == status
    assert error.items() <= answer.json["error"].items()


def test_cerebras_refuses_without_a_wrapper(url: str) -> None:
    answer = client.post(url, client.path("cerebras"), client.request("cerebras", "hi"), {})
    assert (answer.status, answer.json["code"]) == (401, "wrong_api_key")


HI = [{"role": "user", "content": "hi"}]
PARTS = [{"role": "user", "parts": [{"text": "hi"}]}]


@pytest.mark.parametrize(
    ("provider", "body"),
    [
        ("openai", b"{not json"),
        ("openai", {"model": "m"}),
        ("openai", {"model": "m", "messages": []}),
        ("openai", {"model": "m", "messages": "hi"}),
        ("openai", {"messages": HI}),
        ("openai", {"model": "m", "messages": [{"role": "wizard", "content": "hi"}]}),
        ("openai", {"model": "m", "messages": [{"role": "user", "content": None}]}),
        ("openai", {"model": "m", "messages": HI, "max_completion_tokens": "5"}),
        ("openai", {"model": "m", "messages": HI, "temperature": 3}),
        ("openai", {"model": "m", "messages": HI, "stream": True}),
        ("openai", {"model": "gpt-5", "messages": HI, "max_tokens": 5}),
        ("groq", {"model": "m", "messages": HI, "max_tokens": 0}),
        ("zai", {"model": "m", "messages": [{"role": "user", "content": 5}]}),
        ("cerebras", {"model": "", "messages": HI}),
        ("anthropic", {"model": "m", "messages": HI}),
        ("anthropic", {"model": "m", "max_tokens": 5, "messages": []}),
        ("anthropic", {"model": "m", "max_tokens": 5, "messages": [{"role": "system", "content": "hi"}]}),
        ("anthropic", {"model": "m", "max_tokens": 5, "messages": [{"role": "assistant", "content": "hi"}]}),
        ("anthropic", {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": ""}]}),
        ("anthropic", {"model": "m", "max_tokens": 5, "messages": HI, "seed": 1}),
        ("gemini", {"contents": []}),
        ("gemini", {"contents": [{"role": "assistant", "parts": [{"text": "hi"}]}]}),
        ("gemini", {"contents": PARTS, "generationConfig": {"max_tokens": 5}}),
        ("gemini", {"contents": PARTS, "messages": HI}),
    ],
)
def test_a_body_that_is_not_the_dialect_s_is_refused(url: str, provider: str, body: Any) -> None:
    answer = client.post(url, client.path(provider), body)
    assert answer.status == 400
    error = answer.json if provider == "cerebras" else answer.json["error"]
    assert error["message"]
    kinds = {"anthropic": "type", "gemini": "status", "zai": "code"}
    kind = error[kinds.get(provider, "type")]
    assert kind == {"gemini": "INVALID_ARGUMENT", "zai": "1210"}.get(provider, "invalid_request_error")


def test_a_path_that_no_provider_has_is_not_found(url: str) -> None:
    for path in ("/openai/completions", "/openai", "/", "/gemini/models/:generateContent"):
        answer = client.post(url, path, {})
        assert (answer.status, answer.json["error"]["code"]) == (404, "unknown_url")


def test_a_body_beyond_all_bounds_is_refused_before_it_is_read(url: str) -> None:
    headers = {**client.KEYS, "content-length": str(33 * 1024 * 1024)}
    answer = client.post(url, client.path("anthropic"), b"", headers)
    assert (answer.status, answer.json["error"]["type"]) == (413, "request_too_large")


def test_json_is_answered_where_json_is_asked_for(url: str) -> None:
    chat = {**client.request("openai", "hi"), "response_format": {"type": "json_object"}}
    answer = client.post(url, client.path("openai"), chat)
    assert set(json.loads(client.text("openai", answer))) == {"answer"}
    contents = {"contents": PARTS, "generationConfig": {"responseMimeType": "application/json"}}
    answer = client.post(url, client.path("gemini"), contents)
    assert set(json.loads(client.text("gemini", answer))) == {"answer"}
