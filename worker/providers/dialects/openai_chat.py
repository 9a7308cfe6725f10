"""OpenAI chat completions, spoken by OpenAI, Groq, Cerebras, Z.ai and most local servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from worker.providers import errors, usage
from worker.providers.dialects import answer, canonical
from worker.providers.types import CallError, Completion, ErrorClass, FinishReason, Reply
from worker.routing import registry

HEADERS: Mapping[str, str] = {}

_LIMIT = '"max_completion_tokens"'


class _Envelope(msgspec.Struct):
    choices: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    usage: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Part(msgspec.Struct):
    type: str | None = None
    text: str | None = None


class _Message(msgspec.Struct):
    content: str | list[_Part] | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


_envelope = msgspec.json.Decoder(_Envelope)
_choices = msgspec.json.Decoder(list[_Choice])

#: What servers write for the reasons, beyond OpenAI's own.
_FINISH: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",  # Z.ai
}
#: Reasons that mean the server broke while it answered. Z.ai, OpenRouter.
_BROKEN = frozenset({"network_error", "error", "abort"})


def url(base_url: str, model: str) -> str:
    return f"{base_url.rstrip('/')}/chat/completions"


def build(body: str, name: str, model: registry.Model) -> bytes:
    """Put the model before the canonical request, which is of this dialect: as a rule nothing is parsed."""
    for capability, marker in canonical.MARKERS.items():
        if capability not in model.capabilities and marker in body:
            canonical.require(canonical.parse(body), name, model)
            break
    if model.max_tokens_field == "max_tokens" and _LIMIT in body:
        request = canonical.parse(body)
        renamed = {
            "max_tokens" if key == "max_completion_tokens" else key: value for key, value in request.items()
        }
        return msgspec.json.encode({"model": name, **renamed})
    return b'{"model":%b,%b' % (msgspec.json.encode(name), body[1:].encode())


def read(reply: Reply) -> Completion:
    if reply.status != 200:
        raise errors.classify(reply)
    envelope = answer.decode(_envelope, reply.body)
    used = usage.openai(envelope.usage) if envelope.usage is not msgspec.UNSET else None
    if envelope.choices is msgspec.UNSET:
        raise errors.classify(reply, used)
    if used is None:
        raise CallError(ErrorClass.MALFORMED, "the answer says no usage")
    choices = answer.decode(_choices, envelope.choices, used)
    if not choices:
        raise CallError(ErrorClass.MALFORMED, "the answer has no choices", usage=used)
    message, reason = choices[0].message, choices[0].finish_reason
    finish_reason = _FINISH.get(reason or "stop", "stop")
    if message.refusal or finish_reason == "content_filter":
        said = errors.scrub(message.refusal or "a content filter stopped the answer")[: errors.MAX_MESSAGE]
        raise CallError(ErrorClass.CONTENT, said, usage=used)
    if reason in _BROKEN:
        raise CallError(ErrorClass.TRANSIENT, f"the answer ended with {reason}", usage=used)
    if message.tool_calls and finish_reason == "stop":
        finish_reason = "tool_calls"
    return Completion(answer.plain(_text(message.content)), finish_reason, used, answer.answer_text(reply.body))


def chat_completion(body: str, *, model: str, created: int) -> dict[str, Any]:
    read_again = read(Reply(200, {}, body.encode()))
    completion: dict[str, Any] = msgspec.json.decode(body)
    defaults = {"id": "chatcmpl", "object": "chat.completion", "created": created, "model": model}
    completion = {**defaults, **{name: value for name, value in completion.items() if value is not None}}
    completion["object"] = "chat.completion"
    completion["usage"] = {**completion["usage"], **answer.openai_usage(read_again.usage)}
    for index, choice in enumerate(completion["choices"]):
        reason = choice.get("finish_reason") or "stop"
        calls = choice["message"].get("tool_calls")
        choice["index"] = index
        choice["message"] = {**choice["message"], "role": "assistant"}
        choice["finish_reason"] = "tool_calls" if calls and reason == "stop" else _FINISH.get(reason, "stop")
        if isinstance(choice["message"].get("content"), list):
            choice["message"]["content"] = read_again.text if index == 0 else None
    return completion


def _text(content: str | list[_Part] | None) -> str:
    if isinstance(content, str):
        return content
    # Some servers answer in parts, of which some are thoughts.
    return "".join(part.text or "" for part in content or [] if part.type == "text")
