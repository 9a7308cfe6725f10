"""The command `promptyard`. Each group of commands is a module here.

These modules import typer and nothing slow: what a command works with is imported inside its function, so
that `--help` is quick.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from worker import errors
from worker.cli import (
    classify,
    database,
    doctor,
    providers,
    results,
    run,
    simulate,
    spend,
    status,
    steer,
    submit,
    work,
)

HELP = """Run large offline batches of LLM prompts, each on the cheapest provider that does it well.

Exit status of every command: 0 all prompts succeeded, or the command worked; 1 it worked and some prompts
failed; 2 it could not be done.

Example: promptyard run examples/mixed.jsonl --simulate
"""

app = typer.Typer(
    name="promptyard",
    help=HELP,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help needs no rich, and reads the same in a pipe and in docs/commands.md
    context_settings={"help_option_names": ["-h", "--help"]},
)

for module in (
    run,
    submit,
    work,
    status,
    results,
    spend,
    steer,
    classify,
    providers,
    database,
    simulate,
    doctor,
):
    module.register(app)


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        import importlib.metadata

        print(f"promptyard {importlib.metadata.version('promptyard')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(2)


def main() -> None:
    """Run the command; an error that we explain is one line and status 2."""
    sys.exit(_status())


def _status() -> int:
    try:
        # Without standalone_mode typer leaves usage errors to us, and returns the status of a typer.Exit.
        status = app(prog_name="promptyard", standalone_mode=False)
        sys.stdout.flush()
    except errors.PromptyardError as e:
        print(f"promptyard: {e}", file=sys.stderr)
        return 2
    except typer.TyperException as e:
        print(f"promptyard: {_usage(e)}", file=sys.stderr)
        return 2
    except (BrokenPipeError, SystemExit) as e:
        # Typer makes an exit of a broken pipe: the reader has seen enough (`promptyard results last | head`).
        if isinstance(e, SystemExit) and not isinstance(e.__context__, BrokenPipeError):
            raise
        # What is still in the buffer must go somewhere when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status if isinstance(status, int) else 0


def _usage(error: typer.TyperException) -> str:
    """What is wrong with the options, and where to read about them."""
    said = error.format_message().strip().rstrip(".")
    context: typer.Context | None = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "promptyard"
    return f"{said}. See `{command} --help`."
