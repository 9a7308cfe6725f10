"""The place that a line's `model` asks for."""

from __future__ import annotations

import re

from worker.prompts.bodies import Refused
from worker.routing.load import Usable
from worker.routing.registry import Route

#: What a line writes to leave the choice to its category.
AUTO = "auto"

_MODEL = re.compile(r"[\w.:/@+-]{1,120}")


class Pins:
    """Reads `model`: `auto`, `provider/model`, an alias, or a model that one provider alone serves."""

    def __init__(self, usable: Usable) -> None:
        self._usable = usable
        self._registry = usable.registry
        self._known: dict[str, Route | None] = {AUTO: None}

    def route(self, model: object) -> Route | None:
        """Find the route that is asked for; None leaves the choice to the category.

        Raises:
            Refused: no route is meant, or several could be, or the provider's key is missing.
        """
        if model is None:
            return None
        if not isinstance(model, str):
            raise Refused("model must be text: auto, provider/model, or an alias of the registry")
        if model not in self._known:
            self._known[model] = self._find(model)
        return self._known[model]

    def _find(self, model: str) -> Route:
        registry = self._registry
        route = registry.aliases.get(model)
        if route is None:
            provider, _, name = model.partition("/")
            if provider in registry.providers and name in registry.providers[provider].models:
                route = Route(provider, name)
            else:
                route = self._served(model)
        variable = self._usable.missing.get(route.provider)
        if variable is not None:
            raise Refused(f"model asks for {route.provider}, whose key is missing: set {variable}")
        if route.provider in self._usable.barred:
            raise Refused(f"model asks for {route.provider}, which may not be used for this batch")
        return route

    def _served(self, model: str) -> Route:
        serving = [Route(name, model) for name, p in self._registry.providers.items() if model in p.models]
        if len(serving) == 1:
            return serving[0]
        if serving:
            places = " or ".join(map(str, serving))
            raise Refused(f"model is served by several providers: write {places}")
        provider = model.partition("/")[0]
        if "/" in model and provider in self._registry.providers:
            models = ", ".join(f"{provider}/{name}" for name in self._registry.providers[provider].models)
            raise Refused(f"model {_shown(model)} is not in the registry; {provider} has {models}")
        if "/" in model:
            providers = ", ".join(self._registry.providers)
            raise Refused(f"model {_shown(model)} names an unknown provider; the registry has {providers}")
        aliases = "".join(f", {alias}" for alias in self._registry.aliases)
        raise Refused(
            f"model {_shown(model)} is not in the registry: write auto, provider/model "
            f"(see `promptyard providers`){' or an alias' if aliases else ''}{aliases.replace(',', ':', 1)}"
        )


def _shown(model: str) -> str:
    return f"`{model}`" if _MODEL.fullmatch(model) else "(an unusual name)"
