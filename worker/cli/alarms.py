"""What somebody should know about a batch that does not go as it should. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from worker.routing import queues as queue_names

if TYPE_CHECKING:
    from worker.ledger import reads
    from worker.routing.registry import Registry


def unserved(
    prompts: Mapping[str, int], live: frozenset[str], registry: Registry, *, simulated: bool
) -> list[str]:
    """Queues that nobody works on, a sentence for each set of providers that could.

    Args:
        prompts: that lie in each queue.
        live: providers with a live worker.
        simulated: only a worker that has `PROMPTYARD_SIMULATOR` takes them.
    """
    waiting: dict[tuple[str, ...], list[str]] = {}
    for queue, count in prompts.items():
        serving = tuple(queue_names.consumers(queue, registry))
        if count and not live.intersection(serving):
            waiting.setdefault(serving, []).append(queue)
    found = []
    for serving, queues in waiting.items():
        number = sum(prompts[queue] for queue in queues)
        said = f"No live worker for {', '.join(queues)}: {_prompts(number)}."
        if not serving:
            found.append(f"{said} The registry does not have it; run with the registry it was submitted with.")
            continue
        start = " or ".join(f"`promptyard worker {provider}`" for provider in serving)
        where = " with the same PROMPTYARD_SIMULATOR" if simulated else ""
        found.append(f"{said} Start one: {start}{where}.")
    return found


def without_worker(now: reads.Progress, registry: Registry) -> list[str]:
    """Queues of the batch that nobody works on."""
    lying = {queue.queue: queue.queued_prompts + queue.waiting_prompts for queue in now.queues}
    live = frozenset(provider.provider for provider in now.providers if provider.live_workers)
    return unserved(lying, live, registry, simulated=now.batch.simulated)


def of_batch(now: reads.Progress, registry: Registry) -> list[str]:
    """All there is to warn of."""
    batch = now.batch
    found = []
    if batch.state == "paused":
        found.append(f"Paused; `promptyard resume {batch.batch_id}` goes on.")
    if batch.state == "running":
        found += without_worker(now, registry)
    found += stopped(now)
    if now.unpriced_calls:
        calls = "1 call" if now.unpriced_calls == 1 else f"{now.unpriced_calls:,} calls"
        found.append(f"The cost of {calls} is unknown and not in the sum: {_unpriced(now.providers)}.")
    if batch.rejected_count:
        lines = "1 line" if batch.rejected_count == 1 else f"{batch.rejected_count:,} lines"
        found.append(f"{lines} of the input could not be taken.")
    if batch.failed and batch.state != "cancelled":
        found.append(f"{_prompts(batch.failed)} failed; `promptyard retry {batch.batch_id}` runs them again.")
    return found


def stopped(now: reads.Progress) -> list[str]:
    """Providers that refuse every call."""
    return [_stopped(stop) for stop in now.stops]


def _stopped(stop: reads.ProviderStop) -> str:
    mend = {"auth": "Correct its key", "quota": "Add money to its account, or wait for its quota"}
    return (
        f"{stop.provider} refuses every call ({stop.error_class}): {stop.error_message}. Its prompts move on. "
        f"{mend[stop.error_class]}, and start its worker again."
    )


def _unpriced(providers: Sequence[reads.ProviderProgress]) -> str:
    return ", ".join(f"{p.provider} {p.unpriced_calls:,}" for p in providers if p.unpriced_calls)


def _prompts(number: int) -> str:
    return "1 prompt" if number == 1 else f"{number:,} prompts"
