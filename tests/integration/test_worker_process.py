"""Worker processes that are started, stopped, killed and robbed of their messages in the middle of a job."""

from __future__ import annotations

import fractions
import json
import signal
from collections.abc import Iterator

import laws
import pytest
import redis
import yard as yards
from yard import Yard

from worker import settings
from worker.routing import load, queues

#: Calls that a worker for Groq has out at most, by the registry.
WINDOW = 64
PROMPTS = 400

SHARDS_OF_20 = {"PROMPTYARD_SHARD_PROMPTS": "20"}
SHORT_LEASE = {"PROMPTYARD_LEASE_S": "2"}


async def test_celerys_own_command_does_what_promptyard_worker_does(yard: Yard) -> None:
    first = await yard.submit(yards.of_one(50))
    ours = yard.worker("groq")
    await yard.completed(first)
    assert await ours.stop() == 0

    second = await yard.submit(yards.of_one(50))
    consumed = queues.consumed_by("groq", load.registry(settings.Settings()))
    arguments = ["-A", "worker", "worker", "-P", "threads", "-Q", ",".join(consumed)]
    plain = yard.start(*arguments, program=yards.CELERY)
    await yard.completed(second)
    assert await plain.stop() == 0

    await laws.assert_laws(yard)
    columns = "prompt_no, state, category, provider, model, content, input_tokens, output_tokens, cost_usd"
    by_ours, by_plain = [
        await yard.rows(f"SELECT {columns} FROM results WHERE batch_id = $1 ORDER BY 1", batch_id)
        for batch_id in (first, second)
    ]
    assert len(by_ours) == 50 and by_ours == by_plain
    assert await yard.count("workers", "stopped_at IS NOT NULL AND provider = 'groq'") == 2


async def test_a_worker_that_is_told_to_stop_finishes_its_calls_and_hands_the_rest_back(yard: Yard) -> None:
    yard.slow(700)
    batch_id = await yard.submit(yards.of_one(PROMPTS), env=SHARDS_OF_20)
    stopped = yard.worker("groq")
    await yard.results_reach(WINDOW, batch_id)
    assert await stopped.stop(within_s=20) == 0

    # All that was asked was answered and booked, and is done with.
    answered = yard.simulator.bill().calls
    assert WINDOW < answered < PROMPTS
    assert await yard.rows("SELECT outcome, count(*) FROM attempts GROUP BY 1") == [("succeeded", answered)]
    assert await yard.count("results") == answered
    # The rest lies in its queue, and its messages are there.
    assert await yard.rows(
        "SELECT state, sum(cardinality(prompt_nos)) FROM shards WHERE state <> 'done' GROUP BY 1"
    ) == [("queued", PROMPTS - answered)]
    queued = {str(shard_id) for (shard_id,) in await yard.rows("SELECT id FROM shards WHERE state = 'queued'")}
    assert queued <= shards_in(yard)

    yard.slow(0)
    yard.worker("groq")
    await yard.completed(batch_id)
    await laws.assert_laws(yard)
    assert await yard.count("attempts") == yard.simulator.bill().calls == PROMPTS


async def test_calls_that_outlast_the_grace_period_are_booked_as_unknown(yard: Yard) -> None:
    yard.slow(60_000)
    batch_id = await yard.submit(yards.of_one(PROMPTS))
    stopped = yard.worker("groq", env={**SHORT_LEASE, "PROMPTYARD_GRACE_S": "0.3"})
    await yard.calls_are_out(WINDOW)
    assert await stopped.stop(within_s=10) == 0

    assert await yard.rows(
        "SELECT outcome, error_class, cost_usd, input_tokens, count(*) FROM attempts GROUP BY 1, 2, 3, 4"
    ) == [("unknown", "lost", None, None, WINDOW)]
    assert await yard.count("results") == 0
    assert await yard.value("SELECT sum(cardinality(prompt_nos)) FROM shards WHERE state = 'queued'") == PROMPTS

    yard.slow(0)
    yard.worker("groq")
    await yard.completed(batch_id)
    await laws.assert_laws(yard)
    assert await yard.rows("SELECT state, attempts, count(*) FROM results GROUP BY 1, 2 ORDER BY 2") == [
        ("succeeded", 1, PROMPTS - WINDOW),
        ("succeeded", 2, WINDOW),
    ]


async def test_what_a_killed_worker_held_runs_again_elsewhere(yard: Yard) -> None:
    yard.slow(400)
    batch_id = await yard.submit(yards.of_one(PROMPTS), env=SHARDS_OF_20)
    killed = yard.worker("groq", env=SHORT_LEASE)
    await yard.results_reach(WINDOW, batch_id)
    killed.process.kill()
    assert await killed.ended() == -signal.SIGKILL
    held = await yard.value(
        "SELECT coalesce(sum(cardinality(prompt_nos)), 0) FROM shards WHERE state = 'running'"
    )
    assert WINDOW <= held < PROMPTS

    yard.worker("groq", env=SHORT_LEASE)
    await yard.completed(batch_id)

    await laws.assert_laws(yard)
    # Nobody knows which of them were out: each counts as a call of unknown cost.
    unknown = "outcome = 'unknown' AND error_class = 'lost' AND cost_usd IS NULL AND worker_id = 1"
    assert await yard.count("attempts", unknown) == held
    assert await yard.count("attempts", "outcome = 'succeeded'") == PROMPTS
    assert await yard.count("results", "state = 'succeeded' AND fallbacks = 0") == PROMPTS
    assert await yard.count("results", "attempts = 2") == held
    # Every call that somebody charges for has its row.
    assert yard.simulator.bill().calls <= PROMPTS + held


async def test_a_worker_that_was_taken_for_dead_books_what_it_still_hears(yard: Yard) -> None:
    yard.slow(400)
    batch_id = await yard.submit(yards.of_one(PROMPTS), env=SHARDS_OF_20)
    frozen = yard.worker("groq", env=SHORT_LEASE)
    await yard.results_reach(WINDOW, batch_id)
    frozen.process.send_signal(signal.SIGSTOP)
    yard.worker("groq", env=SHORT_LEASE)
    await yard.completed(batch_id)
    lost = await yard.count("attempts", "outcome = 'unknown' AND worker_id = 1")
    assert WINDOW <= lost < PROMPTS
    frozen.process.send_signal(signal.SIGCONT)
    assert await frozen.stop(within_s=20) == 0

    await laws.assert_laws(yard, may_double=True)
    calls = list(yard.simulator.calls())
    # Answers lay in its sockets: they are paid for, they are booked, and they change no result.
    late = await yard.count("attempts", "outcome = 'succeeded' AND worker_id = 1 AND fence = 1")
    assert await yard.count("attempts", "outcome = 'succeeded'") == len(calls) > PROMPTS
    assert 0 < late < PROMPTS
    booked = await yard.value("SELECT sum(cost_usd) FROM attempts")
    assert fractions.Fraction(booked) == await laws.billed_usd(yard, calls)


async def test_a_job_survives_that_redis_forgets_everything(yard: Yard) -> None:
    yard.slow(100)
    batch_id = await yard.submit(yards.of_one(2000), env=SHARDS_OF_20)
    first = yard.worker("groq")
    await yard.results_reach(1, batch_id)
    forget(yard)
    # More than the worker held when it happened.
    await yard.results_reach(1000, batch_id)

    assert await first.stop(within_s=20) == 0
    forget(yard)
    assert await yard.count("shards", "state = 'queued'") > 0
    yard.worker("groq")
    await yard.completed(batch_id)
    await laws.assert_laws(yard)
    assert await yard.count("attempts") == yard.simulator.bill().calls == 2000


async def test_redis_holds_the_ids_of_shards_and_a_message_that_comes_twice_runs_once(yard: Yard) -> None:
    batch_id = await yard.submit(yards.of_one(200), env=SHARDS_OF_20)
    shards = {str(shard_id) for (shard_id,) in await yard.rows("SELECT id FROM shards")}
    assert len(shards) == 10 and shards_in(yard) == shards
    assert yards.PROMPT_MARK not in yard.everything_in_redis()
    messages = list(yard.messages())
    with redis.Redis.from_url(yard.broker_url, decode_responses=True) as client:
        (queue,) = client.scan_iter(_type="list")
        client.lpush(queue, *messages)
        yard.worker("groq")
        yard.worker("groq")
        await yard.completed(batch_id)

        client.lpush(queue, *messages)

        async def all_are_taken() -> bool:
            return not client.exists(queue)

        await yards.until(all_are_taken, "the workers take the old messages")
    again = await yard.submit(yards.of_one(20))
    await yard.completed(again)
    await laws.assert_laws(yard)
    assert await yard.count("attempts") == yard.simulator.bill().calls == 220
    assert await yard.rows("SELECT DISTINCT fence FROM shards") == [(1,)]


async def test_a_batch_whose_submitter_died_before_it_was_published_is_published(yard: Yard) -> None:
    batch_id = await yard.submit(yards.of_one(10))
    await yard.rows("UPDATE shards SET published_at = NULL")
    forget(yard)
    yard.worker("groq")
    await yard.completed(batch_id)
    await laws.assert_laws(yard)


@pytest.fixture
def bare_yard(empty_database_url: str, yard: Yard) -> Iterator[Yard]:
    """The same with a database that has no table."""
    found = Yard(empty_database_url, yard.broker_url, yard.simulator, yard.folder / "bare")
    found.folder.mkdir()
    yield found
    found.close()


async def test_a_database_without_the_schema_is_an_error_that_says_what_to_do(bare_yard: Yard) -> None:
    prompts = str(bare_yard.file(yards.of_one(3)))
    worker = bare_yard.worker("groq")
    run = bare_yard.start("run", prompts)
    for command in (worker, run):
        assert await command.ended() == 2
        assert "promptyard db upgrade" in command.said
        assert "Traceback" not in command.said
    await bare_yard.do("db", "upgrade")
    await bare_yard.do("run", prompts)
    await laws.assert_laws(bare_yard)


async def test_a_worker_without_its_key_says_which_variable_to_set(yard: Yard) -> None:
    worker = yard.worker("groq", env={"PROMPTYARD_SIMULATOR": None})
    assert await worker.ended() == 2
    assert "GROQ_API_KEY" in worker.said and "Traceback" not in worker.said
    assert await yard.count("workers") == 0


def shards_in(yard: Yard) -> set[str]:
    """The shards that the waiting messages name."""
    return {json.loads(message)["headers"]["argsrepr"].strip("[]'\"(),") for message in yard.messages()}


def forget(yard: Yard) -> None:
    with redis.Redis.from_url(yard.broker_url) as client:
        client.flushall()
