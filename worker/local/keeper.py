"""The keeper of one embedded server: starts it, again when it dies, and stops it when the last user goes.

Run as `python -m worker.local.keeper FOLDER NAME PROGRAM`. It detaches itself and writes one line to its
standard output, once it knows: `{"ready": true}` or `{"error": …}`. As root it first becomes the folder's
owner, for good. It outlives the command that started it. If it is killed, its server lives on, and the next
keeper takes that over.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Protocol

from worker import errors
from worker.local import binaries, folder, postgres, processes, valkey

#: How often the keeper looks whether its server lives and somebody uses it.
TICK_S = 0.1
#: How long the server stays up without a user, so that one command after the other need not start it again.
LINGER_S = 1.0
#: How long the server may take until it takes connections; recovery after a crash is part of it.
START_TIMEOUT_S = 120.0
#: How long what a killed server left behind may take to end.
ORPHANS_TIMEOUT_S = 60.0
#: How long a stop may take before it is made by force.
STOP_TIMEOUT_S = 60.0
#: A log longer than this many bytes is put aside when a keeper starts.
LOG_LIMIT = 5_000_000


class Server(Protocol):
    """What the keeper must be able to do with a server."""

    program: Path

    def prepare(self, last_pid: int | None) -> None: ...
    def start(self, port: int, output: IO[bytes]) -> subprocess.Popen[bytes]: ...
    def is_ready(self, pid: int, port: int) -> bool: ...


class Keeper:
    """Keeps one server, standing in its folder."""

    def __init__(self, server: Server, stop_signal: signal.Signals) -> None:
        self.here = folder.Folder(Path())
        self.server = server
        self.stop_signal = stop_signal
        self.version = _version(server.program)
        self.running: folder.State
        self.told_to_end = False
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _end(self, *_: object) -> None:
        self.told_to_end = True

    def open(self) -> None:
        """Take over the running server, or start it. Returns when it takes connections.

        Raises:
            EmbeddedError: it did not start; the message names the log.
        """
        state = self.here.state()
        if (
            state
            and self.here.locked("server")
            and processes.started(state.pid) == state.started
            and self._becomes_ready(state.pid, state.port)
        ):
            self._write(state._replace(ready=True))
            return
        # Not before the last process of an earlier life is gone: Postgres' children outlive it for a while.
        with self.here.holding("server", ORPHANS_TIMEOUT_S) as lock:
            os.set_inheritable(lock, True)
            self.server.prepare(state.pid if state else None)
            # The last port again if possible: users that live on know the server by it.
            port = state.port if state and processes.is_free(state.port) else processes.free_port()
            while not self._start(port):
                port = processes.free_port()

    def _start(self, port: int) -> bool:
        """Start it on this port; False if somebody else took the port first."""
        offset = self.here.log.stat().st_size
        with self.here.log.open("ab") as log:
            process = self.server.start(port, log)
        started = processes.started(process.pid) or ""
        state = folder.State(process.pid, started, port, self.version, ready=False)
        self._write(state)
        if self._becomes_ready(process.pid, port):
            self._write(state._replace(ready=True))
            return True
        if processes.is_alive(process.pid):
            process.kill()
            process.wait()
            what = f"is not ready after {START_TIMEOUT_S:.0f} s"
        elif not processes.is_free(port):
            return False
        else:
            what = "ended at once"
        raise errors.EmbeddedError(
            f"The embedded server {what}: {self.here.reason(offset)}. The log is {self.here.log.absolute()}"
        )

    def _write(self, state: folder.State) -> None:
        self.running = state
        self.here.write_state(state)

    def _becomes_ready(self, pid: int, port: int) -> bool:
        deadline = time.monotonic() + START_TIMEOUT_S
        while processes.is_alive(pid) and time.monotonic() < deadline:
            if self.server.is_ready(pid, port):
                return True
            time.sleep(0.005)
        return False

    def stay(self) -> None:
        """Keep the server up until its last user has gone, then stop it.

        Raises:
            EmbeddedError: it died and did not start again.
        """
        users = self.here.open_lock("users")
        unused_since: float | None = None
        while not self.told_to_end:
            time.sleep(TICK_S)
            if not folder.try_lock(users, fcntl.LOCK_EX):
                unused_since = None
                if not processes.is_alive(self.running.pid):
                    print(f"process {self.running.pid} died: starting the server again", file=sys.stderr)
                    self._write(self.running._replace(ready=False))
                    self.open()
                continue
            now = time.monotonic()
            unused_since = now if unused_since is None else unused_since
            if now - unused_since > LINGER_S:
                break  # the lock stays held until we end: a new user waits for that
            fcntl.flock(users, fcntl.LOCK_UN)
        self._stop()

    def _stop(self) -> None:
        state = self.running
        self._write(state._replace(ready=False))
        for number in (self.stop_signal, signal.SIGQUIT, signal.SIGKILL):
            if not processes.is_alive(state.pid):
                break
            os.kill(state.pid, number)
            deadline = time.monotonic() + STOP_TIMEOUT_S
            while processes.is_alive(state.pid) and time.monotonic() < deadline:
                time.sleep(folder.POLL_S)


def main() -> None:
    """Detach, become an unprivileged user, keep the server."""
    path, name, program = sys.argv[1:]
    if os.fork():
        os._exit(0)
    os.chdir(path)
    here = folder.Folder(Path())
    try:
        own_program = _become_owner(Path(program))
        _open_log()
        with here.holding("keeper", 1.0):
            _make_password()
            if name == valkey.NAME:
                keeper = Keeper(valkey.Valkey(own_program), valkey.STOP)
            else:
                keeper = Keeper(postgres.Postgres(own_program, _reach(path)), postgres.STOP)
            keeper.open()
            _report({"ready": True})
            keeper.stay()
    except (errors.EmbeddedError, OSError) as e:
        ours = isinstance(e, errors.EmbeddedError)
        said = str(e) if ours else f"The embedded {name} cannot run in {path}: {e}"
        print(said, file=sys.stderr)
        _report({"error": said})
        sys.exit(1)


def _become_owner(program: Path) -> Path:
    """Become the folder's owner if we are root; returns a path of the program that this user can run.

    Raises:
        EmbeddedError: we may not change the user.
    """
    os.umask(0o077)
    if os.geteuid() != 0:
        return program
    owner = Path().stat()
    if owner.st_uid == 0:
        raise errors.EmbeddedError("The folder of an embedded server belongs to root, which it never does.")
    try:
        os.setgroups([])
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)
        reachable = binaries.reachable(program)
        os.seteuid(0)
        os.setegid(0)
        if not reachable:
            program = binaries.copy(program)
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
    except PermissionError:
        raise errors.EmbeddedError(
            f"This root may not run the servers as user {owner.st_uid}. Run Promptyard as an ordinary user, "
            "or set DATABASE_URL and BROKER_URL to servers of your own."
        ) from None
    return program


def _reach(path: str) -> str:
    """A path by which a child reaches the folder we stand in.

    A folder on the way may be closed to the user that we became; a descriptor handed down still leads there.
    """
    if os.access(path, os.X_OK):
        return path
    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(descriptor, True)
    reach = f"/proc/self/fd/{descriptor}"
    if not Path(reach, "users.lock").exists():
        raise errors.EmbeddedError(
            f"{path} is closed to the user that the server runs as. Set PROMPTYARD_HOME to another folder."
        )
    return reach


def _open_log() -> None:
    log = folder.Folder(Path()).log
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_LIMIT:
            log.rename("log.old")
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, sys.stderr.fileno())
    os.close(descriptor)


def _make_password() -> None:
    here = folder.Folder(Path())
    if here.password_file.exists():
        return
    if here.data.exists():
        raise errors.EmbeddedError(
            f"{here.password_file.absolute()} is gone, and the data beside it cannot be opened without it. "
            "Put it back, or set PROMPTYARD_HOME to a new folder."
        )
    new = Path("password.new")
    new.touch(mode=0o600)
    new.write_text(secrets.token_urlsafe(24) + "\n")
    new.rename(here.password_file)


def _version(program: Path) -> str:
    """The number in what `--version` prints: `postgres (PostgreSQL) 18.4`, `Valkey server v=9.1.2 sha=…`."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as e:
        raise errors.EmbeddedError(
            f"{program} does not run here: {e}. Set DATABASE_URL and BROKER_URL to servers of your own."
        ) from None
    number = re.search(r"\d+(\.\d+)+", said)
    return number[0] if number else "unknown"


def _report(message: dict[str, object]) -> None:
    """Say the one thing that the command which started us waits for."""
    with contextlib.suppress(BrokenPipeError):  # it did not wait
        os.write(1, json.dumps(message).encode() + b"\n")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(null, standard)
    os.close(null)


if __name__ == "__main__":
    main()
