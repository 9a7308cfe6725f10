"""The Celery app: its settings, and how shards are published. The only file that reaches into Celery."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import celery
import redis.exceptions
from kombu import entity, exceptions

from worker import errors
from worker import settings as settings_module
from worker.local import servers
from worker.routing import load, queues

#: The one task: run a shard. Its only argument is the shard's id.
RUN_SHARD = "worker.run_shard"

#: Seconds after which Redis gives a message back whose worker took it and vanished before claiming the shard.
#: A claimed shard needs no message: Postgres knows its lease.
VISIBILITY_TIMEOUT_S = 60


def _configuration() -> Mapping[str, Any]:
    settings = settings_module.load()
    registry = load.registry(settings)
    return {
        "broker_url": servers.use(settings).broker,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            # The default, None, lets a publish on a half-open socket hang for ever.
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "priority_steps": [0],
            # Simulated prompts must never meet a worker that pays, nor the other way round.
            "global_keyprefix": "promptyard-simulated:" if registry.simulated else "promptyard:",
        },
        "task_queues": [entity.Queue(name, routing_key=name) for name in queues.all_queues(registry)],
        "task_create_missing_queues": False,
        "task_default_queue": queues.category_queue(registry.default_category),
        "task_acks_late": True,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "worker_prefetch_multiplier": 1,
        "worker_concurrency": 4,
        "worker_pool": "threads",
        "worker_hijack_root_logger": False,
        "worker_enable_remote_control": True,
        "include": ["worker.tasks"],
    }


app = celery.Celery("promptyard", set_as_current=True)
app.add_defaults(_configuration)


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except (exceptions.KombuError, redis.exceptions.RedisError, OSError) as e:
        raise errors.ServerError(
            f"The broker cannot be used ({type(e).__name__}). Nothing is lost: Postgres has the prompts, and "
            "workers publish them once it is back."
        ) from e


def publish(shards: Iterable[tuple[uuid.UUID, str]]) -> None:
    """Publish one message for each (shard id, queue). Blocks for the network.

    Raises:
        ServerError: the broker cannot be reached, or refuses. None of them counts as published.
    """
    with _reached(), app.producer_or_acquire() as producer, producer.batch():
        for shard_id, queue in shards:
            app.send_task(RUN_SHARD, args=[str(shard_id)], queue=queue, producer=producer)


def messages_waiting(names: Iterable[str]) -> dict[str, int]:
    """Count the messages in each queue that no worker has taken. Blocks for the network.

    Raises:
        ServerError: the broker cannot be reached.
    """
    with _reached(), app.connection_or_acquire() as connection:
        channel = connection.default_channel
        return {name: channel._size(name) for name in names}
