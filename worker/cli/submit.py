"""`promptyard submit`: store prompts for workers that run elsewhere, or later."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli import show

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker.cli import session
    from worker.prompts import intake

HELP = """Submit prompts as one batch. It is left to the workers, and its id is printed.

A FILE is JSON Lines (OpenAI's batch format, or short lines with `prompt`), or plain text with a prompt a
line, each also as .gz and .zst; `-` is standard input. Standard output gets the id and nothing else. With
PROMPTYARD_SIMULATOR set the batch is simulated: only workers that have it too take it.

Exit status: 0 every line was taken, 1 some were not and the others are submitted, 2 nothing was submitted.

Examples:

\b
    promptyard submit prompts.jsonl
    id=$(promptyard submit --name nightly reviews/*.jsonl.gz) && promptyard status "$id" --watch
    zcat dump.gz | promptyard submit - --category summarization --rejects bad.jsonl
"""

#: Seconds between two updates of the count on a terminal.
COUNT_EVERY_S = 0.2


ONLY = typer.Option(metavar="PROVIDER", help="Use this provider and no other; may be repeated.")
WITHOUT = typer.Option(metavar="PROVIDER", help="Do not use this provider; may be repeated.")


def register(app: typer.Typer) -> None:
    app.command("submit", help=HELP)(submit)


def submit(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Files of prompts; - is standard input.")],
    category: Annotated[
        str | None, typer.Option(help="Category of all prompts that name none; else they are classified.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name for the batch, in place of its id.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Submit nothing when one line is wrong.")] = False,
    only: Annotated[list[str] | None, ONLY] = None,
    without: Annotated[list[str] | None, WITHOUT] = None,
    rejects: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the lines that are not taken there, with reasons."),
    ] = None,
) -> None:
    from worker.cli import session

    try:
        code = session.run(_submit(files, category, name, rejects, only or [], without or [], strict=strict))
    except KeyboardInterrupt:
        show.note("Interrupted. `promptyard status` shows whether the batch was stored before.")
        raise typer.Exit(130) from None
    raise typer.Exit(code)


async def _submit(
    files: list[str],
    category: str | None,
    name: str | None,
    rejects_path: Path | None,
    only: list[str],
    without: list[str],
    *,
    strict: bool,
) -> int:
    from worker.cli import session

    async with session.opened() as here:
        here = here.restricted(only, without)
        if here.registry.simulated:
            show.note("Simulated providers: only workers with the same PROMPTYARD_SIMULATOR take this batch.")
        elif left_out := here.usable.sentence():
            show.note(left_out)
        stored = await store(here, files, category, name, rejects_path, strict=strict)
        for line in await _unserved(here, stored.batch_id):
            show.note(line)
    print(stored.batch_id)
    return 1 if stored.rejected_count else 0


async def store(
    here: session.Session,
    files: list[str],
    category: str | None,
    name: str | None,
    rejects_path: Path | None,
    *,
    strict: bool,
) -> intake.Submission:
    """Submit files, count them on a terminal, show the lines that are not taken, and sum up."""
    from worker.cli import rejects
    from worker.prompts import submit as submitting

    with rejects.Rejects(rejects_path) as rejected, _Count() as count:
        stored = await submitting.submit_files(
            here.db,
            files,
            usable=here.usable,
            name=name,
            category=category,
            strict=strict,
            shard_prompts=here.settings.shard_prompts,
            on_progress=count,
            on_reject=rejected,
        )
    for line in _summary(stored):
        show.note(line)
    return stored


async def _unserved(here: session.Session, batch_id: int) -> list[str]:
    """What waits for a worker that nobody has started yet."""
    from worker.cli import alarms
    from worker.ledger import reads

    async with here.db.connect() as connection:
        now = await reads.progress(connection, batch_id)
    return alarms.without_worker(now, here.registry)


def _summary(stored: intake.Submission) -> list[str]:
    lines = [f"Batch {stored.batch_id}: {stored.prompt_count:,} prompts in {stored.shard_count:,} shards."]
    lines.append(f"By category: {_listed(stored.categories)}.")
    lines.append(f"The category was: {_listed(stored.category_sources)}.")
    if stored.rejected_count:
        lines.append(f"Not taken: {stored.rejected_count:,} lines.")
    if stored.metadata_names:
        names = ", ".join(stored.metadata_names)
        lines.append(f"Kept as metadata, and not sent to the providers: {names}.")
    return lines


def _listed(counts: Mapping[str, int]) -> str:
    most_first = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{count:,} {name}" for name, count in most_first)


class _Count:
    """The number of prompts stored so far, on a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()
        self._shown = False
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> Callable[[int], None]:
        return self._count

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print(show.CLEAR_LINE, end="", file=sys.stderr, flush=True)

    def _count(self, stored: int) -> None:
        now = time.monotonic()
        if not self._terminal or now - self._last < COUNT_EVERY_S:
            return
        self._last, self._shown = now, True
        rate = stored / (now - self._began)
        said = f"{stored:,} prompts read, {rate:,.0f}/s"
        print(f"{show.CLEAR_LINE}{said}", end="", file=sys.stderr, flush=True)
