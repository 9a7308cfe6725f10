"""Simulated rate limits: strict, told in each provider's headers, and lifted when the window has passed."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import re
import time

import pytest
import simulator_client as client

from worker.simulator import process, settings


def limit(simulator: process.Simulator, provider: str, limits: str) -> None:
    simulator.set(settings.parse(f'{{"providers": {{"{provider}": {{"limits": {limits}}}}}}}'))


def test_no_more_requests_than_allowed_are_let_in_however_many_come_at_once(
    simulator: process.Simulator,
) -> None:
    limit(simulator, "openai", '{"rpm": 50}')
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda n: client.ask(simulator.url, "openai", str(n)), range(120)))
    refused = [answer for answer in answers if answer.status == 429]
    assert len(answers) - len(refused) == 50
    assert all(0 < int(answer.headers["retry-after-ms"]) <= 60_000 for answer in refused)
    [route] = simulator.bill().routes
    assert (route.statuses, route.faults) == ({"200": 50, "429": 70}, {"limit": 70})


def test_tokens_are_counted_to_the_last_one(simulator: process.Simulator) -> None:
    used = [sum(client.buckets("groq", client.ask(simulator.url, "groq", str(n)))[:4]) for n in range(4)]
    limit(simulator, "groq", f'{{"tpm": {sum(used)}}}')
    assert [client.ask(simulator.url, "groq", str(n)).status for n in range(4)] == [200] * 4
    refused = client.ask(simulator.url, "groq", "one more")
    assert (refused.status, refused.json["error"]["type"]) == (429, "tokens")
    assert refused.headers["x-ratelimit-remaining-tokens"] == "0"
    limit(simulator, "groq", f'{{"tpm": {sum(used) - 1}}}')
    assert [client.ask(simulator.url, "groq", str(n)).status for n in range(4)] == [200] * 3 + [429]


def test_the_output_that_was_asked_for_can_be_reserved(simulator: process.Simulator) -> None:
    limit(simulator, "openai", '{"tpm": 3000, "reserve_max_tokens": true}')
    asked = [client.ask(simulator.url, "openai", "hi", max_tokens=1400).status for _ in range(3)]
    assert asked == [200, 200, 429]


def test_a_client_that_waits_as_told_is_let_in_again(simulator: process.Simulator) -> None:
    limit(simulator, "groq", '{"rpm": 2, "minute_s": 1.5}')
    assert [client.ask(simulator.url, "groq").status for _ in range(2)] == [200, 200]
    refused = client.ask(simulator.url, "groq")
    assert refused.status == 429
    told = re.search(r"try again in ([\d.]+)(m?s)\.", refused.json["error"]["message"])
    assert told is not None
    time.sleep(float(told[1]) / (1000 if told[2] == "ms" else 1))
    assert client.ask(simulator.url, "groq").status == 200


def test_more_calls_at_once_than_allowed_are_refused(simulator: process.Simulator) -> None:
    simulator.set(settings.parse('{"providers": {"zai": {"latency_ms": 500, "limits": {"concurrency": 3}}}}'))
    body = json.dumps(client.request("zai", "hi"))
    address = simulator.url.removeprefix("http://")
    connections = [http.client.HTTPConnection(address, timeout=client.TIMEOUT_S) for _ in range(8)]
    for connection in connections:
        connection.request("POST", client.path("zai"), body, client.KEYS)
    answers = [connection.getresponse() for connection in connections]
    codes = [json.load(answer)["error"]["code"] for answer in answers if answer.status == 429]
    for connection in connections:
        connection.close()
    assert sorted(answer.status for answer in answers) == [200] * 3 + [429] * 5
    assert set(codes) == {"1302"}
    assert client.ask(simulator.url, "zai").status == 200


def test_other_providers_have_limits_of_their_own(simulator: process.Simulator) -> None:
    limit(simulator, "groq", '{"rpm": 1}')
    assert [client.ask(simulator.url, "groq").status for _ in range(2)] == [200, 429]
    assert client.ask(simulator.url, "openai").status == 200


def test_windows_go_on_when_only_faults_change(simulator: process.Simulator) -> None:
    limit(simulator, "groq", '{"rpm": 1}')
    assert client.ask(simulator.url, "groq").status == 200
    simulator.set_faults("groq:server_error")
    assert client.ask(simulator.url, "groq").status == 429


GO = r"(\d+h)?(\d+m)?(\d+(\.\d+)?s)|\d+ms"
RFC_3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
SECONDS = r"\d+\.\d{6}"


@pytest.mark.parametrize(
    ("provider", "found"),
    [
        (
            "openai",
            {
                "x-ratelimit-limit-requests": "100",
                "x-ratelimit-remaining-requests": "99",
                "x-ratelimit-reset-requests": GO,
                "x-ratelimit-limit-tokens": "90000",
                "x-ratelimit-remaining-tokens": r"89\d\d\d",
                "x-ratelimit-reset-tokens": GO,
            },
        ),
        (
            "groq",  # its requests are those of a day
            {
                "x-ratelimit-limit-requests": "5000",
                "x-ratelimit-remaining-requests": "4999",
                "x-ratelimit-reset-requests": r"2[34]h.*",
                "x-ratelimit-limit-tokens": "90000",
                "x-ratelimit-remaining-tokens": r"89\d\d\d",
                "x-ratelimit-reset-tokens": GO,
            },
        ),
        (
            "cerebras",
            {
                "x-ratelimit-limit-requests-day": "5000",
                "x-ratelimit-remaining-requests-day": "4999",
                "x-ratelimit-reset-requests-day": SECONDS,
                "x-ratelimit-limit-requests-minute": "100",
                "x-ratelimit-remaining-requests-minute": "99",
                "x-ratelimit-reset-requests-minute": SECONDS,
                "x-ratelimit-limit-tokens-minute": "90000",
                "x-ratelimit-remaining-tokens-minute": r"89\d\d\d",
                "x-ratelimit-reset-tokens-minute": SECONDS,
            },
        ),
        (
            "anthropic",
            {
                "anthropic-ratelimit-requests-limit": "100",
                "anthropic-ratelimit-requests-remaining": "99",
                "anthropic-ratelimit-requests-reset": RFC_3339,
                "anthropic-ratelimit-tokens-limit": "90000",
                "anthropic-ratelimit-tokens-remaining": r"89\d\d\d",
                "anthropic-ratelimit-tokens-reset": RFC_3339,
            },
        ),
        ("zai", {}),
        ("gemini", {}),
    ],
)
def test_every_answer_tells_the_limits_in_the_provider_s_headers(
    simulator: process.Simulator, provider: str, found: dict[str, str]
) -> None:
    limit(simulator, provider, '{"rpm": 100, "rpd": 5000, "tpm": 90000}')
    answer = client.ask(simulator.url, provider)
    told = {name: value for name, value in answer.headers.items() if "ratelimit" in name}
    assert told.keys() == found.keys()
    for name, pattern in found.items():
        assert re.fullmatch(pattern, told[name]), f"{name}: {told[name]}"
