"""What `run` shows while it works: a live table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from worker.cli import show
from worker.ledger import reads

#: Seconds between two lines where there is no terminal.
LINE_EVERY_S = 5.0


@contextlib.contextmanager
def shown() -> Iterator[Callable[[reads.Progress], None]]:
    """Show how far the batch is, each time that the function given is called."""
    if sys.stderr.isatty():
        with Live(console=Console(stderr=True, highlight=False), auto_refresh=False) as live:
            yield lambda now: live.update(_drawn(now), refresh=True)
        return
    last = time.monotonic()

    def line(now: reads.Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY_S or now.batch.state != "running":
            last = time.monotonic()
            show.note(sentence(now))

    yield line


def sentence(now: reads.Progress) -> str:
    batch = now.batch
    eta = f", {show.duration(now.eta_s)} to go" if now.eta_s and batch.remaining else ""
    return (
        f"{batch.done:,} of {batch.prompt_count:,} prompts, {now.answers_per_s:,.0f}/s{eta}, "
        f"{sum(provider.failed for provider in now.providers):,} failed calls, "
        f"{show.usd(now.cost_usd, now.unpriced_calls)} USD{' (simulated)' if batch.simulated else ''}"
    )


def _drawn(now: reads.Progress) -> Group:
    table = Table("provider", box=None, pad_edge=False)
    for heading in ("in flight", "answered", "errors", "cost USD"):
        table.add_column(heading, justify="right")
    for row in now.providers:
        table.add_row(
            row.provider,
            show.count(row.calls_in_flight),
            show.count(row.succeeded),
            show.count(row.failed),
            show.usd(row.cost_usd, row.unpriced_calls),
        )
    bar = ProgressBar(total=max(1, now.batch.prompt_count), completed=now.batch.done, width=40)
    return Group(bar, Text(sentence(now)), table)
