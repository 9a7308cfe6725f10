"""Connections to Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext import asyncio as sa_asyncio

from worker import errors

#: Seconds to wait for a connection before the server counts as away.
CONNECT_TIMEOUT_S = 10


def async_url(url: str) -> sa.URL:
    """Take a Postgres URL in any of its usual spellings and name the asyncpg driver.

    Raises:
        SettingsError: it is not a Postgres URL.
    """
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        parsed = None
    if parsed is None or parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise errors.SettingsError(
            "DATABASE_URL is not a Postgres URL. Write it as postgresql://user:password@host:5432/name"
        )
    query = dict(parsed.query)
    # libpq calls it sslmode, asyncpg calls it ssl; both take the same words.
    if "sslmode" in query:
        query["ssl"] = query.pop("sslmode")
    return parsed.set(drivername="postgresql+asyncpg", query=query)


def engine(
    url: str, *, pool_size: int = 5, idle_in_transaction_s: float | None = None
) -> sa_asyncio.AsyncEngine:
    """Make an engine. It connects on first use and must be disposed of in the loop that used it.

    Args:
        idle_in_transaction_s: how long a transaction may wait for its client before Postgres ends it. A worker
            that freezes in the middle of one would else keep its locks, and with them its shards, for good.
    """
    idle_ms = "0" if idle_in_transaction_s is None else str(round(idle_in_transaction_s * 1000))
    return sa_asyncio.create_async_engine(
        async_url(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        connect_args={
            "timeout": CONNECT_TIMEOUT_S,
            "server_settings": {
                "application_name": "promptyard",
                "timezone": "UTC",
                # costs more than it brings on statements this small
                "jit": "off",
                "idle_in_transaction_session_timeout": idle_ms,
                # A plan made while a table was empty reads all of it for every prompt once it is full.
                "plan_cache_mode": "force_custom_plan",
            },
        },
    )


async def copy(
    connection: sa_asyncio.AsyncConnection,
    table: sa.Table,
    columns: Sequence[str],
    records: Iterable[Sequence[Any]] | AsyncIterable[Sequence[Any]],
) -> None:
    """COPY records into a table inside the connection's transaction.

    Raises:
        asyncpg.PostgresError: a record breaks a constraint; the transaction must be rolled back.
    """
    raw = await connection.get_raw_connection()
    driver = raw.driver_connection
    assert driver is not None
    if not driver.is_in_transaction():
        # SQLAlchemy sends BEGIN with the first statement, and the driver's COPY is none of its statements.
        await connection.execute(sa.text("SELECT"))
    await driver.copy_records_to_table(table.name, columns=list(columns), records=records)


__all__ = ["async_url", "copy", "engine"]
