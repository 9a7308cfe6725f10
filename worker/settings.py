"""The environment, read in one place."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Annotated

import pydantic
import pydantic_settings

from worker import errors


def default_home() -> Path:
    """Where the embedded servers keep their data.

    Root gets a system folder: its own home is closed to the unprivileged user that the servers run as.
    """
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/promptyard")
    return Path.home() / ".promptyard"


Seconds = Annotated[float, pydantic.Field(gt=0)]


class Settings(pydantic_settings.BaseSettings):
    """What the environment says; see docs/settings.md for the table.

    The providers' keys are not here: `worker.routing.keys` reads each one where a request is built, so that
    no object that might be printed holds it.
    """

    model_config = pydantic_settings.SettingsConfigDict(
        env_prefix="PROMPTYARD_", frozen=True, extra="ignore", populate_by_name=True
    )

    #: Postgres, as `postgresql://user:password@host/name`; without it the embedded server is used.
    database_url: str | None = pydantic.Field(None, validation_alias="DATABASE_URL")
    #: Redis or Valkey, as `redis://:password@host:6379/0`; without it the embedded server is used.
    broker_url: str | None = pydantic.Field(None, validation_alias="BROKER_URL")
    #: Path of a registry file; without it the one of the package.
    registry: Path | None = None
    #: Folder of the embedded servers' data.
    home: Path = pydantic.Field(default_factory=default_home)
    #: Base URL of a running simulator; when set, every provider is simulated.
    simulator: str | None = None

    #: Prompts in a shard, at most.
    shard_prompts: int = pydantic.Field(200, ge=1, le=1000)
    #: Calls in flight in one worker process, where the registry sets no `concurrency` for the provider.
    window: int = pydantic.Field(128, ge=1, le=10_000)
    #: Longest time an answer waits in the worker before it is written.
    flush_interval_s: Seconds = 0.25
    #: How long a shard stays with a worker that gives no sign of life.
    lease_s: Seconds = 12.0
    #: How long a queue may have no worker before its prompts move on to a provider that has one.
    idle_queue_s: Seconds = 120.0
    #: Wall-clock limit of one call.
    call_deadline_s: Seconds = 120.0
    #: How long a worker that is told to stop waits for its calls before it hands the rest back.
    grace_s: Seconds = 30.0


@functools.cache
def load() -> Settings:
    """Read the environment once.

    Raises:
        SettingsError: a variable has a wrong value; the message names it.
    """
    try:
        return Settings()
    except pydantic.ValidationError as e:
        first = e.errors()[0]
        name = str(first["loc"][0])
        variable = name if name.isupper() else f"PROMPTYARD_{name.upper()}"
        raise errors.SettingsError(f"{variable} is wrong: {first['msg']}. Correct or unset it.") from None
