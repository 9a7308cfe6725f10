"""`promptyard doctor`, `providers`, `db` and `simulate`: what is there, and what is wrong with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib import parse

import command
import ledger_rows as rows
import pytest
import redis

from worker import errors
from worker.cli import session
from worker.ledger import database
from worker.settings import Settings
from worker.simulator import process

SECRET = "sk-do-not-print"


@pytest.fixture
def promptyard(database_url: str, broker_url: str, tmp_path: Path) -> command.Command:
    return command.Command(
        DATABASE_URL=database_url,
        BROKER_URL=broker_url,
        PROMPTYARD_HOME=str(tmp_path / "home"),
        GROQ_API_KEY=SECRET,
    )


def verdicts(done: command.Done) -> dict[str, str]:
    return {check["name"]: check["verdict"] for check in done.json["checks"]}


def test_doctor_finds_nothing_wrong_and_shows_no_secret(promptyard: command.Command, database_url: str) -> None:
    done = promptyard("doctor", "--json")
    found = verdicts(done)
    assert (done.status, done.err) == (0, "")
    # How fast the servers answer and how full the disk is belongs to whoever runs the test.
    right = {
        "packages",
        "registry",
        "keys",
        "prices",
        "servers",
        "clock",
        "schema",
        "workers",
        "broker memory",
    }
    assert {found[name] for name in right} == {"ok"}
    assert {"python", "embedded", "disk", "postgres", "broker", "broker data"} == found.keys() - right
    plain = promptyard("doctor")
    password = parse.urlsplit(database_url).password
    assert password
    for said in (done.out, plain.out):
        assert password not in said
        assert SECRET not in said


def test_doctor_names_a_missing_schema_and_the_command_to_type(
    promptyard: command.Command, empty_database_url: str
) -> None:
    done = promptyard.with_(DATABASE_URL=empty_database_url)("doctor")
    assert done.status == 2
    (line,) = [line for line in done.out.splitlines() if line.startswith("problem")]
    assert "schema" in line
    assert "`promptyard db upgrade`" in line


def test_doctor_goes_on_after_a_server_that_is_away(promptyard: command.Command) -> None:
    away = promptyard.with_(
        DATABASE_URL=f"postgresql://me:{SECRET}@127.0.0.1:1/x", BROKER_URL=f"redis://:{SECRET}@127.0.0.1:1/0"
    )
    done = away("doctor", "--json")
    assert done.status == 2
    assert [name for name, verdict in verdicts(done).items() if verdict == "problem"] == [
        "postgres",
        "broker",
    ]
    assert SECRET not in done.out + done.err


def test_doctor_warns_of_a_broker_that_may_drop_queues(promptyard: command.Command, broker_url: str) -> None:
    with redis.Redis.from_url(broker_url) as broker:
        broker.config_set("maxmemory-policy", "allkeys-lru")
        try:
            done = promptyard("doctor", "--json")
        finally:
            broker.config_set("maxmemory-policy", "noeviction")
    assert done.status == 0
    assert verdicts(done)["broker memory"] == "warning"


async def test_doctor_warns_of_work_that_nobody_does(promptyard: command.Command, database_url: str) -> None:
    engine = database.engine(database_url)
    try:
        async with engine.begin() as connection:
            batch_id = await rows.batch(connection, 2)
            await rows.shard(connection, batch_id, [1, 2])
    finally:
        await engine.dispose()
    done = promptyard("doctor")
    assert done.status == 0
    assert "No live worker for code: 2 prompts. Start one: `promptyard worker cerebras`." in done.out


def test_doctor_says_that_the_simulator_is_gone(promptyard: command.Command) -> None:
    done = promptyard.with_(PROMPTYARD_SIMULATOR="http://127.0.0.1:1")("doctor", "--json")
    assert done.status == 2
    assert verdicts(done)["simulator"] == "problem"


async def test_providers_shows_prices_keys_and_workers(promptyard: command.Command, database_url: str) -> None:
    engine = database.engine(database_url)
    try:
        async with engine.begin() as connection:
            await rows.worker(connection, "groq")
            await rows.worker(connection, "openai", simulated=True)  # serves other batches
    finally:
        await engine.dispose()
    done = promptyard("providers", "--json")
    found = {provider["name"]: provider for provider in done.json["providers"]}
    assert (found["groq"]["key"], found["groq"]["live_workers"]) == ("present", 1)
    assert (found["openai"]["key"], found["openai"]["live_workers"]) == ("missing", 0)
    llama = next(model for model in found["groq"]["models"] if model["name"].startswith("llama"))
    assert llama["prices"][0]["input_usd_per_mtok"] == "0.59"
    assert llama["place"]["simple_qa"] == 1
    plain = promptyard("providers")
    assert "Registry: registry.toml of the package" in plain.out
    assert "missing (OPENAI_API_KEY)" in plain.out
    assert SECRET not in done.out + plain.out


def test_providers_starts_no_server_and_names_the_file(tmp_path: Path) -> None:
    registry = tmp_path / "mine.toml"
    registry.write_text(
        """
        frontier = "local/small"
        chain = ["local/small"]
        [providers.local]
        dialect = "openai_chat"
        base_url = "http://127.0.0.1:8000/v1"
        [providers.local.models.small]
        context_window = 8192
        """
    )
    home = tmp_path / "home"
    done = command.Command(PROMPTYARD_HOME=str(home), PROMPTYARD_REGISTRY=str(registry))("providers")
    assert done.status == 0
    assert f"Registry: {registry}" in done.out
    assert "not needed" in done.out
    assert "unknown" in done.out  # the price
    assert not home.exists()


def test_a_registry_that_is_wrong_is_one_line(tmp_path: Path) -> None:
    registry = tmp_path / "mine.toml"
    registry.write_text("frontier = 3")
    done = command.Command(PROMPTYARD_HOME=str(tmp_path), PROMPTYARD_REGISTRY=str(registry))("providers")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"promptyard: {registry}: ")
    assert len(done.err.splitlines()) == 1


def test_upgrade_makes_the_schema_that_other_commands_ask_for(
    promptyard: command.Command, empty_database_url: str
) -> None:
    own = promptyard.with_(DATABASE_URL=empty_database_url)
    refused = own("status")
    assert refused.status == 2
    assert refused.err == "promptyard: The database has no Promptyard schema. Run `promptyard db upgrade`.\n"
    assert "now (was none)" in own("db", "upgrade").out
    assert "already" in own("db", "upgrade").out
    assert own("status").status == 0


def test_the_url_is_one_that_psql_takes(promptyard: command.Command, database_url: str) -> None:
    driver = database_url.replace("postgresql://", "postgresql+asyncpg://")
    assert promptyard.with_(DATABASE_URL=driver)("db", "url").out == f"{database_url}\n"


def test_the_shell_runs_sql_without_the_password_in_its_arguments(promptyard: command.Command) -> None:
    done = promptyard("db", "shell", stdin="SELECT count(*) + 41 AS answer FROM batches;\n")
    assert done.status == 0
    assert "41" in done.out


async def test_a_connection_that_breaks_is_a_server_error(database_url: str, broker_url: str) -> None:
    config = Settings(database_url=database_url, broker_url=broker_url)
    with pytest.raises(errors.ServerError, match="connection to Postgres broke"):
        async with session.opened(config) as here, here.db.connect() as connection:
            await connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_simulate_serves_until_it_is_told_to_stop_and_prints_the_bill(number: int) -> None:
    environment = command.Command().full_environment()
    serving = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "worker",
            "simulate",
            "--port",
            "0",
            "--fault",
            "zai:auth",
            "--latency-ms",
            "1",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    with serving:
        assert serving.stdout is not None
        assert serving.stderr is not None
        lines = iter(serving.stdout.readline, "")
        export = next(line for line in lines if "export PROMPTYARD_SIMULATOR=" in line)
        simulator = process.Simulator(export.strip().partition("=")[2])
        settings = simulator.settings()
        assert [fault.kind for fault in settings.of("zai").faults] == ["auth"]
        assert settings.of("groq").latency_ms == 1
        os.kill(serving.pid, number)
        _, said = serving.communicate(timeout=20)
    assert serving.returncode == 0
    assert said == "No call was made.\n"


def test_a_fault_that_is_none_is_one_line() -> None:
    done = command.Command()("simulate", "--fault", "groq:explodes")
    assert (done.status, done.out) == (2, "")
    assert "Write PROVIDER:KIND=SHARE" in done.err
    assert len(done.err.splitlines()) == 1
