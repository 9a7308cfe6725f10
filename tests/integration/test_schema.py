"""The migrations, up and down, and what the database looks like after them."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command, script
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.ext.asyncio import AsyncConnection

from worker import errors
from worker.ledger import database, schema, tables

REPOSITORY = Path(__file__).parents[2]

# Everything that Postgres knows of our tables, in words that hold no oid.
CATALOG = {
    "columns": """
        SELECT table_name, column_name, data_type, udt_name, is_nullable, column_default, is_identity,
            identity_generation, col_description(table_name::regclass, ordinal_position::int)
        FROM information_schema.columns WHERE table_schema = 'public' AND table_name = ANY(:tables)
    """,
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE conrelid::regclass::text = ANY(:tables)
    """,
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE tablename = ANY(:tables)",
}
OBJECTS = "SELECT relname, relkind::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"


async def catalog(connection: AsyncConnection) -> dict[str, set[tuple[object, ...]]]:
    names = {"tables": list(tables.metadata.tables)}
    return {
        kind: {tuple(row) for row in await connection.execute(sa.text(query), names)}
        for kind, query in CATALOG.items()
    }


async def test_upgrade_downgrade_upgrade_leaves_the_same_schema(empty_database_url: str) -> None:
    engine = database.engine(empty_database_url)
    await schema.upgrade(empty_database_url)
    async with engine.connect() as connection:
        first = await catalog(connection)
        objects = set(await connection.execute(sa.text(OBJECTS)))
    await schema.downgrade(empty_database_url, "base")
    async with engine.connect() as connection:
        left = {row.relname for row in await connection.execute(sa.text(OBJECTS))}
    assert left == {"alembic_version", "alembic_version_pkc"}
    assert await schema.revision(empty_database_url) is None
    await schema.upgrade(empty_database_url)
    async with engine.connect() as connection:
        assert await catalog(connection) == first
        assert set(await connection.execute(sa.text(OBJECTS))) == objects
    await engine.dispose()


async def test_the_migrations_make_what_the_models_say(database_url: str, empty_database_url: str) -> None:
    # Alembic's own comparison does not see CHECK constraints, partial indexes or comments; the catalog does.
    migrated, modelled = database.engine(database_url), database.engine(empty_database_url)
    async with modelled.begin() as connection:
        await connection.run_sync(tables.metadata.create_all)
        expected = await catalog(connection)
    async with migrated.connect() as connection:
        found = await catalog(connection)
        differences = await connection.run_sync(
            lambda sync: compare_metadata(
                MigrationContext.configure(sync, opts={"compare_type": True, "compare_server_default": True}),
                tables.metadata,
            )
        )
    assert differences == []
    for kind, rows in expected.items():
        assert rows
        assert found[kind] == rows
    await migrated.dispose()
    await modelled.dispose()


def test_head_is_the_newest_revision_of_the_scripts() -> None:
    scripts = script.ScriptDirectory.from_config(schema.config())
    assert scripts.get_current_head() == schema.HEAD
    revisions = [int(revision.revision) for revision in scripts.walk_revisions()]
    assert revisions == sorted(revisions, reverse=True), "a later revision must have the larger number"


async def test_a_database_without_schema_is_refused_with_the_command_to_type(
    empty_database_url: str,
) -> None:
    for look in (schema.check(empty_database_url), schema.prepare(empty_database_url, embedded=False)):
        with pytest.raises(errors.SchemaError, match="promptyard db upgrade"):
            await look


async def test_an_embedded_database_is_brought_up_to_date_by_the_first_command(
    empty_database_url: str,
) -> None:
    await schema.prepare(empty_database_url, embedded=True)
    await schema.check(empty_database_url)


@pytest.mark.parametrize(
    ("revision", "advice"),
    [
        ("0000", "promptyard db upgrade"),
        ("9999", "pip install --upgrade promptyard"),
        ("1a2b3c4d5e6f", "a database of its own"),
    ],
)
async def test_another_revision_is_refused_with_what_to_do(
    database_url: str, revision: str, advice: str
) -> None:
    await set_revision(database_url, revision)
    with pytest.raises(errors.SchemaError, match=advice) as refusal:
        await schema.check(database_url)
    assert revision in str(refusal.value)


async def test_a_newer_schema_is_not_touched(database_url: str) -> None:
    await set_revision(database_url, "9999")
    for change in (
        schema.upgrade(database_url),
        schema.downgrade(database_url, "base"),
        schema.prepare(database_url, embedded=True),
    ):
        with pytest.raises(errors.SchemaError, match="newer"):
            await change
    assert await schema.revision(database_url) == "9999"


async def set_revision(url: str, revision: str) -> None:
    engine = database.engine(url)
    async with engine.begin() as connection:
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = :to"), {"to": revision})
    await engine.dispose()


async def test_two_upgrades_at_once_are_safe(empty_database_url: str) -> None:
    await asyncio.gather(*(schema.upgrade(empty_database_url) for _ in range(3)))
    await schema.check(empty_database_url)


async def test_two_processes_may_upgrade_at_once(empty_database_url: str) -> None:
    program = "import asyncio, sys; from worker.ledger import schema; asyncio.run(schema.upgrade(sys.argv[1]))"
    started = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", program, empty_database_url)
        for _ in range(2)
    ]
    assert [await process.wait() for process in started] == [0, 0]
    await schema.check(empty_database_url)


async def test_a_failed_migration_leaves_nothing_behind(empty_database_url: str) -> None:
    engine = database.engine(empty_database_url)
    async with engine.begin() as connection:
        await connection.execute(sa.text("CREATE TABLE provider_health (mine int)"))
    with pytest.raises(sa.exc.ProgrammingError):
        await schema.upgrade(empty_database_url)
    async with engine.connect() as connection:
        left = {row.relname for row in await connection.execute(sa.text(OBJECTS))}
    assert left == {"provider_health"}
    await engine.dispose()


def test_a_current_schema_is_found_without_importing_alembic(database_url: str) -> None:
    program = (
        "import asyncio, sys; from worker.ledger import schema; "
        "asyncio.run(schema.prepare(sys.argv[1], embedded=True)); print('alembic' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, database_url], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


async def test_a_server_that_is_away_is_a_server_error_without_the_password() -> None:
    with pytest.raises(errors.ServerError, match="DATABASE_URL") as refusal:
        await schema.check("postgresql://someone:hunter2@127.0.0.1:1/nothing")
    assert "127.0.0.1:1/nothing" in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


def test_the_alembic_command_works_in_a_checkout(empty_database_url: str) -> None:
    environment = {**os.environ, "DATABASE_URL": empty_database_url}
    for arguments in (["upgrade", "head"], ["check"], ["downgrade", "base"]):
        subprocess.run(
            [sys.executable, "-m", "alembic", *arguments],
            cwd=REPOSITORY,
            env=environment,
            check=True,
            capture_output=True,
        )


def test_an_installed_package_finds_its_migrations(empty_database_url: str, tmp_path: Path) -> None:
    # Given the package as the wheel lays it out
    build = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    for source, target in build["targets"]["wheel"]["force-include"].items():
        shutil.copytree(REPOSITORY / source, tmp_path / target)
    shutil.copytree(REPOSITORY / "worker", tmp_path / "worker", dirs_exist_ok=True)
    # When it is used from elsewhere
    program = (
        "import asyncio, sys; from worker.ledger import schema; "
        "asyncio.run(schema.upgrade(sys.argv[1])); print(schema.folder())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, empty_database_url],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    # Then the migrations are its own
    assert Path(done.stdout.strip()) == tmp_path / "worker" / "migrations"


def test_an_administrator_can_have_the_statements_on_paper(database_url: str) -> None:
    paper = io.StringIO()
    config = schema.config()
    config.output_buffer = paper
    command.upgrade(config, "head", sql=True)
    statements = paper.getvalue()
    for name in tables.metadata.tables:
        assert f"CREATE TABLE {name} (" in statements
    assert "CREATE VIEW provider_health AS" in statements
    assert f"INSERT INTO alembic_version (version_num) VALUES ('{schema.HEAD}')" in statements
