"""Which provider is which: its dialect, and how it wants to be shown a key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

Dialect = Literal["openai_chat", "anthropic_messages", "gemini_generate_content"]
#: Providers whose own manners are known; `generic` is any other server with the OpenAI chat dialect.
Flavour = Literal["openai", "groq", "cerebras", "zai", "generic", "anthropic", "gemini"]

_OF_PROVIDER: Mapping[str, Flavour] = {
    "openai": "openai",
    "groq": "groq",
    "cerebras": "cerebras",
    "zai": "zai",
}

_GEMINI_METHOD = ":generateContent"


class Target(NamedTuple):
    """What a path asks for."""

    provider: str
    dialect: Dialect
    flavour: Flavour
    model: str  #: where the path names it, as Gemini's does; empty otherwise


def target(path: str) -> Target | None:
    """Read a path of the form `/PROVIDER/…`; nothing where no dialect has such a path."""
    _, provider, *rest = path.split("/", 2)
    if not provider or not rest:
        return None
    below = rest[0]
    if below == "chat/completions":
        return Target(provider, "openai_chat", _OF_PROVIDER.get(provider, "generic"), "")
    # The version is a part of the base URL to some, of the path to others.
    if below in ("messages", "v1/messages"):
        return Target(provider, "anthropic_messages", "anthropic", "")
    if below.startswith("models/") and below.endswith(_GEMINI_METHOD):
        model = below.removeprefix("models/").removesuffix(_GEMINI_METHOD)
        return Target(provider, "gemini_generate_content", "gemini", model) if model else None
    return None


def has_key(flavour: Flavour, headers: Mapping[str, str]) -> bool:
    """Whether the request shows a key where its provider looks for one. Any key will do.

    A generic server stands for a local one too, and those ask for none.
    """
    if flavour == "anthropic":
        return bool(headers.get("x-api-key"))
    if flavour == "gemini":
        return bool(headers.get("x-goog-api-key"))
    if flavour == "generic":
        return True
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and bool(key.strip())
