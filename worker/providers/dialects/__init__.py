"""The wire dialects, one module each. What they have in common is `worker.providers.dialect.Dialect`."""

from __future__ import annotations

from collections.abc import Mapping

from worker.providers import dialect
from worker.providers.dialects import anthropic_messages, gemini_generate_content, openai_chat
from worker.routing import registry

# mypy holds a module against a protocol where it is assigned, and not in a dict.
_openai: dialect.Dialect = openai_chat
_anthropic: dialect.Dialect = anthropic_messages
_gemini: dialect.Dialect = gemini_generate_content

BY_NAME: Mapping[registry.Dialect, dialect.Dialect] = {
    "openai_chat": _openai,
    "anthropic_messages": _anthropic,
    "gemini_generate_content": _gemini,
}
