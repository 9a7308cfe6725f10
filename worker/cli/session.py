"""What a command works with: the settings, the registry, and a database whose schema is right."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from worker import errors, settings
from worker.ledger import database, schema
from worker.local import servers
from worker.routing import load, registry

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True, slots=True)
class Session:
    settings: settings.Settings
    registry: registry.Registry
    usable: load.Usable
    db: AsyncEngine

    def restricted(self, only: Sequence[str], without: Sequence[str]) -> Session:
        """The same without some of the providers; see `worker.routing.load.Usable.restricted`."""
        return dataclasses.replace(self, usable=self.usable.restricted(only, without))


@contextlib.asynccontextmanager
async def opened(config: settings.Settings | None = None) -> AsyncIterator[Session]:
    """Read the registry, start the servers that the environment does not name, bring their schema up to date.

    Raises:
        RegistryError, SettingsError, ServerError, SchemaError: it cannot be done; the message says why.
    """
    config = config or settings.load()
    found = load.registry(config)
    url = servers.use(config).database
    await schema.prepare(url, embedded=config.database_url is None)
    db = database.engine(url)
    try:
        yield Session(config, found, load.usable(found), db)
    except (sa.exc.DBAPIError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError) as e:
        if isinstance(e, sa.exc.DBAPIError) and not e.connection_invalidated:
            raise
        # Only the type: the text of a database error quotes the statement's values.
        raise errors.ServerError(
            f"The connection to Postgres broke ({type(e).__name__}). `promptyard doctor` looks at it."
        ) from e
    finally:
        await db.dispose()


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run the asynchronous part of a command."""
    return asyncio.run(work)
