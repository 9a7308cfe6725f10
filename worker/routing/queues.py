"""Names of queues.

`<category>` holds first tries, for every worker whose provider is in the first tier of the category's chain.
`<category>.<provider>` holds retries, fallbacks and pinned prompts, for that provider's workers alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from worker import errors
from worker.routing import load
from worker.routing.registry import Registry, Route


def category_queue(category: str) -> str:
    return category


def provider_queue(category: str, provider: str) -> str:
    return f"{category}.{provider}"


def entries(category: str, usable: load.Usable) -> list[tuple[str, Route | None]]:
    """Where the shards of a category begin, in turn: queues, each with its route where one provider owns it.

    The shared queue is consumed by every provider of the first tier. It is used when all of them can be
    called; else the shards go to the queues of those that can, and no worker depends on another one's keys.
    """
    first = usable.chains[category][0]
    if first == usable.registry.categories[category].chain[0]:
        return [(category_queue(category), None)]
    return [(provider_queue(category, route.provider), route) for route in first]


def consumed_by(provider: str, registry: Registry) -> list[str]:
    """The queues that a worker of this provider consumes.

    Its own queue of every category is among them, since a line may pin any prompt to it.
    """
    shared = [
        category_queue(name)
        for name, category in registry.categories.items()
        if any(route.provider == provider for route in category.chain[0])
    ]
    own = [provider_queue(category, provider) for category in registry.categories]
    return shared + own


def consumers(queue: str, registry: Registry) -> list[str]:
    """The providers whose workers consume a queue; none when the registry has no such queue (any more)."""
    category, _, provider = queue.partition(".")
    if category not in registry.categories:
        return []
    if provider:
        return [provider] if provider in registry.providers else []
    return [route.provider for route in registry.categories[category].chain[0]]


def provider_of(queues: Sequence[str], registry: Registry) -> str:
    """The provider that a worker started with these queues (`-Q`) belongs to.

    Raises:
        SettingsError: the queues belong to no provider, to several, or to an unknown one.
    """
    providers = sorted({queue.partition(".")[2] for queue in queues if "." in queue})
    known = ", ".join(registry.providers)
    if not providers:
        raise errors.SettingsError(
            "The queues (-Q) name no provider. Add the provider's own, such as "
            f"{_example(registry)}, or use `promptyard worker PROVIDER`. Providers: {known}."
        )
    if len(providers) > 1:
        raise errors.SettingsError(
            f"The queues (-Q) belong to several providers ({', '.join(providers)}), and a worker serves one. "
            "Start one worker for each."
        )
    if providers[0] not in registry.providers:
        raise errors.SettingsError(
            f"The queues (-Q) belong to the provider {providers[0]}, which the registry does not have. "
            f"It has {known}."
        )
    return providers[0]


def all_queues(registry: Registry) -> list[str]:
    """Every queue there can be, to declare them."""
    shared = [category_queue(category) for category in registry.categories]
    own = [
        provider_queue(category, provider)
        for category in registry.categories
        for provider in registry.providers
    ]
    return shared + own


def _example(registry: Registry) -> str:
    return provider_queue(next(iter(registry.categories)), next(iter(registry.providers)))
