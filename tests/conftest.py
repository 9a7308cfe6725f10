"""Real servers for every test: embedded ones in a temporary home, a fresh database a test."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Coroutine, Iterator
from typing import Any
from urllib import parse

import asyncpg
import pytest
import redis

from worker import settings
from worker.local.servers import Urls, use


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the settings or keys of whoever runs it."""
    for name in list(os.environ):
        if (
            name.startswith("PROMPTYARD_")
            or name.endswith("_API_KEY")
            or name in {"DATABASE_URL", "BROKER_URL"}
        ):
            monkeypatch.delenv(name)
    settings.load.cache_clear()
    yield
    settings.load.cache_clear()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Urls:
    """Embedded Postgres and Valkey for the whole session; they stop when pytest ends."""
    home = tmp_path_factory.mktemp("home")
    return use(settings.Settings(home=home, database_url=None, broker_url=None))


@pytest.fixture(scope="session")
def migrated_database(servers: Urls) -> str:
    """Name of a database at the latest schema version that others are copied from."""
    from worker.ledger import schema

    name = "migrated"
    run(execute(servers.database, f"CREATE DATABASE {name}"))
    run(schema.upgrade(named(servers.database, name)))
    return name


@pytest.fixture
def empty_database_url(servers: Urls) -> Iterator[str]:
    """A database of the test's own, without a table."""
    yield from fresh_database(servers.database, "template1")


@pytest.fixture
def database_url(servers: Urls, migrated_database: str) -> Iterator[str]:
    """A database of the test's own, at the latest schema version."""
    yield from fresh_database(servers.database, migrated_database)


@pytest.fixture(scope="module")
def module_database_url(servers: Urls, migrated_database: str) -> Iterator[str]:
    """A database that the tests of a module share, at the latest schema version."""
    yield from fresh_database(servers.database, migrated_database)


@pytest.fixture
def broker_url(servers: Urls) -> str:
    """An empty Valkey, shared with the other tests of the session, which run one after the other."""
    with redis.Redis.from_url(servers.broker) as client:
        client.flushall()
    return servers.broker


def fresh_database(admin_url: str, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    run(execute(admin_url, f"CREATE DATABASE {name} TEMPLATE {template}"))
    yield named(admin_url, name)
    run(execute(admin_url, f"DROP DATABASE {name} WITH (FORCE)"))


def named(url: str, database: str) -> str:
    """The same server, another database."""
    return parse.urlsplit(url)._replace(path=f"/{database}").geturl()


async def execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on a loop of its own, leaving pytest-asyncio's alone."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()
