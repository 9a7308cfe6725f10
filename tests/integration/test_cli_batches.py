"""The commands that look at a batch or steer it, on batches that are there."""

from __future__ import annotations

import csv
import datetime
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import command
import ledger_rows as rows
import pytest
import pytest_asyncio
import redis
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.ledger import database

#: What OpenAI answers.
BODY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "llama",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "an answer"}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }
)


@pytest_asyncio.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = database.engine(database_url)
    yield engine
    await engine.dispose()


@pytest.fixture
def promptyard(database_url: str, broker_url: str, tmp_path: Path) -> command.Command:
    return command.Command(
        DATABASE_URL=database_url,
        BROKER_URL=broker_url,
        PROMPTYARD_HOME=str(tmp_path / "home"),
        GROQ_API_KEY="secret-key",
    )


@pytest_asyncio.fixture
async def batch_id(engine: AsyncEngine) -> int:
    """Four prompts: one answered, one failed, two open in a queue that nobody serves."""
    async with engine.begin() as connection:
        batch_id = await rows.batch(connection, 4, name="reviews", rejected_count=1)
        await rows.attempt(connection, batch_id, 1)
        await rows.result(connection, batch_id, 1, response=BODY, dialect="openai_chat")
        await rows.failed_attempt(connection, batch_id, 2, http_status=None)  # it may have cost something
        await rows.failed_result(connection, batch_id, 2)
        await rows.shard(connection, batch_id, [3, 4], published_at=rows.NOON)
    return batch_id


def test_status_lists_batches(promptyard: command.Command, batch_id: int) -> None:
    done = promptyard("status")
    assert done.status == 0
    head, line = done.out.splitlines()
    assert head.split()[:3] == ["batch", "name", "state"]
    assert line.split()[:6] == ["1", "reviews", "running", "4", "50", "%"]


def test_status_of_a_batch_says_everything_at_once(promptyard: command.Command, batch_id: int) -> None:
    done = promptyard("status", "reviews")
    assert done.status == 1  # a prompt has failed
    assert "Prompts: 2 of 4 done (50 %): 1 succeeded, 1 failed" in done.out
    assert "! No live worker for code: 2 prompts. Start one: `promptyard worker cerebras`." in done.out
    assert "! The cost of 1 call is unknown and not in the sum: groq 1." in done.out
    assert "! 1 line of the input could not be taken." in done.out
    assert "! 1 prompt failed; `promptyard retry 1` runs them again." in done.out
    assert "server error" in done.out
    assert "Spend: >=0.001000 USD" in done.out


def test_the_json_of_status_has_the_promised_keys(promptyard: command.Command, batch_id: int) -> None:
    found = promptyard("status", "last", "--json").json
    assert list(found) == [
        *("batch", "answers_per_s", "eta_s", "cost_usd", "unpriced_calls"),
        *("providers", "queues", "failures", "warnings"),
    ]
    assert (found["batch"]["batch_id"], found["batch"]["remaining"]) == (1, 2)
    assert Decimal(found["cost_usd"]) == Decimal("0.001")
    assert isinstance(found["cost_usd"], str)
    assert [(p["provider"], p["calls"], p["failed"]) for p in found["providers"]] == [("groq", 2, 1)]
    assert [(q["queue"], q["queued_prompts"]) for q in found["queues"]] == [("code", 2)]
    assert [(f["error_class"], f["prompts"], f["custom_id"]) for f in found["failures"]] == [
        ("transient", 1, "id-2")
    ]


async def test_a_live_worker_of_the_queue_ends_the_warning(
    promptyard: command.Command, batch_id: int, engine: AsyncEngine
) -> None:
    async with engine.begin() as connection:
        await rows.worker(connection, "cerebras")
    warnings = promptyard("status", "last", "--json").json["warnings"]
    assert not [warning for warning in warnings if "No live worker" in warning]


def test_status_watches_until_the_batch_has_ended(promptyard: command.Command, batch_id: int) -> None:
    watching = subprocess.Popen(
        [sys.executable, "-m", "worker", "status", "last", "--watch"],
        stdout=subprocess.PIPE,
        text=True,
        env=promptyard.full_environment(),
    )
    with watching:
        assert watching.stdout is not None
        first = watching.stdout.readline()
        assert promptyard("cancel", "last").status == 0
        rest = watching.stdout.readlines()
    assert first.startswith("batch 1 running, 2 of 4 done (50 %)")
    assert rest[-1].startswith("batch 1 cancelled, 4 of 4 done (100 %)")
    assert watching.returncode == 1


@pytest.mark.parametrize(
    "arguments", [["status", "7"], ["results", "7"], ["retry", "7"], ["spend", "--batch", "7"]]
)
def test_a_batch_that_is_not_there_is_one_line(promptyard: command.Command, arguments: list[str]) -> None:
    done = promptyard(*arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err == "promptyard: There is no batch 7. `promptyard status` lists them.\n"


def test_results_are_openai_lines_and_what_is_missing_is_said(
    promptyard: command.Command, batch_id: int
) -> None:
    done = promptyard("results", "last")
    first, second = [json.loads(line) for line in done.out.splitlines()]
    assert first["custom_id"] == "id-1"
    assert first["response"]["body"]["choices"][0]["message"]["content"] == "an answer"
    assert second["response"]["status_code"] == 500
    assert done.status == 1
    assert "2 prompts are not finished yet" in done.err


def test_results_as_csv_go_into_a_file_that_is_whole(
    promptyard: command.Command, batch_id: int, tmp_path: Path
) -> None:
    target = tmp_path / "out" / "answers.csv"
    target.parent.mkdir()
    done = promptyard("results", "reviews", "--format", "csv", "-o", target)
    assert done.out == ""
    found = list(csv.DictReader(io.StringIO(target.read_text())))
    assert [(row["custom_id"], row["state"], row["cost_usd"]) for row in found] == [
        ("id-1", "succeeded", "0.001"),
        ("id-2", "failed", ""),
    ]
    assert list(target.parent.iterdir()) == [target]


async def test_results_that_break_off_leave_the_old_file(
    promptyard: command.Command, batch_id: int, engine: AsyncEngine, tmp_path: Path
) -> None:
    target = tmp_path / "answers.jsonl"
    target.write_text("from before")
    async with engine.begin() as connection:
        await rows.result(connection, batch_id, 3, response="{}", dialect="openai_chat")  # no answer
    done = promptyard("results", "last", "-o", target)
    assert done.status == 2
    assert done.err.startswith("promptyard: ")
    assert target.read_text() == "from before"
    assert not list(tmp_path.glob(".answers*"))


def test_a_reader_that_has_seen_enough_is_no_error(promptyard: command.Command, batch_id: int) -> None:
    line = f"{sys.executable} -m worker results last | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, env=promptyard.full_environment(), check=True
    )
    assert done.stdout in ("0\n", "1\n")  # 1 when all was written before the reader left
    assert "Error" not in done.stderr
    assert "Traceback" not in done.stderr


def test_spend_says_unknown_and_never_nothing(promptyard: command.Command, batch_id: int) -> None:
    done = promptyard("spend", "--by", "provider,model", "--batch", "last")
    head, line, total, savings = done.out.splitlines()
    assert head.split() == ["provider", "model", "calls", "errors", "input", "output", "cost", "USD"]
    assert line.split() == ["groq", "llama", "2", "1", "100", "10", ">=0.001000"]
    assert total.split() == ["total", "2", "1", "100", "10", ">=0.001000"]
    assert savings == "Saved 0.009000 USD (90.0%) against 0.010000 USD for the same tokens at openai/gpt-5."


async def test_simulated_spend_stands_apart(
    promptyard: command.Command, batch_id: int, engine: AsyncEngine
) -> None:
    async with engine.begin() as connection:
        simulated = await rows.batch(connection, 1, simulated=True)
        await rows.attempt(connection, simulated, 1, provider_simulated=True, cost_usd=Decimal(5))
    done = promptyard("spend", "--by", "provider")
    real, _, made_up = done.out.partition("Simulated calls. Nothing of this was charged:\n")
    assert "5.000000" not in real
    assert made_up.splitlines()[-1].split() == ["total", "1", "0", "100", "10", "5.000000"]


def test_the_json_of_spend_has_every_digit(promptyard: command.Command, batch_id: int) -> None:
    found = promptyard("spend", "--by", "batch,day", "--json", "--since", "2026-11-20").json
    (row,) = found["spend"]
    assert (row["batch"], row["day"], row["cost_usd"], row["unpriced_calls"]) == (1, "2026-11-20", "0.001", 1)
    assert promptyard("spend", "--since", "2026-11-21", "--json").json["spend"] == []


def test_spend_refuses_what_it_cannot_group_by(promptyard: command.Command) -> None:
    done = promptyard("spend", "--by", "colour")
    assert done.status == 2
    assert "colour is none of day, batch, category, provider, model" in done.err


def test_pause_resume_and_cancel_say_what_happened(
    promptyard: command.Command, batch_id: int, broker_url: str
) -> None:
    assert promptyard("pause", "reviews").out == "Batch 1 is paused. `promptyard resume 1` goes on.\n"
    assert "! Paused; `promptyard resume 1` goes on." in promptyard("status", "1").out
    assert promptyard("resume", 1).out == "Batch 1 goes on. `promptyard status 1` shows how far it is.\n"
    with redis.Redis.from_url(broker_url) as broker:
        assert broker.llen("promptyard:code") == 1
    assert promptyard("cancel", 1).out == "Batch 1 is cancelled: 2 prompts had no result yet, 2 have one.\n"
    done = promptyard("cancel", 1)
    assert done.status == 2
    assert done.err.startswith("promptyard: Batch 1 is cancelled and cannot be cancelled.")


def test_retry_publishes_the_failed_prompts_only(
    promptyard: command.Command, batch_id: int, broker_url: str
) -> None:
    done = promptyard("retry", "last")
    assert done.out == "Batch 1: 1 prompt run again. `promptyard status 1` shows how far it is.\n"
    found = promptyard("status", "last", "--json").json
    assert (found["batch"]["succeeded"], found["batch"]["failed"], found["batch"]["remaining"]) == (1, 0, 3)
    with redis.Redis.from_url(broker_url) as broker:
        queues = [key.decode() for key in broker.keys("promptyard:code*")]
        assert [broker.llen(queue) for queue in queues] == [1]  # the open shard was published before
    assert promptyard("retry", "last").out == "Batch 1 has no failed prompt to run again.\n"


async def test_retry_of_a_simulated_batch_leaves_it_to_simulated_workers(
    promptyard: command.Command, engine: AsyncEngine, broker_url: str
) -> None:
    async with engine.begin() as connection:
        batch_id = await rows.batch(connection, 1, simulated=True, state="completed", finished_at=rows.NOON)
        await rows.failed_result(connection, batch_id, 1, provider_simulated=True)
    done = promptyard("retry", "last")
    assert done.status == 0
    assert "workers that have PROMPTYARD_SIMULATOR take it up" in done.out
    with redis.Redis.from_url(broker_url) as broker:
        assert broker.keys("promptyard*:code*") == []  # a real worker would pay for it


def test_a_day_in_the_future_has_no_spend(promptyard: command.Command, batch_id: int) -> None:
    tomorrow = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=1)
    done = promptyard("spend", "--since", tomorrow)
    assert (done.status, done.out) == (0, "")
    assert "No call has been made yet that fits." in done.err
