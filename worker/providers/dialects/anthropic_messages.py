"""Anthropic's messages, in the API version 2023-06-01."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from worker.providers import errors, usage
from worker.providers.dialects import answer, canonical
from worker.providers.types import CallError, Completion, ErrorClass, FinishReason, Reply
from worker.routing import registry

NAME = "Anthropic messages"
HEADERS: Mapping[str, str] = {"anthropic-version": "2023-06-01"}

#: The limit that the API demands, where neither the prompt nor the registry sets one.
DEFAULT_MAX_TOKENS = 4096

_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_FINISH: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}


class _Envelope(msgspec.Struct):
    content: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    usage: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    stop_reason: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    stop_details: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    model: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Block(msgspec.Struct):
    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: dict[str, Any] = {}


class _StopDetails(msgspec.Struct):
    category: str | None = None
    explanation: str | None = None


_envelope = msgspec.json.Decoder(_Envelope)
_blocks = msgspec.json.Decoder(list[_Block])
_word = msgspec.json.Decoder(str | None)
_stop_details = msgspec.json.Decoder(_StopDetails | None)


def url(base_url: str, model: str) -> str:
    return f"{base_url.rstrip('/')}/messages"


def build(body: str, name: str, model: registry.Model) -> bytes:
    request = canonical.parse(body)
    canonical.require(request, name, model)
    limit = request.pop("max_completion_tokens", None) or model.max_output_tokens or DEFAULT_MAX_TOKENS
    system, messages = _messages(request)
    built: dict[str, Any] = {"model": name, "max_tokens": limit, "messages": messages}
    if system:
        built["system"] = system
    for parameter, value in canonical.settings(request):
        match parameter:
            case "temperature" | "top_p" if parameter in model.unsupported:
                pass  # it is the default, which goes without saying
            case "temperature" | "top_p":
                if isinstance(value, int | float) and value > 1:
                    canonical.refuse(NAME, f"{parameter} above 1")
                built[parameter] = value
            case "stop":
                built["stop_sequences"] = canonical.stops(value)
            case "user":
                built["metadata"] = {"user_id": value}
            case "tools":
                built["tools"] = [_tool(function) for function in canonical.functions(value, NAME)]
            case "tool_choice" | "parallel_tool_calls":
                built["tool_choice"] = _tool_choice(request)
            case "reasoning_effort" | "response_format":
                built["output_config"] = built.get("output_config", {}) | _output_config(parameter, value)
            case _:
                canonical.refuse(NAME, parameter)
    return msgspec.json.encode(built)


def read(reply: Reply) -> Completion:
    if reply.status != 200:
        raise errors.classify(reply)
    envelope = answer.decode(_envelope, reply.body)
    used = usage.anthropic(envelope.usage) if envelope.usage is not msgspec.UNSET else None
    if envelope.content is msgspec.UNSET:
        raise errors.classify(reply, used)
    if used is None:
        raise CallError(ErrorClass.MALFORMED, "the answer says no usage")
    reason = answer.optional(_word, envelope.stop_reason, used)
    if reason == "refusal":
        details = answer.optional(_stop_details, envelope.stop_details, used)
        said = (details.explanation or details.category) if details is not None else None
        said = errors.scrub(said or "the model refused to answer")[: errors.MAX_MESSAGE]
        raise CallError(ErrorClass.CONTENT, said, usage=used)
    blocks = answer.decode(_blocks, envelope.content, used)
    text = "".join(block.text for block in blocks if block.type == "text")
    return Completion(
        answer.plain(text), _FINISH.get(reason or "", "stop"), used, answer.answer_text(reply.body)
    )


def chat_completion(body: str, *, model: str, created: int) -> dict[str, Any]:
    done = read(Reply(200, {}, body.encode()))
    envelope = answer.decode(_envelope, body)
    blocks = answer.optional(_blocks, envelope.content, done.usage) or []
    return answer.completion(
        id=answer.optional(_word, envelope.id, done.usage) or "msg",
        model=answer.optional(_word, envelope.model, done.usage) or model,
        created=created,
        text=done.text,
        calls=[answer.function_call(b.id, b.name, b.input) for b in blocks if b.type == "tool_use"],
        finish_reason=done.finish_reason,
        usage=done.usage,
    )


def _messages(request: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The system text, and the turns. Results of tools are turns of the user."""
    system: list[str] = []
    turns: list[dict[str, Any]] = []
    for message in canonical.messages(request):
        role = message.get("role")
        if role in ("system", "developer"):
            canonical.only(message, dialect=NAME)
            system.append(canonical.text_of(message, NAME))
            continue
        if role == "user":
            canonical.only(message, dialect=NAME)
            content = (
                message["content"] if isinstance(message.get("content"), str) else list(_blocks_of(message))
            )
        elif role == "assistant":
            canonical.only(message, "tool_calls", dialect=NAME)
            calls = [_tool_use(call) for call in canonical.tool_calls(message, NAME)]
            content = [*_blocks_of(message), *calls] if calls else canonical.text_of(message, NAME)
        elif role == "tool":
            canonical.only(message, "tool_call_id", dialect=NAME)
            result = {"type": "tool_result", "tool_use_id": message.get("tool_call_id")}
            content = [{**result, "content": canonical.text_of(message, NAME)}]
            if turns and turns[-1]["role"] == "user" and isinstance(turns[-1]["content"], list):
                turns[-1]["content"] += content  # the results of one turn belong together
                continue
            role = "user"
        else:
            canonical.refuse(NAME, f"messages of the role {str(role)[:40]!r}")
        turns.append({"role": role, "content": content})
    if not turns:
        canonical.refuse(NAME, "prompts of system messages alone")
    return "\n\n".join(system), turns


def _blocks_of(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for part in canonical.parts(message):
        match part.get("type"):
            case "text":
                yield {"type": "text", "text": canonical.part_text(part)}
            case "image_url":
                image = canonical.image(part, NAME)
                source = (
                    {"type": "url", "url": image.url}
                    if image.url is not None
                    else {"type": "base64", "media_type": image.media_type, "data": image.data}
                )
                yield {"type": "image", "source": source}
            case other:
                canonical.refuse(NAME, f"content of the type {str(other)[:40]!r}")


def _tool_use(call: canonical.ToolCall) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}


def _tool(function: dict[str, Any]) -> dict[str, Any]:
    tool = {"name": function["name"], "input_schema": function.get("parameters") or {"type": "object"}}
    for name in ("description", "strict"):
        if function.get(name) is not None:
            tool[name] = function[name]
    return tool


def _output_config(parameter: str, value: Any) -> dict[str, Any]:
    kind = value.get("type") if isinstance(value, dict) else value
    if parameter == "reasoning_effort" and kind in _EFFORTS:
        return {"effort": kind}
    if parameter == "response_format" and kind == "json_schema":
        return {"format": {"type": "json_schema", "schema": canonical.json_schema(value)}}
    canonical.refuse(NAME, f"{parameter} {str(kind)[:40]!r}")


def _tool_choice(request: dict[str, Any]) -> dict[str, Any]:
    choice = request.get("tool_choice")
    match choice:
        case None | "auto":
            said: dict[str, Any] = {"type": "auto"}
        case "none":
            return {"type": "none"}
        case "required":
            said = {"type": "any"}
        case _:
            said = {"type": "tool", "name": canonical.chosen_function(choice)}
    if request.get("parallel_tool_calls") is False:
        said["disable_parallel_tool_use"] = True
    return said
