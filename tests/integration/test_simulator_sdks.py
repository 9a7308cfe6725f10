"""The vendors' own SDKs call the simulated providers, and find there what they know from the real ones."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as gemini_errors
from google.genai import types as gemini_types

from worker.simulator import process

PROMPT = "What is the capital of France?"


@pytest.fixture(scope="module")
def running() -> Iterator[process.Simulator]:
    with process.running() as simulator:
        yield simulator


def as_openai(running: process.Simulator, provider: str) -> openai.OpenAI:
    return openai.OpenAI(api_key="simulated", base_url=f"{running.url}/{provider}", max_retries=0)


def as_anthropic(running: process.Simulator) -> anthropic.Anthropic:
    # This version of the SDK sends its key as a bearer alone; the simulator looks where the registry sends it.
    headers = {"x-api-key": "simulated"}
    return anthropic.Anthropic(
        api_key="simulated", base_url=f"{running.url}/anthropic", max_retries=0, default_headers=headers
    )


def as_gemini(running: process.Simulator) -> genai.Client:
    options = gemini_types.HttpOptions(base_url=f"{running.url}/gemini", api_version="")
    return genai.Client(api_key="simulated", http_options=options)


@pytest.mark.parametrize("provider", ["openai", "groq", "cerebras", "zai"])
def test_openais_sdk_is_answered(running: process.Simulator, provider: str) -> None:
    running.set_faults()
    with as_openai(running, provider) as client:
        said = client.chat.completions.create(model="m", messages=[{"role": "user", "content": PROMPT}])
    assert said.choices[0].message.content
    assert said.choices[0].finish_reason == "stop"
    assert said.usage is not None
    assert said.usage.total_tokens == said.usage.prompt_tokens + said.usage.completion_tokens


def test_anthropics_sdk_is_answered(running: process.Simulator) -> None:
    running.set_faults()
    with as_anthropic(running) as client:
        said = client.messages.create(model="m", max_tokens=500, messages=[{"role": "user", "content": PROMPT}])
    assert said.content[0].type == "text"
    assert said.stop_reason == "end_turn"
    assert said.usage.output_tokens > 0


def test_geminis_sdk_is_answered(running: process.Simulator) -> None:
    running.set_faults()
    with as_gemini(running) as client:
        said = client.models.generate_content(model="gemini-3.8-flash", contents=PROMPT)
    assert said.text
    assert said.usage_metadata is not None
    assert said.usage_metadata.prompt_token_count


@pytest.mark.parametrize(
    ("provider", "fault", "raised"),
    [
        ("openai", "rate_limited", openai.RateLimitError),
        ("openai", "auth", openai.AuthenticationError),
        ("openai", "server_error", openai.InternalServerError),
        ("groq", "rate_limited", openai.RateLimitError),
        ("cerebras", "context_length", openai.BadRequestError),
        ("zai", "out_of_credit", openai.RateLimitError),
    ],
)
def test_openais_sdk_is_refused_in_its_own_terms(
    running: process.Simulator, provider: str, fault: str, raised: type[openai.APIStatusError]
) -> None:
    running.set_faults(f"{provider}:{fault}")
    with as_openai(running, provider) as client, pytest.raises(raised) as caught:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": PROMPT}])
    assert caught.value.body


@pytest.mark.parametrize(
    ("fault", "raised", "kind"),
    [
        ("rate_limited", anthropic.RateLimitError, "rate_limit_error"),
        ("auth", anthropic.AuthenticationError, "authentication_error"),
        ("overloaded", anthropic.InternalServerError, "overloaded_error"),
    ],
)
def test_anthropics_sdk_is_refused_in_its_own_terms(
    running: process.Simulator, fault: str, raised: type[anthropic.APIStatusError], kind: str
) -> None:
    running.set_faults(f"anthropic:{fault}")
    with as_anthropic(running) as client, pytest.raises(raised) as caught:
        client.messages.create(model="m", max_tokens=5, messages=[{"role": "user", "content": PROMPT}])
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["error"]["type"] == kind


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [("rate_limited", 429, "RESOURCE_EXHAUSTED"), ("auth", 403, "PERMISSION_DENIED")],
)
def test_geminis_sdk_is_refused_in_its_own_terms(
    running: process.Simulator, fault: str, code: int, status: str
) -> None:
    running.set_faults(f"gemini:{fault}")
    with as_gemini(running) as client, pytest.raises(gemini_errors.ClientError) as caught:
        client.models.generate_content(model="gemini-3.8-flash", contents=PROMPT)
    assert (caught.value.code, caught.value.status) == (code, status)
