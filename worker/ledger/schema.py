"""The version of the database's schema: look, bring up to date, take back.

Alembic and the migrations are imported only when something has to change: a command that finds the schema as
it should be pays one connection and one SELECT.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import sqlalchemy as sa

from worker import errors
from worker.ledger import database

if TYPE_CHECKING:
    from collections.abc import Callable

    from alembic.config import Config
    from sqlalchemy.ext import asyncio as sa_asyncio

#: Newest revision in migrations/versions. Revisions are numbers, each one more than the one before.
HEAD = "0001"

UPGRADE = "Run `promptyard db upgrade`."

#: Key of the advisory lock under which the schema changes.
LOCK = 7_067_901


def folder() -> Path:
    """Where the migrations are: inside the package when it is installed, beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


async def revision(url: str) -> str | None:
    """Read the revision of the database; None when it has no schema of ours.

    Raises:
        SettingsError: it is not a Postgres URL.
        ServerError: the server does not answer, or does not let us in.
    """
    parsed = database.async_url(url)
    # SQLAlchemy's own start-up costs six round trips and its engine; here one is enough.
    _, options = parsed.get_dialect()().create_connect_args(parsed)
    try:
        connection = await asyncpg.connect(**options, timeout=database.CONNECT_TIMEOUT_S)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as e:
        where = f"{parsed.host or 'localhost'}:{parsed.port or 5432}/{parsed.database or ''}"
        reason = str(e) or type(e).__name__
        raise errors.ServerError(
            f"Postgres at {where} cannot be used: {reason}. Start it, or correct DATABASE_URL."
        ) from e
    try:
        found: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return None
    finally:
        await connection.close()
    return found


async def check(url: str) -> None:
    """Make sure that the database has the schema of this release.

    Raises:
        SchemaError: it has none or another one; the message says what to do.
        SettingsError: it is not a Postgres URL.
        ServerError: the server does not answer, or does not let us in.
    """
    found = await revision(url)
    if found != HEAD:
        raise _mismatch(found)


async def prepare(url: str, *, embedded: bool) -> None:
    """What every command does first: bring an embedded database up to date, check any other.

    Raises:
        SchemaError: the database is the user's own and has no schema or an older one; or the schema is newer
            than this release, or not Promptyard's.
        SettingsError: it is not a Postgres URL.
        ServerError: the server does not answer, or does not let us in.
    """
    found = await revision(url)
    if found == HEAD:
        return
    if not embedded:
        raise _mismatch(found)
    _refuse_unknown(found)
    await _run(url, _upgrade)


async def upgrade(url: str) -> None:
    """Bring the database to the schema of this release, in one transaction. Two at once are safe.

    Raises:
        SchemaError: the schema is newer than this release, or not Promptyard's.
        SettingsError: it is not a Postgres URL.
        ServerError: the server does not answer, or does not let us in.
    """
    _refuse_unknown(await revision(url))
    await _run(url, _upgrade)


async def downgrade(url: str, to: str) -> None:
    """Take the schema back to a revision, `base` for none. Data of what is dropped is lost.

    Raises:
        SchemaError: the schema is newer than this release, or not Promptyard's.
        SettingsError: it is not a Postgres URL.
        ServerError: the server does not answer, or does not let us in.
    """
    _refuse_unknown(await revision(url))

    def change(config: Config) -> None:
        from alembic import command

        command.downgrade(config, to)

    await _run(url, change)


def config(connection: sa.Connection | None = None) -> Config:
    """Alembic's configuration, without alembic.ini: an installed package has none."""
    from alembic import config as alembic_config

    made = alembic_config.Config()
    made.set_main_option("path_separator", "os")
    made.set_main_option("script_location", str(folder()).replace("%", "%%"))
    made.attributes["connection"] = connection
    return made


async def lock(connection: sa_asyncio.AsyncConnection) -> None:
    """Wait until nobody else changes the schema, and keep others out until the transaction ends.

    Alembic must start after this: it reads the revision once, and its context is one for the whole process.
    """
    await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))


def _upgrade(config: Config) -> None:
    from alembic import command

    command.upgrade(config, "head")


async def _run(url: str, change: Callable[[Config], None]) -> None:
    engine = database.engine(url)
    try:
        async with engine.begin() as connection:
            await lock(connection)
            await connection.run_sync(lambda sync: change(config(sync)))
    finally:
        await engine.dispose()


def _refuse_unknown(found: str | None) -> None:
    if found is not None and not (found.isdigit() and int(found) <= int(HEAD)):
        raise _mismatch(found)


def _mismatch(found: str | None) -> errors.SchemaError:
    if found is None:
        return errors.SchemaError(f"The database has no Promptyard schema. {UPGRADE}")
    if not found.isdigit():
        return errors.SchemaError(
            f"The database has a schema of another program (revision {found}). "
            "Give Promptyard a database of its own in DATABASE_URL."
        )
    if int(found) > int(HEAD):
        return errors.SchemaError(
            f"The database has schema revision {found}, newer than this release knows ({HEAD}). "
            "Upgrade Promptyard: pip install --upgrade promptyard"
        )
    return errors.SchemaError(f"The database has schema revision {found}, this release needs {HEAD}. {UPGRADE}")
