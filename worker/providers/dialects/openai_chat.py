"""OpenAI chat completions, spoken by OpenAI, Groq, Cerebras, Z.ai and most local servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

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


class _Function(msgspec.Struct):
    name: str
    arguments: str | dict[str, Any] | None = None  #: some servers send the object and not its text


class _Call(msgspec.Struct):
    function: _Function
    id: str | None = None


class _Message(msgspec.Struct):
    content: str | list[_Part] | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _TopLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None


class _TokenLogprob(_TopLogprob, kw_only=True):
    top_logprobs: list[_TopLogprob]


class _Logprobs(msgspec.Struct):
    content: list[_TokenLogprob] | None = None
    refusal: list[_TokenLogprob] | None = None


#: Fields that OpenAI's own types know and other servers fill with something else, as Groq does with its tiers.
#: What does not fit is left out of the completion; the provider's own body keeps it.
_TYPES: Mapping[str, Any] = {
    "service_tier": Literal["auto", "default", "flex", "scale", "priority", "fast"],
    "system_fingerprint": str,
    "metadata": dict[str, str],
    "logprobs": _Logprobs,
}
#: Of tools that the canonical request does not have.
_UNASKED = ("annotations", "audio", "function_call", "moderation")

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
    lacking = [marker for needed, marker in canonical.MARKERS.items() if needed not in model.capabilities]
    lacking += [f'"{parameter}"' for parameter in model.unsupported]
    if any(marker in body for marker in lacking):
        canonical.require(canonical.parse(body), name, model)
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
    done = read(Reply(200, {}, body.encode()))
    answered: dict[str, Any] = msgspec.json.decode(body)
    typed = msgspec.convert(answered["choices"], list[_Choice])
    said = answered.get("created")
    return {
        **_fitting(answered),
        "id": answered["id"] if isinstance(answered.get("id"), str) else "chatcmpl",
        "object": "chat.completion",
        "created": int(said) if isinstance(said, int | float) and said > 0 else created,
        "model": answered["model"] if isinstance(answered.get("model"), str) else model,
        "choices": [
            _written(index, *choice)
            for index, choice in enumerate(zip(answered["choices"], typed, strict=True))
        ],
        "usage": {**answered["usage"], **answer.openai_usage(done.usage)},
    }


def _written(index: int, choice: dict[str, Any], typed: _Choice) -> dict[str, Any]:
    """A choice in OpenAI's own types."""
    message = {
        **_fitting(choice["message"]),
        "role": "assistant",
        "content": typed.message.content,
        "refusal": typed.message.refusal,
    }
    if isinstance(typed.message.content, list):
        message["content"] = _text(typed.message.content)
    calls = typed.message.tool_calls
    message.pop("tool_calls", None)
    if calls:
        message["tool_calls"] = [
            answer.function_call(
                call.id or f"call_{number}", call.function.name, call.function.arguments or "{}"
            )
            for number, call in enumerate(calls)
        ]
    reason = _FINISH.get(typed.finish_reason or "stop", "stop")
    if calls and reason == "stop":
        reason = "tool_calls"
    return {"logprobs": None, **_fitting(choice), "index": index, "message": message, "finish_reason": reason}


def _fitting(said: dict[str, Any]) -> dict[str, Any]:
    """The fields of an object that are set, without those that are of another type than OpenAI's."""
    return {
        name: value
        for name, value in said.items()
        if value is not None and name not in _UNASKED and (name not in _TYPES or _is(value, _TYPES[name]))
    }


def _is(value: Any, kind: Any) -> bool:
    try:
        read = msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return not isinstance(read, _Logprobs) or bool(read.content or read.refusal)


def _text(content: str | list[_Part] | None) -> str:
    if isinstance(content, str):
        return content
    # Some servers answer in parts, of which some are thoughts.
    return "".join(part.text or "" for part in content or [] if part.type == "text")
