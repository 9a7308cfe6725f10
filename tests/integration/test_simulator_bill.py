"""The simulator's bill is what a client adds up from the answers it got."""

from __future__ import annotations

import collections
import concurrent.futures
import http.client
from collections.abc import Iterator

import pytest
import simulator_client as client

from worker import errors
from worker.providers import types
from worker.simulator import conversation, process, settings

PROMPTS = 60


def test_the_bill_equals_what_a_client_adds_up(simulator: process.Simulator) -> None:
    simulator.set_faults("server_error=0.1", "rate_limited=0.1", "reset=0.05", "malformed=0.05,billed=false")
    jobs = [(provider, f"prompt {n}") for n in range(PROMPTS) for provider in client.PROVIDERS]

    def ask(job: tuple[str, str]) -> tuple[str, client.Answer | None]:
        try:
            return job[0], client.ask(simulator.url, *job)
        except (OSError, http.client.HTTPException):
            return job[0], None

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, jobs))

    bill = simulator.bill()
    assert bill.calls == len(jobs)
    assert {route.provider: route.model for route in bill.routes} == client.MODELS
    for provider in client.PROVIDERS:
        [route] = bill.of(provider)
        own = [answer for name, answer in answers if name == provider]
        good = [a for a in own if a is not None and a.status == 200 and a.body.endswith(b"}")]
        assert route.billed_calls == len(good)
        sums = [sum(column) for column in zip(*(client.buckets(provider, a) for a in good), strict=True)]
        assert route.usage == types.Usage(*sums)
        statuses = collections.Counter(str(a.status) if a is not None else "0" for a in own)
        assert route.statuses == statuses
        assert set(route.faults) == {"server_error", "rate_limited", "reset", "malformed"}


def test_each_call_is_listed_with_its_answer_and_never_with_the_prompt(simulator: process.Simulator) -> None:
    answers = [client.ask(simulator.url, provider, f"Hello, {provider}!") for provider in client.PROVIDERS]
    calls = list(simulator.calls())
    assert [call.provider for call in calls] == client.PROVIDERS
    for call, answer in zip(calls, answers, strict=True):
        said = answer.json
        assert call.response_id == (said["responseId"] if call.provider == "gemini" else said["id"])
        assert call.prompt_digest == conversation.digest([("user", f"Hello, {call.provider}!")]).hex()
        buckets = (call.input_tokens, call.cache_read_tokens, call.cache_write_tokens, call.output_tokens)
        assert (*buckets, call.reasoning_tokens) == client.buckets(call.provider, answer)
    assert [call.answered_at_s for call in calls] == sorted(call.answered_at_s for call in calls)
    assert [call.call_no for call in simulator.calls("zai")] == [calls[3].call_no]
    assert [route.provider for route in simulator.bill("zai").routes] == ["zai"]


def test_refused_requests_are_on_the_bill_and_free(simulator: process.Simulator) -> None:
    client.post(simulator.url, client.path("openai"), {"model": "m"})
    client.post(simulator.url, client.path("openai"), client.request("openai", "hi"), {})
    [route] = simulator.bill().routes
    assert (route.model, route.statuses, route.billed_calls) == ("", {"400": 1, "401": 1}, 0)


def test_many_calls_are_streamed_on_one_connection(simulator: process.Simulator) -> None:
    calls = 3000
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
    connection = http.client.HTTPConnection(simulator.url.removeprefix("http://"), timeout=client.TIMEOUT_S)
    for _ in range(calls):
        connection.request("POST", "/groq/chat/completions", body, client.KEYS)
        connection.getresponse().read()
    # The same connection goes on after the stream.
    connection.request("GET", "/_simulator/bill/calls")
    assert len(connection.getresponse().read().splitlines()) == calls
    connection.request("GET", "/_simulator/health")
    assert connection.getresponse().read() == b'{"status":"ok"}'
    connection.close()
    assert sum(1 for _ in simulator.calls()) == calls


@pytest.fixture
def wrong() -> Iterator[list[tuple[str, bytes]]]:
    yield [
        ("/_simulator/settings", b'{"providers": {"groq": {"latency_ms": "slow"}}}'),
        ("/_simulator/settings", b"{"),
        ("/_simulator/settings/groq", b'{"faults": [{"kind": "explode"}]}'),
    ]


def test_wrong_settings_change_nothing_and_say_what_is_wrong(
    simulator: process.Simulator, wrong: list[tuple[str, bytes]]
) -> None:
    simulator.set_faults("groq:auth")
    before = simulator.settings()
    connection = http.client.HTTPConnection(simulator.url.removeprefix("http://"), timeout=client.TIMEOUT_S)
    for path, body in wrong:
        connection.request("PUT", path, body)
        answer = connection.getresponse()
        assert answer.status == 422
        assert b'"error":"The' in answer.read()
    connection.close()
    assert simulator.settings() == before
    with pytest.raises(errors.SettingsError, match="explode"):
        simulator.set_faults("groq:explode")


def test_one_provider_s_settings_can_be_put_alone(simulator: process.Simulator) -> None:
    simulator.set_faults("zai:auth")
    connection = http.client.HTTPConnection(simulator.url.removeprefix("http://"), timeout=client.TIMEOUT_S)
    connection.request("PUT", "/_simulator/settings/groq", b'{"faults": [{"kind": "overloaded"}]}')
    assert connection.getresponse().read()
    connection.close()
    assert [client.ask(simulator.url, each).status for each in ("groq", "zai", "openai")] == [498, 401, 200]
    read = simulator.settings()
    assert read.of("groq").faults == (settings.Fault(kind="overloaded"),)


def test_paths_of_the_simulator_that_do_not_exist_say_so(simulator: process.Simulator) -> None:
    assert client.post(simulator.url, "/_simulator/bill", {}).status == 405
    assert client.post(simulator.url, "/_simulator/settings", {}).status == 405
    connection = http.client.HTTPConnection(simulator.url.removeprefix("http://"), timeout=client.TIMEOUT_S)
    connection.request("GET", "/_simulator/invoice")
    assert connection.getresponse().status == 404
    connection.close()
