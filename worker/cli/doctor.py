"""`promptyard doctor`: what is right and what is wrong with this installation."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli import show

HELP = """Check everything that a batch needs. It says what to do about what is wrong.

It looks at packages, registry, keys, servers, schema, broker, workers, clocks and disk. Embedded servers
are started for it. Neither keys nor passwords are shown.

Exit status: 0, or 2 when something is a problem; a warning is none.

Example: promptyard doctor
"""


def register(app: typer.Typer) -> None:
    app.command("doctor", help=HELP)(doctor)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    from worker.cli import checks, session

    found = session.run(checks.all_of_them())
    if as_json:
        show.print_json({"checks": found})
    else:
        show.table(
            ["", "check", "found", "what to do"],
            [[check.verdict, check.name, check.found, check.advice] for check in found],
        )
    problems = sum(check.verdict == "problem" for check in found)
    if problems:
        show.note(f"{problems} problem{'s' if problems > 1 else ''}.")
        raise typer.Exit(2)
