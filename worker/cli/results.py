"""`promptyard results`: the answers of a batch as a file."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from worker.cli import show

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import IO

    from worker.routing.registry import Dialect

HELP = """Write the results of a batch, in the order of its input.

jsonl is the output format of OpenAI's batch API, whatever the provider; csv has a row a prompt with
provider, tokens and cost. A batch that still runs gives what it has by now. A file named with -o is whole
or not there.

Exit status: 0 all of them succeeded, 1 some failed or are not there yet, 2 it could not be done.

Examples:

\b
    promptyard results last -o answers.jsonl
    promptyard results 12 --format csv | head
"""


def register(app: typer.Typer) -> None:
    app.command("results", help=HELP)(results)


def results(
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="Its id, its name, or `last` for the newest.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Without it they go to standard output."),
    ] = None,
    format: Annotated[Literal["jsonl", "csv"], typer.Option(help="Of the lines.")] = "jsonl",
) -> None:
    from worker.cli import session

    raise typer.Exit(session.run(_write(batch, output, format)))


async def _write(ref: str, output: Path | None, format: Literal["jsonl", "csv"]) -> int:
    from worker.cli import session
    from worker.ledger import export, reads

    async with session.opened() as here:
        async with here.db.connect() as connection:
            found = await reads.find_batch(connection, ref)
        with _target(output) as stream:
            written = await export.write(here.db, found.id, stream, format, chat_completion=chat_completion)
        async with here.db.connect() as connection:
            now = await reads.batch_progress(connection, found.id)
    missing = now.prompt_count - written
    said = f"Batch {found.id}: {written:,} results" + (f" in {output}" if output else "")
    said += f", {now.failed:,} of them failed" if now.failed else ""
    said += f", {now.cancelled:,} cancelled" if now.cancelled else ""
    if missing > 0:
        said += f"; {missing:,} prompts are not finished yet (the batch is {now.state})"
    show.note(f"{said}.")
    if found.simulated:
        show.note("The answers are simulated.")
    return 1 if missing > 0 or now.failed or now.cancelled else 0


def chat_completion(dialect: str, body: str, *, model: str, created: int) -> object:
    """A provider's own body as an OpenAI chat completion; see `worker.providers.dialect.Dialect`."""
    from worker.providers import dialects

    return dialects.BY_NAME[cast("Dialect", dialect)].chat_completion(body, model=model, created=created)


def _target(output: Path | None) -> AbstractContextManager[IO[bytes]]:
    from worker.cli import resultfile

    if output is None or str(output) == "-":
        return contextlib.nullcontext(sys.stdout.buffer)
    if output.is_dir():
        raise typer.BadParameter(f"{output} is a folder; name a file in it.", param_hint="--output")
    return resultfile.replacing(output)
