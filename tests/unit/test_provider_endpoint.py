"""A route made ready: its address, its headers, and what never leaves it; and answers that nobody planned."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker import errors
from worker.providers import dialects, endpoint, told, waiting
from worker.providers.types import CallError, Completion, ErrorClass, Reply
from worker.routing import registry

MODEL = registry.Model(context_window=8192)
KEY = "a-very-Secret.key/0123"


def ready(
    dialect: registry.Dialect = "openai_chat",
    base_url: str = "https://api.example.org/v1",
    key: str | None = KEY,
    **more: Any,
) -> endpoint.Endpoint:
    provider = registry.Provider(
        dialect=dialect, base_url=base_url, key_env="A_KEY", **{"models": {"m": MODEL}, **more}
    )
    route = registry.Route("p", "m")
    category = registry.Category(chain=((route,),))
    whole = registry.Registry(
        frontier=route,
        default_category="simple_qa",
        providers={"p": provider},
        categories={"simple_qa": category},
    )
    return endpoint.endpoint(whole, route, key)


@pytest.mark.parametrize(
    ("dialect", "more", "url", "headers"),
    [
        ("openai_chat", {}, "/chat/completions", {"authorization": f"Bearer {KEY}"}),
        ("openai_chat", {"key": None}, "/chat/completions", {}),
        (
            "anthropic_messages",
            {"auth_header": "x-api-key"},
            "/messages",
            {"x-api-key": KEY, "anthropic-version": "2023-06-01"},
        ),
        (
            "anthropic_messages",
            {"auth_header": "x-api-key", "headers": {"Anthropic-Version": "2026-10-21"}},
            "/messages",
            {"x-api-key": KEY, "anthropic-version": "2026-10-21"},  # the registry wins
        ),
        (
            "gemini_generate_content",
            {"auth_header": "x-goog-api-key"},
            "/models/m:generateContent",
            {"x-goog-api-key": KEY},
        ),
    ],
)
def test_requests_go_where_the_dialect_says_with_the_key_in_its_header(
    dialect: registry.Dialect, more: dict[str, Any], url: str, headers: dict[str, str]
) -> None:
    for base_url in ("https://api.example.org/v1", "https://api.example.org/v1/"):
        made = ready(dialect, base_url, **more)
        assert made.url == "https://api.example.org/v1" + url
        assert made.headers == {"content-type": "application/json", **headers}


def test_the_key_does_not_show() -> None:
    assert KEY not in f"{ready()!r} {ready()} {[ready()]}"


@pytest.mark.parametrize("key", ["secret\n", " secret", "secret\r\nx: y", "sécret", "secret\0"])
def test_a_key_that_no_header_can_carry_is_refused_by_the_name_of_its_variable(key: str) -> None:
    with pytest.raises(errors.SettingsError, match="A_KEY") as caught:
        ready(key=key)
    assert key.strip() not in str(caught.value)


@pytest.mark.parametrize("status", [200, 401, 500])
def test_a_key_of_any_form_is_taken_out_of_what_the_provider_answers(status: int) -> None:
    said = json.dumps({"error": {"message": f"wrong key {KEY} given"}}).encode()
    with pytest.raises(CallError) as caught:
        ready().read(Reply(status, {}, said))
    assert caught.value.message == "wrong key [key] given"
    assert KEY not in f"{caught.value}{caught.value.body}"


def test_an_error_carries_the_status_and_the_body_of_what_could_not_be_read() -> None:
    with pytest.raises(CallError) as caught:
        ready().read(Reply(200, {}, b'{"choices":'))
    assert (caught.value.status, caught.value.body) == (200, '{"choices":')


def test_a_prompt_that_is_surely_too_long_moves_to_a_larger_model_without_a_call() -> None:
    window = MODEL.context_window
    fits = json.dumps({"messages": [{"role": "user", "content": "word " * window}]})
    assert ready().build(fits)
    with pytest.raises(CallError, match="8,192 tokens of m") as caught:
        ready().build(json.dumps({"messages": [{"role": "user", "content": "word " * window * 2}]}))
    assert caught.value.error_class is ErrorClass.CONTEXT


def test_the_size_of_an_image_says_nothing_about_the_length_of_a_prompt() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    seeing = MODEL.model_copy(update={"capabilities": frozenset({"images"})})
    built = ready(models={"m": seeing}).build(json.dumps({"messages": [{"role": "user", "content": [image]}]}))
    assert len(built) > 100_000


def test_a_request_is_built_for_the_model_of_the_route() -> None:
    assert ready().build('{"messages":[]}') == b'{"model":"m","messages":[]}'


WORDS = """
error message code type param status details retryDelay violations quotaId choices usage content
candidates parts text finish_reason finishReason stop_reason refusal tool_calls prompt_tokens
completion_tokens total_tokens prompt_tokens_details cached_tokens input_tokens output_tokens
usageMetadata promptTokenCount promptFeedback blockReason functionCall args
"""
NAMES = st.sampled_from(WORDS.split())
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["stop", "SAFETY", "1302"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(), inner, max_size=6),
    max_leaves=30,
)
BODIES = st.binary() | st.text().map(str.encode) | JSON.map(lambda value: json.dumps(value).encode())
HEADER_NAMES = """
retry-after retry-after-ms date x-should-retry x-ratelimit-remaining-requests x-ratelimit-reset-requests
x-ratelimit-limit-tokens x-ratelimit-remaining-tokens x-ratelimit-reset-tokens
anthropic-ratelimit-requests-remaining anthropic-ratelimit-requests-reset
"""
#: As providers write them, and nearly.
HEADER_VALUES = (
    st.text()
    | st.floats().map(str)
    | st.integers().map(str)
    | st.datetimes().map(lambda then: f"{then.isoformat()}Z")
    | st.datetimes().map(lambda then: then.strftime("%a, %d %b %Y %H:%M:%S GMT"))
    | st.from_regex(r"(\d{1,30}(\.\d{1,4})?(d|h|m|s|ms|us|ns)){1,4}", fullmatch=True)
    | st.sampled_from(["0", "true", "false", "6m0s", "Mon, 23 Nov 2026 10:00:00 GMT", "1795428060000"])
)
HEADERS = st.dictionaries(st.sampled_from(HEADER_NAMES.split()), HEADER_VALUES)
OWN = {"1302": ErrorClass.OVERLOADED, "418": ErrorClass.RATE_LIMITED, "stop": ErrorClass.QUOTA}


@pytest.mark.parametrize("dialect", list(dialects.BY_NAME))
@settings(max_examples=60, deadline=None)
@given(status=st.just(200) | st.integers(100, 999), headers=HEADERS, body=BODIES)
def test_whatever_a_provider_answers_is_a_completion_or_a_call_error(
    dialect: registry.Dialect, status: int, headers: dict[str, str], body: bytes
) -> None:
    made = ready(dialect, errors=OWN)
    try:
        done = made.read(Reply(status, headers, body))
    except CallError as error:
        assert len(error.message) <= 600
        assert error.retry_after_s is None or 0 <= error.retry_after_s <= waiting.MAX_RESET_S
        assert "\0" not in f"{error.message}{error.body}"
    else:
        assert isinstance(done, Completion)
        assert "\0" not in f"{done.text}{done.body}"
        written = dialects.BY_NAME[dialect].chat_completion(done.body, model="m", created=0)
        assert written["usage"]["total_tokens"] == done.usage.all_input_tokens + done.usage.output_tokens


@pytest.mark.parametrize("dialect", list(dialects.BY_NAME))
@settings(max_examples=60, deadline=None)
@given(headers=HEADERS)
def test_whatever_a_provider_says_of_its_limits_is_read_or_left(
    dialect: registry.Dialect, headers: dict[str, str]
) -> None:
    provider = registry.Provider(dialect=dialect, base_url="http://h", models={"m": MODEL})
    found = told.limits_told(provider, headers)
    assert all(value >= 0 for value in found if isinstance(value, int | float))
    assert found.requests_period == "minute"


GOOD: dict[registry.Dialect, Any] = {
    "openai_chat": {
        "id": "1",
        "model": "m",
        "choices": [{"index": 0, "message": {"content": "x", "tool_calls": []}, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 2,
            "total_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 1},
        },
    },
    "anthropic_messages": {
        "id": "1",
        "model": "m",
        "content": [{"type": "text", "text": "x"}, {"type": "tool_use", "id": "1", "name": "f", "input": {}}],
        "stop_reason": "tool_use",
        "stop_details": None,
        "usage": {"input_tokens": 5, "output_tokens": 2, "output_tokens_details": {"thinking_tokens": 1}},
    },
    "gemini_generate_content": {
        "candidates": [
            {
                "content": {"parts": [{"text": "x"}, {"functionCall": {"name": "f", "args": {}}}]},
                "finishReason": "STOP",
            }
        ],
        "promptFeedback": {},
        "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2},
        "responseId": "1",
        "modelVersion": "m",
    },
}


def places(node: Any) -> list[tuple[Any, Any]]:
    """Every place of a JSON value, as its container and the key or index in it."""
    inside = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for key, value in inside for place in [(node, key), *places(value)]]


@pytest.mark.parametrize("dialect", list(dialects.BY_NAME))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_good_answer_with_a_part_replaced_is_a_completion_or_a_call_error(
    dialect: registry.Dialect, data: st.DataObject
) -> None:
    spoilt = json.loads(json.dumps(GOOD[dialect]))
    container, key = data.draw(st.sampled_from(places(spoilt)))
    container[key] = data.draw(JSON)
    try:
        done = ready(dialect).read(Reply(200, {}, json.dumps(spoilt).encode()))
        written = dialects.BY_NAME[dialect].chat_completion(done.body, model="m", created=0)
    except CallError:
        return
    assert written["choices"][0]["finish_reason"] == done.finish_reason
    assert written["usage"]["total_tokens"] == done.usage.all_input_tokens + done.usage.output_tokens


@pytest.mark.parametrize("dialect", ["anthropic_messages", "gemini_generate_content"])
@settings(max_examples=60, deadline=None)
@given(request=st.dictionaries(NAMES | st.sampled_from(["messages", "tools", "stop", "tool_choice"]), JSON))
def test_whatever_a_prompt_asks_for_is_built_or_refused(
    dialect: registry.Dialect, request: dict[str, Any]
) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "x"}], **request}, allow_nan=True)
    try:
        built = ready(dialect).build(body)
    except CallError as error:
        assert error.error_class in ("config", "prompt")
    else:
        assert json.loads(built)
