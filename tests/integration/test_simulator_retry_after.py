"""A simulated 429 tells when to come again, in each way that a provider has."""

from __future__ import annotations

import datetime
import email.utils
from collections.abc import Iterator
from typing import Any

import pytest
import simulator_client as client

from worker.simulator import process


@pytest.fixture(scope="module")
def running() -> Iterator[process.Simulator]:
    with process.running() as simulator:
        yield simulator


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        ("seconds", {"retry-after": "6"}),
        ("float_seconds", {"retry-after": "5.289"}),
        ("retry_after_ms", {"retry-after-ms": "5289"}),
        ("message", {}),
        ("none", {}),
    ],
)
@pytest.mark.parametrize("provider", client.PROVIDERS)
def test_a_429_says_when_to_come_again_in_the_form_that_was_asked_for(
    running: process.Simulator, provider: str, form: str, headers: dict[str, str]
) -> None:
    running.set_faults(f"{provider}:rate_limited,form={form},retry_after_s=5.289")
    answer = client.ask(running.url, provider)
    assert answer.status == 429
    assert {name: answer.headers[name] for name in answer.headers if name.startswith("retry")} == headers
    assert ("Please try again in 5.289s" in client.error(answer)["message"]) == (form == "message")


def test_a_429_can_give_a_date(running: process.Simulator) -> None:
    running.set_faults("openai:rate_limited,form=http_date,retry_after_s=90")
    before = datetime.datetime.now(datetime.UTC)
    answer = client.ask(running.url, "openai")
    told = email.utils.parsedate_to_datetime(answer.headers["retry-after"])
    after = datetime.datetime.now(datetime.UTC)
    assert before + datetime.timedelta(seconds=90) <= told <= after + datetime.timedelta(seconds=91)


def test_a_429_can_give_a_delay_in_its_body(running: process.Simulator) -> None:
    running.set_faults("rate_limited,form=retry_info,retry_after_s=22.5")
    for provider in ("gemini", "openai"):
        details = {each["@type"]: each for each in client.error(client.ask(running.url, provider))["details"]}
        assert details["type.googleapis.com/google.rpc.RetryInfo"]["retryDelay"] == "22.5s"


@pytest.mark.parametrize(
    ("provider", "headers", "error"),
    [
        ("openai", {"retry-after": "2", "retry-after-ms": "2000"}, {"code": "rate_limit_exceeded"}),
        ("groq", {"retry-after": "2"}, {"code": "rate_limit_exceeded", "type": "requests"}),
        (
            "cerebras",
            {"x-ratelimit-remaining-requests-minute": "0", "x-ratelimit-reset-requests-minute": "2.000000"},
            {"type": "too_many_requests_error"},
        ),
        ("zai", {}, {"code": "1303"}),
        ("anthropic", {"retry-after": "2"}, {"type": "rate_limit_error"}),
        ("gemini", {}, {"code": 429, "status": "RESOURCE_EXHAUSTED"}),
    ],
)
def test_a_429_says_it_the_provider_s_own_way_by_default(
    running: process.Simulator, provider: str, headers: dict[str, str], error: dict[str, Any]
) -> None:
    running.set_faults(f"{provider}:rate_limited,retry_after_s=2")
    answer = client.ask(running.url, provider)
    assert answer.status == 429
    assert headers.items() <= answer.headers.items()
    assert ("retry-after" in answer.headers) == ("retry-after" in headers)
    assert error.items() <= client.error(answer).items()


@pytest.mark.parametrize(
    ("provider", "options", "marker"),
    [
        ("gemini", "scope=day", "GenerateRequestsPerDayPerProjectPerModel"),
        ("gemini", "scope=tokens", "GenerateContentInputTokensPerModelPerMinute"),
        ("openai", "scope=tokens", '"type":"tokens"'),
        ("openai", "code=slow_down", '"code":"slow_down"'),
        ("anthropic", "code=ramp_limit_exceeded", '"error_code":"ramp_limit_exceeded"'),
        ("zai", "scope=concurrency", '"code":"1302"'),
        ("cerebras", "scope=tokens", "token_quota_exceeded"),
    ],
)
def test_a_429_says_what_ran_out(running: process.Simulator, provider: str, options: str, marker: str) -> None:
    running.set_faults(f"{provider}:rate_limited,{options}")
    answer = client.ask(running.url, provider)
    assert answer.status == 429 and marker in answer.body.decode()
