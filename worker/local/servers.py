"""The servers that a command uses: the user's own, or embedded ones."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent import futures
from pathlib import Path
from typing import NamedTuple

from worker import errors
from worker.local import binaries, folder, postgres, valkey
from worker.settings import Settings

_log = logging.getLogger(__name__)

#: How long a command waits for a server, in seconds: longer than a keeper takes to give up.
WAIT_S = 200.0

#: The environment that reaches the keepers and servers: no key of a provider does.
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")

_lock = threading.Lock()
#: Descriptors of the locks that make this process a user of a server.
_held: dict[Path, int] = {}
_watched: set[Path] = set()


class Urls(NamedTuple):
    """Where the two servers are."""

    database: str
    broker: str


class ServerStatus(NamedTuple):
    """An embedded server as it is, for people to read."""

    name: str
    up: bool
    pid: int | None
    port: int | None
    version: str | None
    data: Path
    log: Path


def use(settings: Settings) -> Urls:
    """Give the URLs of Postgres and Redis; start an embedded server for each that the settings do not give.

    The embedded servers stay up until this process and all their other users have ended, however they end.
    Blocks for a few milliseconds if they are up and for under 2 s if not. May be called often, from any
    thread.

    Raises:
        EmbeddedError: a server did not start.
    """
    names = _embedded(settings)
    with _lock:
        here = {name: folder.make(_home(settings), name) for name in names}
        for name in names:
            _become_user(here[name])
        up = {name: _up(here[name]) for name in names}
        if not all(up.values()):
            with futures.ThreadPoolExecutor(len(names)) as threads:
                up = dict(zip(names, threads.map(_bring_up, names, here.values()), strict=True))
        for name in names:
            _watch(name, here[name])
    ports = {name: state.port for name, state in up.items() if state}
    return Urls(
        settings.database_url or postgres.url(here[postgres.NAME].password(), ports[postgres.NAME]),
        settings.broker_url or valkey.url(here[valkey.NAME].password(), ports[valkey.NAME]),
    )


def state(settings: Settings) -> list[ServerStatus]:
    """Tell of each server that would be an embedded one whether it is up, and where. Starts nothing."""
    found = []
    for name in _embedded(settings):
        place = folder.Folder(_home(settings) / name)
        here = folder.find(_home(settings), name)
        state = _up(here) if here else None
        pid, port, version = (state.pid, state.port, state.version) if state else (None, None, None)
        found.append(ServerStatus(name, state is not None, pid, port, version, place.data, place.log))
    return found


def _embedded(settings: Settings) -> list[str]:
    given = {postgres.NAME: settings.database_url, valkey.NAME: settings.broker_url}
    return [name for name, url in given.items() if not url]


def _home(settings: Settings) -> Path:
    return settings.home.expanduser().absolute()


def _become_user(here: folder.Folder) -> None:
    if here.path not in _held:
        descriptor = here.open_lock("users")
        # Waits while a keeper stops the server: from here on it cannot be stopped.
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        _held[here.path] = descriptor


def _up(here: folder.Folder) -> folder.State | None:
    """The server's state if it is kept and takes connections."""
    state = here.state()
    if state is None or not state.ready or not here.locked("keeper"):
        return None
    try:
        socket.create_connection(("127.0.0.1", state.port), timeout=1).close()
    except OSError:
        return None  # it has just died; its keeper will see that
    return state


def _bring_up(name: str, here: folder.Folder) -> folder.State:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if state := _up(here):
            return state
        # Of several commands that find no keeper, one starts it and the others wait here for that.
        with here.holding("start", WAIT_S):
            if not here.locked("keeper"):
                _start_keeper(name, here)
        time.sleep(folder.POLL_S)
    raise errors.EmbeddedError(
        f"The embedded {name} is not ready after {WAIT_S:.0f} s: {here.reason()}. The log is {here.log}"
    )


def _start_keeper(name: str, here: folder.Folder) -> None:
    """Start a keeper and wait until its server takes connections."""
    program = binaries.postgres() if name == postgres.NAME else binaries.valkey()
    keeper = subprocess.Popen(
        [sys.executable, "-P", "-S", "-m", "worker.local.keeper", here.path, name, program],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env=_environment(),
        start_new_session=True,  # Ctrl-C in the terminal is for the command
    )
    said = keeper.communicate()[0].decode(errors="replace").strip().splitlines()
    try:
        report = json.loads(said[-1])
    except (IndexError, ValueError):
        report = {"error": f"The keeper of the embedded {name} ended: {(said or ['it said nothing'])[-1]}"}
    # Another keeper, left by a command that was killed, may have been there first.
    if "error" in report and not here.locked("keeper"):
        raise errors.EmbeddedError(report["error"])


def _environment() -> dict[str, str]:
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    # Enough for a keeper, which needs no installed package; and no locale that this machine may lack.
    return environment | {"PYTHONPATH": str(Path(__file__).parents[2]), "LC_ALL": "C"}


def _watch(name: str, here: folder.Folder) -> None:
    """Replace the keeper if it is killed while we use its server."""
    if here.path not in _watched:
        _watched.add(here.path)
        threading.Thread(target=_replace_keeper, args=(name, here), daemon=True).start()


def _replace_keeper(name: str, here: folder.Folder) -> None:
    try:
        descriptor = here.open_lock("keeper")
        while True:
            fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits until the keeper ends
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            _bring_up(name, here)
    except errors.EmbeddedError as e:
        _log.error("%s", e)
