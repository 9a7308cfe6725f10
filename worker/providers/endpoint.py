"""A route made ready for calls: everything about it that does not change from prompt to prompt."""

from __future__ import annotations

from collections.abc import Mapping

from worker import errors
from worker.providers import dialects
from worker.providers import errors as provider_errors
from worker.providers.dialects import answer
from worker.providers.types import CallError, Completion, Reply
from worker.routing import registry


class Endpoint:
    """Where the prompts of one route go, how they are written, and how their answers are read.

    Attributes:
        route: the provider and model.
        url: address of the requests.
        headers: theirs, the key among them: not to be shown.
    """

    __slots__ = ("_dialect", "_key", "_model", "headers", "route", "url")

    def __init__(self, provider: registry.Provider, route: registry.Route, key: str | None) -> None:
        self.route = route
        self._model = provider.models[route.model]
        self._dialect = dialects.BY_NAME[provider.dialect]
        self._key = key
        self.url = self._dialect.url(provider.base_url, route.model)
        self.headers = _headers(provider, self._dialect.HEADERS, key)

    def __repr__(self) -> str:
        return f"Endpoint({self.route}, {self.url})"

    def build(self, body: str) -> bytes:
        """The body of a request for a prompt's canonical body.

        Raises:
            CallError: this model cannot do what the prompt asks for (`CONFIG`), or no model can (`PROMPT`).
        """
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
            raise CallError(
                error.error_class,
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
