"""Results out of Postgres, as files."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sys
from collections.abc import AsyncIterator
from decimal import Decimal

import ledger_rows as rows
import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.ledger import database, export
from worker.providers import dialects
from worker.routing import registry

# As OpenAI sends it: over several lines.
OPENAI_BODY = """{
  "id": "chatcmpl-1",
  "object": "chat.completion",
  "created": 1711652795,
  "model": "llama-3.3",
  "choices": [
    {"index": 0, "message": {"role": "assistant", "content": "Grüße,\\n\\"Ada\\""}, "finish_reason": "stop"}
  ],
  "usage": {"prompt_tokens": 22, "completion_tokens": 2, "total_tokens": 24}
}"""
ANTHROPIC_BODY = json.dumps(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [{"type": "text", "text": "Hello."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 5, "output_tokens": 2},
    }
)
GEMINI_BODY = json.dumps(
    {
        "candidates": [{"content": {"role": "model", "parts": [{"text": "Hallo."}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7},
    }
)


def chat_completion(dialect: registry.Dialect, body: str, *, model: str, created: int) -> object:
    return dialects.BY_NAME[dialect].chat_completion(body, model=model, created=created)


@pytest_asyncio.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = database.engine(database_url)
    yield engine
    await engine.dispose()


async def test_lines_come_in_the_order_of_the_input_whatever_the_provider(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        batch_id = await rows.batch(connection, 5)
        await rows.result(
            connection, batch_id, 3, dialect="gemini_generate_content", response=GEMINI_BODY, model="gemini"
        )
        await rows.result(connection, batch_id, 1, dialect="openai_chat", response=OPENAI_BODY)
        await rows.result(connection, batch_id, 2, dialect="anthropic_messages", response=ANTHROPIC_BODY)
        await rows.failed_result(connection, batch_id, 4)
    stream = io.BytesIO()
    assert await export.write(engine, batch_id, stream, "jsonl", chat_completion=chat_completion) == 4
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["custom_id"] for line in lines] == ["id-1", "id-2", "id-3", "id-4"]
    assert all(set(line) == {"id", "custom_id", "response", "error"} for line in lines)
    answered = [line["response"]["body"] for line in lines[:3]]
    assert [body["object"] for body in answered] == ["chat.completion"] * 3
    assert [body["choices"][0]["message"]["content"] for body in answered] == [
        'Grüße,\n"Ada"',
        "Hello.",
        "Hallo.",
    ]
    assert [body["usage"]["total_tokens"] for body in answered] == [24, 7, 7]
    assert answered[0]["created"] == 1711652795
    assert answered[2]["created"] == int(rows.NOON.timestamp())
    assert answered[2]["model"] == "gemini"
    assert (lines[3]["response"]["status_code"], lines[3]["error"]) == (500, None)


async def test_csv_has_a_row_for_each_result_with_numbers_written_out(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        batch_id = await rows.batch(connection, 2)
        await rows.result(
            connection, batch_id, 1, content='a "quoted", long\nanswer', cost_usd=Decimal("0.0000001")
        )
        await rows.failed_result(connection, batch_id, 2, provider_simulated=True)
    stream = io.BytesIO()
    assert await export.write(engine, batch_id, stream, "csv", chat_completion=chat_completion) == 2
    answered, failed = csv.DictReader(io.StringIO(stream.getvalue().decode(), newline=""))
    assert answered == {
        "custom_id": "id-1",
        "category": "code",
        "provider": "groq",
        "model": "llama",
        "state": "succeeded",
        "content": 'a "quoted", long\nanswer',
        "finish_reason": "stop",
        "input_tokens": "100",
        "cache_read_tokens": "0",
        "cache_write_tokens": "0",
        "output_tokens": "10",
        "reasoning_tokens": "0",
        "cost_usd": "0.0000001",
        "latency_ms": "400",
        "error_class": "",
        "error_message": "",
        "provider_simulated": "false",
    }
    assert (failed["state"], failed["error_class"], failed["cost_usd"]) == ("failed", "transient", "")
    assert failed["provider_simulated"] == "true"


async def test_a_batch_without_results_is_an_empty_file(engine: AsyncEngine) -> None:
    stream = io.BytesIO()
    assert await export.write(engine, 1, stream, "jsonl", chat_completion=chat_completion) == 0
    assert stream.getvalue() == b""
    assert await export.write(engine, 1, stream, "csv", chat_completion=chat_completion) == 0
    assert stream.getvalue().decode() == ",".join(export.CSV_COLUMNS) + "\r\n"


async def test_a_reader_that_goes_away_leaves_no_connection_behind(engine: AsyncEngine) -> None:
    class Gone(io.BytesIO):
        def write(self, _: object) -> int:
            raise BrokenPipeError

    async with engine.begin() as connection:
        batch_id = await rows.batch(connection, 1)
        await rows.result(connection, batch_id, 1, dialect="openai_chat", response=OPENAI_BODY)
    with pytest.raises(BrokenPipeError):
        await export.write(engine, batch_id, Gone(), "jsonl", chat_completion=chat_completion)
    assert engine.pool.status().endswith("Current Checked out connections: 0")


async def test_memory_does_not_grow_with_the_batch(database_url: str, engine: AsyncEngine) -> None:
    # 20,000 answers of 10 kB are 200 MB; the whole process may grow by a tenth of that
    async with engine.begin() as connection:
        batch_id = await rows.batch(connection, prompt_count=20_000)
        await connection.execute(
            sa.text("""
                INSERT INTO prompts (batch_id, prompt_no, custom_id, category, category_source, body)
                SELECT :id, n, 'id-' || n, 'code', 'given', '{}' FROM generate_series(1, 20000) AS n
            """),
            {"id": batch_id},
        )
        await connection.execute(
            sa.text("""
                INSERT INTO results (batch_id, prompt_no, state, category, provider, provider_simulated,
                    fallbacks, attempts, content, finished_at)
                SELECT :id, n, 'succeeded', 'code', 'groq', false, 0, 1, repeat('answer ', 1500), now()
                FROM generate_series(1, 20000) AS n
            """),
            {"id": batch_id},
        )
    program = f"""
import asyncio, os, resource
from worker.ledger import database, export

async def main():
    engine = database.engine({database_url!r})
    with open(os.devnull, "wb") as stream:
        await export.write(engine, 0, stream, "csv", chat_completion=None)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert await export.write(engine, {batch_id}, stream, "csv", chat_completion=None) == 20_000
    await engine.dispose()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    assert int(output) * unit < 20_000_000
