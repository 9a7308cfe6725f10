"""A request for an answer, in one form for all dialects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

#: Size of a prompt's digest. Sixteen bytes keep the bill small and still never collide.
DIGEST_BYTES = 16


class Conversation(NamedTuple):
    """What the client asked for."""

    model: str
    texts: Sequence[tuple[str, str]]  #: role (`system`, `user`, `assistant`, `tool`) and text of each message
    max_tokens: int | None  #: output tokens allowed, reasoning included
    wants_json: bool


def digest(texts: Iterable[tuple[str, str]]) -> bytes:
    """A hash of who said what: the same for the same prompt in each dialect and for each model."""
    joined = "\x1e".join([f"{role}\x1f{text}" for role, text in texts])
    return hashlib.blake2b(joined.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


class Refused(Exception):
    """The request is not one that the dialect knows.

    Attributes:
        status: the HTTP status the provider gives.
        message: what is wrong, in words.
        param: the field that is wrong, where there is one.
    """

    def __init__(self, message: str, *, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.status = status
