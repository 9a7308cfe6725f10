"""The dialect of OpenAI's chat completions, with what Groq, Cerebras and Z.ai make of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from worker.simulator import answers, conversation, flavours

Json = dict[str, Any]
PositiveInt = msgspec.Meta(ge=1)


class _Part(msgspec.Struct):
    type: str
    text: str | None = None


class _Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[_Part] | None = None
    tool_calls: list[Json] | None = None


class _Format(msgspec.Struct):
    type: Literal["text", "json_object", "json_schema"]


class _Request(msgspec.Struct):
    model: str
    messages: list[_Message]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    n: int | None = None
    stream: bool | None = None
    response_format: _Format | None = None
    tools: list[Json] | None = None
    reasoning_effort: str | None = None


#: Bounds that providers check: parameter, least, greatest.
_BOUNDS = (
    ("max_tokens", 1, None),
    ("max_completion_tokens", 1, None),
    ("temperature", 0, 2),
    ("top_p", 0, 1),
    ("n", 1, 1),
)

_decoder = msgspec.json.Decoder(_Request)


def read(body: bytes, flavour: flavours.Flavour) -> conversation.Conversation:
    """Understand a request as the provider would.

    Raises:
        Refused: it is not a chat completion request, or asks for what the provider does not do.
    """
    try:
        request = _decoder.decode(body)
    except msgspec.ValidationError as e:
        raise conversation.Refused(*_where(str(e))) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise conversation.Refused("We could not parse the JSON body of your request.") from None
    _check(request, flavour)
    texts = [("system" if m.role == "developer" else m.role, _text(m.content)) for m in request.messages]
    # Z.ai knows the older name only, and passes over what it does not know.
    newer = None if flavour == "zai" else request.max_completion_tokens
    return conversation.Conversation(
        model=request.model,
        texts=texts,
        max_tokens=request.max_tokens if newer is None else newer,
        wants_json=request.response_format is not None and request.response_format.type != "text",
    )


def _check(request: _Request, flavour: flavours.Flavour) -> None:
    if not request.model:
        raise conversation.Refused("you must provide a model parameter", param="model")
    if not request.messages:
        raise conversation.Refused(
            "Invalid 'messages': empty array. Expected an array with minimum length 1, "
            "but got an empty array instead.",
            param="messages",
        )
    if request.stream:
        raise conversation.Refused("The simulator does not stream.", param="stream")
    for name, least, greatest in _BOUNDS:
        value = getattr(request, name)
        if value is not None and (value < least or (greatest is not None and value > greatest)):
            raise conversation.Refused(f"Invalid value for '{name}': {value} is out of range.", param=name)
    if flavour == "openai" and request.max_tokens is not None and answers.reasons(request.model):
        raise conversation.Refused(
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            param="max_tokens",
        )
    for at, message in enumerate(request.messages):
        if message.content is None and not message.tool_calls:
            raise conversation.Refused(
                "Invalid value for 'content': expected a string, got null.", param=f"messages.[{at}].content"
            )


def _where(reason: str) -> tuple[str]:
    return (f"Invalid request: {reason}",)


def _text(content: str | list[_Part] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join([part.text or f"[{part.type}]" for part in content])


def reply(
    asked: conversation.Conversation,
    answer: answers.Answer,
    flavour: flavours.Flavour,
    response_id: str,
    refused: str | None,
) -> Json:
    """The body of a completion. With `refused` the content policy cut it off."""
    usage = answer.usage
    sent = usage.all_input_tokens
    message: Json = {"role": "assistant", "content": None if refused else answer.text}
    if flavour == "zai" and answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    elif flavour == "openai":
        message |= {
            "refusal": "I'm sorry, but I can't help with that." if refused else None,
            "annotations": [],
        }
    elif answer.reasoning:
        message["reasoning"] = answer.reasoning
    counts: Json = {
        "prompt_tokens": sent,
        "completion_tokens": usage.output_tokens,
        "total_tokens": sent + usage.output_tokens,
    }
    if usage.cache_read_tokens or flavour == "openai":
        counts["prompt_tokens_details"] = {"cached_tokens": usage.cache_read_tokens}
    if usage.reasoning_tokens or flavour == "openai":
        counts["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    created = int(time.time())
    body: Json = {
        "id": response_id,
        "object": "chat.completion",
        "created": created,
        "model": asked.model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": _finish(answer, flavour, refused),
            }
        ],
        "usage": counts,
    }
    if flavour == "groq":
        counts |= {"queue_time": 0.0123, **_times(usage.output_tokens, sent)}
        body |= {"system_fingerprint": "fp_simulated", "x_groq": {"id": f"req_{response_id[-24:]}"}}
    elif flavour == "cerebras":
        body |= {
            "system_fingerprint": "fp_simulated",
            "time_info": {"queue_time": 0.0001, **_times(usage.output_tokens, sent), "created": created},
        }
    elif flavour == "openai":
        body |= {"service_tier": "default", "system_fingerprint": "fp_simulated"}
    elif flavour == "zai":
        body |= {"request_id": response_id}
    return body


def _finish(answer: answers.Answer, flavour: flavours.Flavour, refused: str | None) -> str:
    if refused:
        return "sensitive" if flavour == "zai" else "content_filter"
    return answer.finish


def _times(output_tokens: int, sent: int) -> Mapping[str, float]:
    prompt_s, completion_s = round(sent / 20_000, 6), round(output_tokens / 500, 6)
    return {
        "prompt_time": prompt_s,
        "completion_time": completion_s,
        "total_time": round(prompt_s + completion_s, 6),
    }
