"""`promptyard cancel`, `pause`, `resume` and `retry`: what people do to a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from worker.cli import session
    from worker.ledger import reads

Ref = Annotated[str, typer.Argument(metavar="BATCH", help="Its id, its name, or `last` for the newest.")]

CANCEL = """End a batch for good. Prompts without a result become cancelled.

Calls that are out are still booked. What is answered stays; `promptyard results` writes it.

Example: promptyard cancel last
"""

PAUSE = """Let a batch rest. No further call starts until `promptyard resume`. Calls that are out end and
are booked.

Example: promptyard pause nightly-reviews
"""

RESUME = """Go on with a paused batch.

Example: promptyard resume nightly-reviews
"""

RETRY = """Run a batch's failed prompts again. They start at the head of their chains; the rest stays.

Example: promptyard retry 12
"""


def register(app: typer.Typer) -> None:
    app.command("cancel", help=CANCEL)(cancel)
    app.command("pause", help=PAUSE)(pause)
    app.command("resume", help=RESUME)(resume)
    app.command("retry", help=RETRY)(retry)


def cancel(batch: Ref) -> None:
    from worker.cli import session

    async def work() -> str:
        from worker.ledger import reads, steer

        async with session.opened() as here:
            async with here.db.connect() as connection:
                found = await reads.find_batch(connection, batch)
            count = await steer.cancel(here.db, found.id)
            done = found.prompt_count - count
        return f"Batch {found.id} is cancelled: {_prompts(count)} had no result yet, {done:,} have one."

    print(session.run(work()))


def pause(batch: Ref) -> None:
    from worker.cli import session

    async def work() -> str:
        from worker.ledger import reads, steer

        async with session.opened() as here, here.db.begin() as connection:
            found = await reads.find_batch(connection, batch)
            await steer.pause(connection, found.id)
        return f"Batch {found.id} is paused. `promptyard resume {found.id}` goes on."

    print(session.run(work()))


def resume(batch: Ref) -> None:
    from worker.cli import session

    async def work() -> str:
        from worker.ledger import reads, steer

        async with session.opened() as here:
            async with here.db.begin() as connection:
                found = await reads.find_batch(connection, batch)
                await steer.resume(connection, found.id)
                state = (await reads.batch_progress(connection, found.id)).state
            if state == "completed":
                return f"Batch {found.id} is completed: nothing was left to do."
            return f"Batch {found.id} goes on. {await _publish(here, found)}"

    print(session.run(work()))


def retry(batch: Ref) -> None:
    from worker.cli import session

    async def work() -> str:
        from worker.ledger import reads, steer
        from worker.routing import load

        async with session.opened() as here:
            async with here.db.begin() as connection:
                found = await reads.find_batch(connection, batch)
                kind = here.registry.model_copy(update={"simulated": found.simulated})
                count = await steer.retry(
                    connection,
                    found.id,
                    usable=load.usable(kind),
                    shard_prompts=here.settings.shard_prompts,
                )
            if not count:
                return f"Batch {found.id} has no failed prompt to run again."
            return f"Batch {found.id}: {_prompts(count)} run again. {await _publish(here, found)}"

    print(session.run(work()))


async def _publish(here: session.Session, batch: reads.Batch) -> str:
    """Publish what was queued, where we can; says who will work on it."""
    from worker.shards import publish

    if batch.simulated != here.registry.simulated:
        # This process speaks to the queues of the other kind; a worker of the batch's kind publishes.
        if batch.simulated:
            return "It is simulated: workers that have PROMPTYARD_SIMULATOR take it up."
        return "It is not simulated: workers without PROMPTYARD_SIMULATOR take it up."
    await publish.publish(here.db, simulated=batch.simulated, batch_id=batch.id)
    return f"`promptyard status {batch.id}` shows how far it is."


def _prompts(number: int) -> str:
    return "1 prompt" if number == 1 else f"{number:,} prompts"
