"""`promptyard run`, from a file to results in one command: interrupted, killed, repeated, with few keys."""

from __future__ import annotations

import json
import os
import pty
import signal
import sys
import termios
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import laws
import pytest
import yard as yards
from yard import Yard

#: Makes its standard input the controlling terminal, then becomes the command.
ON_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def processes_with(mark: str) -> list[str]:
    """What runs with this text in its environment, and so descends from the command that was given it."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if mark.encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_text())
            except OSError:
                continue  # it has just ended, or is not ours
    return found


async def all_gone(mark: str) -> None:
    async def none_is_left() -> bool:
        return not processes_with(mark)

    await yards.until(none_is_left, "no process of the command is left")


@pytest.fixture
def mark() -> str:
    return uuid.uuid4().hex


def lines_of(path: Path) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert len({line["custom_id"] for line in lines}) == len(lines)
    return {line["custom_id"]: line for line in lines}


def text_of(line: dict[str, Any]) -> str:
    return str(line["response"]["body"]["choices"][0]["message"]["content"])


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """The two ends of a terminal: ours, and the command's."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)


async def test_ctrl_c_stops_in_good_order_and_the_same_command_goes_on(
    yard: Yard, mark: str, terminal: tuple[int, int]
) -> None:
    yard.slow(500)
    prompts, output = yard.file(yards.of_one(300)), yard.folder / "out.jsonl"
    arguments = ["run", str(prompts), "-o", str(output)]
    ours, theirs = terminal
    run = yard.start(
        "-c",
        ON_A_TERMINAL,
        yards.PROMPTYARD,
        *arguments,
        program=sys.executable,
        stdin=theirs,
        env={"YARD_MARK": mark, "PROMPTYARD_SHARD_PROMPTS": "40"},
    )
    os.close(theirs)
    await yard.results_reach(1, 1)
    os.write(ours, termios.tcgetattr(ours)[6][termios.VINTR])
    assert await run.ended(within_s=20) == 130
    assert "same command again" in run.said and "Traceback" not in run.said
    await all_gone(mark)
    answered = yard.simulator.bill().calls
    assert 0 < answered < 300
    assert await yard.count("attempts") == await yard.count("results") == answered
    assert not output.exists()

    yard.slow(0)
    said = await yard.do(*arguments)
    assert f"Going on with batch 1: {answered} of 300 prompts are done" in said
    assert len(lines_of(output)) == 300
    await laws.assert_laws(yard)
    await laws.assert_bill(yard, 1, list(yard.simulator.calls()))

    output.unlink()
    assert "Batch 1 already has all results" in await yard.do(*arguments)
    assert len(lines_of(output)) == 300
    assert yard.simulator.bill().calls == 300

    await yard.do(*arguments, "--again")
    assert await yard.rows("SELECT batch_id, count(*) FROM results GROUP BY 1 ORDER BY 1") == [
        (1, 300),
        (2, 300),
    ]


async def test_ctrl_c_while_the_workers_are_starting_says_no_more_than_that(yard: Yard, mark: str) -> None:
    yard.slow(300)
    run = yard.start("run", str(yard.file(yards.mixed(200))), env={"YARD_MARK": mark})

    async def is_stored() -> bool:
        return await yard.count("batches") > 0

    await yards.until(is_stored, "the batch is stored")
    os.killpg(run.process.pid, signal.SIGINT)
    assert await run.ended(within_s=20) == 130
    assert "same command again" in run.said and "Traceback" not in run.said
    await all_gone(mark)
    assert not await yard.count("shards", "state = 'running'")


async def test_a_run_that_is_killed_leaves_no_process_and_can_go_on(yard: Yard, mark: str) -> None:
    arguments = [
        "run",
        str(yard.file(yards.of_one(4000))),
        "--simulate",
        "-o",
        str(yard.folder / "out.jsonl"),
    ]
    env: yards.Env = {"PROMPTYARD_SIMULATOR": None, "YARD_MARK": mark}
    run = yard.start(*arguments, env=env)
    await yard.results_reach(1, 1)
    assert len(processes_with(mark)) > 2
    run.process.kill()
    assert await run.ended() == -signal.SIGKILL
    await all_gone(mark)
    assert not await yard.count("shards", "state = 'running'")
    assert await yard.count("results") < 4000

    assert "Going on with batch 1" in await yard.do(*arguments, env=env)
    await all_gone(mark)
    await laws.assert_laws(yard)
    assert len(lines_of(yard.folder / "out.jsonl")) == 4000


async def test_a_bad_line_is_reported_with_its_number_and_the_others_run(yard: Yard) -> None:
    good = yards.of_one(4)
    prompts = yard.file([*good[:2], '{"prompt": ', *good[2:], {"custom_id": "none"}])
    said = await yard.do("run", str(prompts), "-o", str(yard.folder / "out.jsonl"), status=1)
    assert f"{prompts.name}:3:" in said and f"{prompts.name}:6:" in said
    assert lines_of(yard.folder / "out.jsonl").keys() == {line["custom_id"] for line in good}
    assert await yard.rows("SELECT state, prompt_count, rejected_count FROM batches") == [("completed", 4, 2)]
    await laws.assert_laws(yard)


async def test_prompts_that_fail_make_status_1_and_the_reason_is_said(yard: Yard) -> None:
    yard.simulator.set_faults("groq:auth=1.0")
    pinned = yards.of_one(3, model="groq/llama-3.3-70b-versatile")
    prompts = yard.file([*pinned, *yards.of_one(3, "code")])
    said = await yard.do("run", str(prompts), "-o", str(yard.folder / "out.jsonl"), status=1)
    assert "3 succeeded, 3 failed" in said
    assert "auth" in said and "promptyard retry 1" in said
    assert len(lines_of(yard.folder / "out.jsonl")) == 6
    await laws.assert_laws(yard)


async def test_what_cannot_be_done_is_status_2_and_one_line(yard: Yard) -> None:
    said = await yard.do("run", str(yard.folder / "absent.jsonl"), status=2)
    assert "absent.jsonl" in said and "Traceback" not in said
    said = await yard.do("worker", "nobody", status=2)
    assert "groq" in said and len(said.splitlines()) == 1


async def test_own_servers_and_two_workers_a_provider_give_what_the_embedded_ones_give(yard: Yard) -> None:
    prompts = str(yard.file(yards.mixed(200)))
    embedded, own = yard.folder / "embedded.jsonl", yard.folder / "own.jsonl"
    nothing: yards.Env = {"DATABASE_URL": None, "BROKER_URL": None, "PROMPTYARD_SIMULATOR": None}
    said = await yard.do("run", prompts, "--simulate", "-o", str(embedded), env=nothing)
    assert "imulated" in said and "200 succeeded" in said

    small = {"PROMPTYARD_SHARD_PROMPTS": "5"}
    await yard.do("run", prompts, "--workers", "2", "-o", str(own), env=small)

    ones, others = lines_of(embedded), lines_of(own)
    assert len(ones) == 200 and ones.keys() == others.keys()
    assert {name: text_of(line) for name, line in ones.items()} == {
        name: text_of(line) for name, line in others.items()
    }
    assert await yard.rows("SELECT count(*) FROM workers GROUP BY provider") == [(2,)] * 6
    await laws.assert_laws(yard)
    await laws.assert_bill(yard, 1, list(yard.simulator.calls()))


@pytest.fixture
def key(yard: Yard) -> str:
    """The only key that is set: that of OpenAI, whose address is the simulator's."""
    key = f"sk-{uuid.uuid4().hex}"
    registry = yard.folder / "registry.toml"
    registry.write_text(
        f'extends = "default"\n[providers.openai]\nbase_url = "{yard.simulator.url}/openai"\n'
        '[categories.code]\nchain = ["openai/gpt-6-luna", "groq/openai/gpt-oss-120b"]\n'
    )
    del yard.env["PROMPTYARD_SIMULATOR"]
    yard.env |= {"PROMPTYARD_REGISTRY": str(registry), "OPENAI_API_KEY": key}
    return key


async def test_one_key_alone_runs_every_category_and_is_nowhere_to_be_found(yard: Yard, key: str) -> None:
    said = await yard.do("run", str(yard.file(yards.mixed(50))), "-o", str(yard.folder / "out.jsonl"))
    assert "groq (GROQ_API_KEY)" in said and key not in said
    assert await yard.rows(
        "SELECT category, provider, provider_simulated, state, count(*) FROM results GROUP BY 1, 2, 3, 4"
        " ORDER BY 1"
    ) == [(category, "openai", False, "succeeded", 10) for category in sorted(yards.CATEGORIES)]
    await laws.assert_laws(yard, key)
    await laws.assert_bill(yard, 1, list(yard.simulator.calls()))

    yard.simulator.set_faults("auth=1.0")
    refused = yard.file(yards.of_one(5), "refused.jsonl")
    said = await yard.do("run", str(refused), "-o", str(yard.folder / "refused.out"), status=1)
    assert "5 failed" in said and key not in (yard.folder / "refused.out").read_text()
    await laws.assert_laws(yard, key)


async def test_a_category_that_no_key_serves_is_an_error_before_anything_is_stored(
    yard: Yard, key: str
) -> None:
    with (yard.folder / "registry.toml").open("a") as registry:
        registry.write('[categories.multilingual]\nchain = ["groq/llama-3.3-70b-versatile"]\n')
    said = await yard.do("run", str(yard.file(yards.mixed(50))), status=2)
    assert "multilingual" in said and "GROQ_API_KEY" in said and key not in said
    assert not await yard.count("batches") and not await yard.count("prompts")
    assert not list(yard.messages())


async def test_a_server_of_ones_own_alone_runs_everything_without_a_key(yard: Yard) -> None:
    registry = yard.folder / "registry.toml"
    registry.write_text(
        f"""
        extends = "default"
        chain = ["local/qwen3:8b"]
        [providers.local]
        dialect = "openai_chat"
        base_url = "{yard.simulator.url}/local"
        limits = {{ concurrency = 8 }}
        [providers.local.models."qwen3:8b"]
        context_window = 40_960
        rates = {{ input = 0.07, output = 0.31 }}
        """
    )
    env: yards.Env = {"PROMPTYARD_SIMULATOR": None, "PROMPTYARD_REGISTRY": str(registry)}
    await yard.do("run", str(yard.file(yards.mixed(25))), "-o", str(yard.folder / "out.jsonl"), env=env)
    assert await yard.rows("SELECT provider, model, state, count(*) FROM results GROUP BY 1, 2, 3") == [
        ("local", "qwen3:8b", "succeeded", 25)
    ]
    await laws.assert_laws(yard)
    await laws.assert_bill(yard, 1, list(yard.simulator.calls()))
