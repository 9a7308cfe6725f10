"""Claims and flushes for the tests of shards, against a real Postgres and without any provider."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from worker import settings
from worker.providers import types
from worker.routing import load
from worker.routing.registry import Route
from worker.shards import book, call, claim, write

NOW = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC)
GPT_OSS = Route("cerebras", "gpt-oss-120b")
LLAMA = Route("groq", "llama-3.3-70b-versatile")
REGISTRY = load.registry(settings.Settings(simulator="http://127.0.0.1:1"))
ROUTER = call.Router(REGISTRY, load.usable(REGISTRY, {}).windows)
#: What batches may use here, unless they say otherwise.
PROVIDERS = ["groq", "cerebras", "openai"]


async def rows(engine: AsyncEngine, sql: str, **values: Any) -> list[tuple[Any, ...]]:
    async with engine.begin() as connection:
        return [tuple(row) for row in await connection.execute(sa.text(sql), values)]


async def execute(engine: AsyncEngine, sql: str, **values: Any) -> None:
    async with engine.begin() as connection:
        await connection.execute(sa.text(sql), values)


async def claimed(
    engine: AsyncEngine, shard_id: uuid.UUID, worker_id: int, *, simulated: bool = False, lease_s: float = 60
) -> claim.Claimed | None:
    """Claim a shard for a worker of Cerebras, which is first choice for code."""
    return await claim.claim(
        engine,
        shard_id,
        worker_id=worker_id,
        lease_s=lease_s,
        routes={"code": GPT_OSS},
        simulated=simulated,
    )


async def held(engine: AsyncEngine, shard_id: uuid.UUID, worker_id: int) -> claim.Held:
    """Claim a shard that must be there to be claimed."""
    found = await claimed(engine, shard_id, worker_id)
    assert found is not None
    return found.held


def ended(shard: claim.Held, prompt_no: int, **changes: Any) -> book.Call:
    """A call that was answered for a thousandth of a dollar."""
    values: dict[str, Any] = {
        "held": shard,
        "prompt_no": prompt_no,
        "outcome": "succeeded",
        "called": True,
        "final": True,
        "started_at": NOW,
        "finished_at": NOW,
        "latency_ms": 40,
        "http_status": 200,
        "usage": types.Usage(input_tokens=100, output_tokens=10),
        "cost_usd": Decimal("0.001"),
        "finish_reason": "stop",
        "content": "an answer",
        "response": '{"id": "1"}',
    }
    return book.Call(**{**values, **changes})


def failed(shard: claim.Held, prompt_no: int, **changes: Any) -> book.Call:
    """A call that was answered 500."""
    values: dict[str, Any] = {
        "outcome": "failed",
        "error_class": "transient",
        "error_message": "server error",
        "http_status": 500,
        **dict.fromkeys(["usage", "cost_usd", "finish_reason", "content", "response"]),
    }
    return ended(shard, prompt_no, **{**values, **changes})


def flush_of(*calls: book.Call) -> book.Flush:
    """A sealed flush in which these calls have ended."""
    flush = book.Flush()
    for one in calls:
        one.held.left.discard(one.prompt_no)
        flush.add(one)
    flush.seal()
    return flush


async def write_down(engine: AsyncEngine, flush: book.Flush, worker_id: int) -> None:
    await write.write(engine, flush, worker_id=worker_id, dialect="openai_chat", simulated=False)


async def numbers(engine: AsyncEngine, table: str) -> Iterable[int]:
    return [no for (no,) in await rows(engine, f"SELECT prompt_no FROM {table} ORDER BY 1")]
