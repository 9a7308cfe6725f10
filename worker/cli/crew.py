"""The workers that `run` starts for itself: child processes, one a provider, gone when `run` is gone."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from worker import errors

#: A worker that ends by itself is started again, this often without a while of peace between.
RESTARTS = 3
PEACE_S = 60.0

#: What every worker imports. One process imports it while the prompts are being read, and the workers are
#: forked off it: six of them start in the time of one.
_PRELOADED = [
    "aiohttp",
    "asyncpg",
    "celery.apps.worker",
    "celery.bin.worker",
    "kombu.transport.redis",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "uvloop",
    "worker.tasks",
]


class Crew:
    """Worker processes by provider."""

    def __init__(self, per_provider: int, logs: Path) -> None:
        self._logs = logs
        self._per_provider = per_provider
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)
        self._members: dict[tuple[str, int], ForkServerProcess] = {}
        self._started_at: dict[tuple[str, int], float] = {}
        self._restarts: dict[tuple[str, int], int] = {}

    def prepare(self) -> None:
        """Begin to import what the workers need, in the process they will be forked from."""
        from multiprocessing import forkserver, resource_tracker

        # Ctrl-C at the terminal reaches that process too, and would end its imports with a traceback. The
        # tracker comes first, since its start lets the signal through again.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def start(self, provider: str) -> bool:
        """Start the provider's workers, unless they run. Returns whether any was started."""
        started = False
        for number in range(1, self._per_provider + 1):
            if (provider, number) not in self._members:
                self._spawn(provider, number)
                started = True
        return started

    def watch(self) -> None:
        """Start workers again that have ended by themselves.

        Raises:
            ServerError: one of them does not stay up; the message names its log.
        """
        for (provider, number), process in list(self._members.items()):
            if process.exitcode is None:
                continue
            member = provider, number
            peaceful = time.monotonic() - self._started_at[member] > PEACE_S
            self._restarts[member] = 1 if peaceful else self._restarts.get(member, 0) + 1
            if self._restarts[member] > RESTARTS:
                log = self._log(provider, number)
                raise errors.ServerError(
                    f"The worker for {provider} does not stay up{_last_words(log)}. See {log}."
                )
            self._spawn(provider, number)

    def stop(self, grace_s: float) -> None:
        """Tell all to stop and wait; whoever has not stopped after the grace period is killed."""
        for process in self._members.values():
            if process.exitcode is None:
                process.terminate()
        for process in self._members.values():
            process.join(grace_s)
            if process.exitcode is None:
                process.kill()
                process.join()
        self._members.clear()

    def _spawn(self, provider: str, number: int) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        process = self._context.Process(
            target=_child,
            args=(provider, self._log(provider, number), dict(os.environ)),
            name=f"promptyard-{provider}-{number}",
        )
        process.start()
        self._started_at[provider, number] = time.monotonic()
        self._members[provider, number] = process

    def _log(self, provider: str, number: int) -> Path:
        return self._logs / f"worker-{provider}-{number}.log"


def _child(provider: str, log: Path, environment: Mapping[str, str]) -> None:
    """Be a worker. Runs in a process forked off the one that has everything imported."""
    from worker.cli import work

    os.environ.clear()
    os.environ.update(environment)
    # Ctrl-C at the terminal is for `run`, which stops its workers in good order.
    os.setsid()
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    sys.argv = ["promptyard", "worker", provider]
    sys.exit(work.celery_worker(provider))


def _stop_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _last_words(log: Path) -> str:
    with contextlib.suppress(OSError):
        lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
        if lines:
            return f": {lines[-1].strip()[:300]}"
    return ""
