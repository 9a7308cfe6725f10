"""docs/sql.md says what is there, and its queries run."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import ledger_rows as rows
import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.ledger import database
from worker.routing import failures

PAGE = (Path(__file__).parents[2] / "docs" / "sql.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"^(\S[^\n]*:)\n\n```sql\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)

COLUMNS = sa.text("""
    SELECT c.relname AS relation, a.attname AS column, format_type(a.atttypid, a.atttypmod) AS type
    FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v')
        AND c.relname <> 'alembic_version' AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY c.relname, a.attnum
""")


@pytest_asyncio.fixture
async def connection(database_url: str) -> AsyncIterator[AsyncConnection]:
    engine = database.engine(database_url)
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


def documented() -> dict[str, list[tuple[str, str]]]:
    """Relation -> columns with their types, in the order of the page."""
    sections = re.findall(r"^### `(\w+)`\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    return {
        name: re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", section, re.MULTILINE) for name, section in sections
    }


async def test_every_table_view_and_column_is_documented_with_its_type(connection: AsyncConnection) -> None:
    real: dict[str, list[tuple[str, str]]] = {}
    for row in await connection.execute(COLUMNS):
        short = row.type.replace("timestamp with time zone", "timestamptz")
        real.setdefault(row.relation, []).append((row.column, short))
    assert documented() == real


def test_every_kind_of_failure_is_documented() -> None:
    listed = re.search(r"## Kinds of failure\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    assert listed is not None
    names = re.findall(r"^\| `(\w+)` \|", listed[1], re.MULTILINE)
    assert names == ["error_class"] + [kind.value for kind in failures.ErrorClass] + ["batch_cancelled"]


def test_the_page_has_its_example_queries() -> None:
    assert len(QUERIES) == PAGE.count("```sql") >= 8


@pytest.mark.parametrize("query", [sql for _, sql in QUERIES], ids=[title for title, _ in QUERIES])
async def test_an_example_query_finds_something(connection: AsyncConnection, query: str) -> None:
    batch_id = await rows.batch(connection, 2)
    assert batch_id == 1, "the examples ask for batch 1"
    price_id = (await connection.execute(sa.text("""
        INSERT INTO prices (provider, model, above_input_tokens, input_usd_per_mtok, cache_read_usd_per_mtok,
            cache_write_usd_per_mtok, output_usd_per_mtok, source, checked_on)
        VALUES ('groq', 'llama', 0, 1, 1, 1, 1, 'registry', '2026-11-01') RETURNING id
    """))).scalar_one()  # fmt: skip
    now = (await connection.execute(sa.text("SELECT now()"))).scalar_one()
    await rows.attempt(connection, batch_id, 1, price_id=price_id, finished_at=now)
    await rows.result(connection, batch_id, 1)
    await rows.failed_attempt(connection, batch_id, 2, finished_at=now)
    await rows.failed_result(connection, batch_id, 2)
    assert (await connection.exec_driver_sql(query)).all()
