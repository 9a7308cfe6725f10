"""Batches from Python programs, on real servers."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis

import worker
from worker import errors, settings
from worker.ledger import database
from worker.prompts import submit as submitting
from worker.routing import load


@pytest.fixture
def ours(database_url: str, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment of a program that has its own servers and one key."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("BROKER_URL", broker_url)
    monkeypatch.setenv("GROQ_API_KEY", "k")
    settings.load.cache_clear()
    return database_url


async def rows(url: str, sql: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


async def test_an_async_iterable_becomes_a_batch_whose_shards_are_published(ours: str, broker_url: str) -> None:
    async def prompts() -> AsyncIterator[dict[str, Any] | str]:
        yield {"prompt": "Hi", "id": "a", "category": "simple_qa"}
        yield "Write a Python function that adds two numbers."

    batch = await worker.asubmit(prompts(), name="mine")
    assert batch == worker.Batch(batch.id, 2, 0)
    assert await rows(ours, "SELECT custom_id, category FROM prompts ORDER BY prompt_no") == [
        ("a", "simple_qa"),
        ("prompt-2", "code"),
    ]
    assert await rows(ours, "SELECT name, prompt_count FROM batches") == [("mine", 2)]
    assert await rows(ours, "SELECT count(*) FROM shards WHERE published_at IS NULL") == [(0,)]
    with redis.Redis.from_url(broker_url) as client:
        messages = sum(client.llen(key) for key in client.scan_iter() if client.type(key) == b"list")
    assert messages == 2


async def test_submitted_files_are_known_again_by_their_digest(ours: str, tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("Who was Ada Lovelace?\n")
    usable = load.usable(load.registry(settings.load()))
    engine = database.engine(ours)
    try:
        stored = await submitting.submit_files(engine, [path], usable=usable, category="code")
    finally:
        await engine.dispose()
    digest = submitting.digest([path], usable=usable, category="code")
    assert await rows(ours, "SELECT id, input_digest, source FROM batches") == [
        (stored.batch_id, digest, str(path))
    ]
    assert submitting.digest([path], usable=usable) != digest, "another category is another batch"
    simulated = load.usable(usable.registry.model_copy(update={"simulated": True}))
    assert submitting.digest([path], usable=simulated, category="code") != digest


def test_a_generator_is_taken_in_the_thread_of_its_caller(ours: str) -> None:
    # sqlite3 refuses to be used in another thread than it was opened in
    with sqlite3.connect(":memory:") as source:
        source.execute("CREATE TABLE texts (id INTEGER, text TEXT)")
        source.executemany("INSERT INTO texts VALUES (?, ?)", [(n, "What is rain?") for n in range(3000)])

        def prompts() -> Iterator[dict[str, Any]]:
            for number, text in source.execute("SELECT id, text FROM texts"):
                yield {"prompt": text, "id": number}

        assert worker.submit(prompts()).prompt_count == 3000
    source.close()


def test_a_wrong_prompt_is_reported_by_its_position(ours: str, caplog: pytest.LogCaptureFixture) -> None:
    rejected: list[errors.LineError] = []
    given: list[Any] = ["Who was Ada Lovelace?", 5, {"prompt": "Hi", "temperature": "hot"}]
    batch = worker.submit(given, on_reject=rejected.append)
    assert (batch.prompt_count, batch.rejected_count) == (1, 2)
    assert [str(error) for error in rejected] == [
        "prompts:2: it is a int; give a string or a dict",
        "prompts:3: temperature must be a number, not text",
    ]
    with caplog.at_level(logging.WARNING):
        worker.submit(given)
    assert [record.message for record in caplog.records] == [f"Not taken: {error}" for error in rejected]
    with pytest.raises(errors.InputError, match="2 lines are wrong"):
        worker.submit(given, strict=True)


def test_a_single_prompt_in_place_of_an_iterable_is_refused(ours: str) -> None:
    for single in ("Hi", {"prompt": "Hi"}):
        with pytest.raises(errors.InputError, match="put a single one in a list"):
            worker.submit(single)


def test_an_error_of_the_callers_iterable_reaches_the_caller(ours: str) -> None:
    def prompts() -> Iterator[str]:
        yield "Hi"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        worker.submit(prompts())


async def test_the_plain_function_says_what_to_use_inside_a_loop() -> None:
    with pytest.raises(RuntimeError, match=r"use `await worker\.asubmit"):
        worker.submit(["Hi"])


async def test_an_unknown_category_is_refused_before_a_server_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/none")
    monkeypatch.setenv("BROKER_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("GROQ_API_KEY", "k")
    settings.load.cache_clear()
    with pytest.raises(errors.RegistryError, match="no category cod"):
        await worker.asubmit(["Hi"], category="cod")


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import sys, worker; print([m for m in ('sqlalchemy', 'celery', 'msgspec') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"
    assert not hasattr(worker, "nothing")
