"""Storing batches in a real Postgres."""

from __future__ import annotations

import asyncio
import gzip
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import zstandard
from sqlalchemy.ext.asyncio import AsyncEngine

from worker import errors, settings
from worker.classify import rules
from worker.classify.verdicts import Verdict
from worker.ledger import database
from worker.prompts import chunks, files, intake
from worker.routing import load

REGISTRY = load.registry(settings.Settings())
USABLE = load.usable(REGISTRY, {"GROQ_API_KEY": "k", "OPENAI_API_KEY": "k"})
ALL_USABLE = load.usable(REGISTRY.model_copy(update={"simulated": True}))


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    made = database.engine(database_url)
    yield made
    await made.dispose()


async def store(engine: AsyncEngine, inputs: Any, **options: Any) -> intake.Submission:
    given: dict[str, Any] = {
        "usable": USABLE,
        "classifier": rules.RulesClassifier(REGISTRY),
        "source": "test",
        **options,
    }
    return await intake.store(engine, inputs, **given)


async def query(engine: AsyncEngine, sql: str) -> list[tuple[Any, ...]]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.exec_driver_sql(sql)]


async def is_empty(engine: AsyncEngine) -> bool:
    counts = (
        "SELECT (SELECT count(*) FROM batches), (SELECT count(*) FROM prompts), (SELECT count(*) FROM shards)"
    )
    return await query(engine, counts) == [(0, 0, 0)]


def items(lines: Iterable[dict[str, Any]]) -> Iterator[files.Item]:
    for number, line in enumerate(lines, start=1):
        yield files.Item("in.jsonl", number, number, "json", json.dumps(line).encode())


def codes(count: int) -> Iterator[files.Item]:
    return items({"prompt": "Hi", "category": "code"} for _ in range(count))


async def test_a_file_becomes_a_batch_with_prompts_and_shards(engine: AsyncEngine, tmp_path: Path) -> None:
    # Given a file with lines of several kinds, two of them wrong
    path = tmp_path / "in.jsonl"
    lines = [
        {"prompt": "Hi", "category": "code", "temperature": 0.5, "temprature": 1, "note": "n\0"},
        {"prompt": "Translate to Finnish: good morning", "id": "b"},
        {"prompt": "Hi", "category": "cod"},
        {"prompt": "hm", "system": "Translate to German."},
        {"prompt": "NUL \0", "category": "code", "model": "llama"},
        {"promt": "Hi"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    reader = files.Reader([path], {"category": None})
    rejected: list[errors.LineError] = []
    progress: list[int] = []
    # When it is stored
    stored = await store(
        engine,
        reader,
        usable=ALL_USABLE,
        source=reader.source,
        input_digest=reader.digest,
        name="mine",
        on_reject=rejected.append,
        on_progress=progress.append,
    )
    # Then the batch says what it is
    llama = str(REGISTRY.aliases["llama"])
    assert await query(
        engine,
        "SELECT id, name, state, simulated, source, input_digest, prompt_count, rejected_count, frontier, "
        "providers FROM batches",
    ) == [
        (
            stored.batch_id,
            "mine",
            "running",
            True,
            str(path),
            files.digest([path], {"category": None}),
            4,
            2,
            str(REGISTRY.frontier),
            list(REGISTRY.providers),
        )
    ]
    # and each good line is a prompt
    prompts = await query(
        engine,
        "SELECT prompt_no, custom_id, category, category_source, confidence IS NULL, pinned, metadata::text "
        "FROM prompts ORDER BY prompt_no",
    )
    assert prompts == [
        (1, "prompt-1", "code", "given", True, None, '{"temprature":1,"note":"n\\u0000"}'),
        (2, "b", "multilingual", "classified", False, None, None),
        (4, "prompt-4", REGISTRY.default_category, "default", False, None, None),
        (5, "prompt-5", "code", "given", True, llama, None),
    ]
    bodies = await query(engine, "SELECT body::text FROM prompts WHERE prompt_no IN (1, 5) ORDER BY prompt_no")
    assert [json.loads(body) for (body,) in bodies] == [
        {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0.5},
        {"messages": [{"role": "user", "content": "NUL \0"}]},
    ]
    # and the shards hold them, the pinned one at its provider
    shards = await query(
        engine,
        "SELECT category, queue, pinned, route, prompt_nos, state, attempt_no, attempts_before, tried, "
        "published_at FROM shards ORDER BY prompt_nos",
    )
    assert shards == [
        ("code", "code", None, None, [1], "queued", 1, 0, [], None),
        ("multilingual", "multilingual", None, None, [2], "queued", 1, 0, [], None),
        (REGISTRY.default_category, REGISTRY.default_category, None, None, [4], "queued", 1, 0, [], None),
        ("code", "code.groq", llama, llama, [5], "queued", 1, 0, [], None),
    ]
    # and the summary agrees
    assert [error.line_no for error in rejected] == [3, 6]
    assert progress == [4]
    assert stored == intake.Submission(
        batch_id=stored.batch_id,
        prompt_count=4,
        rejected_count=2,
        shard_count=4,
        categories={"code": 2, "multilingual": 1, REGISTRY.default_category: 1},
        category_sources={"given": 2, "classified": 1, "default": 1},
        metadata_names=("temprature", "note"),
    )


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
async def test_compressed_files_are_stored(engine: AsyncEngine, tmp_path: Path, pack: Any) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(pack(b"one\ntwo\n"))
    assert (await store(engine, files.Reader([path]))).prompt_count == 2


async def test_shards_hold_every_prompt_once_and_no_more_than_allowed(engine: AsyncEngine) -> None:
    categories = ["code", "simple_qa", "code"]
    lines = ({"prompt": "Hi", "category": categories[n % 3]} for n in range(5000))
    stored = await store(engine, items(lines), shard_prompts=200)
    assert stored.shard_count == 17 + 9  # 3,334 and 1,666 prompts
    missing_or_doubled = await query(
        engine,
        "SELECT p.prompt_no FROM prompts p LEFT JOIN shards s ON p.prompt_no = ANY(s.prompt_nos) "
        "AND s.category = p.category AND s.batch_id = p.batch_id GROUP BY p.prompt_no "
        "HAVING count(s.id) <> 1",
    )
    assert missing_or_doubled == []
    assert await query(
        engine, "SELECT max(cardinality(prompt_nos)), sum(cardinality(prompt_nos)) FROM shards"
    ) == [(200, 5000)]


async def test_shards_begin_at_a_provider_whose_key_is_there(engine: AsyncEngine) -> None:
    usable = load.usable(REGISTRY, {"OPENAI_API_KEY": "k"})
    lines = [{"prompt": "Hi", "category": "code"}, {"prompt": "Hi", "category": "simple_qa"}]
    await store(engine, items(lines), usable=usable)
    shards = await query(
        engine, "SELECT category, queue, split_part(route, '/', 1) FROM shards ORDER BY category"
    )
    assert shards == [("code", "code.openai", "openai"), ("simple_qa", "simple_qa.openai", "openai")]
    assert await query(engine, "SELECT providers FROM batches") == [(["openai"],)]


async def test_a_repeated_custom_id_is_reported_within_and_across_chunks(engine: AsyncEngine) -> None:
    # Given 5,000 lines, so several chunks, some with the custom_id of an earlier one
    ids = [f"id-{number}" for number in range(1, 5001)]
    ids[4] = "id-3"  # line 5, in the chunk of line 3
    ids[2999] = "id-7"  # line 3000, in a later chunk than line 7
    ids[3999] = "id-3000"  # line 4000: the real one was never used, since line 3000 has another
    ids[4998] = ids[4999] = "id-1"  # twice in one chunk, and stored before
    lines = ({"prompt": "Hi", "custom_id": custom_id, "category": "code"} for custom_id in ids)
    rejected: list[errors.LineError] = []
    # When they are stored
    stored = await store(engine, items(lines), on_reject=rejected.append)
    # Then the later ones are reported, and all others are there
    assert {error.line_no: error.reason for error in rejected} == {
        5: "custom_id 'id-3' is used twice, first by prompt 3; make it unique",
        3000: "custom_id 'id-7' is used twice, first by prompt 7; make it unique",
        4999: "custom_id 'id-1' is used twice, first by prompt 1; make it unique",
        5000: "custom_id 'id-1' is used twice, first by prompt 1; make it unique",
    }
    assert (stored.prompt_count, stored.rejected_count) == (4996, 4)
    assert await query(
        engine,
        "SELECT (SELECT count(*) FROM prompts), (SELECT sum(cardinality(prompt_nos)) FROM shards), "
        "(SELECT prompt_no FROM prompts WHERE custom_id = 'id-3000')",
    ) == [(4996, 4996, 4000)]


async def test_two_batches_may_use_the_same_custom_ids(engine: AsyncEngine) -> None:
    first, second = await store(engine, codes(3)), await store(engine, codes(3))
    assert (first.prompt_count, second.prompt_count) == (3, 3)
    assert first.batch_id != second.batch_id


async def test_an_error_in_the_middle_leaves_nothing(engine: AsyncEngine) -> None:
    def failing() -> Iterator[files.Item]:
        yield from codes(5000)
        raise errors.InputError("damaged")

    with pytest.raises(errors.InputError, match="damaged"):
        await store(engine, failing())
    assert await is_empty(engine)


async def test_a_cancelled_submission_leaves_nothing_and_closes_its_input(engine: AsyncEngine) -> None:
    # Given a submission that has stored something and waits for more
    reached, closed = asyncio.Event(), False

    async def waiting() -> AsyncIterator[files.Item]:
        nonlocal closed
        try:
            for item in codes(2 * chunks.CHUNK_PROMPTS):
                yield item
            await asyncio.Event().wait()
        finally:
            closed = True

    task = asyncio.create_task(store(engine, waiting(), on_progress=lambda stored: reached.set()))
    await asyncio.wait_for(reached.wait(), 30)
    # When it is cancelled
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # Then nothing is left
    assert closed
    assert await is_empty(engine)


async def test_nobody_sees_a_batch_before_it_is_whole(engine: AsyncEngine) -> None:
    seen: list[bool] = []

    async def looking() -> AsyncIterator[files.Item]:
        for item in codes(3 * chunks.CHUNK_PROMPTS):
            if item.prompt_no % 1000 == 0:
                seen.append(await is_empty(engine))
            yield item

    await store(engine, looking())
    assert seen == [True] * 6
    assert not await is_empty(engine)


async def test_strict_refuses_everything_and_reports_up_to_twenty_lines(engine: AsyncEngine) -> None:
    rejected: list[errors.LineError] = []
    lines = [{"prompt": "Hi", "category": "code"}] * 3000 + [{"promt": "Hi"}] * 3
    with pytest.raises(
        errors.InputError, match=r"3 lines are wrong\. Nothing was stored.*in\.jsonl:3001: no messages"
    ):
        await store(engine, items(lines), strict=True, on_reject=rejected.append)
    assert [error.line_no for error in rejected] == [3001, 3002, 3003]
    rejected.clear()
    with pytest.raises(errors.InputError, match="20 lines are wrong at least"):
        await store(engine, items([{}] * 100), strict=True, on_reject=rejected.append)
    assert len(rejected) == 20
    assert await is_empty(engine)


async def test_strict_refuses_a_repeated_custom_id(engine: AsyncEngine) -> None:
    lines = ({"prompt": "Hi", "category": "code", "id": n % 2500} for n in range(2501))
    with pytest.raises(
        errors.InputError, match=r"One line is wrong\. .*in\.jsonl:2501: custom_id '0' is used twice"
    ):
        await store(engine, items(lines), strict=True)
    assert await is_empty(engine)


async def test_input_without_a_usable_line_is_refused(engine: AsyncEngine, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_bytes(b"\n")
    with pytest.raises(errors.InputError, match=r"test: it is empty\. There must be one prompt at least\."):
        await store(engine, files.Reader([empty]))
    with pytest.raises(
        errors.InputError, match=r"nothing in it can be taken \(2 wrong\).* The first: in\.jsonl:1: no"
    ):
        await store(engine, items([{}, {}]))
    assert await is_empty(engine)


async def test_a_name_that_is_taken_is_refused(engine: AsyncEngine) -> None:
    await store(engine, codes(1), name="mine")
    with pytest.raises(errors.BatchError, match="a batch named mine already"):
        await store(engine, codes(1), name="mine")


async def test_a_category_that_nothing_serves_is_refused_before_anything_is_stored(
    engine: AsyncEngine,
) -> None:
    one = REGISTRY.categories["code"].model_copy(update={"chain": ((REGISTRY.frontier,),)})
    own = REGISTRY.model_copy(update={"categories": {**REGISTRY.categories, "code": one}})
    usable = load.usable(own, {"GROQ_API_KEY": "k"})
    # given in a line, for all, and found by the classifier
    inputs: list[tuple[Iterable[files.Item], str | None]] = [
        (codes(3000), None),
        (items([{"prompt": "Hi"}]), "code"),
        (items([{"prompt": "Write a Python function that adds two numbers."}]), None),
    ]
    for given, category in inputs:
        with pytest.raises(
            errors.RegistryError, match=r"No provider for code has a key\. Set one of ANTHROPIC_API_KEY"
        ):
            await store(engine, given, usable=usable, category=category)
    assert await is_empty(engine)
    # but what is pinned to a provider with a key can run
    pinned = {"prompt": "Hi", "category": "code", "model": "llama"}
    assert (await store(engine, items([pinned]), usable=usable)).prompt_count == 1


async def test_a_classifier_is_asked_only_for_prompts_without_a_category(engine: AsyncEngine) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.texts: list[str] = []

        def classify(self, texts: Sequence[str]) -> list[Verdict]:
            self.texts += texts
            return [Verdict("code", 0.75, "classified") for _ in texts]

    recorder = Recorder()
    lines = [{"prompt": "a", "category": "simple_qa"}, {"prompt": "b", "system": "s"}]
    await store(engine, items(lines), classifier=recorder)
    assert recorder.texts == ["b"]
    assert await query(engine, "SELECT category, confidence FROM prompts WHERE prompt_no = 2") == [
        ("code", 0.75)
    ]


MEASURE = """
import asyncio, json, resource, sys
from worker import settings
from worker.classify import rules
from worker.ledger import database
from worker.prompts import files, intake
from worker.routing import load

async def main():
    registry = load.registry(settings.Settings())
    engine = database.engine(sys.argv[1])
    stored = await intake.store(
        engine, files.Reader(["-"]), usable=load.usable(registry, {"GROQ_API_KEY": "k"}),
        classifier=rules.RulesClassifier(registry), source="-",
    )
    await engine.dispose()
    print(stored.prompt_count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

asyncio.run(main())
"""


async def test_a_killed_submission_leaves_nothing(engine: AsyncEngine, database_url: str) -> None:
    others = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MEASURE, database_url, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    async with asyncio.timeout(60):
        # Given a process that has written prompts, not yet committed, and waits for more of them
        process.stdin.write(b'{"prompt": "Who was Ada Lovelace?"}\n' * 50_000)
        while await query(engine, "SELECT pg_relation_size('prompts') > 0") == [(False,)]:
            await asyncio.sleep(0.01)
        # When it is killed, and Postgres has noticed
        process.kill()
        await process.communicate()
        while await query(engine, others) != [(0,)]:
            await asyncio.sleep(0.01)
    # Then nothing is left
    assert process.returncode == -signal.SIGKILL
    assert await is_empty(engine)


def test_memory_stays_flat_however_many_lines_there_are(database_url: str) -> None:
    def peak(lines: int) -> int:
        data = b"".join(b'{"prompt": "What is %d plus %d?", "id": %d}\n' % (n, n, n) for n in range(lines))
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, database_url],
            input=data,
            capture_output=True,
            check=True,
            timeout=120,
        )
        count, size = map(int, done.stdout.split())
        assert count == lines
        return size

    assert peak(60_000) < 1.15 * peak(6_000)


async def test_the_copy_that_fails_for_another_reason_is_not_taken_for_a_repeated_id(
    engine: AsyncEngine, database_url: str
) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("ALTER TABLE prompts ADD CHECK (prompt_no < 3)")
    finally:
        await connection.close()
    with pytest.raises(asyncpg.CheckViolationError):
        await store(engine, codes(5))
    assert await is_empty(engine)
