"""The dialect of Gemini's generateContent."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from worker.simulator import answers, conversation

Json = dict[str, Any]


class _Part(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    text: str | None = None
    inline_data: Json | None = None
    file_data: Json | None = None
    function_call: Json | None = None
    function_response: Json | None = None
    thought: bool | None = None
    thought_signature: str | None = None


class _Content(msgspec.Struct, forbid_unknown_fields=True):
    parts: list[_Part]
    role: Literal["user", "model", "system", "function"] | None = None


class _Generation(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: float | None = None
    top_k: float | None = None
    seed: int | None = None
    candidate_count: int | None = None
    stop_sequences: list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_mime_type: str | None = None
    response_schema: Json | None = None
    response_json_schema: Any = None
    response_logprobs: bool | None = None
    logprobs: int | None = None
    thinking_config: Json | None = None
    response_modalities: list[str] | None = None
    media_resolution: str | None = None


class _Request(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    contents: list[_Content]
    system_instruction: _Content | None = None
    generation_config: _Generation | None = None
    tools: list[Json] | None = None
    tool_config: Json | None = None
    safety_settings: list[Json] | None = None
    cached_content: str | None = None
    labels: Json | None = None


_decoder = msgspec.json.Decoder(_Request)


def read(body: bytes, model: str) -> conversation.Conversation:
    """Understand a request as Gemini would; the path names the model.

    Raises:
        Refused: it is not a generateContent request.
    """
    try:
        request = _decoder.decode(body)
    except msgspec.ValidationError as e:
        raise conversation.Refused(f"Invalid JSON payload received. {e}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise conversation.Refused("Invalid JSON payload received. Unexpected token.") from None
    if not request.contents:
        raise conversation.Refused("* GenerateContentRequest.contents: contents is not specified")
    texts: list[tuple[str, str]] = []
    if request.system_instruction is not None:
        texts.append(("system", _text(request.system_instruction)))
    for content in request.contents:
        role = "assistant" if content.role == "model" else content.role or "user"
        texts.append((role, _text(content)))
    generation = request.generation_config or _Generation()
    return conversation.Conversation(
        model=model,
        texts=texts,
        max_tokens=generation.max_output_tokens,
        wants_json=generation.response_mime_type == "application/json",
    )


def _text(content: _Content) -> str:
    return "\n".join([part.text or "[part]" for part in content.parts])


_FINISH_REASONS = {"stop": "STOP", "length": "MAX_TOKENS"}


def reply(
    asked: conversation.Conversation, answer: answers.Answer, response_id: str, refused: str | None
) -> Json:
    """The body of a response. `refused` is a finish reason, or `promptFeedback` for a blocked prompt."""
    usage = answer.usage
    said = usage.output_tokens - usage.reasoning_tokens
    counts: Json = {
        "promptTokenCount": usage.all_input_tokens,
        "totalTokenCount": usage.all_input_tokens + usage.output_tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": usage.all_input_tokens}],
    }
    # A count of nothing is left out.
    if said:
        counts["candidatesTokenCount"] = said
    if usage.cache_read_tokens:
        counts["cachedContentTokenCount"] = usage.cache_read_tokens
    if usage.reasoning_tokens:
        counts["thoughtsTokenCount"] = usage.reasoning_tokens
    body: Json = {"usageMetadata": counts, "modelVersion": asked.model, "responseId": response_id}
    if refused == "promptFeedback":
        return {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, **body}
    candidate: Json = {"finishReason": refused or _FINISH_REASONS[answer.finish], "index": 0}
    if not refused:
        candidate["content"] = {"parts": [{"text": answer.text}] if answer.text else [], "role": "model"}
    return {"candidates": [candidate], **body}
