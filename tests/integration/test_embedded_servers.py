"""Embedded Postgres and Valkey as real processes, in homes of their own, with real kills."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis

import worker
from worker.local import folder, keeper, processes
from worker.local import servers as local_servers
from worker.settings import Settings

#: A command that uses the servers until its standard input ends.
COMMAND = """
import json, os, sys, time
from pathlib import Path
from worker import errors, settings
from worker.local import servers
begun = time.monotonic()
try:
    urls = servers.use(settings.Settings(home=Path(sys.argv[1])))
except errors.EmbeddedError as e:
    print(json.dumps({"error": str(e)}), flush=True)
else:
    print(json.dumps({**urls._asdict(), "took_s": time.monotonic() - begun}), flush=True)
sys.stdin.read()
"""

ROOT = os.geteuid() == 0
NO_DATABASE = {"DATABASE_URL": "postgresql://somebody@localhost/elsewhere"}
NO_BROKER = {"BROKER_URL": "redis://localhost:1/0"}


class Command:
    """A running command; `said` waits for what it prints once the servers are up."""

    def __init__(
        self, home: Path, *, python: str = sys.executable, user: str | None = None, **env: str
    ) -> None:
        self.process = subprocess.Popen(
            [python, "-c", COMMAND, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **env},
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=[] if user else None,
        )

    def said(self) -> dict[str, Any]:
        assert self.process.stdout
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def end(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home that does not exist yet; the test ends when nothing in it runs any more."""
    path = tmp_path / "home"
    yield path
    eventually(lambda: is_stopped(path, "postgres") and is_stopped(path, "valkey"))


@pytest.fixture
def command(home: Path) -> Iterator[Callable[..., Command]]:
    """Starts commands in the home and ends those that still run."""
    with contextlib.ExitStack() as running:

        def start(**options: str) -> Command:
            started = Command(home, **options)
            running.callback(started.end)
            return started

        yield start


def eventually(holds: Callable[[], object], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def is_stopped(home: Path, name: str) -> bool:
    here = folder.find(home, name)
    return here is None or not (here.locked("keeper") or here.locked("server"))


def server(home: Path, name: str) -> folder.State:
    state = folder.Folder(home / name).state()
    assert state
    return state


def parent(pid: int) -> int:
    return int(subprocess.check_output(["ps", "-o", "ppid=", "-p", str(pid)]))


async def ask(url: str, statement: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def ask_again(url: str, statement: str) -> Any:
    """Ask while the server comes back."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return await ask(url, statement)
        except (OSError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError):
            assert time.monotonic() < deadline, "the server did not come back"
            time.sleep(0.02)


def valkey(url: str) -> redis.Redis:
    return redis.Redis.from_url(url)


async def test_both_servers_start_in_a_fresh_home(home: Path, command: Callable[..., Command]) -> None:
    urls = command().said()

    assert (await ask(urls["database"], "SELECT version()")).startswith("PostgreSQL 18.")
    for setting, value in {"fsync": "on", "server_encoding": "UTF8", "listen_addresses": "127.0.0.1"}.items():
        assert await ask(urls["database"], f"SHOW {setting}") == value
    assert await ask(urls["database"], "SELECT current_database()") == "promptyard"
    with valkey(urls["broker"]) as client:
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("bind") == {"bind": "127.0.0.1"}


async def test_commands_that_start_at_once_share_the_servers(
    home: Path, command: Callable[..., Command]
) -> None:
    commands = [command() for _ in range(4)]
    urls = [(said["database"], said["broker"]) for said in (each.said() for each in commands)]

    assert len(set(urls)) == 1
    assert await ask(urls[0][0], "SELECT 1") == 1
    assert folder.Folder(home / "postgres").log.read_text().count("starting PostgreSQL") == 1


async def test_servers_stop_when_the_last_user_goes_and_keep_their_data(
    home: Path, command: Callable[..., Command]
) -> None:
    first = command()
    urls = first.said()
    await ask(urls["database"], "CREATE TABLE kept AS SELECT 42 AS answer")
    with valkey(urls["broker"]) as client:
        client.set("kept", "42")
    second = command()
    assert second.said()["database"] == urls["database"]

    first.end()
    # Longer than the servers linger, so that only the second command can be what holds them.
    unused_until = time.monotonic() + 2 * keeper.LINGER_S
    eventually(lambda: time.monotonic() > unused_until)
    assert await ask(urls["database"], "SELECT answer FROM kept") == 42

    second.kill()
    eventually(lambda: is_stopped(home, "postgres") and is_stopped(home, "valkey"))
    for name in ("postgres", "valkey"):
        assert processes.started(server(home, name).pid) is None
        assert not processes_that_mention(home / name)

    again = command().said()
    assert again["took_s"] < 2
    assert await ask(again["database"], "SELECT answer FROM kept") == 42
    with valkey(again["broker"]) as client:
        assert client.get("kept") == b"42"


def processes_that_mention(path: Path) -> list[str]:
    lines = subprocess.check_output(["ps", "-A", "-ww", "-o", "args="], text=True).splitlines()
    return [line for line in lines if str(path) in line]


async def test_a_killed_postgres_comes_back_where_it_was_with_what_was_committed(
    home: Path, command: Callable[..., Command]
) -> None:
    url = command(**NO_BROKER).said()["database"]
    await ask(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    before = server(home, "postgres")
    # A child that is busy outlives its postmaster and stands in the way of the next one.
    busy = await asyncpg.connect(url)
    child = await busy.fetchval("SELECT pg_backend_pid()")
    os.kill(child, signal.SIGSTOP)

    os.kill(before.pid, signal.SIGKILL)
    eventually(lambda: processes.started(before.pid) is None)
    assert not is_stopped(home, "postgres")
    os.kill(child, signal.SIGCONT)

    assert await ask_again(url, "SELECT answer FROM kept") == 42
    assert server(home, "postgres").pid != before.pid
    busy.terminate()


def test_a_killed_valkey_comes_back_where_it_was_with_its_messages(
    home: Path, command: Callable[..., Command]
) -> None:
    user = command(**NO_DATABASE)
    url = user.said()["broker"]
    with valkey(url) as client:
        client.rpush("queue", "message")
        client.execute_command("WAITAOF", 1, 0, 5000)
    before = server(home, "valkey")

    os.kill(before.pid, signal.SIGKILL)
    eventually(lambda: server(home, "valkey").pid != before.pid and server(home, "valkey").ready)

    with valkey(url) as client:
        assert client.lrange("queue", 0, -1) == [b"message"]


async def test_a_killed_keeper_is_replaced_while_its_server_runs_on(
    home: Path, command: Callable[..., Command]
) -> None:
    user = command(**NO_BROKER)
    url = user.said()["database"]
    connection = await asyncpg.connect(url)
    before = server(home, "postgres")
    here = folder.Folder(home / "postgres")

    os.kill(parent(before.pid), signal.SIGKILL)
    eventually(lambda: not here.locked("keeper"), timeout_s=5)
    eventually(lambda: here.locked("keeper"))

    assert command(**NO_BROKER).said()["database"] == url
    assert server(home, "postgres") == before
    assert await connection.fetchval("SELECT 1") == 1
    # The new keeper looks after a server that is not its child just as well.
    await connection.close()
    os.kill(before.pid, signal.SIGKILL)
    assert await ask_again(url, "SELECT 1") == 1


async def test_everything_killed_at_once_starts_again(home: Path, command: Callable[..., Command]) -> None:
    user = command()
    url = user.said()["database"]
    await ask(url, "CREATE TABLE kept AS SELECT 42 AS answer")

    states = [server(home, name) for name in ("postgres", "valkey")]
    user.kill()
    for state in states:
        for pid in (parent(state.pid), state.pid):
            os.kill(pid, signal.SIGKILL)

    urls = command().said()
    assert await ask(urls["database"], "SELECT answer FROM kept") == 42
    with valkey(urls["broker"]) as client:
        assert client.ping()


async def test_a_stale_pid_that_another_program_has_by_now_is_left_alone(
    home: Path, command: Callable[..., Command]
) -> None:
    command(**NO_BROKER).end()
    eventually(lambda: is_stopped(home, "postgres"))
    owner = (home / "postgres").stat().st_uid
    stranger = subprocess.Popen(["sleep", "600"], user=owner if ROOT else None)
    try:
        # Given the traces of a server that was killed together with its machine
        here = folder.Folder(home / "postgres")
        state = here.state()
        assert state
        write_as(owner, here.state_file, json.dumps({**state._asdict(), "pid": stranger.pid, "ready": True}))
        write_as(owner, here.data / "postmaster.pid", f"{stranger.pid}\n{here.data}\n1\n{state.port}\n\n\n")

        urls = command(**NO_BROKER).said()

        assert await ask(urls["database"], "SELECT 1") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def write_as(owner: int, path: Path, text: str) -> None:
    path.write_text(text)
    os.chown(path, owner, -1)
    path.chmod(0o600)


def test_a_port_that_was_taken_in_between_is_given_up(home: Path, command: Callable[..., Command]) -> None:
    command(**NO_DATABASE).end()
    eventually(lambda: is_stopped(home, "valkey"))
    port = server(home, "valkey").port
    with socket.create_server(("127.0.0.1", port)):
        url = command(**NO_DATABASE).said()["broker"]

        assert f":{port}/" not in url
        with valkey(url) as client:
            assert client.ping()


async def test_nobody_gets_in_without_the_password(home: Path, command: Callable[..., Command]) -> None:
    urls = command().said()
    passwords = {(home / name / "password").read_text().strip() for name in ("postgres", "valkey")}

    assert len(passwords) == 2
    for password in passwords:
        assert password not in subprocess.check_output(["ps", "-A", "-ww", "-o", "args="], text=True)
        urls = {name: str(url).replace(password, "wrong") for name, url in urls.items()}
    with pytest.raises(asyncpg.InvalidPasswordError):
        await ask(urls["database"], "SELECT 1")
    with valkey(urls["broker"]) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    port = server(home, "valkey").port
    with valkey(f"redis://127.0.0.1:{port}") as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_data_is_private_and_no_other_folder_is_touched(
    home: Path, tmp_path: Path, command: Callable[..., Command]
) -> None:
    above = [*tmp_path.parents, tmp_path, Path(sys.prefix), *Path(worker.__file__).parents]
    before = [(path, path.stat().st_mode, path.stat().st_uid) for path in above]

    command().said()

    assert [(path, path.stat().st_mode, path.stat().st_uid) for path in above] == before
    for path in (home, home / "postgres", home / "postgres/data", home / "valkey", home / "valkey/data"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in (home / "postgres", home / "valkey"):
        for file in path.iterdir():
            assert file.is_dir() or stat.S_IMODE(file.stat().st_mode) == 0o600, file


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_root_runs_the_servers_as_an_unprivileged_user(home: Path, command: Callable[..., Command]) -> None:
    command().said()

    nobody = pwd.getpwnam("nobody").pw_uid
    for name in ("postgres", "valkey"):
        pid = server(home, name).pid
        for process in (pid, parent(pid)):
            users = subprocess.check_output(["ps", "-o", "uid=,ruid=,svuid=", "-p", str(process)]).split()
            assert {int(uid) for uid in users} == {nobody}


@pytest.mark.skipif(not ROOT, reason="only root can give a folder away")
def test_root_runs_the_servers_as_the_owner_of_the_home(home: Path, command: Callable[..., Command]) -> None:
    home.mkdir(mode=0o755)
    os.chown(home, pwd.getpwnam("daemon").pw_uid, -1)

    command(**NO_DATABASE).said()

    assert (home / "valkey/data").stat().st_uid == pwd.getpwnam("daemon").pw_uid
    assert stat.S_IMODE(home.stat().st_mode) == 0o755


@pytest.mark.skipif(not ROOT, reason="the other tests run as an ordinary user already")
async def test_an_ordinary_user_has_servers_of_its_own() -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    python = python_for("nobody")
    with tempfile.TemporaryDirectory() as folder_of_nobody:
        os.chown(folder_of_nobody, nobody, -1)
        home = Path(folder_of_nobody, "home")
        path = os.pathsep.join([str(Path(worker.__file__).parents[1]), sysconfig.get_path("purelib")])
        user = Command(home, python=python, user="nobody", PYTHONPATH=path)
        try:
            assert await ask(user.said()["database"], "SELECT 1") == 1
            assert (home / "postgres").stat().st_uid == nobody
        finally:
            user.end()
            eventually(lambda: is_stopped(home, "postgres") and is_stopped(home, "valkey"))


def python_for(user: str) -> str:
    """A Python of our version that this user can run; ours may be in root's own folder."""
    ours = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    group = pwd.getpwnam(user).pw_gid
    for python in (sys.executable, *filter(None, [shutil.which("python3", path="/usr/bin:/usr/local/bin")])):
        with contextlib.suppress(PermissionError):
            test = subprocess.run([python, "-c", ours], user=user, group=group, extra_groups=[], check=False)
            if test.returncode == 0:
                return python
    pytest.skip(f"the user {user} cannot run a Python {sys.version_info[0]}.{sys.version_info[1]} here")


@pytest.mark.parametrize(("given", "started"), [(NO_DATABASE, "valkey"), (NO_BROKER, "postgres")])
def test_only_the_server_that_the_environment_lacks_is_started(
    home: Path, command: Callable[..., Command], given: dict[str, str], started: str
) -> None:
    urls = command(**given).said()

    assert set(given.values()) < set(urls.values())
    assert [path.name for path in home.iterdir()] == [started]


def test_with_both_servers_given_nothing_is_made(home: Path) -> None:
    urls = ("postgresql://me@db/name", "redis://cache:1/0")
    settings = Settings(home=home, database_url=urls[0], broker_url=urls[1])

    assert local_servers.use(settings) == urls
    assert local_servers.state(settings) == []
    assert not home.exists()


def test_state_tells_what_runs_and_starts_nothing(home: Path, command: Callable[..., Command]) -> None:
    settings = Settings(home=home, database_url=None, broker_url=None)
    assert [(server.name, server.up) for server in local_servers.state(settings)] == [
        ("postgres", False),
        ("valkey", False),
    ]
    assert not home.exists()

    command(**NO_BROKER).said()

    postgres, valkey = local_servers.state(settings)
    assert (postgres.up, valkey.up) == (True, False)
    assert postgres.pid == server(home, "postgres").pid
    assert postgres.version and postgres.version.startswith("18.")
    assert postgres.log.exists() and postgres.data.is_dir()


async def test_keys_and_prompts_reach_no_server_and_no_log(home: Path, command: Callable[..., Command]) -> None:
    url = command(OPENAI_API_KEY="sk-secret", **NO_BROKER).said()["database"]
    await ask(url, "CREATE TABLE prompts (body text PRIMARY KEY CHECK (body <> 'prompt-a'))")
    await ask(url, "INSERT INTO prompts VALUES ('prompt-b')")
    for text in ("prompt-a", "prompt-b"):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await ask(url, f"INSERT INTO prompts VALUES ('{text}')")

    log = (home / "postgres/log").read_text()
    assert "violates check constraint" in log
    assert "prompt-a" not in log and "prompt-b" not in log
    pid = server(home, "postgres").pid
    environments = subprocess.check_output(["ps", "eww", "-p", f"{pid},{parent(pid)}"], text=True)
    assert "LC_ALL=C" in environments and "sk-secret" not in environments


def test_data_of_another_postgres_is_refused_and_kept(home: Path, command: Callable[..., Command]) -> None:
    command(**NO_BROKER).end()
    eventually(lambda: is_stopped(home, "postgres"))
    version = home / "postgres/data/PG_VERSION"
    version.write_text("17\n")

    error = command(**NO_BROKER).said()["error"]

    assert "written by PostgreSQL 17" in error and "PROMPTYARD_HOME" in error
    assert version.read_text() == "17\n"


def test_a_server_that_cannot_start_names_its_log_and_the_reason(
    home: Path, command: Callable[..., Command]
) -> None:
    command(**NO_BROKER).end()
    eventually(lambda: is_stopped(home, "postgres"))
    (home / "postgres/data/global/pg_control").unlink()

    error = command(**NO_BROKER).said()["error"]

    assert "pg_control" in error
    assert str(home / "postgres/log") in error


def test_a_missing_password_is_told_from_a_new_home(home: Path, command: Callable[..., Command]) -> None:
    command(**NO_DATABASE).end()
    eventually(lambda: is_stopped(home, "valkey"))
    (home / "valkey/password").unlink()

    assert "password is gone" in command(**NO_DATABASE).said()["error"]


def test_a_start_that_was_killed_half_way_is_made_good(home: Path, command: Callable[..., Command]) -> None:
    user = command(**NO_BROKER)
    eventually((home / "postgres/data.new/global").exists)
    keepers = subprocess.check_output(["ps", "-A", "-ww", "-o", "pid=,args="], text=True).splitlines()
    (pid,) = [int(line.split()[0]) for line in keepers if f"local.keeper {home}" in line]
    os.kill(pid, signal.SIGKILL)
    assert "ended" in user.said()["error"]

    assert "database" in command(**NO_BROKER).said()


def test_a_keeper_is_small_and_needs_no_installed_package(home: Path, command: Callable[..., Command]) -> None:
    command(**NO_DATABASE).said()

    pid = parent(server(home, "valkey").pid)
    assert int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(pid)])) < 25_000
    assert " -S " in subprocess.check_output(["ps", "-ww", "-o", "args=", "-p", str(pid)], text=True)
