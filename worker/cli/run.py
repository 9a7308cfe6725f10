"""`promptyard run`: the whole job in one command."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli import submit

if TYPE_CHECKING:
    from collections.abc import Iterator

HELP = """Run prompts to the end: submit them, start the workers they need, show progress, write the results.

Interrupted with Ctrl-C and run again on the same files, it goes on where it was.

Exit status: 0 all prompts succeeded, 1 some failed or lines were not taken, 2 it could not be done, 130
interrupted.

Example: promptyard run prompts.jsonl -o answers.jsonl
"""


def register(app: typer.Typer) -> None:
    app.command("run", help=HELP)(run)


def run(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE…", help="JSONL or text, also .gz and .zst; - is standard input."),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Result file; without it NAME.results.jsonl here.")
    ] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Simulated providers: no keys, no cost.")
    ] = False,
    category: Annotated[str | None, typer.Option(help="Category of all prompts that give none.")] = None,
    name: Annotated[str | None, typer.Option(help="A name for the batch.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse the files when one line is wrong.")] = False,
    only: Annotated[list[str] | None, submit.ONLY] = None,
    without: Annotated[list[str] | None, submit.WITHOUT] = None,
    rejects: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the lines that are not taken there, with reasons."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Run files anew that were run before.")] = False,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes for each provider.")] = 1,
) -> None:
    from worker.cli import job, session

    target = output or _default_output(files)
    if target.is_dir():
        raise typer.BadParameter(f"{target} is a folder; name a file in it.", param_hint="--output")
    request = job.Request(
        files, target, category, name, strict, again, only or [], without or [], rejects, workers
    )
    with _simulated() if simulate else contextlib.nullcontext():
        try:
            status = session.run(job.run(request))
        except KeyboardInterrupt:
            print("\nInterrupted. Run the same command again to go on.", file=sys.stderr)
            status = 130
    raise typer.Exit(status)


def _default_output(files: list[str]) -> Path:
    first = "prompts" if files[0] == "-" else Path(files[0]).name
    for ending in (".gz", ".zst", ".jsonl", ".ndjson", ".json", ".txt"):
        first = first.removesuffix(ending)
    return Path(f"{first}.results.jsonl")


@contextlib.contextmanager
def _simulated() -> Iterator[None]:
    """Let everything from here on use a simulator: the one of PROMPTYARD_SIMULATOR, or one of our own."""
    from worker import settings
    from worker.simulator import process

    if settings.load().simulator is not None:
        yield
        return
    with process.running() as simulator:
        os.environ["PROMPTYARD_SIMULATOR"] = simulator.url
        settings.load.cache_clear()
        yield
