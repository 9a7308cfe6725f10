"""Each fault of the simulator, in each of its forms, as each provider has it."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import simulator_client as client

from worker.simulator import billing, process, settings


@pytest.fixture(scope="module")
def running() -> Iterator[process.Simulator]:
    with process.running() as simulator:
        yield simulator


@pytest.mark.parametrize(
    ("provider", "kind", "status", "error"),
    [
        ("openai", "server_error", 500, {"type": "server_error"}),
        ("groq", "server_error,status=503", 503, {"type": "internal_server_error"}),
        ("cerebras", "server_error,status=504", 504, {"type": "server_error"}),
        ("zai", "server_error", 500, {"code": "500"}),
        ("anthropic", "server_error", 500, {"type": "api_error"}),
        ("anthropic", "server_error,status=504", 504, {"type": "timeout_error"}),
        ("gemini", "server_error", 500, {"code": 500, "status": "INTERNAL"}),
        ("gemini", "server_error,status=504", 504, {"code": 504, "status": "DEADLINE_EXCEEDED"}),
        ("openai", "overloaded", 503, {"code": "server_is_overloaded"}),
        ("groq", "overloaded", 498, {"code": "capacity_exceeded"}),
        ("cerebras", "overloaded", 503, {"code": "queue_exceeded"}),
        ("zai", "overloaded", 429, {"code": "1305"}),
        ("anthropic", "overloaded", 529, {"type": "overloaded_error"}),
        ("gemini", "overloaded", 503, {"status": "UNAVAILABLE"}),
        ("openai", "auth", 401, {"code": "invalid_api_key"}),
        ("groq", "auth", 401, {"code": "invalid_api_key"}),
        ("cerebras", "auth", 401, {"code": "wrong_api_key"}),
        ("zai", "auth", 401, {"code": "1000"}),
        ("anthropic", "auth", 401, {"type": "authentication_error"}),
        ("gemini", "auth", 403, {"status": "PERMISSION_DENIED"}),
        ("gemini", "auth,code=API_KEY_INVALID", 400, {"status": "INVALID_ARGUMENT"}),
        ("openai", "out_of_credit", 429, {"type": "insufficient_quota", "code": "insufficient_quota"}),
        (
            "openai",
            "out_of_credit,code=project_spend_limit_exceeded",
            429,
            {"type": "insufficient_quota", "code": "project_spend_limit_exceeded"},
        ),
        ("groq", "out_of_credit", 429, {"code": "blocked_api_access"}),
        ("cerebras", "out_of_credit", 402, {"code": "payment_required"}),
        ("zai", "out_of_credit", 429, {"code": "1113"}),
        ("zai", "out_of_credit,code=1308", 429, {"code": "1308"}),
        ("anthropic", "out_of_credit", 402, {"type": "billing_error"}),
        ("anthropic", "out_of_credit,code=usage_limits", 400, {"type": "invalid_request_error"}),
        (
            "anthropic",
            "out_of_credit,code=enforced_spend_limit_reached",
            429,
            {"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}},
        ),
        ("gemini", "out_of_credit", 429, {"status": "RESOURCE_EXHAUSTED"}),
        ("openai", "context_length", 400, {"code": "context_length_exceeded"}),
        ("groq", "context_length", 413, {"type": "tokens"}),
        ("cerebras", "context_length", 400, {"code": "context_length_exceeded"}),
        ("zai", "context_length", 400, {"code": "1261"}),
        ("anthropic", "context_length", 400, {"type": "invalid_request_error"}),
        ("gemini", "context_length", 400, {"status": "INVALID_ARGUMENT"}),
        ("openai", "content_filter", 400, {"code": "content_policy_violation"}),
        ("zai", "content_filter", 400, {"code": "1301"}),
        ("my-server", "auth", 401, {"code": "invalid_api_key"}),
    ],
)
def test_a_fault_is_told_in_the_words_of_the_provider(
    running: process.Simulator, provider: str, kind: str, status: int, error: dict[str, Any]
) -> None:
    running.set_faults(f"{provider}:{kind}")
    answer = client.ask(running.url, provider)
    assert answer.status == status
    found = client.error(answer)
    assert error.items() <= found.items()
    assert found["message"]
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize(
    ("provider", "code", "finish"),
    [
        ("openai", "answer", "content_filter"),
        ("zai", "answer", "sensitive"),
        ("anthropic", "answer", "refusal"),
        ("gemini", "SAFETY", "SAFETY"),
        ("gemini", "RECITATION", "RECITATION"),
        ("gemini", "promptFeedback", "PROHIBITED_CONTENT"),
    ],
)
def test_a_content_filter_can_speak_in_an_answer_that_is_billed(
    running: process.Simulator, provider: str, code: str, finish: str
) -> None:
    running.set_faults(f"{provider}:content_filter,code={code}")
    answer = client.ask(running.url, provider)
    assert answer.status == 200
    if code == "promptFeedback":
        assert "candidates" not in answer.json
        assert answer.json["promptFeedback"]["blockReason"] == finish
    elif provider == "gemini":
        assert answer.json["candidates"][0]["finishReason"] == finish
    elif provider == "anthropic":
        assert answer.json["stop_reason"] == finish
    else:
        assert answer.json["choices"][0]["finish_reason"] == finish
    last = last_call(running)
    assert last.billed and last.fault == "content_filter"
    assert last.output_tokens == client.buckets(provider, answer)[3]


def test_a_502_comes_from_a_gateway_that_knows_no_json(running: process.Simulator) -> None:
    running.set_faults("groq:server_error,status=502")
    answer = client.ask(running.url, "groq")
    assert (answer.status, answer.headers["content-type"]) == (502, "text/html")
    assert answer.body.startswith(b"<html>")


@pytest.mark.parametrize("provider", client.PROVIDERS)
def test_malformed_json_comes_with_200_and_is_billed(running: process.Simulator, provider: str) -> None:
    running.set_faults(f"{provider}:malformed")
    answer = client.ask(running.url, provider)
    assert answer.status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.body)
    last = last_call(running)
    assert (last.status, last.billed, last.fault) == (200, True, "malformed")
    assert last.output_tokens > 0


def test_malformed_json_can_be_free(running: process.Simulator) -> None:
    running.set_faults("groq:malformed,billed=false")
    assert client.ask(running.url, "groq").status == 200
    assert not last_call(running).billed


@pytest.mark.parametrize("billed", [False, True])
@pytest.mark.parametrize(
    ("when", "broken"),
    [
        ("before_answer", ConnectionResetError),
        ("mid_answer", (ConnectionResetError, http.client.IncompleteRead)),
    ],
)
def test_a_reset_breaks_the_connection_and_is_billed_only_if_the_fault_says_so(
    running: process.Simulator, when: str, broken: type[Exception], billed: bool
) -> None:
    running.set_faults(f"groq:reset,when={when},billed={billed}")
    with pytest.raises(broken):
        client.ask(running.url, "groq")
    last = last_call(running)
    assert (last.status, last.billed, last.fault) == (0, billed, "reset")
    assert (last.output_tokens > 0) == billed


def test_a_hang_lasts_until_the_client_leaves(running: process.Simulator) -> None:
    running.set_faults("groq:hang")
    before = running.bill().calls
    with pytest.raises(TimeoutError):
        client.post(
            running.url, client.path("groq"), client.request("groq", "Is anybody there?"), timeout_s=0.2
        )
    until(lambda: running.bill().calls == before + 1)
    last = last_call(running)
    assert (last.status, last.billed, last.fault) == (0, False, "hang")


def test_a_hang_ends_at_its_limit_without_an_answer(running: process.Simulator) -> None:
    running.set_faults("groq:hang,hang_s=0.1")
    started = time.monotonic()
    with pytest.raises(ConnectionResetError):
        client.ask(running.url, "groq")
    assert time.monotonic() - started >= 0.1


def test_a_client_that_leaves_before_the_answer_is_not_billed(simulator: process.Simulator) -> None:
    simulator.set(settings.parse('{"providers": {"groq": {"latency_ms": 60000}}}'))
    with pytest.raises(TimeoutError):
        client.post(simulator.url, client.path("groq"), client.request("groq", "Quick!"), timeout_s=0.2)
    until(lambda: simulator.bill().calls == 1)
    last = last_call(simulator)
    assert (last.status, last.billed, last.fault) == (499, False, None)


def test_a_retry_of_a_prompt_can_succeed_and_a_run_repeats_itself() -> None:
    def statuses() -> list[list[int]]:
        with process.running() as fresh:
            fresh.set_faults("groq:server_error=0.5")
            return [[client.ask(fresh.url, "groq", f"prompt {n}").status for _ in range(4)] for n in range(12)]

    found = statuses()
    assert any(row[0] == 500 and 200 in row for row in found)
    assert any(row[0] == 200 for row in found)
    assert statuses() == found


def test_a_fault_can_begin_after_some_calls(running: process.Simulator) -> None:
    running.set_faults("groq:auth,after_calls=3")
    assert [client.ask(running.url, "groq").status for _ in range(5)] == [200, 200, 200, 401, 401]


def test_faults_of_one_provider_leave_the_others_alone(running: process.Simulator) -> None:
    running.set_faults("groq:server_error")
    assert [client.ask(running.url, each).status for each in ("groq", "zai", "gemini")] == [500, 200, 200]
    running.set_faults()
    assert client.ask(running.url, "groq").status == 200


def last_call(running: process.Simulator) -> billing.Call:
    *_, last = running.calls()
    return last


def until(reached: Callable[[], bool]) -> None:
    """Wait for what another process does on its own, with a deadline."""
    deadline = time.monotonic() + client.TIMEOUT_S
    while not reached():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
