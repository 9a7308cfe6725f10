"""Each input form, and each thing that can be wrong with a line."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from worker import errors, settings
from worker.prompts import bodies, files, lines
from worker.routing import load

KEYS = {"GROQ_API_KEY": "k", "OPENAI_API_KEY": "k"}
REGISTRY = load.registry(settings.Settings())
USABLE = load.usable(REGISTRY, KEYS)
PARSER = lines.Parser(USABLE)
GROQ_MODEL = next(iter(REGISTRY.providers["groq"].models))


def parse(line: object, *, form: files.Form = "json", parser: lines.Parser = PARSER) -> lines.Prompt:
    data = json.dumps(line).encode() if isinstance(line, dict | list) else line
    return parser.parse(files.Item("in.jsonl", 7, 12, form, data))


def openai(**body: Any) -> dict[str, Any]:
    asked = {"messages": [{"role": "user", "content": "Hi"}], **body}
    return {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": asked}


def messages(prompt: lines.Prompt) -> Any:
    return json.loads(prompt.body)["messages"]


ASKED = [{"role": "user", "content": "Hi"}]


def test_a_line_of_an_openai_batch_file_becomes_a_prompt() -> None:
    prompt = parse(openai(model="auto", temperature=0.5, max_tokens=10, stream=False, n=1))
    assert prompt.custom_id == "a"
    assert prompt.pinned is None
    assert prompt.category is None
    assert prompt.metadata is None
    assert prompt.text == "Hi"
    assert json.loads(prompt.body) == {"messages": ASKED, "temperature": 0.5, "max_completion_tokens": 10}


@pytest.mark.parametrize("field", ["prompt", "text"])
def test_a_short_line_becomes_a_prompt(field: str) -> None:
    prompt = parse({field: "Hi"})
    assert messages(prompt) == ASKED
    assert (prompt.prompt_no, prompt.line_no, prompt.custom_id) == (12, 7, "prompt-12")


def test_a_short_line_may_hold_messages_a_system_prompt_and_parameters() -> None:
    prompt = parse({"messages": ASKED, "system": "Be brief.", "seed": 3, "stop": ["x"], "category": "code"})
    assert prompt.category == "code"
    assert json.loads(prompt.body) == {
        "messages": [{"role": "system", "content": "Be brief."}, *ASKED],
        "stop": ["x"],
        "seed": 3,
    }


def test_a_line_of_plain_text_is_a_prompt_whatever_it_looks_like() -> None:
    prompt = parse(b'{"prompt": "Hi"}', form="text")
    assert messages(prompt) == [{"role": "user", "content": '{"prompt": "Hi"}'}]


def test_python_gives_strings_and_dicts() -> None:
    assert messages(parse("Hi\nthere")) == [{"role": "user", "content": "Hi\nthere"}]
    line = {"prompt": "Hi", "id": 5}
    prompt = PARSER.parse(files.Item("prompts", 1, 1, "json", line))
    assert (messages(prompt), prompt.custom_id) == (ASKED, "5")
    assert line == {"prompt": "Hi", "id": 5}, "the caller's dict is left as it was"


def test_fields_that_are_no_parameters_are_kept_to_the_last_digit() -> None:
    line = b'{"prompt": "Hi", "temprature": 0.10, "price": 0.1234567890123456789012, "tags": ["a", null]}'
    prompt = parse(line)
    assert prompt.metadata == '{"temprature":0.10,"price":0.1234567890123456789012,"tags":["a",null]}'
    assert prompt.metadata_names == ("temprature", "price", "tags")


def test_an_id_stands_in_for_the_custom_id_and_is_kept_otherwise() -> None:
    assert parse({"prompt": "Hi", "id": "x"}).custom_id == "x"
    assert parse({"prompt": "Hi", "id": 17}).custom_id == "17"
    both = parse({"prompt": "Hi", "id": "x", "custom_id": "y"})
    assert (both.custom_id, both.metadata) == ("y", '{"id":"x"}')
    odd = parse({"prompt": "Hi", "id": {"oid": 1}})
    assert (odd.custom_id, odd.metadata) == ("prompt-12", '{"id":{"oid":1}}')


def test_the_classifier_sees_the_last_user_turn_only() -> None:
    turns = [
        {"role": "system", "content": "Translate to German"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "answer"},
        {"role": "user", "content": [{"type": "text", "text": "last"}, {"type": "text", "text": "part"}]},
    ]
    assert parse({"messages": turns}).text == "last\npart"


def test_tools_images_and_schemas_go_through_unchanged() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}}
    body = {
        "messages": [
            {"role": "developer", "content": "d"},
            {"role": "user", "content": [{"type": "text", "text": "t"}, image]},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "content": "42", "tool_call_id": "c1"},
        ],
        "temperature": 1.0,
        "stop": "x",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "s", "schema": {"type": "object"}},
        },
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "x": 0.5}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
        "reasoning_effort": "low",
        "presence_penalty": -1.0,
        "logit_bias": {"50256": -100.0},
        "logprobs": True,
        "top_logprobs": 2,
        "user": "u",
    }
    assert json.loads(parse(openai(**body)).body) == body


def test_null_parameters_are_as_good_as_absent() -> None:
    assert json.loads(parse(openai(temperature=None, stop=None, model=None, n=None)).body) == {
        "messages": ASKED
    }


def test_a_category_for_all_is_used_where_a_line_names_none() -> None:
    parser = lines.Parser(USABLE, "code")
    assert parse({"prompt": "Hi"}, parser=parser).category == "code"
    assert parse({"prompt": "Hi", "category": "simple_qa"}, parser=parser).category == "simple_qa"
    with pytest.raises(errors.RegistryError, match=r"no category `cod`\. The registry has simple_qa"):
        lines.Parser(USABLE, "cod")


@pytest.mark.parametrize(
    ("model", "pinned"),
    [
        ("auto", None),
        (None, None),
        (f"groq/{GROQ_MODEL}", f"groq/{GROQ_MODEL}"),
        ("groq/openai/gpt-oss-120b", "groq/openai/gpt-oss-120b"),
        # a model name with a slash of its own, though a provider of that name exists
        ("openai/gpt-oss-120b", "groq/openai/gpt-oss-120b"),
        (GROQ_MODEL, f"groq/{GROQ_MODEL}"),
        ("llama", str(REGISTRY.aliases["llama"])),
    ],
)
def test_a_model_pins(model: str | None, pinned: str | None) -> None:
    assert parse({"prompt": "Hi", "model": model}).pinned == pinned
    assert parse(openai(model=model)).pinned == pinned


WRONG_LINES: list[tuple[object, str]] = [
    # not JSON, or not a line
    (b"{", "it is not JSON: it ends too early; write one object a line"),
    (b"nonsense", "it is not JSON: invalid character at byte 4"),
    (b'{"prompt": "Hi"} x', "it is not JSON: trailing characters at byte 18"),
    (b'["Hi"]', 'it is not a JSON object; write {"prompt": "…"}'),
    (b'{"prompt": "\xff"}', "byte 13 of the line is not UTF-8; save the file as UTF-8"),
    (b'{"prompt": "\\ud800"}', "a \\u escape in it is half of a surrogate pair, which is no character"),
    (b'{"prompt": "\\udc00 x"}', "a \\u escape in it is half of a surrogate pair, which is no character"),
    (b'{"prompt": "Hi", "x": ' + b"[" * 100_000, "it is nested too deep; flatten it"),
    (b'{"prompt": "Hi", "x": 1' + b"0" * 5000 + b"}", "a number in it is too long"),
    (b'{"prompt": "Hi", "x": 1e99999999999999999999}', "a number in it is too long"),
    # what is asked
    ({}, "no messages: give one of prompt, text or messages"),
    ({"promt": "Hi"}, "no messages: give one of prompt, text or messages"),
    ({"prompt": None}, "no messages: give one of prompt, text or messages"),
    (
        {"prompt": "Hi", "text": "Ho"},
        "prompt and text are both given; keep one, or rename the field that is only data",
    ),
    ({"prompt": " "}, "prompt is empty"),
    ({"prompt": 5}, "prompt must be text; for a conversation use messages"),
    ({"text": ["Hi"]}, "text must be text; for a conversation use messages"),
    ({"prompt": "Hi", "system": 5}, "system must be text"),
    ({"messages": []}, "messages is empty: give at least one message"),
    ({"messages": "Hi"}, "messages must be a list of objects with role and content"),
    (
        {"messages": [{"role": "system", "content": "a"}], "system": "b"},
        "system is given twice: in its own field and in messages; keep one",
    ),
    # the fields around it
    ({"prompt": "Hi", "custom_id": 1.5}, "custom_id must be text or a whole number"),
    ({"prompt": "Hi", "custom_id": True}, "custom_id must be text or a whole number"),
    ({"prompt": "Hi", "custom_id": ""}, "custom_id must have 1 to 512 characters, not 0"),
    ({"prompt": "Hi", "custom_id": "x" * 513}, "custom_id must have 1 to 512 characters, not 513"),
    (
        {"prompt": "Hi", "custom_id": "a\0"},
        "custom_id holds a NUL character, which Postgres cannot store; remove it",
    ),
    (
        {"prompt": "Hi", "category": "cod"},
        "the category `cod` is not in the registry; it has "
        "simple_qa, code, summarization, complex_reasoning, multilingual",
    ),
    (
        {"prompt": "Hi", "category": 1},
        "category must be text, one of simple_qa, code, summarization, complex_reasoning, multilingual",
    ),
    # the model
    ({"prompt": "Hi", "model": 1}, "model must be text: auto, provider/model, or an alias of the registry"),
    (
        {"prompt": "Hi", "model": "gpt-0"},
        "model `gpt-0` is not in the registry: write auto, provider/model (see `promptyard providers`) "
        "or an alias: llama, glm, gpt, claude, gemini",
    ),
    (
        {"prompt": "Hi", "model": "nobody/gpt-0"},
        "model `nobody/gpt-0` names an unknown provider; the registry has "
        "groq, cerebras, zai, openai, anthropic, gemini",
    ),
    (
        {"prompt": "Hi", "model": "groq/gpt-0"},
        "model `groq/gpt-0` is not in the registry; groq has "
        + ", ".join(f"groq/{model}" for model in REGISTRY.providers["groq"].models),
    ),
    (
        {"prompt": "Hi", "model": "claude"},
        "model asks for anthropic, whose key is missing: set ANTHROPIC_API_KEY",
    ),
    # the request
    ({"prompt": "Hi", "temperature": "hot"}, "temperature must be a number, not text"),
    ({"prompt": "Hi", "temperature": True}, "temperature must be a number, not true or false"),
    ({"prompt": "Hi", "temperature": 2.5}, "temperature must be a number of at most 2"),
    ({"prompt": "Hi", "top_p": -0.1}, "top_p must be a number of at least 0"),
    ({"prompt": "Hi", "max_tokens": 0}, "max_tokens must be a whole number of at least 1"),
    ({"prompt": "Hi", "max_tokens": True}, "max_tokens must be a whole number, not true or false"),
    ({"prompt": "Hi", "max_tokens": 1.5}, "max_tokens must be a whole number, not a number with a fraction"),
    (
        {"prompt": "Hi", "max_completion_tokens": "9"},
        "max_completion_tokens must be a whole number, not text",
    ),
    (
        {"prompt": "Hi", "max_tokens": 1, "max_completion_tokens": 2},
        "max_tokens and max_completion_tokens differ; keep one of them",
    ),
    ({"prompt": "Hi", "stop": list("abcde")}, "stop must have at most 4 entries"),
    ({"prompt": "Hi", "stop": [1]}, "stop[0] must be text, not a whole number"),
    ({"prompt": "Hi", "seed": 2**70}, "seed must be a whole number of at most 9223372036854775807"),
    ({"prompt": "Hi", "n": 2}, "n must be 1 or absent: for several answers, write several lines"),
    ({"prompt": "Hi", "n": True}, "n must be 1 or absent: for several answers, write several lines"),
    (
        {"prompt": "Hi", "stream": 0},
        "stream must be false or absent: the answers of a batch are stored, not streamed",
    ),
    (
        {"prompt": "Hi", "stream": True},
        "stream must be false or absent: the answers of a batch are stored, not streamed",
    ),
    (
        {"prompt": "Hi", "reasoning_effort": "huge"},
        "reasoning_effort must be one of: none, minimal, low, medium, high, xhigh",
    ),
    (
        {"prompt": "Hi", "response_format": {"type": "xml"}},
        "response_format.type must be one of: text, json_object, json_schema",
    ),
    ({"prompt": "Hi", "response_format": {}}, "response_format lacks type"),
    ({"prompt": "Hi", "tools": [{"type": "function"}]}, "tools[0] lacks function"),
    ({"prompt": "Hi", "tools": []}, "tools must have at least 1 entry"),
    (
        {"prompt": "Hi", "tool_choice": "some"},
        "tool_choice must be one of: none, auto, required, or an object that names a function",
    ),
    ({"messages": ["Hi"]}, "messages[0] must be an object, not text"),
    ({"messages": [{"content": "Hi"}]}, "messages[0] lacks role"),
    (
        {"messages": [{"role": "me", "content": "Hi"}]},
        "messages[0].role must be one of: system, developer, user, assistant, tool",
    ),
    ({"messages": [{"role": "user"}]}, "messages[0] has no content"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0] has no content"),
    (
        {"messages": [{"role": "user", "content": 5}]},
        "messages[0].content must be text or a list, not a whole number",
    ),
    (
        {"messages": [*ASKED, {"role": "tool", "content": "x"}]},
        "messages[1] has the role tool and lacks tool_call_id",
    ),
    (
        {"messages": [{"role": "user", "content": "x", "tool_call_id": "c"}]},
        "messages[0] has tool_call_id, which belongs to the role tool",
    ),
    (
        {"messages": [{"role": "user", "content": "x", "tool_calls": []}]},
        "messages[0] has tool_calls, which belong to the role assistant",
    ),
    (
        {"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}]},
        "messages[0] has an image, which belongs to the role user",
    ),
    (
        {"messages": [{"role": "user", "content": "x", "weight": 1}]},
        "messages[0] has `weight`, which is not understood: correct or remove it",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        "messages[0].content[0].type must be one of: text, image_url",
    ),
    # the OpenAI form
    (openai(temprature=1), "`temprature` is not a parameter that is understood: correct or remove it"),
    (
        {"body": {}, "url": "x"},
        "a line of an OpenAI batch file has exactly custom_id, method, url and body; "
        "this one lacks custom_id, method",
    ),
    (
        {**openai(), "x": 1},
        "a line of an OpenAI batch file has exactly custom_id, method, url and body; this one also has `x`",
    ),
    ({**openai(), "method": "GET"}, "method must be POST"),
    (
        {**openai(), "url": "/v1/embeddings"},
        "url must be /v1/chat/completions: other endpoints are not served",
    ),
    ({**openai(), "body": "Hi"}, "body must be an object"),
    ({**openai(), "body": {"model": "auto"}}, "no messages: give at least one message"),
    ({**openai(), "custom_id": None}, "custom_id must be text"),
    (openai(messages=[]), "messages is empty: give at least one message"),
    # from Python
    (5, "it is a int; give a string or a dict"),
    ("  ", "the prompt is empty"),
    ("\ud800", "it holds half of a surrogate pair, which is no character; remove it"),
]


@pytest.mark.parametrize(("line", "reason"), WRONG_LINES)
def test_a_wrong_line_is_reported_with_its_number_and_reason(line: object, reason: str) -> None:
    with pytest.raises(errors.LineError) as caught:
        parse(line)
    assert caught.value.reason == reason
    assert (caught.value.source, caught.value.line_no) == ("in.jsonl", 7)
    assert str(caught.value) == f"in.jsonl:7: {reason}"


def test_bytes_of_plain_text_that_are_not_utf8_are_reported_with_their_position() -> None:
    with pytest.raises(errors.LineError, match="byte 3 of the line is not UTF-8"):
        parse(b"ab\xff", form="text")


def test_a_python_value_that_json_cannot_express_is_reported() -> None:
    with pytest.raises(errors.LineError, match="a value that JSON cannot express"):
        PARSER.parse(files.Item("prompts", 1, 1, "json", {"prompt": "Hi", "when": object()}))


def test_a_model_of_several_providers_asks_which_is_meant() -> None:
    twice = REGISTRY.model_copy(
        update={"providers": {**REGISTRY.providers, "other": REGISTRY.providers["groq"]}, "simulated": True}
    )
    with pytest.raises(errors.LineError, match=f"write groq/{GROQ_MODEL} or other/{GROQ_MODEL}"):
        parse({"prompt": "Hi", "model": GROQ_MODEL}, parser=lines.Parser(load.usable(twice, {})))


SECRET = "my very secret prompt text"


@pytest.mark.parametrize(
    "line",
    [
        {SECRET: 1},
        openai(**{SECRET: 1}),
        {**openai(), SECRET: 1},
        {"prompt": "Hi", "category": SECRET},
        {"prompt": "Hi", "model": SECRET},
        {"prompt": "Hi", "reasoning_effort": SECRET},
        {"prompt": "Hi", "tool_choice": SECRET},
        {"messages": [{"role": SECRET, "content": "x"}]},
        {"messages": [{"role": "user", "content": "x", SECRET: 1}]},
        {"messages": [{"role": "user", "content": [{"type": SECRET}]}]},
        {"prompt": "Hi", "response_format": {"type": "json_object", SECRET: 1}},
        {"prompt": "Hi", "logit_bias": {SECRET: "x"}},
        f'{{"prompt": "{SECRET}'.encode(),
    ],
)
def test_no_message_repeats_the_text_of_a_line(line: object) -> None:
    with pytest.raises(errors.LineError) as caught:
        parse(line)
    assert "secret" not in str(caught.value)


#: Other work on the machine must not decide whether a test passes.
relaxed = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(sorted(bodies.PARAMETERS | lines.SHORT_FIELDS | lines.OPENAI_FIELDS | {"id", "x"}))


@relaxed
@hypothesis.given(st.binary(max_size=60), st.sampled_from(["json", "text"]))
def test_any_bytes_are_a_prompt_or_a_line_error(data: bytes, form: files.Form) -> None:
    try:
        prompt = parse(data, form=form)
    except errors.LineError:
        return
    assert msgspec.json.decode(prompt.body)["messages"]


@relaxed
@hypothesis.given(st.dictionaries(FIELDS, JSON, max_size=6), st.booleans())
def test_any_object_is_a_prompt_or_a_line_error(line: dict[str, Any], asks: bool) -> None:
    if asks:
        line["prompt"] = "Hi"
    try:
        prompt = PARSER.parse(files.Item("prompts", 1, 1, "json", line))
    except errors.LineError:
        return
    assert msgspec.json.decode(prompt.body)["messages"]
    assert prompt.metadata is None or type(msgspec.json.decode(prompt.metadata)) is dict


@relaxed
@hypothesis.given(st.dictionaries(st.text(min_size=1, max_size=8), JSON, max_size=4))
def test_no_field_of_a_short_line_is_lost(extra: dict[str, Any]) -> None:
    line = {"prompt": "Hi", **{f"x-{name}": value for name, value in extra.items()}}
    text = msgspec.json.encode(line)
    prompt = parse(text)
    kept = msgspec.json.decode(prompt.metadata) if prompt.metadata else {}
    assert {"prompt": "Hi", **kept} == msgspec.json.decode(text)
