"""The dialect of Anthropic's messages."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from worker.simulator import answers, conversation

Json = dict[str, Any]


class _Block(msgspec.Struct):
    type: str
    text: str | None = None


class _Message(msgspec.Struct):
    role: Literal["user", "assistant"]
    content: str | list[_Block]


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    max_tokens: Annotated[int, msgspec.Meta(ge=1)]
    messages: list[_Message]
    system: str | list[_Block] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    tools: list[Json] | None = None
    tool_choice: Json | None = None
    metadata: Json | None = None
    thinking: Json | None = None
    service_tier: str | None = None
    output_config: Json | None = None
    output_format: Json | None = None
    cache_control: Json | None = None


_decoder = msgspec.json.Decoder(_Request)


def read(body: bytes, version: str | None) -> conversation.Conversation:
    """Understand a request as Anthropic would; `version` is the header `anthropic-version`.

    Raises:
        Refused: it is not a messages request.
    """
    if not version:
        raise conversation.Refused("anthropic-version: header is required")
    try:
        request = _decoder.decode(body)
    except msgspec.ValidationError as e:
        raise conversation.Refused(str(e)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise conversation.Refused("The request body is not valid JSON") from None
    if not request.messages:
        raise conversation.Refused("messages: at least one message is required")
    if request.messages[0].role != "user":
        raise conversation.Refused('messages: first message must use the "user" role')
    if request.stream:
        raise conversation.Refused("stream: the simulator does not stream")
    texts: list[tuple[str, str]] = []
    if request.system:
        texts.append(("system", _text(request.system)))
    texts += [(message.role, _text(message.content)) for message in request.messages]
    if not all(text for _, text in texts):
        raise conversation.Refused("messages: text content blocks must be non-empty")
    wants_json = bool(request.output_format or (request.output_config or {}).get("format"))
    return conversation.Conversation(request.model, texts, request.max_tokens, wants_json)


def _text(content: str | list[_Block]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join([block.text or f"[{block.type}]" for block in content])


_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


def reply(
    asked: conversation.Conversation, answer: answers.Answer, response_id: str, refused: str | None
) -> Json:
    """The body of a message. With `refused` the model was stopped by a content policy."""
    usage = answer.usage
    return {
        "id": response_id,
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": [] if refused or not answer.text else [{"type": "text", "text": answer.text}],
        "stop_reason": "refusal" if refused else _STOP_REASONS[answer.finish],
        "stop_sequence": None,
        "usage": {
            "input_tokens": usage.input_tokens,
            "cache_creation_input_tokens": usage.cache_write_tokens,
            "cache_read_input_tokens": usage.cache_read_tokens,
            "cache_creation": {
                "ephemeral_5m_input_tokens": usage.cache_write_tokens,
                "ephemeral_1h_input_tokens": 0,
            },
            "output_tokens": usage.output_tokens,
            "service_tier": "standard",
        },
    }
