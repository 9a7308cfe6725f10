"""The job of `run`: submit or resume, workers, progress, results, the bill."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from pathlib import Path

import sqlalchemy as sa

from worker import errors, settings
from worker.cli import alarms, crew, progress, resultfile, results, session, show
from worker.cli import spend as spend_command
from worker.cli import submit as submit_command
from worker.ledger import export, prices, reads, spending
from worker.prompts import submit
from worker.routing import queues
from worker.shards import write

#: Seconds between two looks at the batch, and the share of its time that `run` spends on them at most:
#: counting the progress of a large batch costs.
LOOK_S = 0.2
LOOK_SHARE = 0.1
#: Seconds that Postgres may be away before `run` gives up.
AWAY_S = 60.0


@dataclasses.dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    files: list[str]
    output: Path
    category: str | None
    name: str | None
    strict: bool
    again: bool
    only: list[str]
    without: list[str]
    rejects: Path | None
    workers: int


async def run(request: Request) -> int:
    """Do it all and return the exit status."""
    team = crew.Crew(request.workers, settings.load().home / "logs")
    team.prepare()
    async with session.opened() as here:
        here = here.restricted(request.only, request.without)
        if here.registry.simulated:
            show.note("Simulated providers: every answer is made up, nothing is charged.")
        elif left_out := here.usable.sentence():
            show.note(left_out)
        batch_id = await _batch(here, request)
        try:
            await _work(here, team, batch_id)
        finally:
            # Interrupted or done: the workers finish what is out, and hand back the rest.
            await asyncio.to_thread(team.stop, here.settings.grace_s + 5)
        return await _finish(here, batch_id, request)


async def _batch(here: session.Session, request: Request) -> int:
    """Find the batch of an earlier run on the same files, or submit them."""
    if not request.again:
        digest = await asyncio.to_thread(
            submit.digest, request.files, usable=here.usable, category=request.category
        )
        async with here.db.connect() as connection:
            earlier = digest and await reads.find_by_digest(
                connection, digest, simulated=here.registry.simulated
            )
        if earlier:
            return await _resume(here, earlier)
    # Before the workers start: six of them would look the prices up at once.
    await prices.sync(here.db, here.registry)
    stored = await submit_command.store(
        here, request.files, request.category, request.name, request.rejects, strict=request.strict
    )
    return stored.batch_id


async def _resume(here: session.Session, earlier: reads.Batch) -> int:
    async with here.db.connect() as connection:
        so_far = await reads.batch_progress(connection, earlier.id)
    if earlier.state == "paused":
        raise errors.BatchError(
            f"Batch {earlier.id} of these files is paused. Run `promptyard resume {earlier.id}` first."
        )
    if earlier.state == "completed":
        show.note(f"Batch {earlier.id} already has all results of these files. Use --again to run them anew.")
    else:
        show.note(
            f"Going on with batch {earlier.id}: {so_far.done:,} of {so_far.prompt_count:,} prompts are done."
        )
    return earlier.id


async def _work(here: session.Session, team: crew.Crew, batch_id: int) -> None:
    """Keep the workers that are needed, and show how far they are, until the batch has ended."""
    with progress.shown() as draw:
        told: set[str] = set()
        away_since: float | None = None
        while True:
            began = time.monotonic()
            try:
                async with here.db.connect() as connection:
                    now = await reads.progress(connection, batch_id)
            except (sa.exc.DBAPIError, OSError):
                # The workers keep what they have until it is back, and so does this.
                away_since = away_since or began
                if began - away_since > AWAY_S:
                    raise
                await asyncio.sleep(1)
                continue
            away_since = None
            looked_s = time.monotonic() - began
            draw(now)
            for alarm in alarms.stopped(now):
                if alarm not in told:
                    told.add(alarm)
                    show.note(alarm)
            if now.batch.state != "running":
                return
            if not now.queues:
                # Whoever closed its last shard died before it said so.
                await write.complete(here.db, {batch_id})
            needed = {
                provider for queue in now.queues for provider in queues.consumers(queue.queue, here.registry)
            }
            for provider in sorted(needed):
                team.start(provider)
            team.watch()
            await asyncio.sleep(max(LOOK_S, looked_s / LOOK_SHARE))


async def _finish(here: session.Session, batch_id: int, request: Request) -> int:
    """Write the results, print the bill and say how it went."""
    with resultfile.replacing(request.output) as stream:
        written = await export.write(
            here.db, batch_id, stream, "jsonl", chat_completion=results.chat_completion
        )
    async with here.db.connect() as connection:
        end = await reads.batch_progress(connection, batch_id)
        spend = await spending.spend(connection, ["provider", "model"], batch_id=batch_id)
        savings = await spending.savings(connection, batch_id)
        failures = await reads.failures(connection, batch_id, limit=5)
    spend_command.print_tables(["provider", "model"], spend, savings)
    for failure in failures:
        show.note(f"Failed: {failure.prompts:,} prompts, {failure.error_class}: {failure.error_message}")
    show.note(f"{written:,} results in {request.output}: {end.succeeded:,} succeeded, {end.failed:,} failed.")
    if end.failed:
        show.note(f"Run the failed ones again with `promptyard retry {batch_id}`.")
    whole = end.state == "completed" and not (end.failed or end.cancelled or end.rejected_count)
    return 0 if whole else 1
