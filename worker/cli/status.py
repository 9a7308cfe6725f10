"""`promptyard status`: how far batches are."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli import show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.ledger import reads

HELP = """Show how far a batch is. Prompts, rate, time left, each provider and queue, failures, and what is
wrong; without BATCH a list of the newest batches.

Exit status: 0, or 1 when prompts of the batch have failed, 2 when it could not be done.

Examples:

\b
    promptyard status
    promptyard status last --watch
    promptyard status 12 --json | jq .batch.remaining
"""

#: Seconds between two looks of --watch.
LOOK_S = 2.0
#: Of its time, --watch spends at most one part in this many on looking: counting a large batch costs.
LOOK_SHARE = 10

CLEAR_SCREEN = "\x1b[H\x1b[2J"

#: States in which nothing changes any more.
ENDED = frozenset({"completed", "cancelled"})


def register(app: typer.Typer) -> None:
    app.command("status", help=HELP)(status)


def status(
    batch: Annotated[
        str | None, typer.Argument(metavar="BATCH", help="Its id, its name, or `last` for the newest.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again and again until the batch has ended.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="For scripts; with --watch an object a line.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many batches to list.")] = 20,
) -> None:
    from worker.cli import session

    if batch is None and not watch:
        session.run(_list(limit, as_json=as_json))
        return
    try:
        code = session.run(_follow(batch or "last", watch=watch, as_json=as_json))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None  # of a --watch; the batch goes on
    raise typer.Exit(code)


async def _list(limit: int, *, as_json: bool) -> None:
    from worker.cli import session
    from worker.ledger import reads

    async with session.opened() as here, here.db.connect() as connection:
        batches = await reads.list_batches(connection, limit=limit)
    if as_json:
        show.print_json({"batches": batches})
    elif not batches:
        show.note("There is no batch yet. Make one: `promptyard submit FILE`, or `promptyard run FILE`.")
    else:
        show.table(
            ["batch", "name", "state", ">prompts", ">done", ">failed", ">cancelled", "created", ""],
            [
                [
                    str(batch.batch_id),
                    batch.name or show.NOTHING,
                    batch.state,
                    show.count(batch.prompt_count),
                    show.share(batch.done, batch.prompt_count),
                    show.count(batch.failed),
                    show.count(batch.cancelled),
                    show.instant(batch.created_at),
                    "simulated" if batch.simulated else "",
                ]
                for batch in batches
            ],
        )


async def _follow(ref: str, *, watch: bool, as_json: bool) -> int:
    """Show the batch, once or until it has ended; returns the exit status."""
    import asyncio

    from worker.cli import alarms, session
    from worker.ledger import reads

    before = ""
    async with session.opened() as here:
        async with here.db.connect() as connection:
            batch_id = (await reads.find_batch(connection, ref)).id
        while True:
            began = time.monotonic()
            async with here.db.connect() as connection:
                now = await reads.progress(connection, batch_id)
                failures = await reads.failures(connection, batch_id)
            warnings = alarms.of_batch(now, here.registry)
            if as_json:
                show.print_json(as_object(now, failures, warnings), in_one_line=watch)
            elif watch and not sys.stdout.isatty():
                if (line := one_line(now)) != before:
                    print(line, flush=True)
                    before = line
            else:
                if watch:
                    print(CLEAR_SCREEN, end="")
                _page(now, failures, warnings)
            if not watch or now.batch.state in ENDED:
                return 1 if now.batch.failed else 0
            sys.stdout.flush()
            await asyncio.sleep(max(LOOK_S, (time.monotonic() - began) * LOOK_SHARE))


def as_object(
    now: reads.Progress, failures: Sequence[reads.Failure], warnings: Sequence[str]
) -> dict[str, Any]:
    """What --json prints; docs/commands.md promises these keys."""
    return {
        "batch": now.batch,
        "answers_per_s": round(now.answers_per_s, 2),
        "eta_s": None if now.eta_s is None else round(now.eta_s, 1),
        "cost_usd": now.cost_usd,
        "unpriced_calls": now.unpriced_calls,
        "providers": now.providers,
        "queues": now.queues,
        "failures": failures,
        "warnings": warnings,
    }


def one_line(now: reads.Progress) -> str:
    """All in one line, for logs."""
    batch = now.batch
    said = [
        f"batch {batch.batch_id} {batch.state}",
        f"{batch.done:,} of {batch.prompt_count:,} done ({show.share(batch.done, batch.prompt_count)})",
        f"{batch.failed:,} failed",
    ]
    if batch.state == "running":
        said.append(f"{now.answers_per_s:,.1f}/s")
        said.append("time left unknown" if now.eta_s is None else f"{show.duration(now.eta_s)} left")
    said.append(f"{show.usd(now.cost_usd, now.unpriced_calls)} USD")
    return ", ".join(said)


def _page(now: reads.Progress, failures: Sequence[reads.Failure], warnings: Sequence[str]) -> None:
    batch = now.batch
    name = f" {batch.name}" if batch.name else ""
    simulated = ", simulated providers" if batch.simulated else ""
    print(f"Batch {batch.batch_id}{name}: {batch.state}{simulated}")
    parts = [f"{batch.succeeded:,} succeeded", f"{batch.failed:,} failed"]
    if batch.cancelled:
        parts.append(f"{batch.cancelled:,} cancelled")
    done = f"{batch.done:,} of {batch.prompt_count:,} done ({show.share(batch.done, batch.prompt_count)})"
    print(f"Prompts: {done}: {', '.join(parts)}")
    print(f"Time: {_times(now)}")
    print(f"Spend: {show.usd(now.cost_usd, now.unpriced_calls)} USD")
    if now.providers:
        print()
        show.table(*_providers(now.providers))
    if now.queues:
        print()
        show.table(*_queues(now.queues))
    if failures:
        print()
        show.table(
            [">failed", "reason", "last provider", "first custom_id", "message"],
            [
                [
                    show.count(failure.prompts),
                    failure.error_class,
                    failure.provider or show.NOTHING,
                    failure.custom_id,
                    " ".join((failure.error_message or "").split()),
                ]
                for failure in failures
            ],
        )
    if warnings:
        print()
        for warning in warnings:
            print(f"! {warning}")


def _times(now: reads.Progress) -> str:
    batch = now.batch
    began = f"began {show.instant(batch.created_at)}"
    if batch.finished_at is not None:
        took = show.duration((batch.finished_at - batch.created_at).total_seconds())
        return f"{began}, ended {show.instant(batch.finished_at)}, took {took}"
    if batch.state != "running":
        return began
    left = "unknown while nothing is answered" if now.eta_s is None else show.duration(now.eta_s)
    return f"{began}, {now.answers_per_s:,.1f} answers/s, left: {left}"


def _providers(providers: Sequence[reads.ProviderProgress]) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            provider.provider,
            show.count(provider.live_workers),
            show.count(provider.calls_in_flight),
            show.count(provider.calls),
            show.count(provider.succeeded),
            show.count(provider.failed),
            show.usd(provider.cost_usd, provider.unpriced_calls),
        ]
        for provider in providers
    ]
    return ["provider", ">workers", ">in flight", ">calls", ">succeeded", ">errors", ">spend USD"], rows


def _queues(queues: Sequence[reads.Queue]) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            queue.queue,
            show.count(queue.queued_prompts),
            show.count(queue.running_prompts),
            show.count(queue.waiting_prompts),
            show.instant(queue.next_due_at),
        ]
        for queue in queues
    ]
    return ["queue", ">queued", ">running", ">waiting", "next due"], rows
