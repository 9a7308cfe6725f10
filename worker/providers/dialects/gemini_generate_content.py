"""Gemini's generateContent, of the Developer API."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from worker.providers import errors, usage
from worker.providers.dialects import answer, canonical
from worker.providers.types import CallError, Completion, ErrorClass, FinishReason, Reply, Usage
from worker.routing import registry

NAME = "Gemini generateContent"
HEADERS: Mapping[str, str] = {}

#: Parameters that have a field of the same meaning in generationConfig.
_CONFIG: Mapping[str, str] = {
    "max_completion_tokens": "maxOutputTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
#: What Gemini 2 understands instead of a level, by Google's own table of OpenAI compatibility, in tokens.
_BUDGETS: Mapping[str, int] = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
_LEVELS = ("minimal", "low", "medium", "high", "xhigh")

_FINISH: Mapping[str, FinishReason] = {"STOP": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length"}
#: The answer was stopped for what it says.
_REFUSED = {
    "SAFETY",
    "RECITATION",
    "LANGUAGE",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "ESCALATION",
    "MODEL_ARMOR",
}


class _Envelope(msgspec.Struct, rename="camel"):
    candidates: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    usage_metadata: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    prompt_feedback: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    response_id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    model_version: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _FunctionCall(msgspec.Struct):
    name: str = ""
    id: str | None = None
    args: dict[str, Any] = {}


class _Part(msgspec.Struct, rename="camel"):
    text: str = ""
    thought: bool = False
    function_call: _FunctionCall | None = None


class _Content(msgspec.Struct, frozen=True):
    parts: list[_Part] = []


class _Candidate(msgspec.Struct, rename="camel"):
    content: _Content = _Content()
    finish_reason: str | None = None


class _Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


_envelope = msgspec.json.Decoder(_Envelope)
_candidates = msgspec.json.Decoder(list[_Candidate])
_feedback = msgspec.json.Decoder(_Feedback)
_word = msgspec.json.Decoder(str | None)


def url(base_url: str, model: str) -> str:
    return f"{base_url.rstrip('/')}/models/{model}:generateContent"


def build(body: str, name: str, model: registry.Model) -> bytes:
    request = canonical.parse(body)
    canonical.require(request, name, model)
    system, contents = _contents(request)
    built: dict[str, Any] = {"contents": contents}
    if system:
        built["systemInstruction"] = {"parts": [{"text": text} for text in system]}
    config: dict[str, Any] = {}
    for parameter, value in canonical.settings(request):
        match parameter:
            case _ if parameter in _CONFIG:
                config[_CONFIG[parameter]] = value
            case "stop":
                config["stopSequences"] = canonical.stops(value)
            case "reasoning_effort":
                config["thinkingConfig"] = _thinking(value, name)
            case "response_format":
                config |= _format(value)
            case "tools":
                functions = canonical.functions(value, NAME)
                built["tools"] = [{"functionDeclarations": [_declaration(function) for function in functions]}]
                if any(function.get("strict") for function in functions):
                    built.setdefault("toolConfig", {"functionCallingConfig": {"mode": "VALIDATED"}})
            case "tool_choice":
                if value != "auto":
                    built["toolConfig"] = {"functionCallingConfig": _calling(value)}
            case _:
                canonical.refuse(NAME, parameter)
    if config:
        built["generationConfig"] = config
    return msgspec.json.encode(built)


def read(reply: Reply) -> Completion:
    if reply.status != 200:
        raise errors.classify(reply)
    envelope = answer.decode(_envelope, reply.body)
    used = usage.gemini(envelope.usage_metadata) if envelope.usage_metadata is not msgspec.UNSET else None
    if envelope.prompt_feedback is not msgspec.UNSET:
        blocked = answer.decode(_feedback, envelope.prompt_feedback, used).block_reason
        if blocked:
            raise CallError(ErrorClass.CONTENT, f"the prompt was blocked: {blocked[:100]}", usage=used)
    if envelope.candidates is msgspec.UNSET:
        raise errors.classify(reply, used)
    if used is None:
        raise CallError(ErrorClass.MALFORMED, "the answer says no usage")
    parts, reason = _first(envelope.candidates, used)
    called = any(part.function_call is not None for part in parts)
    finish_reason = "tool_calls" if called and reason == "STOP" else _FINISH[reason]
    text = "".join(part.text for part in parts if not part.thought)
    return Completion(answer.plain(text), finish_reason, used, answer.answer_text(reply.body))


def chat_completion(body: str, *, model: str, created: int) -> dict[str, Any]:
    done = read(Reply(200, {}, body.encode()))
    envelope = answer.decode(_envelope, body)
    parts, _ = _first(envelope.candidates, done.usage)
    calls = [part.function_call for part in parts if part.function_call is not None]
    return answer.completion(
        id=answer.optional(_word, envelope.response_id, done.usage) or "gemini",
        model=answer.optional(_word, envelope.model_version, done.usage) or model,
        created=created,
        text=done.text,
        calls=[
            answer.function_call(call.id or f"call_{i}", call.name, call.args) for i, call in enumerate(calls)
        ],
        finish_reason=done.finish_reason,
        usage=done.usage,
    )


def _first(raw: Any, used: Usage) -> tuple[list[_Part], str]:
    """The first candidate and how it ended.

    Raises:
        CallError: it ended with something that is no answer.
    """
    candidates = answer.decode(_candidates, raw, used)
    if not candidates:
        raise CallError(ErrorClass.MALFORMED, "the answer has no candidates", usage=used)
    parts, reason = candidates[0].content.parts, candidates[0].finish_reason or "STOP"
    if reason in _FINISH:
        return parts, reason
    said = f"the answer ended with {reason[:100]}"
    if reason in _REFUSED:
        raise CallError(ErrorClass.CONTENT, said, usage=used)
    if reason == "PUP_LIMITED_DISABLED":  # the account is limited, by the policy on prohibited use
        raise CallError(ErrorClass.AUTH, said, usage=used)
    raise CallError(ErrorClass.MALFORMED, said, usage=used)


def _contents(request: dict[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    """The system texts, and the turns. Results of functions are turns of the user, by the function's name."""
    system: list[str] = []
    contents: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for message in canonical.messages(request):
        role = message.get("role")
        if role in ("system", "developer"):
            canonical.only(message, dialect=NAME)
            system.append(canonical.text_of(message, NAME))
            continue
        if role == "user":
            canonical.only(message, dialect=NAME)
            parts = list(_parts(message))
        elif role == "assistant":
            canonical.only(message, "tool_calls", dialect=NAME)
            calls = canonical.tool_calls(message, NAME)
            names |= {call.id: call.name for call in calls}
            made = [
                {"functionCall": {"id": call.id, "name": call.name, "args": call.arguments}} for call in calls
            ]
            parts = [*_parts(message), *made]
        elif role == "tool":
            canonical.only(message, "tool_call_id", dialect=NAME)
            parts = [_response(message, names)]
            if contents and "functionResponse" in contents[-1]["parts"][-1]:
                contents[-1]["parts"] += parts  # the responses of one turn belong together
                continue
        else:
            canonical.refuse(NAME, f"messages of the role {str(role)[:40]!r}")
        if not parts:
            canonical.refuse(NAME, "empty messages")
        contents.append({"role": "model" if role == "assistant" else "user", "parts": parts})
    if not contents:
        canonical.refuse(NAME, "prompts of system messages alone")
    return system, contents


def _parts(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for part in canonical.parts(message):
        match part.get("type"):
            case "text":
                yield {"text": canonical.part_text(part)}
            case "image_url":
                image = canonical.image(part, NAME)
                if image.url is None:
                    yield {"inlineData": {"mimeType": image.media_type, "data": image.data}}
                    continue
                media_type = mimetypes.guess_type(image.url.partition("?")[0])[0]
                if media_type is None:
                    canonical.refuse(NAME, "images by an address that does not end with their type")
                yield {"fileData": {"mimeType": media_type, "fileUri": image.url}}
            case other:
                canonical.refuse(NAME, f"content of the type {str(other)[:40]!r}")


def _response(message: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The result of a function, which must be an object: another value is its `output`."""
    id = message.get("tool_call_id")
    if not isinstance(id, str) or id not in names:
        canonical.wrong("messages[].tool_call_id")
    text = canonical.text_of(message, NAME)
    try:
        result = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        result = text
    result = result if isinstance(result, dict) else {"output": result}
    return {"functionResponse": {"id": id, "name": names[id], "response": result}}


def _thinking(effort: Any, name: str) -> dict[str, Any]:
    if name.startswith("gemini-2"):
        if effort in _BUDGETS:
            return {"thinkingBudget": _BUDGETS[effort]}
    elif effort in _LEVELS:
        return {"thinkingLevel": effort.upper()}
    canonical.refuse(name, f"reasoning_effort {str(effort)[:40]!r}")


def _format(response_format: Any) -> dict[str, Any]:
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if kind == "json_object":
        return {"responseMimeType": "application/json"}
    if kind == "json_schema":
        schema = canonical.json_schema(response_format)
        return {"responseMimeType": "application/json", "responseJsonSchema": schema}
    canonical.refuse(NAME, f"response_format {str(kind)[:40]!r}")


def _declaration(function: dict[str, Any]) -> dict[str, Any]:
    declaration = {"name": function["name"]}
    if function.get("description") is not None:
        declaration["description"] = function["description"]
    if function.get("parameters") is not None:
        declaration["parametersJsonSchema"] = function["parameters"]
    return declaration


def _calling(choice: Any) -> dict[str, Any]:
    match choice:
        case "none":
            return {"mode": "NONE"}
        case "required":
            return {"mode": "ANY"}
        case _:
            return {"mode": "ANY", "allowedFunctionNames": [canonical.chosen_function(choice)]}
