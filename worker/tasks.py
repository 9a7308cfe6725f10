"""The Celery tasks, and what ties a Celery worker to its provider."""

from __future__ import annotations

import logging
import sys
from typing import Any

from celery import signals
from celery.exceptions import Reject

from worker import errors, settings
from worker.celery import RUN_SHARD, app
from worker.routing import load, queues
from worker.shards import engine, process

log = logging.getLogger(__name__)

_process: process.Process | None = None


@app.task(name=RUN_SHARD)
def run_shard(shard_id: str) -> None:
    """Hand a shard to the engine. Done as soon as it is claimed: from then on its lease keeps it."""
    if _process is None:
        raise Reject("this worker has no engine", requeue=True)
    try:
        _process.take(shard_id)
    except engine.Stopping as e:
        raise Reject(str(e), requeue=True) from None


@signals.celeryd_after_setup.connect
def start_engine(instance: Any, **_: Any) -> None:
    """Start the engine for the provider that the worker's queues belong to."""
    global _process
    try:
        registry = load.registry(settings.load())
        consumed = list(instance.app.amqp.queues.consume_from)
        provider = queues.provider_of(consumed, registry)
        foreign = set(consumed) - set(queues.consumed_by(provider, registry))
        if foreign:
            raise errors.SettingsError(
                f"A worker for {provider} cannot serve {', '.join(sorted(foreign))}: "
                f"{provider} is not in the first tier there. Leave it out of -Q."
            )
        started = process.Process(provider)
        started.start()
    except errors.PromptyardError as e:
        print(f"promptyard: {e}", file=sys.stderr)
        raise SystemExit(2) from None
    except Exception:
        # Celery swallows what a signal's receiver raises, and would go on without an engine.
        log.critical("the worker cannot start", exc_info=True)
        raise SystemExit(1) from None
    _process = started


@signals.worker_shutting_down.connect
def refuse_shards(**_: Any) -> None:
    """Let go of the threads that wait for room, or the pool would wait for them."""
    if _process is not None:
        _process.refuse()


@signals.worker_shutdown.connect
def stop_engine(**_: Any) -> None:
    """Drain the engine after Celery has stopped taking messages."""
    global _process
    if _process is not None:
        stopped, _process = _process, None
        stopped.stop()
        if stopped.crashed:
            raise SystemExit(1)
