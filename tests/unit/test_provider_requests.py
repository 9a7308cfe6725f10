"""Requests: the canonical chat request in each dialect, in the forms of the vendors' documentation."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from worker.providers import dialects
from worker.providers.types import CallError, ErrorClass
from worker.routing import registry

ALL: frozenset[registry.Capability] = frozenset(
    ("tools", "images", "json_object", "json_schema", "seed", "stop", "reasoning_effort")
)
CAPABLE = registry.Model(context_window=128_000, max_output_tokens=8192, capabilities=ALL)
PLAIN = registry.Model(context_window=8192)

HELLO = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Look.", "parameters": SCHEMA}}
PIXEL = "iVBORw0KGgo="

CONVERSATION: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Where is this?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.jpg?x=1"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
                },
                {
                    "id": "c2",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city":"Rome"}'},
                },
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": '{"degrees":3}'},
        {"role": "tool", "tool_call_id": "c2", "content": "sunny"},
    ],
    "tools": [WEATHER],
    "tool_choice": {"type": "function", "function": {"name": "weather"}},
    "max_completion_tokens": 50,
    "temperature": 0.5,
    "top_p": 0.9,
    "stop": "END",
}


def build(
    dialect: registry.Dialect, request: dict[str, Any], name: str = "m", model: registry.Model = CAPABLE
) -> Any:
    body = json.dumps(request, ensure_ascii=False, separators=(",", ":"))
    return json.loads(dialects.BY_NAME[dialect].build(body, name, model))


def refusal(dialect: registry.Dialect, request: dict[str, Any], model: registry.Model = CAPABLE) -> CallError:
    with pytest.raises(CallError) as caught:
        build(dialect, request, model=model)
    return caught.value


# OpenAI chat


def test_openai_gets_the_canonical_request_with_the_model_before_it() -> None:
    body = '{"messages":[{"role":"user","content":"grüß \\"tools\\": 🙂"}],"top_k":3,"seed":1}'
    built = dialects.BY_NAME["openai_chat"].build(body, 'a/"b"', CAPABLE)
    assert built == b'{"model":"a/\\"b\\"",' + body[1:].encode()


def test_openai_renames_the_limit_for_servers_that_know_only_the_older_name() -> None:
    older = registry.Model(context_window=8192, max_tokens_field="max_tokens")
    request = {"messages": HELLO, "max_completion_tokens": 5, "temperature": 0}
    assert build("openai_chat", request, model=older) == {
        "model": "m",
        "messages": HELLO,
        "max_tokens": 5,
        "temperature": 0,
    }
    assert build("openai_chat", request) == {"model": "m", **request}


def test_a_prompt_that_only_mentions_a_parameter_does_not_need_it() -> None:
    told = [{"role": "user", "content": 'set "tools" and "seed"'}, {"role": "assistant", "content": "stop"}]
    assert build("openai_chat", {"messages": told}, model=PLAIN) == {"model": "m", "messages": told}


NEEDS: dict[registry.Capability, dict[str, Any]] = {
    "tools": {"tools": [WEATHER]},
    "images": {"messages": CONVERSATION["messages"][:2]},
    "json_object": {"response_format": {"type": "json_object"}},
    "json_schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
    "seed": {"seed": 7},
    "stop": {"stop": ["a"]},
    "reasoning_effort": {"reasoning_effort": "low"},
}


@pytest.mark.parametrize(("dialect", "capability"), list(itertools.product(dialects.BY_NAME, NEEDS)))
def test_a_model_that_lacks_what_a_prompt_needs_is_passed_over(
    dialect: registry.Dialect, capability: registry.Capability
) -> None:
    lacking = CAPABLE.model_copy(update={"capabilities": ALL - {capability}})
    error = refusal(dialect, {"messages": HELLO, **NEEDS[capability]}, lacking)
    assert (error.error_class, error.message) == (ErrorClass.CONFIG, f"m lacks {capability}")


@pytest.mark.parametrize("dialect", list(dialects.BY_NAME))
def test_a_model_that_has_lost_a_parameter_is_passed_over_unless_it_is_the_default(
    dialect: registry.Dialect,
) -> None:
    newer = CAPABLE.model_copy(update={"unsupported": frozenset({"temperature", "top_p"})})
    error = refusal(dialect, {"messages": HELLO, "temperature": 0, "top_p": 0.5}, newer)
    assert (error.error_class, error.message) == (ErrorClass.CONFIG, "m lacks temperature, top_p")
    assert build(dialect, {"messages": HELLO, "temperature": 1, "top_p": None}, model=newer)


def test_anthropic_is_not_told_the_default_of_a_parameter_that_it_has_lost() -> None:
    newer = CAPABLE.model_copy(update={"unsupported": frozenset({"temperature", "top_p"})})
    assert "temperature" not in build("anthropic_messages", {"messages": HELLO, "temperature": 1}, model=newer)


# Anthropic messages


def test_anthropic_gets_its_own_form_of_a_whole_conversation() -> None:
    assert build("anthropic_messages", CONVERSATION) == {
        "model": "m",
        "max_tokens": 50,
        "system": "Be brief.",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Where is this?"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                    {"type": "image", "source": {"type": "url", "url": "https://example.org/a.jpg?x=1"}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}},
                    {"type": "tool_use", "id": "c2", "name": "weather", "input": {"city": "Rome"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": '{"degrees":3}'},
                    {"type": "tool_result", "tool_use_id": "c2", "content": "sunny"},
                ],
            },
        ],
        "tools": [{"name": "weather", "description": "Look.", "input_schema": SCHEMA}],
        "tool_choice": {"type": "tool", "name": "weather"},
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END"],
    }


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"max_completion_tokens": None}, {"max_tokens": 8192}),  # demanded: the registry's limit stands in
        ({"reasoning_effort": "high"}, {"output_config": {"effort": "high"}}),
        (NEEDS["json_schema"], {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}),
        ({"user": "u1"}, {"metadata": {"user_id": "u1"}}),
        ({"tool_choice": "auto"}, {"tool_choice": {"type": "auto"}}),
        ({"tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
        ({"tool_choice": "none"}, {"tool_choice": {"type": "none"}}),
        (
            {"parallel_tool_calls": False},
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        ),
        ({"n": 1, "presence_penalty": 0.0, "logprobs": False, "stop": None}, {}),  # what is done anyway
    ],
)
def test_anthropic_has_words_for(said: dict[str, Any], told: dict[str, Any]) -> None:
    base = {"model": "m", "max_tokens": 8192, "messages": HELLO}
    assert build("anthropic_messages", {"messages": HELLO, **said}) == {**base, **told}


def test_anthropic_gets_a_limit_where_nobody_sets_one() -> None:
    assert build("anthropic_messages", {"messages": HELLO}, model=PLAIN)["max_tokens"] == 4096


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"seed": 7}, "seed"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"temperature": 1.5}, "temperature above 1"),
        ({"response_format": {"type": "json_object"}}, "response_format 'json_object'"),
        ({"reasoning_effort": "minimal"}, "reasoning_effort 'minimal'"),
        ({"anything_new": 1}, "anything_new"),
        ({"messages": [{"role": "user", "name": "Eve", "content": "x"}]}, "messages[].name"),
        ({"messages": [{"role": "system", "content": "x"}]}, "system messages alone"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
            "'input_audio'",
        ),
    ],
)
def test_anthropic_refuses_what_it_has_no_words_for(said: dict[str, Any], named: str) -> None:
    error = refusal("anthropic_messages", {"messages": HELLO, **said})
    assert error.error_class is ErrorClass.CONFIG
    assert named in error.message


# Gemini generateContent


def test_gemini_gets_its_own_form_of_a_whole_conversation() -> None:
    assert build("gemini_generate_content", {**CONVERSATION, "seed": 7}) == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {
                "role": "user",
                "parts": [
                    {"text": "Where is this?"},
                    {"inlineData": {"mimeType": "image/png", "data": PIXEL}},
                    {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://example.org/a.jpg?x=1"}},
                ],
            },
            {
                "role": "model",
                "parts": [
                    {"functionCall": {"id": "c1", "name": "weather", "args": {"city": "Oslo"}}},
                    {"functionCall": {"id": "c2", "name": "weather", "args": {"city": "Rome"}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"id": "c1", "name": "weather", "response": {"degrees": 3}}},
                    {"functionResponse": {"id": "c2", "name": "weather", "response": {"output": "sunny"}}},
                ],
            },
        ],
        "tools": [
            {
                "functionDeclarations": [
                    {"name": "weather", "description": "Look.", "parametersJsonSchema": SCHEMA},
                ]
            }
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}},
        "generationConfig": {
            "maxOutputTokens": 50,
            "temperature": 0.5,
            "topP": 0.9,
            "stopSequences": ["END"],
            "seed": 7,
        },
    }


@pytest.mark.parametrize(
    ("name", "said", "told"),
    [
        ("gemini-3-flash", {"reasoning_effort": "low"}, {"thinkingConfig": {"thinkingLevel": "LOW"}}),
        ("gemini-2.5-flash", {"reasoning_effort": "medium"}, {"thinkingConfig": {"thinkingBudget": 8192}}),
        ("gemini-2.5-flash", {"reasoning_effort": "none"}, {"thinkingConfig": {"thinkingBudget": 0}}),
        ("m", NEEDS["json_object"], {"responseMimeType": "application/json"}),
        ("m", NEEDS["json_schema"], {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}),
        ("m", {"presence_penalty": 0.5}, {"presencePenalty": 0.5}),
        ("m", {"stop": ["a", "b"], "n": 1, "stream": False}, {"stopSequences": ["a", "b"]}),
    ],
)
def test_gemini_has_words_for(name: str, said: dict[str, Any], told: dict[str, Any]) -> None:
    built = build("gemini_generate_content", {"messages": HELLO, **said}, name)
    assert built == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], "generationConfig": told}


def test_gemini_keeps_the_promise_of_a_strict_function() -> None:
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}  # type: ignore[dict-item]  # of JSON
    built = build("gemini_generate_content", {"messages": HELLO, "tools": [strict]})
    assert built["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"n": 2}, "n"),
        ({"user": "u1"}, "user"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"reasoning_effort": "max"}, "reasoning_effort 'max'"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a/b"}}]}
                ]
            },
            "images by an address",
        ),
    ],
)
def test_gemini_refuses_what_it_has_no_words_for(said: dict[str, Any], named: str) -> None:
    error = refusal("gemini_generate_content", {"messages": HELLO, **said})
    assert error.error_class is ErrorClass.CONFIG
    assert named in error.message


@pytest.mark.parametrize("dialect", ["anthropic_messages", "gemini_generate_content"])
@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "text"),
        ({"tools": "all"}, "tools"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function"}}, "tool_choice"),
        ({"stop": [1]}, "stop"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{"}}],
                    }
                ]
            },
            "tool_calls",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "data:image/png,x"}}],
                    }
                ]
            },
            "image_url",
        ),
    ],
)
def test_what_nobody_understands_is_the_prompts_fault(
    dialect: registry.Dialect, said: dict[str, Any], named: str
) -> None:
    error = refusal(dialect, {"messages": HELLO, **said})
    assert error.error_class is ErrorClass.PROMPT
    assert named in error.message
