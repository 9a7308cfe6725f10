"""`promptyard classify`: which category each prompt would get."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

HELP = """Say the category of each prompt. A JSON line each, with custom_id, category and confidence (0 to 1).

The confidence is null where the line names its category. Nothing is stored, nothing is sent, and no server
is started.

Exit status: 0 every line was read, 1 some are wrong, 2 it could not be done.

Example: promptyard classify prompts.jsonl | jq -r .category | sort | uniq -c
"""


def register(app: typer.Typer) -> None:
    app.command("classify", help=HELP)(classify)


def classify(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Files of prompts; - is standard input.")],
) -> None:
    import msgspec

    from worker import errors, settings
    from worker.classify import rules
    from worker.cli import rejects
    from worker.prompts import chunks, lines
    from worker.prompts import files as prompt_files
    from worker.routing import load

    registry = load.registry(settings.load())
    # Nothing is called, so no key may be missed: a simulated registry needs none.
    usable = load.usable(registry.model_copy(update={"simulated": True}))
    sorter = chunks.Sorter(lines.Parser(usable), rules.RulesClassifier(registry), usable)
    encoder = msgspec.json.Encoder()
    counted = 0
    with rejects.Rejects() as rejected:
        for chunk in sorter.chunks(prompt_files.Reader(files)):
            for error in chunk.rejected:
                rejected(error)
            counted += len(chunk.prompts)
            found = [
                {
                    "custom_id": made.prompt.custom_id,
                    "category": made.category,
                    "confidence": None if made.confidence is None else round(made.confidence, 4),
                }
                for made in chunk.prompts
            ]
            sys.stdout.buffer.write(encoder.encode_lines(found))
            sys.stdout.buffer.flush()
    if not counted and not rejected.count:
        raise errors.InputError(f"{', '.join(files)}: there is no prompt in it. Write one a line.")
    raise typer.Exit(1 if rejected.count else 0)
