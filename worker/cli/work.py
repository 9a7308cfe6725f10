"""`promptyard worker`: a Celery worker pinned to a provider."""

from __future__ import annotations

import os
import socket
from typing import Annotated, Literal

import typer

LogLevel = Literal["debug", "info", "warning", "error"]

HELP = """Run a worker for one provider until it is told to stop.

It takes shards of every category in which the provider is first choice, and all that falls back to it. Start
as many as you like, on as many machines; SIGTERM finishes the calls that are out and hands the rest back. It
is the same as `celery -A worker worker -P threads -Q <the queues that it names at its start>`.

Example: promptyard worker groq
"""


def register(app: typer.Typer) -> None:
    app.command("worker", help=HELP)(worker)


def worker(
    provider: Annotated[str, typer.Argument(help="Name of the provider in the registry.")],
    log_level: Annotated[LogLevel, typer.Option(help="How much to log.")] = "info",
) -> None:
    from worker import errors, settings
    from worker.routing import load

    registry = load.registry(settings.load())
    if provider not in registry.providers:
        known = ", ".join(registry.providers)
        raise errors.SettingsError(f"There is no provider {provider}. The registry has {known}.")
    raise typer.Exit(celery_worker(provider, log_level))


def celery_worker(provider: str, log_level: LogLevel = "info") -> int:
    """Run a Celery worker on the provider's queues in this process until it has stopped; its exit status."""
    from worker import settings
    from worker.celery import app
    from worker.routing import load, queues

    # Not app.worker_main, which forgets the status.
    program = app.Worker(
        pool_cls="threads",
        queues=queues.consumed_by(provider, load.registry(settings.load())),
        hostname=f"{provider}-{os.getpid()}@{socket.gethostname()}",
        loglevel=log_level.upper(),
        # Workers need not know each other: Postgres knows them all. This saves seconds at the start.
        without_mingle=True,
        without_gossip=True,
        without_heartbeat=True,
    )
    program.start()
    return program.exitcode or 0
