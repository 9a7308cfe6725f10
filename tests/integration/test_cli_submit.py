"""`promptyard submit` and `classify` through a real process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import command
import pytest
import redis

from worker.cli import rejects

#: Submitting needs no simulator that runs; only workers call it.
SIMULATED = {"PROMPTYARD_SIMULATOR": "http://127.0.0.1:1"}

GOOD = json.dumps({"prompt": "What is the capital of Peru?", "category": "simple_qa", "origin": "quiz"})


@pytest.fixture
def promptyard(database_url: str, broker_url: str, tmp_path: Path) -> command.Command:
    return command.Command(
        DATABASE_URL=database_url, BROKER_URL=broker_url, PROMPTYARD_HOME=str(tmp_path / "home"), **SIMULATED
    )


@pytest.fixture
def broker(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as client:
        yield client


def test_standard_output_is_the_batch_id_alone(promptyard: command.Command, broker: redis.Redis) -> None:
    done = promptyard("submit", "-", "--name", "quiz", stdin=f"{GOOD}\n{GOOD}\n")
    assert (done.status, done.out) == (0, "1\n")
    assert "2 simple_qa" in done.err
    assert "2 given" in done.err
    assert "Kept as metadata, and not sent to the providers: origin." in done.err
    assert "`promptyard worker groq`" in done.err  # nobody serves it yet
    assert broker.llen("promptyard-simulated:simple_qa") == 1
    batch = promptyard("status", "quiz", "--json").json["batch"]
    assert (batch["batch_id"], batch["prompt_count"], batch["simulated"]) == (1, 2, True)


def test_bad_lines_are_shown_up_to_a_number_and_all_written_where_asked(
    promptyard: command.Command, tmp_path: Path
) -> None:
    bad = [json.dumps({"prompt": "x", "category": "poetry"})] * (rejects.SHOWN + 3)
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join([GOOD, *bad]))
    done = promptyard("submit", file, "--rejects", tmp_path / "bad.jsonl")
    assert done.status == 1
    assert done.err.count("Not taken: " + str(file)) == rejects.SHOWN
    assert "Not taken: 3 more lines" in done.err
    written = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [line["line_no"] for line in written] == list(range(2, 2 + len(bad)))
    assert written[0]["source"] == str(file)
    assert "poetry" in written[0]["reason"]


def test_a_strict_submission_stores_nothing_and_says_which_line(promptyard: command.Command) -> None:
    done = promptyard("submit", "-", "--strict", stdin=f"{GOOD}\nnot json\n{{")
    assert (done.status, done.out) == (2, "")
    assert done.err.splitlines()[-1].startswith("promptyard: ")
    assert "-:2:" in done.err
    assert promptyard("status", "--json").json == {"batches": []}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["submit", "nowhere.jsonl"], "nowhere.jsonl: there is no such file."),
        (["submit", "-"], "There must be one prompt at least"),
        (["submit", "-", "--category", "poetry"], "There is no category"),
        (["submit", "-", "--rejects", "/nowhere/bad.jsonl"], "/nowhere/bad.jsonl cannot be written"),
        (["submit"], "Missing argument 'FILE'. See `promptyard submit --help`."),
        (["submit", "-", "--nmae", "x"], "See `promptyard submit --help`."),
    ],
)
def test_what_cannot_be_done_is_one_line(promptyard: command.Command, arguments: list[str], said: str) -> None:
    done = promptyard(*arguments)
    assert (done.status, done.out) == (2, "")
    errors = [line for line in done.err.splitlines() if line.startswith("promptyard: ")]
    assert len(errors) == 1
    assert said in errors[0]


def test_without_a_key_nothing_is_stored(promptyard: command.Command) -> None:
    real = command.Command(**{k: v for k, v in promptyard.environment.items() if k != "PROMPTYARD_SIMULATOR"})
    done = real("submit", "-", stdin=GOOD)
    assert done.status == 2
    assert "Set one of GROQ_API_KEY" in done.err
    assert real("status", "--json").json == {"batches": []}


def test_providers_without_a_key_are_named(promptyard: command.Command) -> None:
    environment = {k: v for k, v in promptyard.environment.items() if k != "PROMPTYARD_SIMULATOR"}
    done = command.Command(**environment, GROQ_API_KEY="very-secret")("submit", "-", stdin=GOOD)
    assert (done.status, done.out) == (0, "1\n")
    assert "openai (OPENAI_API_KEY)" in done.err
    assert "very-secret" not in done.err


def test_a_broker_that_is_away_is_said_and_the_batch_is_kept(promptyard: command.Command) -> None:
    done = promptyard.with_(BROKER_URL="redis://:hidden@127.0.0.1:1/0")("submit", "-", stdin=GOOD)
    # Stored is submitted: a status of failure would have it submitted twice.
    assert done.status == 0
    assert "The broker cannot be used" in done.err
    assert "hidden" not in done.err
    assert [batch["prompt_count"] for batch in promptyard("status", "--json").json["batches"]] == [1]


def test_classify_needs_neither_key_nor_server(tmp_path: Path) -> None:
    promptyard = command.Command(PROMPTYARD_HOME=str(tmp_path / "home"))
    line = {"custom_id": "a", "prompt": "Write a Python function that sorts a list of tuples."}
    done = promptyard("classify", "-", stdin=f"{json.dumps(line)}\n{GOOD}\n")
    found = [json.loads(text) for text in done.out.splitlines()]
    assert done.status == 0
    assert (found[0]["custom_id"], found[0]["category"]) == ("a", "code")
    assert 0 < found[0]["confidence"] <= 1
    assert found[1] == {"custom_id": "prompt-2", "category": "simple_qa", "confidence": None}
    assert not (tmp_path / "home").exists()


def test_classify_reports_bad_lines(tmp_path: Path) -> None:
    done = command.Command(PROMPTYARD_HOME=str(tmp_path))("classify", "-", stdin=f"{GOOD}\n{{}}\n")
    assert done.status == 1
    assert len(done.out.splitlines()) == 1
    assert "Not taken: -:2:" in done.err
