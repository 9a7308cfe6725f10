"""What goes to a provider and what comes back, in one form for all dialects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from worker import errors
from worker.routing.failures import ErrorClass

__all__ = ["CallError", "Completion", "ErrorClass", "FinishReason", "Reply", "Usage"]

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one call in disjoint buckets.

    `input_tokens + cache_read_tokens + cache_write_tokens + output_tokens` is all that was used.
    `reasoning_tokens` is a part of `output_tokens`.
    """

    input_tokens: int = 0  #: fresh input: neither read from nor written to a cache
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def all_input_tokens(self) -> int:
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens


class Reply(msgspec.Struct, frozen=True):
    """An HTTP answer, read whole."""

    status: int
    headers: Mapping[str, str]  #: looked up without regard to case
    body: bytes


class Completion(msgspec.Struct, frozen=True):
    """A usable answer."""

    text: str  #: empty when the answer is only tool calls
    finish_reason: FinishReason
    usage: Usage
    body: str  #: the provider's own JSON


class CallError(errors.PromptyardError):
    """A call gave no usable answer.

    Attributes:
        error_class: what kind of failure it was.
        message: what the provider said, or what broke; never a key, never the prompt.
        status: the HTTP status, where there was one.
        usage: tokens that the failed call used all the same, where the provider said so.
        retry_after_s: seconds that the provider asked to wait, where it did.
        body: what the provider answered, as text, where it answered.
    """

    def __init__(
        self,
        error_class: ErrorClass,
        message: str,
        *,
        status: int | None = None,
        usage: Usage | None = None,
        retry_after_s: float | None = None,
        body: str | None = None,
    ) -> None:
        super().__init__(f"{error_class}: {message}")
        self.error_class = error_class
        self.message = message
        self.status = status
        self.usage = usage
        self.retry_after_s = retry_after_s
        self.body = body
