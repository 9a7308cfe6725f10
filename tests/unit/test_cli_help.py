"""The help: every command shows an example, docs/commands.md says the same, and it comes at once.

`python tests/unit/test_cli_help.py` writes docs/commands.md anew.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from worker.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"

INTRODUCTION = """# Commands

What `promptyard COMMAND --help` prints. `python tests/unit/test_cli_help.py` writes this page.

Standard output gets what a script wants, standard error what is said about it. Where BATCH is asked for,
its id, its name or `last` will do. An error that has an explanation is one line that says what to do.

`--json` keeps its keys: `status BATCH` has `batch`, `answers_per_s`, `eta_s`, `cost_usd`,
`unpriced_calls`, `providers`, `queues`, `failures` and `warnings`, and `status` alone has `batches`;
`spend` has `spend` and `savings`; `providers` has `registry`, `simulated`, `frontier`,
`default_category`, `categories` and `providers`, and with `--check` it has `simulated` and `checks`;
`doctor` has `checks`. Money is text with every digit, `null` where it is not known; times are ISO 8601.
"""


def helps() -> Iterator[tuple[str, str]]:
    """Every command with its help."""
    top = typer.main.get_command(main.app)
    yield from _helps(top, None, "promptyard")


def _helps(command: Any, parent: Any, name: str) -> Iterator[tuple[str, str]]:
    context = command.context_class(
        command, parent=parent, info_name=name, terminal_width=80, **command.context_settings
    )
    yield context.command_path, command.get_help(context)
    for below in getattr(command, "commands", {}).values():
        yield from _helps(below, context, below.name)


def page() -> str:
    sections = [f"## {path}\n\n```text\n{text}\n```\n" for path, text in helps()]
    return "\n".join([INTRODUCTION, *sections])


def test_the_page_of_commands_says_what_the_help_says() -> None:
    assert PAGE.read_text("utf-8") == page()


@pytest.mark.parametrize(("path", "text"), [pytest.param(*pair, id=pair[0]) for pair in helps()])
def test_the_help_of_every_command_shows_an_example(path: str, text: str) -> None:
    _, example, shown = text.partition("Example")
    assert example
    assert "promptyard" in shown


def test_every_command_of_the_plan_is_there() -> None:
    planned = {
        *("run", "submit", "worker", "status", "results", "spend", "cancel", "pause", "resume", "retry"),
        *("classify", "providers", "db upgrade", "db url", "db shell", "doctor", "simulate"),
    }
    assert planned <= {path.removeprefix("promptyard ") for path, _ in helps()}


def test_the_help_imports_nothing_slow() -> None:
    code = "import sys\nfrom worker.cli import main\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    slow = {
        "rich",
        "sqlalchemy",
        "pydantic",
        "celery",
        "asyncpg",
        "msgspec",
        "genai_prices",
        "asyncio",
        "redis",
    }
    assert slow.isdisjoint(done.stdout.split())


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
