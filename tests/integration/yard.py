"""A yard to run jobs in: a database, a broker, simulated providers, and the commands as real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import redis

from worker.simulator import process
from worker.simulator import settings as simulator_settings

T = TypeVar("T")

#: Changes to the environment of a process. A variable that is None is left out.
Env = Mapping[str, str | None]
NOTHING: Env = {}

PROMPTYARD = str(Path(sys.executable).with_name("promptyard"))
CELERY = str(Path(sys.executable).with_name("celery"))
CATEGORIES = ["simple_qa", "code", "summarization", "complex_reasoning", "multilingual"]
PROVIDERS = ["groq", "cerebras", "zai", "openai", "anthropic", "gemini"]
#: Stands in every prompt, so that the text of one is found wherever it should not be.
PROMPT_MARK = "quokka"
#: What a process needs that is no setting of ours.
KEPT = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "TMPDIR")
#: Longer than anything here takes on a machine that does other things too.
PATIENCE_S = 60.0


def prompt(number: int, category: str, **fields: Any) -> dict[str, Any]:
    """A short line of the input."""
    text = f"What is the capital of country {number}, in the words of a {PROMPT_MARK}?"
    return {"custom_id": f"{category}-{number}", "prompt": text, "category": category, **fields}


def mixed(count: int) -> list[dict[str, Any]]:
    """Prompts over the five categories."""
    return [prompt(number, CATEGORIES[number % 5]) for number in range(count)]


def of_one(count: int, category: str = "simple_qa", **fields: Any) -> list[dict[str, Any]]:
    return [prompt(number, category, **fields) for number in range(count)]


async def until(condition: Callable[[], Awaitable[T]], what: str, within_s: float = PATIENCE_S) -> T:
    """Wait for the condition to give something true, and return that."""
    deadline = time.monotonic() + within_s
    while not (found := await condition()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(0.02)
    return found


class Command:
    """A command of ours as a process, its output in a file."""

    def __init__(self, arguments: list[str], env: Mapping[str, str], log: Path, cwd: Path, stdin: int) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                arguments,
                env=env,
                cwd=cwd,
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Whoever starts the tests in the background has them ignore Ctrl-C, and that is inherited.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    @property
    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    async def ended(self, within_s: float = PATIENCE_S) -> int:
        """Wait for the end and return the exit status."""

        async def is_over() -> bool:
            return self.process.poll() is not None

        await until(is_over, f"the end of {self.process.args!r}; it said: {self.said[-2000:]}", within_s)
        return self.process.returncode

    async def stop(self, within_s: float = PATIENCE_S) -> int:
        """Tell it to stop, as a service manager does, and return the exit status."""
        self.process.terminate()
        return await self.ended(within_s)


class Yard:
    """Servers of one test or module, and the processes it has started."""

    def __init__(
        self,
        database_url: str,
        broker_url: str,
        simulator: process.Simulator,
        folder: Path,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.database_url = database_url
        self.broker_url = broker_url
        self.simulator = simulator
        self.folder = folder
        self.commands: list[Command] = []
        self.env = {name: os.environ[name] for name in KEPT if name in os.environ}
        self.env |= {
            "DATABASE_URL": database_url,
            "BROKER_URL": broker_url,
            "PROMPTYARD_SIMULATOR": simulator.url,
            "PROMPTYARD_HOME": str(folder / "home"),
            **(settings or {}),
        }

    # Commands

    def start(
        self,
        *arguments: str,
        program: str = PROMPTYARD,
        stdin: int = subprocess.DEVNULL,
        env: Env = NOTHING,
    ) -> Command:
        """Start a command in a session of its own."""
        everything = {**self.env, **env}
        here = {name: value for name, value in everything.items() if value is not None}
        log = self.folder / f"{len(self.commands)}-{Path(program).name}-{arguments[0]}.log"
        self.commands.append(Command([program, *arguments], here, log, self.folder, stdin))
        return self.commands[-1]

    async def do(self, *arguments: str, status: int = 0, env: Env = NOTHING) -> str:
        """Run a command to its end, which must have this status, and return what it said."""
        command = self.start(*arguments, env=env)
        found = await command.ended()
        assert found == status, f"{arguments} ended with {found}: {command.said}"
        return command.said

    def worker(self, provider: str, env: Env = NOTHING) -> Command:
        return self.start("worker", provider, env=env)

    def file(self, lines: Iterable[Mapping[str, Any] | str], name: str = "prompts.jsonl") -> Path:
        """Write an input file. A line that is text is written as it is."""
        path = self.folder / name
        texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        path.write_text("".join(f"{text}\n" for text in texts), "utf-8")
        return path

    async def submit(self, lines: Iterable[Mapping[str, Any]], env: Env = NOTHING) -> int:
        """Submit prompts and return the batch's id."""
        said = await self.do("submit", str(self.file(lines)), env=env)
        return int(said.splitlines()[-1])

    async def results(self, batch_id: int, status: int = 0) -> list[dict[str, Any]]:
        """What `promptyard results` writes."""
        path = self.folder / f"{batch_id}.results.jsonl"
        await self.do("results", str(batch_id), "-o", str(path), status=status)
        return [json.loads(line) for line in path.read_bytes().splitlines()]

    def close(self) -> None:
        """End what is still running."""
        for command in self.commands:
            if command.process.poll() is None:
                command.process.kill()
            command.process.wait(PATIENCE_S)

    # Looking

    async def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(self.database_url)
        try:
            return [tuple(row) for row in await connection.fetch(sql, *values)]
        finally:
            await connection.close()

    async def value(self, sql: str, *values: Any) -> Any:
        ((found,),) = await self.rows(sql, *values)
        return found

    async def count(self, table: str, where: str = "true", *values: Any) -> int:
        return int(await self.value(f"SELECT count(*) FROM {table} WHERE {where}", *values))

    async def completed(self, batch_id: int, within_s: float = PATIENCE_S) -> None:
        """Wait for the end of a batch."""

        async def is_completed() -> bool:
            return bool(await self.count("batches", "id = $1 AND state = 'completed'", batch_id))

        try:
            await until(is_completed, f"the end of batch {batch_id}", within_s)
        except AssertionError as e:
            open_shards = await self.rows(
                "SELECT queue, state, cardinality(prompt_nos), published_at, not_before, lease_until "
                "FROM shards WHERE batch_id = $1 AND state NOT IN ('done', 'cancelled') LIMIT 20",
                batch_id,
            )
            logs = "".join(f"\n--- {command.log.name}: {command.said[-1500:]}" for command in self.commands)
            raise AssertionError(f"{e}; open: {open_shards}{logs}") from None

    async def results_reach(self, count: int, batch_id: int) -> None:
        """Wait until so many prompts of a batch have a result."""

        async def are_there() -> bool:
            return await self.count("results", "batch_id = $1", batch_id) >= count

        await until(are_there, f"{count} results of batch {batch_id}")

    async def calls_are_out(self, count: int = 1) -> None:
        """Wait until the workers have said, with a heartbeat, that so many calls are in flight."""

        async def are_out() -> bool:
            return bool(await self.value("SELECT coalesce(sum(calls_in_flight), 0) >= $1 FROM workers", count))

        await until(are_out, f"{count} calls in flight")

    def slow(self, latency_ms: float, *faults: str) -> None:
        """Let every provider take so long for an answer, and have these faults."""
        every = simulator_settings.ProviderSettings(latency_ms=latency_ms)
        settings = simulator_settings.Settings(providers={simulator_settings.EVERY: every})
        self.simulator.set(settings.with_faults(faults))

    # The broker

    def messages(self) -> Iterator[str]:
        """The messages that wait in the queues."""
        with redis.Redis.from_url(self.broker_url, decode_responses=True) as client:
            for key in client.scan_iter(_type="list"):
                yield from client.lrange(key, 0, -1)

    def everything_in_redis(self) -> str:
        """All keys and values, as text."""
        with redis.Redis.from_url(self.broker_url) as client:
            return "\n".join(f"{key!r} {_stored(client, key)!r}" for key in client.scan_iter())


def _stored(client: redis.Redis, key: bytes) -> Any:
    kind = client.type(key)
    if kind == b"list":
        return client.lrange(key, 0, -1)
    if kind == b"hash":
        return client.hgetall(key)
    if kind == b"set":
        return client.smembers(key)
    if kind == b"zset":
        return client.zrange(key, 0, -1)
    return client.get(key)
