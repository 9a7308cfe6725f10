"""What every wire dialect can do. A dialect is a module of `worker.providers.dialects`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from worker.providers.types import Completion, Reply
from worker.routing import registry


class Dialect(Protocol):
    @property
    def HEADERS(self) -> Mapping[str, str]:
        """Fixed headers of every request; those of the registry win."""

    def url(self, base_url: str, model: str) -> str:
        """Where the requests for a model go."""

    def build(self, body: str, name: str, model: registry.Model) -> bytes:
        """The body of a request, from a canonical chat request without its model.

        Args:
            body: an OpenAI chat request as JSON, without `model`, with the limit as `max_completion_tokens`.
            name: the provider's name of the model.

        Raises:
            CallError: `CONFIG` for what this model or dialect cannot do, and another perhaps can;
                `PROMPT` for what nobody can. The message names the parameter.
        """

    def read(self, reply: Reply) -> Completion:
        """Understand an answer. Usage is read first, so that an error in the rest carries it.

        Raises:
            CallError: of the class that the answer asks for.
        """

    def chat_completion(self, body: str, *, model: str, created: int) -> dict[str, Any]:
        """The provider's own body as an OpenAI `chat.completion` object.

        Args:
            body: a body that `read` has accepted.
            model: stands in where the body names none.
            created: seconds since 1970, where the body says none.

        Raises:
            CallError: `MALFORMED`, if the body is none that `read` accepts.
        """
