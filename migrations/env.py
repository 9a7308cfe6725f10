"""How Alembic reaches the database.

`worker.ledger.schema` passes its own connection. A plain `alembic` command uses DATABASE_URL, or the embedded
server when that is not set.
"""

from __future__ import annotations

import asyncio

import sqlalchemy as sa
from alembic import context

from worker import settings
from worker.ledger import database, schema, tables


def migrate(connection: sa.Connection) -> None:
    context.configure(
        connection=connection, target_metadata=tables.metadata, compare_type=True, compare_server_default=True
    )
    context.run_migrations()


def url() -> str:
    known = settings.load()
    if known.database_url is not None:
        return known.database_url
    from worker.local import servers

    return servers.use(known).database


async def migrate_over_own_connection() -> None:
    engine = database.engine(url())
    try:
        async with engine.begin() as connection:
            await schema.lock(connection)
            await connection.run_sync(migrate)
    finally:
        await engine.dispose()


if context.is_offline_mode():
    # `alembic upgrade head --sql`: for people whose administrator runs the statements
    context.configure(dialect_name="postgresql", target_metadata=tables.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
elif (given := context.config.attributes.get("connection")) is not None:
    migrate(given)
else:
    asyncio.run(migrate_over_own_connection())
