"""`promptyard simulate`: simulated providers for every other command."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli import show

if TYPE_CHECKING:
    from worker.simulator import billing
    from worker.simulator import settings as simulator_settings

HELP = """Serve simulated providers until Ctrl-C. At the end it prints what they would bill.

They speak the wire formats of the real ones, count tokens and keep a bill. Workers and commands use them
while PROMPTYARD_SIMULATOR holds their URL; no key is needed and nothing is charged. --fault takes
PROVIDER:KIND=SHARE, with options after commas; KIND is one of rate_limited, server_error, overloaded, hang,
reset, malformed, auth, out_of_credit, context_length, content_filter.

Examples:

\b
    promptyard simulate
    promptyard simulate --latency-ms 500 --fault groq:server_error=1.0
    promptyard simulate --fault 'rate_limited=0.1,form=http_date,retry_after_s=2'
"""


def register(app: typer.Typer) -> None:
    app.command("simulate", help=HELP)(simulate)


def simulate(
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="0 takes any free one.")] = 8099,
    latency_ms: Annotated[
        float | None,
        typer.Option(min=0, metavar="MS", help="Mean time to an answer, where --settings gives none."),
    ] = None,
    fault: Annotated[
        list[str] | None, typer.Option(metavar="FAULT", help="As groq:server_error=0.2; may be repeated.")
    ] = None,
    settings: Annotated[Path | None, typer.Option(metavar="FILE", help="All settings as JSON.")] = None,
) -> None:
    from worker.simulator import process

    chosen = _settings(settings, latency_ms, fault or [])
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends like Ctrl-C, with the bill
    with process.running(chosen, port) as simulator:
        with contextlib.suppress(KeyboardInterrupt):
            print(f"Simulated providers at {simulator.url}. Ctrl-C stops them. In another terminal:\n")
            print(f"    export PROMPTYARD_SIMULATOR={simulator.url}")
            print("    promptyard worker groq & promptyard submit prompts.jsonl\n", flush=True)
            signal.pause()
        total = simulator.bill()
    _print(total)


def _settings(file: Path | None, latency_ms: float | None, faults: list[str]) -> simulator_settings.Settings:
    from worker import errors
    from worker.simulator import settings as simulator_settings

    chosen = simulator_settings.Settings()
    if file is not None:
        try:
            chosen = simulator_settings.parse(file.read_bytes())
        except OSError as e:
            raise errors.SettingsError(f"{file} cannot be read: {e.strerror}.") from None
    if latency_ms is not None:
        every = chosen.of(simulator_settings.EVERY)
        fields = {**every.model_dump(exclude_unset=True), "latency_ms": latency_ms}
        made = simulator_settings.ProviderSettings.model_validate(fields)
        chosen = chosen.with_provider(simulator_settings.EVERY, made)
    return chosen.with_faults(faults) if faults else chosen


def _print(total: billing.Bill) -> None:
    if not total.calls:
        show.note("No call was made.")
        return
    show.table(
        ["provider", "model", ">calls", ">billed", ">input", ">cache read", ">cache write", ">output"],
        [
            [
                route.provider,
                route.model or show.NOTHING,
                *map(
                    show.count,
                    (
                        route.calls,
                        route.billed_calls,
                        route.input_tokens,
                        route.cache_read_tokens,
                        route.cache_write_tokens,
                        route.output_tokens,
                    ),
                ),
            ]
            for route in total.routes
        ],
        total=[
            "total",
            "",
            show.count(total.calls),
            show.count(total.billed_calls),
            *(
                show.count(sum(getattr(route, name) for route in total.routes))
                for name in ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
            ),
        ],
    )
