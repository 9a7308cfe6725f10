"""A route made ready for calls: everything about it that does not change from prompt to prompt."""

from __future__ import annotations

from collections.abc import Mapping

from worker import errors
from worker.providers import dialects
from worker.providers import errors as provider_errors
from worker.providers.dialects import answer, canonical
from worker.providers.types import CallError, Completion, ErrorClass, Reply
from worker.routing import registry

#: No tokenizer puts as many characters into a token on the average of a text: what is longer by this measure
#: is surely too long. English has 4 to 5, other languages fewer.
CHARS_PER_TOKEN = 8


class Endpoint:
    """Where the prompts of one route go, how they are written, and how their answers are read.

    Attributes:
        route: the provider and model.
        url: address of the requests.
        headers: theirs, the key among them: not to be shown.
    """

    __slots__ = ("_dialect", "_key", "_max_chars", "_model", "_own_errors", "headers", "route", "url")

    def __init__(self, provider: registry.Provider, route: registry.Route, key: str | None) -> None:
        self.route = route
        self._model = provider.models[route.model]
        self._max_chars = self._model.context_window * CHARS_PER_TOKEN
        self._own_errors = provider.errors
        self._dialect = dialects.BY_NAME[provider.dialect]
        self._key = key
        self.url = self._dialect.url(provider.base_url, route.model)
        self.headers = _headers(provider, self._dialect.HEADERS, key)

    def __repr__(self) -> str:
        return f"Endpoint({self.route}, {self.url})"

    def build(self, body: str) -> bytes:
        """The body of a request for a prompt's canonical body.

        Raises:
            CallError: the prompt is surely too long for this model (`CONTEXT`), this model cannot do what it
                asks for (`CONFIG`), or no model can (`PROMPT`).
        """
        if len(body) > self._max_chars and not canonical.has_images(body):
            raise CallError(
                ErrorClass.CONTEXT,
                f"{len(body):,} characters are more than the {self._model.context_window:,} tokens of "
                f"{self.route.model}",
            )
        return self._dialect.build(body, self.route.model, self._model)

    def read(self, reply: Reply) -> Completion:
        """Understand an answer.

        Raises:
            CallError: it is none. The error carries the status, the body and the usage, and never the key.
        """
        try:
            return self._dialect.read(reply)
        except CallError as error:
            body = answer.answer_text(reply.body) if error.body is None else error.body
            own = provider_errors.own_class(reply, self._own_errors) if self._own_errors else None
            raise CallError(
                own or error.error_class,
                provider_errors.scrub(error.message, self._key),
                status=reply.status,
                usage=error.usage,
                retry_after_s=error.retry_after_s,
                body=provider_errors.scrub(body, self._key),
            ) from None


def endpoint(registry_: registry.Registry, route: registry.Route, key: str | None) -> Endpoint:
    """Make a route ready.

    Args:
        key: the provider's key; None for a server that needs none.

    Raises:
        SettingsError: the key holds what a header cannot carry, as a line break from a file.
    """
    provider = registry_.provider(route.provider)
    if key is not None and not (key.isascii() and key.isprintable() and key == key.strip()):
        name = provider.key_env or route.provider
        raise errors.SettingsError(
            f"{name} holds a blank, a line break or a letter that no key has. Set it again."
        )
    return Endpoint(provider, route, key)


def _headers(provider: registry.Provider, fixed: Mapping[str, str], key: str | None) -> Mapping[str, str]:
    headers = {"content-type": "application/json", **fixed}
    headers |= {name.lower(): value for name, value in provider.headers.items()}
    if key is not None:
        name = provider.auth_header.lower()
        headers[name] = f"Bearer {key}" if name == "authorization" else key
    return headers
