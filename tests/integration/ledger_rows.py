"""Rows for the tests of the ledger, written one by one: numbers that can be checked by hand."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.ledger import tables

NOON = datetime.datetime(2026, 11, 20, 12, tzinfo=datetime.UTC)


async def batch(connection: AsyncConnection, prompts: int = 0, **columns: Any) -> int:
    """A batch with prompts 1 to `prompts`, all of the category `code`."""
    values = {
        "state": "running",
        "simulated": False,
        "source": "mixed.jsonl",
        "prompt_count": prompts,
        "rejected_count": 0,
        "frontier": "openai/gpt-5",
        "providers": ["groq", "openai"],
        "created_at": NOON,
        **columns,
    }
    insert = sa.insert(tables.batches).values(values).returning(tables.batches.c.id)
    batch_id = int((await connection.execute(insert)).scalar_one())
    for prompt_no in range(1, prompts + 1):
        await prompt(connection, batch_id, prompt_no)
    return batch_id


async def prompt(connection: AsyncConnection, batch_id: int, prompt_no: int, **columns: Any) -> None:
    values = {
        "batch_id": batch_id,
        "prompt_no": prompt_no,
        "custom_id": f"id-{prompt_no}",
        "category": "code",
        "category_source": "given",
        "body": sa.cast(sa.literal('{"messages":[]}', sa.Text), tables.prompts.c.body.type),
        **columns,
    }
    await connection.execute(sa.insert(tables.prompts).values(values))


async def worker(connection: AsyncConnection, provider: str = "groq", **columns: Any) -> int:
    values = {"provider": provider, "hostname": "here", "pid": 1, "simulated": False, **columns}
    insert = sa.insert(tables.workers).values(values).returning(tables.workers.c.id)
    return int((await connection.execute(insert)).scalar_one())


async def shard(connection: AsyncConnection, batch_id: int, prompt_nos: list[int], **columns: Any) -> uuid.UUID:
    shard_id = uuid.uuid4()
    values = {
        "id": shard_id,
        "batch_id": batch_id,
        "category": "code",
        "queue": "code",
        "prompt_nos": prompt_nos,
        "state": "queued",
        "attempt_no": 1,
        "attempts_before": 0,
        "tried": [],
        **columns,
    }
    await connection.execute(sa.insert(tables.shards).values(values))
    return shard_id


async def attempt(connection: AsyncConnection, batch_id: int, prompt_no: int, **columns: Any) -> None:
    """A call that took 100 tokens, gave 10 and cost a thousandth of a dollar."""
    values = {
        "batch_id": batch_id,
        "prompt_no": prompt_no,
        "shard_id": uuid.uuid4(),
        "fence": 1,
        "category": "code",
        "provider": "groq",
        "model": "llama",
        "provider_simulated": False,
        "outcome": "succeeded",
        "http_status": 200,
        "input_tokens": 100,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "output_tokens": 10,
        "reasoning_tokens": 0,
        "cost_usd": Decimal("0.001"),
        "latency_ms": 400,
        "finished_at": NOON,
        **columns,
    }
    await connection.execute(sa.insert(tables.attempts).values(values))


async def failed_attempt(connection: AsyncConnection, batch_id: int, prompt_no: int, **columns: Any) -> None:
    """A call that was answered 500, without usage."""
    values = {
        "outcome": "failed",
        "error_class": "transient",
        "error_message": "server error",
        "http_status": 500,
        **dict.fromkeys(
            ["input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens"]
        ),
        "cost_usd": None,
        **columns,
    }
    await attempt(connection, batch_id, prompt_no, **values)


async def result(connection: AsyncConnection, batch_id: int, prompt_no: int, **columns: Any) -> None:
    """An answer for a thousandth of a dollar that would have cost a hundredth at the frontier."""
    response = columns.pop("response", None)
    values = {
        "batch_id": batch_id,
        "prompt_no": prompt_no,
        "state": "succeeded",
        "category": "code",
        "provider": "groq",
        "model": "llama",
        "provider_simulated": False,
        "fallbacks": 0,
        "attempts": 1,
        "finish_reason": "stop",
        "content": "an answer",
        "http_status": 200,
        "input_tokens": 100,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "output_tokens": 10,
        "reasoning_tokens": 0,
        "cost_usd": Decimal("0.001"),
        "baseline_cost_usd": Decimal("0.01"),
        "latency_ms": 400,
        "finished_at": NOON,
        **columns,
    }
    if response is not None:
        # bound as text: the column's type would encode it once more
        values["response"] = sa.cast(sa.literal(response, sa.Text), tables.results.c.response.type)
    await connection.execute(sa.insert(tables.results).values(values))


async def failed_result(connection: AsyncConnection, batch_id: int, prompt_no: int, **columns: Any) -> None:
    """A prompt that was answered 500 to the end."""
    values = {
        "state": "failed",
        "error_class": "transient",
        "error_message": "server error",
        "http_status": 500,
        **dict.fromkeys(["finish_reason", "content", "input_tokens", "output_tokens", "cost_usd"]),
        "baseline_cost_usd": None,
        **columns,
    }
    await result(connection, batch_id, prompt_no, **values)
