"""The request of a prompt: an OpenAI chat request without its model, checked field by field.

The fields are those of https://platform.openai.com/docs/api-reference/chat/create that every dialect can
either send or refuse by name. A field that is not here is refused, never dropped.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec

Text = Annotated[str, msgspec.Meta(min_length=1)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

Role = Literal["system", "developer", "user", "assistant", "tool"]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]


class Refused(Exception):
    """What is wrong with a line and what to do; `worker.prompts.lines` adds the line's number."""


class Strict(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Of a request: an unknown field is an error, and what is not set is not sent."""


class TextPart(Strict, tag_field="type", tag="text"):
    text: str


class ImageUrl(Strict):
    url: Text
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Strict, tag_field="type", tag="image_url"):
    image_url: ImageUrl


class CalledFunction(Strict):
    name: Text
    arguments: str


class ToolCall(Strict):
    id: Text
    type: Literal["function"]
    function: CalledFunction


class Message(Strict):
    role: Role
    content: str | list[TextPart | ImagePart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None


class Function(Strict):
    name: Text
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Strict):
    type: Literal["function"]
    function: Function


class FunctionName(Strict):
    name: Text


class ChosenTool(Strict):
    type: Literal["function"]
    function: FunctionName


class AsText(Strict, tag_field="type", tag="text"):
    pass


class AsJsonObject(Strict, tag_field="type", tag="json_object"):
    pass


class Schema(Strict):
    name: Text
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class AsJsonSchema(Strict, tag_field="type", tag="json_schema"):
    json_schema: Schema


class Body(Strict):
    """A chat request without `model`. `null` means not set, as at OpenAI."""

    messages: list[Message]
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stop: str | Annotated[list[str], msgspec.Meta(min_length=1, max_length=4)] | None = None
    seed: Int64 | None = None
    response_format: AsText | AsJsonObject | AsJsonSchema | None = None
    tools: Annotated[list[Tool], msgspec.Meta(min_length=1)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, msgspec.Meta(ge=-100, le=100)]] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    user: str | None = None


#: Fields of a request that a line may set. The last three have another form in `Body`, or none.
PARAMETERS = frozenset({*Body.__struct_fields__, "max_tokens", "n", "stream"})

#: A fraction that is only passed on is read as a Decimal, and so written as it was.
_encoder = msgspec.json.Encoder(decimal_format="number")


def encode(value: Any) -> str:
    """Write a value as JSON text.

    Raises:
        Refused: it holds something that JSON text cannot.
    """
    try:
        return _encoder.encode(value).decode()
    except UnicodeEncodeError:
        raise Refused("it holds half of a surrogate pair, which is no character; remove it") from None
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise Refused(
            "it holds a value that JSON cannot express; use text, numbers, lists and objects"
        ) from None


def check(request: dict[str, Any]) -> Body:
    """Check a request; `request` is used up.

    Raises:
        Refused: a parameter is unknown, or its value is wrong.
    """
    stream = request.pop("stream", None)
    if stream is not None and stream is not False:
        raise Refused("stream must be false or absent: the answers of a batch are stored, not streamed")
    n = request.pop("n", None)
    if n is not None and (type(n) is not int or n != 1):
        raise Refused("n must be 1 or absent: for several answers, write several lines")
    limit = request.pop("max_tokens", None)
    if limit is not None:
        if request.get("max_completion_tokens") not in (None, limit):
            raise Refused("max_tokens and max_completion_tokens differ; keep one of them")
        request["max_completion_tokens"] = limit
    try:
        body = msgspec.convert(request, Body)
    except msgspec.ValidationError as e:
        reason = explain(str(e))
        if limit is not None:
            reason = reason.replace("max_completion_tokens must", "max_tokens must")
        raise Refused(reason) from None
    if not body.messages:
        raise Refused("messages is empty: give at least one message")
    for position, message in enumerate(body.messages):
        _check_message(message, f"messages[{position}]")
    return body


def _check_message(message: Message, where: str) -> None:
    if message.content is None and not (message.role == "assistant" and message.tool_calls):
        raise Refused(f"{where} has no content")
    if message.role == "tool":
        if not message.tool_call_id:
            raise Refused(f"{where} has the role tool and lacks tool_call_id")
    elif message.tool_call_id is not None:
        raise Refused(f"{where} has tool_call_id, which belongs to the role tool")
    if message.tool_calls is not None and message.role != "assistant":
        raise Refused(f"{where} has tool_calls, which belong to the role assistant")
    if type(message.content) is list:
        if not message.content:
            raise Refused(f"{where} has no content")
        if message.role != "user" and any(type(part) is ImagePart for part in message.content):
            raise Refused(f"{where} has an image, which belongs to the role user")


def question(body: Body) -> str:
    """Take what the user asks last: that decides the category, and not a system prompt shared with others."""
    for message in reversed(body.messages):
        if message.role == "user":
            if type(message.content) is str:
                return message.content
            return "\n".join(part.text for part in message.content or () if type(part) is TextPart)
    return ""


_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number with a fraction",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_CHOICES = {
    "messages[].role": "system, developer, user, assistant, tool",
    "messages[].content[].type": "text, image_url",
    "messages[].content[].image_url.detail": "auto, low, high",
    "messages[].tool_calls[].type": "function",
    "response_format.type": "text, json_object, json_schema",
    "tools[].type": "function",
    "tool_choice": "none, auto, required, or an object that names a function",
    "tool_choice.type": "function",
    "reasoning_effort": "none, minimal, low, medium, high, xhigh",
}
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,63}")


def name_of(field: object) -> str:
    """Write a field's name for a message. What looks like no name may be a prompt, and is not repeated."""
    return f"`{field}`" if isinstance(field, str) and _NAME.fullmatch(field) else "a field with an unusual name"


def explain(error: str) -> str:
    """Put msgspec's message in our words: the place, what is expected, and never the value."""
    message, _, place = error.partition(" - at ")
    path = place.strip("`").removeprefix("$").removeprefix(".")
    where = path or "body"
    if found := re.fullmatch(r"Expected `([^`]+)`, got `(\w+)`", message):
        expected = " or ".join(_WORDS.get(kind, kind) for kind in found[1].split(" | ") if kind != "null")
        return f"{where} must be {expected}, not {_WORDS.get(found[2], found[2])}"
    if found := re.fullmatch(r"Expected `(\w+)` ([<>]=) (-?[\d.]+)", message):
        side = "at least" if found[2] == ">=" else "at most"
        return f"{where} must be {_WORDS.get(found[1], found[1])} of {side} {found[3].removesuffix('.0')}"
    if found := re.fullmatch(r"Expected `(\w+)` of length ([<>]=) (\d+)", message):
        side = "at least" if found[2] == ">=" else "at most"
        unit = "character" if found[1] == "str" else "entry" if found[3] == "1" else "entries"
        return f"{where} must have {side} {found[3]} {unit}"
    if found := re.fullmatch(r"Object contains unknown field `(.*)`", message, re.DOTALL):
        if not path:
            return f"{name_of(found[1])} is not a parameter that is understood: correct or remove it"
        return f"{where} has {name_of(found[1])}, which is not understood: correct or remove it"
    if found := re.fullmatch(r"Object missing required field `(\w+)`", message):
        return f"no {found[1]}: give at least one message" if not path else f"{where} lacks {found[1]}"
    choices = _CHOICES.get(re.sub(r"\[\d+\]", "[]", path))
    if choices:
        return f"{where} must be one of: {choices}"
    return f"{where if _NAME.match(where) else 'body'} has a wrong value"
