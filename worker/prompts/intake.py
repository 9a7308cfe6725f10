"""Store a batch: prompts and shards, in one transaction. What is killed half-way leaves nothing."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Mapping
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from worker import errors
from worker.classify.verdicts import Classifier
from worker.ledger import database, tables
from worker.prompts import chunks, lines
from worker.prompts.chunks import Chunk, Input, Sorted
from worker.routing import queues
from worker.routing.load import Usable
from worker.routing.registry import Route
from worker.shards import cut

#: Bad lines that a strict submission looks for before it gives up.
STRICT_ERRORS = 20
#: Names of metadata fields that are remembered for the summary.
METADATA_NAMES = 50

PROMPT_COLUMNS = (
    "batch_id",
    "prompt_no",
    "custom_id",
    "category",
    "category_source",
    "confidence",
    "pinned",
    "body",
    "metadata",
)
SHARD_COLUMNS = (
    "id",
    "batch_id",
    "category",
    "queue",
    "pinned",
    "route",
    "prompt_nos",
    "state",
    "attempt_no",
    "attempts_before",
    "tried",
)

_USED_BEFORE = sa.text(
    "SELECT custom_id, prompt_no FROM prompts "
    "WHERE batch_id = :batch_id AND custom_id = ANY(CAST(:ids AS text[]))"
)


@dataclasses.dataclass(frozen=True)
class Submission:
    """What was stored."""

    batch_id: int
    prompt_count: int
    rejected_count: int
    shard_count: int
    categories: Mapping[str, int]  #: prompts by category
    category_sources: Mapping[str, int]  #: prompts by given, classified, default
    metadata_names: tuple[str, ...]  #: fields kept as metadata, so that a misspelt parameter is seen


async def store(
    engine: AsyncEngine,
    inputs: Iterable[Input] | AsyncIterable[Input],
    *,
    usable: Usable,
    classifier: Classifier,
    source: str,
    input_digest: Callable[[], str | None] = lambda: None,
    name: str | None = None,
    category: str | None = None,
    strict: bool = False,
    shard_prompts: int = 200,
    on_progress: Callable[[int], object] = lambda stored: None,
    on_reject: Callable[[errors.LineError], object] = lambda error: None,
) -> Submission:
    """Read, classify and store a batch. Its shards are queued in Postgres; nobody has published them yet.

    Args:
        inputs: from `files.Reader` or of the same form. A plain iterable is read in another thread.
        source: what the input is called, for people.
        input_digest: asked once all is read; it is stored to know the same input again.
        name: of the batch; unique.
        category: of the prompts that name none; without it they are classified.
        strict: refuse everything when one line is wrong.
        shard_prompts: prompts in a shard, at most.
        on_progress: called with the number of prompts stored so far.
        on_reject: called with each line that is not taken.

    Raises:
        InputError: there is nothing to store, or `strict` and a line is wrong.
        BatchError: the name is taken.
        RegistryError: the category is unknown, or nothing that has a key serves one that is needed.
    """
    parser = lines.Parser(usable, category)
    if category is not None:
        usable.require(category)
    sorter = chunks.Sorter(parser, classifier, usable)
    rejects = _Rejects(strict, on_reject)
    async with engine.begin() as connection:
        batch_id = await _open_batch(connection, usable, source, name)
        writer = _Writer(connection, batch_id, usable, shard_prompts)
        async with contextlib.aclosing(_ahead(sorter.chunks_in_background(inputs))) as read:
            async for chunk in read:
                rejects.add(chunk.rejected)
                if strict and rejects.count:
                    continue  # nothing will be stored: only the other errors are of interest
                rejects.add(await writer.write(chunk))
                on_progress(writer.prompt_count)
        rejects.refuse_if_strict()
        if not writer.prompt_count:
            raise rejects.nothing_left(source)
        await writer.write_shards(writer.cutter.rest())
        await connection.execute(
            sa.update(tables.batches)
            .where(tables.batches.c.id == batch_id)
            .values(
                prompt_count=writer.prompt_count,
                rejected_count=rejects.count,
                input_digest=input_digest(),
            )
        )
    return Submission(
        batch_id=batch_id,
        prompt_count=writer.prompt_count,
        rejected_count=rejects.count,
        shard_count=writer.shard_count,
        categories=dict(writer.categories),
        category_sources=dict(writer.category_sources),
        metadata_names=tuple(writer.metadata_names),
    )


async def _open_batch(connection: AsyncConnection, usable: Usable, source: str, name: str | None) -> int:
    row = {
        "name": name,
        "state": "running",
        "simulated": usable.registry.simulated,
        "source": source,
        "prompt_count": 0,
        "rejected_count": 0,
        "frontier": str(usable.registry.frontier),
        "providers": usable.providers,
    }
    try:
        made = await connection.execute(sa.insert(tables.batches).values(row).returning(tables.batches.c.id))
    except sa.exc.IntegrityError as e:
        if getattr(e.orig, "sqlstate", None) != asyncpg.UniqueViolationError.sqlstate:
            raise
        raise errors.BatchError(f"There is a batch named {name} already. Choose another --name.") from None
    batch_id: int = made.scalar_one()
    return batch_id


async def _ahead(read: AsyncGenerator[Chunk]) -> AsyncGenerator[Chunk]:
    """Read the next chunk while the one before is being written."""

    async def following() -> Chunk | None:
        return await anext(read, None)

    upcoming = asyncio.create_task(following())
    try:
        while (chunk := await upcoming) is not None:
            upcoming = asyncio.create_task(following())
            yield chunk
    finally:
        upcoming.cancel()
        await asyncio.gather(upcoming, return_exceptions=True)
        await read.aclose()


class _Rejects:
    """Counts what is not taken and passes it on."""

    def __init__(self, strict: bool, on_reject: Callable[[errors.LineError], object]) -> None:
        self.count = 0
        self._strict = strict
        self._on_reject = on_reject
        self._first: errors.LineError | None = None

    def add(self, rejected: Iterable[errors.LineError]) -> None:
        for error in rejected:
            self.count += 1
            self._first = self._first or error
            self._on_reject(error)
            if self.count == STRICT_ERRORS:
                self.refuse_if_strict()

    def refuse_if_strict(self) -> None:
        if not (self._strict and self._first):
            return
        many = f"{self.count} lines are" if self.count > 1 else "One line is"
        so_far = " at least" if self.count == STRICT_ERRORS else ""
        raise errors.InputError(
            f"{many} wrong{so_far}. Nothing was stored: correct the input, or do without --strict. "
            f"The first: {self._first}"
        )

    def nothing_left(self, source: str) -> errors.InputError:
        if self._first is None:
            return errors.InputError(f"{source}: it is empty. There must be one prompt at least.")
        return errors.InputError(
            f"{source}: nothing in it can be taken ({self.count} wrong). Nothing was stored. "
            f"The first: {self._first}"
        )


class _Writer:
    """Writes chunks in the batch's transaction."""

    def __init__(self, connection: AsyncConnection, batch_id: int, usable: Usable, shard_prompts: int) -> None:
        self._connection = connection
        self._batch_id = batch_id
        self._usable = usable
        self._entries: dict[str, Iterator[tuple[str, Route | None]]] = {}
        self.cutter = cut.Cutter(shard_prompts)
        self.prompt_count = 0
        self.shard_count = 0
        self.categories: collections.Counter[str] = collections.Counter()
        self.category_sources: collections.Counter[str] = collections.Counter()
        self.metadata_names: dict[str, None] = {}  # in the order of their appearance

    async def write(self, chunk: Chunk) -> list[errors.LineError]:
        """Store a chunk and the shards that it completes; return the prompts that repeat a custom_id."""
        prompts, repeated = _unique(chunk.prompts)
        try:
            await self._copy(prompts)
        except asyncpg.UniqueViolationError:
            ids = [made.prompt.custom_id for made in prompts]
            used = await self._connection.execute(_USED_BEFORE, {"batch_id": self._batch_id, "ids": ids})
            prompts, repeated = _unique(chunk.prompts, {row.custom_id: row.prompt_no for row in used})
            await self._copy(prompts)
        await self.write_shards(self._taken(prompts))
        return repeated

    async def _copy(self, prompts: list[Sorted]) -> None:
        if not prompts:
            return
        batch_id = self._batch_id
        records = [
            (
                batch_id,
                prompt.prompt_no,
                prompt.custom_id,
                category,
                category_source,
                confidence,
                prompt.pinned,
                prompt.body,
                prompt.metadata,
            )
            for prompt, category, category_source, confidence in prompts
        ]
        # The savepoint lets the transaction live on when a custom_id is there already.
        async with self._connection.begin_nested():
            await database.copy(self._connection, tables.prompts, PROMPT_COLUMNS, records)

    def _taken(self, prompts: list[Sorted]) -> Iterable[cut.Cut]:
        for prompt, category, category_source, _ in prompts:
            self.prompt_count += 1
            self.categories[category] += 1
            self.category_sources[category_source] += 1
            if len(self.metadata_names) < METADATA_NAMES:
                self.metadata_names.update(dict.fromkeys(prompt.metadata_names))
            finished = self.cutter.add(prompt.prompt_no, category, prompt.pinned, len(prompt.body))
            if finished is not None:
                yield finished

    async def write_shards(self, cuts: Iterable[cut.Cut]) -> None:
        records = [self._shard(made) for made in cuts]
        self.shard_count += len(records)
        if records:
            await database.copy(self._connection, tables.shards, SHARD_COLUMNS, records)

    def _shard(self, made: cut.Cut) -> tuple[Any, ...]:
        category, pinned, prompt_nos = made
        if pinned is not None:
            queue = queues.provider_queue(category, Route.parse(pinned).provider)
            named: str | None = pinned
        else:
            if category not in self._entries:
                self._entries[category] = itertools.cycle(queues.entries(category, self._usable))
            queue, route = next(self._entries[category])
            named = None if route is None else str(route)
        return (uuid.uuid4(), self._batch_id, category, queue, pinned, named, prompt_nos, "queued", 1, 0, [])


def _unique(
    prompts: list[Sorted], used: Mapping[str, int] | None = None
) -> tuple[list[Sorted], list[errors.LineError]]:
    """Part the prompts from those whose custom_id is in `used` or on an earlier one of them."""
    seen = dict(used or {})
    unique, repeated = [], []
    for made in prompts:
        prompt = made.prompt
        first = seen.setdefault(prompt.custom_id, prompt.prompt_no)
        if first == prompt.prompt_no:
            unique.append(made)
        else:
            shown = prompt.custom_id if len(prompt.custom_id) <= 80 else f"{prompt.custom_id[:80]}…"
            reason = f"custom_id {shown!r} is used twice, first by prompt {first}; make it unique"
            repeated.append(errors.LineError(reason, line_no=prompt.line_no, source=prompt.source))
    return unique, repeated
