"""A plain HTTP client for the tests of the simulator: the standard library's, which interprets nothing."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from typing import Any, NamedTuple

#: Longer than any answer of these tests takes, shorter than anybody's patience.
TIMEOUT_S = 10.0

#: A model that each provider really has, and that thinks where the provider has any that does.
MODELS = {
    "openai": "gpt-5-mini",
    "groq": "openai/gpt-oss-120b",
    "cerebras": "gpt-oss-120b",
    "zai": "glm-4.6",
    "anthropic": "claude-sonnet-4-5",
    "gemini": "gemini-2.5-flash",
}
OPENAI_CHAT = ["openai", "groq", "cerebras", "zai"]
PROVIDERS = list(MODELS)

KEYS = {
    "authorization": "Bearer simulated",
    "x-api-key": "simulated",
    "x-goog-api-key": "simulated",
    "anthropic-version": "2023-06-01",
}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def path(provider: str) -> str:
    if provider == "anthropic":
        return "/anthropic/v1/messages"
    if provider == "gemini":
        return f"/gemini/models/{MODELS['gemini']}:generateContent"
    return f"/{provider}/chat/completions"


def request(provider: str, prompt: str, max_tokens: int | None = None) -> dict[str, Any]:
    """The prompt as a request body of the provider's dialect."""
    if provider == "gemini":
        body: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": prompt}]}]}
        return body | ({"generationConfig": {"maxOutputTokens": max_tokens}} if max_tokens else {})
    body = {"model": MODELS.get(provider, "llama"), "messages": [{"role": "user", "content": prompt}]}
    if provider == "anthropic":
        return body | {"max_tokens": max_tokens or 4096}
    name = "max_tokens" if provider == "zai" else "max_completion_tokens"
    return body | ({name: max_tokens} if max_tokens else {})


def ask(
    url: str, provider: str, prompt: str = "Where does the river end?", max_tokens: int | None = None
) -> Answer:
    return post(url, path(provider), request(provider, prompt, max_tokens))


def post(
    url: str, to: str, body: object, headers: dict[str, str] | None = None, *, timeout_s: float = TIMEOUT_S
) -> Answer:
    """POST a body, as it is or as JSON.

    Raises:
        OSError, http.client.HTTPException: the connection broke.
    """
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=timeout_s)
    try:
        connection.request("POST", to, data, KEYS if headers is None else headers)
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def text(provider: str, answer: Answer) -> str:
    """What the model said."""
    body = answer.json
    if provider == "anthropic":
        return "".join(block["text"] for block in body["content"])
    if provider == "gemini":
        return "".join(part["text"] for part in body["candidates"][0]["content"]["parts"])
    return str(body["choices"][0]["message"]["content"])


def buckets(provider: str, answer: Answer) -> tuple[int, int, int, int, int]:
    """Fresh input, cache read, cache write, output, reasoning: as each provider documents it."""
    body = answer.json
    if provider == "anthropic":
        usage = body["usage"]
        written, read = usage["cache_creation_input_tokens"], usage["cache_read_input_tokens"]
        return usage["input_tokens"], read, written, usage["output_tokens"], 0
    if provider == "gemini":
        usage = body["usageMetadata"]
        read, thoughts = usage.get("cachedContentTokenCount", 0), usage.get("thoughtsTokenCount", 0)
        output = usage.get("candidatesTokenCount", 0) + thoughts
        assert usage["totalTokenCount"] == usage["promptTokenCount"] + output
        return usage["promptTokenCount"] - read, read, 0, output, thoughts
    usage = body["usage"]
    read = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
    reasoning = usage.get("completion_tokens_details", {}).get("reasoning_tokens", 0)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    return usage["prompt_tokens"] - read, read, 0, usage["completion_tokens"], reasoning


def error(answer: Answer) -> dict[str, Any]:
    """The error of an answer, whatever is wrapped around it."""
    body: dict[str, Any] = answer.json
    found: dict[str, Any] = body.get("error", body)
    return found
