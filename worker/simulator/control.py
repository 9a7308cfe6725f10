"""The simulator's own paths: its bill and its settings.

GET  /_simulator/health
GET  /_simulator/bill[?provider=P]         sums, by provider and model
GET  /_simulator/bill/calls[?provider=P]   each call, a JSON line each
GET  /_simulator/settings                  and PUT: all of them
GET  /_simulator/settings/P                and PUT: those of one provider, `*` for every
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import pydantic

from worker import errors
from worker.simulator import service, wire
from worker.simulator import settings as simulator_settings

PREFIX = "/_simulator/"

_JSON = "application/json"


class Answer(NamedTuple):
    status: int
    content_type: str
    body: bytes | Iterator[bytes]  #: an iterator is sent as it goes


def answer(providers: service.Service, head: wire.Head, body: bytes) -> Answer:
    """Answer a request to one of the paths above."""
    path = head.path.removeprefix(PREFIX)
    provider = head.query.get("provider")
    if path == "settings" or path.startswith("settings/"):
        return _settings(providers, head.method, path.partition("/")[2], body)
    if head.method != "GET":
        return _wrong(405, f"{head.path} can only be read.")
    if path == "health":
        return Answer(200, _JSON, b'{"status":"ok"}')
    if path == "bill":
        return Answer(200, _JSON, msgspec.json.encode(providers.ledger.bill(provider)))
    if path == "bill/calls":
        return Answer(200, "application/x-ndjson", providers.ledger.lines(provider))
    return _wrong(404, f"The simulator has no {head.path}.")


def _settings(providers: service.Service, method: str, provider: str, body: bytes) -> Answer:
    if method == "PUT":
        try:
            if provider:
                own = simulator_settings.ProviderSettings.model_validate_json(body)
                providers.change(providers.settings.with_provider(provider, own))
            else:
                providers.change(simulator_settings.parse(body))
        except pydantic.ValidationError as e:
            return _wrong(422, f"The settings of {provider} are wrong: {simulator_settings.explain(e)}")
        except errors.SettingsError as e:
            return _wrong(422, str(e))
    elif method != "GET":
        return _wrong(405, "The settings can be read and put.")
    shown = providers.settings.of(provider) if provider else providers.settings
    # What was left out stays so: put back, it still comes from the entry for all.
    return Answer(200, _JSON, shown.model_dump_json(exclude_unset=not provider).encode())


def _wrong(status: int, message: str) -> Answer:
    return Answer(status, _JSON, msgspec.json.encode({"error": message}))
