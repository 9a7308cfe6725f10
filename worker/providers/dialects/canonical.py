"""The canonical chat request, taken apart for the dialects that are not its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import msgspec

from worker.providers.types import CallError, ErrorClass
from worker.routing import registry

#: A JSON string that stands in every body that needs the capability, and in few others: inside a text its
#: quotes would be escaped.
MARKERS: Mapping[registry.Capability, str] = {
    "tools": '"tools"',
    "images": '"image_url"',
    "json_object": '"json_object"',
    "json_schema": '"json_schema"',
    "seed": '"seed"',
    "stop": '"stop"',
    "reasoning_effort": '"reasoning_effort"',
}

#: Values that say what is done anyway where they are left out.
NEUTRAL: Mapping[str, object] = {
    "n": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logprobs": False,
    "top_logprobs": 0,
    "logit_bias": {},
    "stream": False,
    "store": False,
    "service_tier": "auto",
    "modalities": ["text"],
    "parallel_tool_calls": True,
    "response_format": {"type": "text"},
    "tools": [],
    "stop": [],
}


#: The same for parameters that are passed on to a model that has them.
DEFAULTS: Mapping[str, object] = {**NEUTRAL, "temperature": 1, "top_p": 1}


class Image(NamedTuple):
    """An image of a prompt: by address, or in base64."""

    url: str | None
    media_type: str
    data: str


class ToolCall(NamedTuple):
    id: str
    name: str
    arguments: dict[str, Any]


def parse(body: str) -> dict[str, Any]:
    """The canonical request.

    Raises:
        CallError: `PROMPT`, if it is not a JSON object with messages.
    """
    try:
        request = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise CallError(ErrorClass.PROMPT, "the prompt's body is not JSON") from None
    if not isinstance(request, dict) or not isinstance(request.get("messages"), list):
        raise CallError(ErrorClass.PROMPT, "the prompt's body has no messages")
    return request


def has_images(body: str) -> bool:
    """Whether a canonical request holds images, whose base64 is no measure of its tokens."""
    return MARKERS["images"] in body


def refuse(dialect: str, what: str) -> NoReturn:
    """Say that a dialect has no words for something.

    Raises:
        CallError: `CONFIG`.
    """
    raise CallError(ErrorClass.CONFIG, f"{dialect} has no {what}")


def wrong(what: str) -> NoReturn:
    """Say that nobody can understand something.

    Raises:
        CallError: `PROMPT`.
    """
    raise CallError(ErrorClass.PROMPT, f"{what} has not the form that the OpenAI chat API asks for")


def require(request: dict[str, Any], name: str, model: registry.Model) -> None:
    """Check that a model can do all that a request needs.

    Raises:
        CallError: `CONFIG`, naming what the model lacks.
    """
    lacks: list[str] = [needed for needed in _needs(request) if needed not in model.capabilities]
    lacks += [name for name in sorted(model.unsupported) if request.get(name) not in (None, DEFAULTS.get(name))]
    if lacks:
        raise CallError(ErrorClass.CONFIG, f"{name} lacks {', '.join(lacks)}")


def _needs(request: dict[str, Any]) -> Iterator[registry.Capability]:
    response_format = request.get("response_format")
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if request.get("tools"):
        yield "tools"
    if any(part.get("type") == "image_url" for message in messages(request) for part in parts(message)):
        yield "images"
    if kind == "json_object":
        yield "json_object"
    if kind == "json_schema":
        yield "json_schema"
    if request.get("seed") is not None:
        yield "seed"
    if request.get("stop"):
        yield "stop"
    if request.get("reasoning_effort") is not None:
        yield "reasoning_effort"


def settings(request: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The parameters that are set to something, the messages aside."""
    for name, value in request.items():
        if name == "messages" or value is None or (name in NEUTRAL and NEUTRAL[name] == value):
            continue
        yield name, value


def messages(request: dict[str, Any]) -> list[dict[str, Any]]:
    for message in request["messages"]:
        if not isinstance(message, dict):
            wrong("messages")
    return request["messages"]  # type: ignore[no-any-return]  # JSON: a list was made sure of in parse()


def parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The content of a message as parts, a bare text being one part."""
    content = message.get("content")
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return content
    wrong("messages[].content")


def text_of(message: dict[str, Any], dialect: str) -> str:
    """The content of a message that can only be text."""
    texts = []
    for part in parts(message):
        if part.get("type") != "text":
            refuse(dialect, f"{part.get('type')} in a message of the role {message.get('role')}")
        texts.append(part_text(part))
    return "".join(texts)


def part_text(part: dict[str, Any]) -> str:
    text = part.get("text")
    if not isinstance(text, str):
        wrong("messages[].content[].text")
    return text


def image(part: dict[str, Any], dialect: str) -> Image:
    """An `image_url` part."""
    value = part.get("image_url")
    if not isinstance(value, dict) or not isinstance(value.get("url"), str):
        wrong("messages[].content[].image_url")
    url: str = value["url"]
    if value.get("detail", "auto") not in (None, "auto"):
        refuse(dialect, "image_url.detail")
    if not url.startswith("data:"):
        return Image(url, "", "")
    head, comma, data = url.removeprefix("data:").partition(",")
    media_type, semicolon, coding = head.partition(";")
    if not (comma and semicolon and coding == "base64" and media_type):
        wrong("messages[].content[].image_url.url")
    return Image(None, media_type, data)


def tool_calls(message: dict[str, Any], dialect: str) -> list[ToolCall]:
    """The tool calls of an assistant message."""
    calls = []
    for call in message.get("tool_calls") or []:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            refuse(dialect, "tool calls other than of functions")
        try:
            arguments = msgspec.json.decode(function.get("arguments") or "{}", type=dict[str, Any])
            calls.append(ToolCall(str(call["id"]), str(function["name"]), arguments))
        except (msgspec.MsgspecError, UnicodeError, RecursionError, KeyError, TypeError):
            wrong("messages[].tool_calls[]")
    return calls


def only(message: dict[str, Any], *names: str, dialect: str) -> None:
    """Refuse what a message says besides.

    Raises:
        CallError: `CONFIG`, naming it.
    """
    for name, value in message.items():
        if name not in ("role", "content", *names) and value is not None:
            refuse(dialect, f"messages[].{name}")


def functions(tools: Any, dialect: str) -> list[dict[str, Any]]:
    """The functions that `tools` declares."""
    declared = []
    for tool in tools if isinstance(tools, list) else wrong("tools"):
        if not isinstance(tool, dict) or not isinstance(tool.get("function"), dict):
            refuse(dialect, "tools other than functions")
        function = tool["function"]
        if not isinstance(function.get("name"), str):
            wrong("tools[].function.name")
        for name in function:
            if name not in ("name", "description", "parameters", "strict"):
                refuse(dialect, f"tools[].function.{name}")
        declared.append(function)
    return declared


def chosen_function(choice: Any) -> str:
    """The name in a `tool_choice` that names one function."""
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        wrong("tool_choice")
    return name


def json_schema(response_format: dict[str, Any]) -> Any:
    """The schema in a `response_format` of the type `json_schema`."""
    declared = response_format.get("json_schema")
    schema = declared.get("schema") if isinstance(declared, dict) else None
    if not isinstance(schema, dict):
        wrong("response_format.json_schema.schema")
    return schema


def stops(value: Any) -> list[str]:
    """`stop` as a list."""
    sequences = [value] if isinstance(value, str) else value
    if not isinstance(sequences, list) or not all(isinstance(sequence, str) for sequence in sequences):
        wrong("stop")
    return sequences
