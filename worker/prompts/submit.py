"""Submit: store a batch, then publish its shards. The command and Python programs both come through here."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from worker import errors
from worker.classify import rules
from worker.prompts import files, intake
from worker.prompts.chunks import Input
from worker.routing.load import Usable
from worker.shards import publish

log = logging.getLogger(__name__)


async def submit(
    engine: AsyncEngine,
    inputs: Iterable[Input] | AsyncIterable[Input],
    *,
    usable: Usable,
    source: str,
    input_digest: Callable[[], str | None] = lambda: None,
    name: str | None = None,
    category: str | None = None,
    strict: bool = False,
    shard_prompts: int = 200,
    on_progress: Callable[[int], object] = lambda stored: None,
    on_reject: Callable[[errors.LineError], object] = lambda error: None,
) -> intake.Submission:
    """Store a batch and publish its shards; `worker.prompts.intake.store` explains the arguments.

    Raises:
        InputError: there is nothing to store, or `strict` and a line is wrong.
        BatchError: the name is taken.
        RegistryError: the category is unknown, or nothing that has a key serves one that is needed.
    """
    stored = await intake.store(
        engine,
        inputs,
        usable=usable,
        classifier=rules.RulesClassifier(usable.registry),
        source=source,
        input_digest=input_digest,
        name=name,
        category=category,
        strict=strict,
        shard_prompts=shard_prompts,
        on_progress=on_progress,
        on_reject=on_reject,
    )
    try:
        await publish.publish(engine, simulated=usable.registry.simulated, batch_id=stored.batch_id)
    except errors.ServerError as e:
        # The batch is stored: to fail here would have it submitted twice.
        log.warning("%s", e)
    return stored


async def submit_files(
    engine: AsyncEngine,
    paths: Sequence[str | Path],
    *,
    usable: Usable,
    name: str | None = None,
    category: str | None = None,
    strict: bool = False,
    shard_prompts: int = 200,
    on_progress: Callable[[int], object] = lambda stored: None,
    on_reject: Callable[[errors.LineError], object] = lambda error: None,
) -> intake.Submission:
    """Submit files, `-` for standard input, as one batch.

    Raises:
        InputError: a file cannot be taken at all, there is nothing to store, or `strict` and a line is wrong.
        BatchError: the name is taken.
        RegistryError: the category is unknown, or nothing that has a key serves one that is needed.
    """
    reader = files.Reader(paths, _options(category, usable))
    return await submit(
        engine,
        reader,
        usable=usable,
        source=reader.source,
        input_digest=reader.digest,
        name=name,
        category=category,
        strict=strict,
        shard_prompts=shard_prompts,
        on_progress=on_progress,
        on_reject=on_reject,
    )


def digest(paths: Sequence[str | Path], *, usable: Usable, category: str | None = None) -> str | None:
    """The `batches.input_digest` that submitting these files gives; None with standard input.

    Raises:
        InputError: a file cannot be opened or is damaged.
    """
    return files.digest(paths, _options(category, usable))


def _options(category: str | None, usable: Usable) -> dict[str, object]:
    """What makes another batch of the same files."""
    return {
        "category": category,
        "simulated": usable.registry.simulated,
        "barred": sorted(usable.barred),
    }
