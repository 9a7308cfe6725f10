"""Batches from Python programs: `worker.submit` and `worker.asubmit`."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

from worker import errors, settings
from worker.ledger import database, schema
from worker.local import servers
from worker.prompts import files
from worker.prompts import submit as submitting
from worker.routing import load

#: A string, or a mapping as a line of JSON would hold it: short, or of an OpenAI batch file.
PromptLike = str | Mapping[str, Any]
Prompts = Iterable[PromptLike] | AsyncIterable[PromptLike]

#: What the prompts of a program are called in messages: `prompts:3` is the third.
SOURCE = "prompts"

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Batch:
    """A stored batch, on its way to the workers."""

    id: int
    prompt_count: int
    rejected_count: int


def submit(
    prompts: Prompts,
    *,
    name: str | None = None,
    category: str | None = None,
    strict: bool = False,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    on_reject: Callable[[errors.LineError], object] | None = None,
) -> Batch:
    """Submit prompts as one batch and return it once it is stored and published.

        batch = worker.submit(({"prompt": text, "id": key} for key, text in rows), name="reviews")

    They are taken one by one: a generator of ten million needs no more memory than one of ten. Without
    `DATABASE_URL` and `BROKER_URL` the embedded servers are started, as by the command.

    Args:
        prompts: strings, or dicts with the fields of an input line; any iterable or async iterable.
        name: of the batch; unique.
        category: of the prompts that name none; without it they are classified.
        strict: refuse everything when one prompt is wrong, where else the others are submitted.
        only: names of providers; no others are used, not even when these fail.
        without: names of providers that are not used.
        on_reject: called with each prompt that is not taken; without it a warning is logged.

    Raises:
        InputError: there is nothing to submit, or `strict` and a prompt is wrong.
        BatchError: the name is taken.
        RegistryError: the category is unknown, or nothing that has a key serves one that is needed.
        ServerError: a server cannot be used.
        RuntimeError: an event loop is running in this thread; use `asubmit` there.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError("An event loop is running: use `await worker.asubmit(…)` in place of worker.submit.")
    return asyncio.run(
        asubmit(
            prompts,
            name=name,
            category=category,
            strict=strict,
            only=only,
            without=without,
            on_reject=on_reject,
        )
    )


async def asubmit(
    prompts: Prompts,
    *,
    name: str | None = None,
    category: str | None = None,
    strict: bool = False,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    on_reject: Callable[[errors.LineError], object] | None = None,
) -> Batch:
    """Do what `submit` does, inside an event loop; the same arguments and errors.

    The prompts are taken in the loop's own thread. An iterable that waits, for a file or a database, holds up
    the loop: make it an async one.
    """
    # All that can be wrong without a server is said before one is started.
    chosen = settings.load()
    usable = load.usable(load.registry(chosen), os.environ).restricted(only, without)
    if category is not None:
        usable.require(category)
    urls = await asyncio.to_thread(servers.use, chosen)
    await schema.prepare(urls.database, embedded=chosen.database_url is None)
    engine = database.engine(urls.database)
    try:
        stored = await submitting.submit(
            engine,
            _numbered(prompts),
            usable=usable,
            source=SOURCE,
            name=name,
            category=category,
            strict=strict,
            shard_prompts=chosen.shard_prompts,
            on_reject=on_reject or _warn,
        )
    finally:
        await engine.dispose()
    return Batch(stored.batch_id, stored.prompt_count, stored.rejected_count)


def _warn(error: errors.LineError) -> None:
    _log.warning("Not taken: %s", error)


async def _numbered(prompts: Prompts) -> AsyncIterator[files.Item]:
    """Number the prompts. Async in any case, so that the caller's iterable stays in the caller's thread."""
    if isinstance(prompts, str | bytes | Mapping):
        raise errors.InputError("prompts must be an iterable of prompts: put a single one in a list.")
    number = 0
    if isinstance(prompts, AsyncIterable):
        async for prompt in prompts:
            number += 1
            yield _item(number, prompt)
    else:
        for prompt in prompts:
            number += 1
            yield _item(number, prompt)


def _item(number: int, prompt: object) -> files.Item:
    data = dict(prompt) if isinstance(prompt, Mapping) else prompt
    return files.Item(SOURCE, number, number, "json", data)
