"""Results of a batch as a file: OpenAI batch output lines, or CSV. Rows stream in the order of the input.

Source of the line: OpenAI's Batch API. A prompt that a provider answered with an error status has a
`response` with that status and `body.error`; one that failed otherwise has `error`.
"""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import AsyncGenerator, Sequence
from typing import IO, Any, Literal, Protocol

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.routing import registry

Format = Literal["jsonl", "csv"]

#: Rows fetched at a time: enough to hide the round trip, few enough that long answers stay small in memory.
ROWS = 500

#: Error codes that OpenAI has a word for; any other is the error class itself.
OPENAI_CODES = {"timeout": "request_timeout"}

CSV_COLUMNS = [
    "custom_id",
    "category",
    "provider",
    "model",
    "state",
    "content",
    "finish_reason",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_usd",
    "latency_ms",
    "error_class",
    "error_message",
    "provider_simulated",
]

_JSONL = """
    SELECT r.prompt_no, p.custom_id, r.state, r.dialect, r.response::text, r.http_status, r.error_class,
        r.error_message, r.model, extract(epoch FROM r.finished_at)::bigint
    FROM results AS r
    JOIN prompts AS p USING (batch_id, prompt_no)
    WHERE r.batch_id = $1
    ORDER BY r.prompt_no
"""

# As text, numbers are written out in full (Python would write 1E-7), and NULL is the empty field.
_CSV = f"""
    SELECT {", ".join(f"{'p' if name == 'custom_id' else 'r'}.{name}::text" for name in CSV_COLUMNS)}
    FROM results AS r
    JOIN prompts AS p USING (batch_id, prompt_no)
    WHERE r.batch_id = $1
    ORDER BY r.prompt_no
"""  # noqa: S608 (the names are those above)


_JSON = msgspec.json.Encoder()


class ChatCompletion(Protocol):
    """Turns a provider's own body into an OpenAI chat completion; `worker.providers` knows the dialects."""

    def __call__(self, dialect: registry.Dialect, body: str, *, model: str, created: int) -> object: ...


class Response(msgspec.Struct):
    status_code: int
    request_id: str
    body: object


class Error(msgspec.Struct):
    code: str
    message: str


class Line(msgspec.Struct):
    id: str
    custom_id: str
    response: Response | None
    error: Error | None


async def write(
    engine: AsyncEngine,
    batch_id: int,
    stream: IO[bytes],
    format: Format,
    *,
    chat_completion: ChatCompletion,
) -> int:
    """Write every result that the batch has by now, and return how many.

    The prompts of a batch that still runs may lack theirs. Memory does not grow with the batch.
    """
    count = 0
    if format == "csv":
        stream.write(_csv([CSV_COLUMNS]))
    query = _CSV if format == "csv" else _JSONL
    async with contextlib.aclosing(_rows(engine, query, batch_id)) as blocks:
        async for rows in blocks:
            if format == "csv":
                stream.write(_csv(rows))
            else:
                lines = [line(batch_id, row, chat_completion) for row in rows]
                stream.write(_JSON.encode_lines(lines))
            count += len(rows)
    return count


async def _rows(engine: AsyncEngine, query: str, batch_id: int) -> AsyncGenerator[Sequence[Any]]:
    """Read through a server-side cursor of the driver: SQLAlchemy's own row costs as much as all the rest."""
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        async with driver.transaction(readonly=True):
            cursor = await driver.cursor(query, batch_id)
            while rows := await cursor.fetch(ROWS):
                yield rows


def line(batch_id: int, row: Sequence[Any], chat_completion: ChatCompletion) -> Line:
    """Make the output line of a row of `_JSONL`."""
    prompt_no, custom_id, state, dialect, body, http_status, error_class, error_message, model, created = row
    request_id = f"batch_req_{batch_id}_{prompt_no}"
    if state == "succeeded":
        answer = chat_completion(dialect, body, model=model, created=created)
        return Line(request_id, custom_id, Response(http_status, request_id, answer), None)
    code, message = OPENAI_CODES.get(error_class, error_class), error_message or ""
    if state == "failed" and http_status is not None and http_status >= 400:
        body = {"error": {"message": message, "type": error_class, "param": None, "code": code}}
        return Line(request_id, custom_id, Response(http_status, request_id, body), None)
    return Line(request_id, custom_id, None, Error(code, message))


def _csv(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
