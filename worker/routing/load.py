"""Reads the registry from TOML, and cuts its chains down to the providers that can be called."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.resources
import json
import os
import tomllib
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pydantic

from worker import errors
from worker.routing import check, keys
from worker.routing.registry import Category, Registry, Route
from worker.settings import Settings

Table = dict[str, Any]
Chain = tuple[tuple[Route, ...], ...]

#: How messages call the registry of the package.
SHIPPED = "registry.toml of the package"


def registry(settings: Settings) -> Registry:
    """Read the registry that the settings ask for; with a simulator, all its providers point there.

    Raises:
        RegistryError: the file cannot be read or is wrong; the message names file, table and key.
    """
    if settings.registry is None:
        found = parse(_shipped_text(), source=SHIPPED)
    else:
        found = parse(_text_of(settings.registry), source=str(settings.registry))
    return found if settings.simulator is None else _simulated(found, settings.simulator)


def parse(text: str, *, source: str) -> Registry:
    """Build a registry from TOML.

    Args:
        source: name of the file, for messages.

    Raises:
        RegistryError: the text is not TOML, or not a registry.
    """
    data = _with_chain(_extended(_toml(text, source), source))
    unreadable = _read_routes(data)
    problems = list(unreadable)
    try:
        # JSON, because strict types are then those that a file can write: arrays for tuples and sets.
        found = Registry.model_validate_json(json.dumps(data, default=_json_value))
    except pydantic.ValidationError as error:
        said = [problem.where for problem in unreadable]
        problems += [p for p in check.of_structure(error) if not check.is_below(p.where, said)]
        raise errors.RegistryError(check.summary(source, problems)) from None
    problems += check.of_references(found)
    if problems:
        raise errors.RegistryError(check.summary(source, problems))
    return found


@dataclasses.dataclass(frozen=True)
class Usable:
    """A registry seen with the keys at hand."""

    registry: Registry
    chains: Mapping[str, Chain]  #: by category, without the providers that lack a key; empty tiers are gone
    missing: Mapping[str, str]  #: provider to the variable that should hold its key
    windows: Mapping[Route, int]  #: context window of every route of the registry, in tokens
    barred: frozenset[str] = frozenset()  #: providers that were asked not to be used

    @property
    def providers(self) -> list[str]:
        """The providers that can be called."""
        left_out = self.missing.keys() | self.barred
        return [name for name in self.registry.providers if name not in left_out]

    def restricted(self, only: Sequence[str] = (), without: Sequence[str] = ()) -> Usable:
        """Leave out providers by name.

        Args:
            only: use no others; empty: all.
            without: do not use these.

        Raises:
            RegistryError: there is no such provider, or one that is asked for has no key.
        """
        for name in (*only, *without):
            if name not in self.registry.providers:
                known = ", ".join(self.registry.providers)
                raise errors.RegistryError(f"There is no provider {name}. The registry has {known}.")
        for name in only:
            if name in self.missing:
                raise errors.RegistryError(f"{name} has no key. Set {self.missing[name]}.")
        barred = set(without) | (self.registry.providers.keys() - set(only) if only else set())
        left_out = self.missing.keys() | self.barred | barred
        categories = self.registry.categories.items()
        return dataclasses.replace(
            self,
            chains={name: _cut(category, left_out) for name, category in categories},
            barred=self.barred | barred,
        )

    @property
    def categories_without_provider(self) -> list[str]:
        return [category for category, chain in self.chains.items() if not chain]

    def sentence(self) -> str:
        """What is left out for want of a key; empty when nothing is."""
        if not self.missing:
            return ""
        listed = ", ".join(f"{provider} ({variable})" for provider, variable in self.missing.items())
        return f"Left out, since no key is set: {listed}."

    def require(self, category: str) -> Chain:
        """The chain of a category that is about to be used.

        Raises:
            RegistryError: there is no such category, or none of its providers has a key; the message names
                the variables to set.
        """
        if category not in self.chains:
            known = ", ".join(self.registry.categories)
            raise errors.RegistryError(f"There is no category {category}. The registry has {known}.")
        chain = self.chains[category]
        if not chain:
            wanted = dict.fromkeys(route.provider for route in self.registry.categories[category].routes())
            if self.barred:
                raise errors.RegistryError(
                    f"No provider for {category} is left: {', '.join(wanted)} would serve it, and have no key "
                    "or may not be used. Allow one of them."
                )
            variables = ", ".join(self.missing[provider] for provider in wanted)
            raise errors.RegistryError(
                f"No provider for {category} has a key. Set one of {variables}, add a server of your own to "
                "the registry (docs/registry.md), or try it with --simulate."
            )
        return chain


def usable(registry: Registry, env: Mapping[str, str] = os.environ) -> Usable:
    """Leave out the providers whose key is not in the environment."""
    missing = {
        name: provider.key_env
        for name, provider in registry.providers.items()
        if provider.key_env is not None and not keys.is_usable(provider, env, simulated=registry.simulated)
    }
    return Usable(
        registry=registry,
        chains={name: _cut(category, missing) for name, category in registry.categories.items()},
        missing=missing,
        windows={
            Route(name, model): facts.context_window
            for name, provider in registry.providers.items()
            for model, facts in provider.models.items()
        },
    )


def _cut(category: Category, left_out: Collection[str]) -> Chain:
    tiers = (tuple(route for route in tier if route.provider not in left_out) for tier in category.chain)
    return tuple(tier for tier in tiers if tier)


def _simulated(real: Registry, url: str) -> Registry:
    providers = {
        name: provider.model_copy(update={"base_url": f"{url.rstrip('/')}/{name}"})
        for name, provider in real.providers.items()
    }
    return real.model_copy(update={"providers": providers, "simulated": True})


def _shipped_text() -> str:
    return importlib.resources.files("worker.routing").joinpath("registry.toml").read_text("utf-8")


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise errors.RegistryError(
            f"{path}: {reason}. Set PROMPTYARD_REGISTRY to a registry file, or unset it."
        ) from None
    except UnicodeDecodeError:
        raise errors.RegistryError(f"{path}: is not UTF-8 text. Save it as UTF-8.") from None


def _toml(text: str, source: str) -> Table:
    try:
        return tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise errors.RegistryError(f"{source}: is not valid TOML: {error}") from None


def _extended(own: Table, source: str) -> Table:
    """Merge the file over what it extends.

    The file's `chain` replaces the chains of all categories that the file does not give itself.
    """
    extends = own.pop("extends", None)
    if extends not in (None, "default"):
        problem = check.Problem(("extends",), 'must be "default", or left out')
        raise errors.RegistryError(check.summary(source, [problem]))
    shipped = _toml(_shipped_text(), SHIPPED)
    if extends is None:
        if "chain" in own and "categories" not in own:
            # One chain for everything says enough: the categories are those that the classifier knows.
            own["categories"] = {
                name: {"description": c["description"]} for name, c in shipped["categories"].items()
            }
            own.setdefault("default_category", shipped["default_category"])
        return own
    if "chain" in own:
        for category in shipped["categories"].values():
            del category["chain"]
    return _merged(shipped, own)


def _merged(below: Table, above: Table) -> Table:
    """Tables are merged key by key; anything else, arrays too, is replaced."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _with_chain(data: Table) -> Table:
    """Give the file's own `chain` to every category that has none."""
    if "chain" in data:
        chain = data.pop("chain")
        categories = data.get("categories")
        for category in categories.values() if isinstance(categories, dict) else ():
            if isinstance(category, dict):
                category.setdefault("chain", chain)
    return data


def _read_routes(data: Table) -> list[check.Problem]:
    """Put routes in the place of their spelling, and tiers in the place of lone routes."""
    problems: list[check.Problem] = []

    def read(value: object, *where: str | int) -> object:
        try:
            if isinstance(value, str):
                return list(Route.parse(value))
        except ValueError:
            pass
        problems.append(check.Problem(where, f'{value!r} must be written "provider/model"'))
        return value

    if "frontier" in data:
        data["frontier"] = read(data["frontier"], "frontier")
    aliases = data.get("aliases")
    if isinstance(aliases, dict):
        data["aliases"] = {alias: read(value, "aliases", alias) for alias, value in aliases.items()}
    categories = data.get("categories")
    for name, category in categories.items() if isinstance(categories, dict) else ():
        if isinstance(category, dict) and isinstance(category.get("chain"), list):
            tiers = [tier if isinstance(tier, list) else [tier] for tier in category["chain"]]
            category["chain"] = [
                [read(value, "categories", name, "chain", number) for value in tier]
                for number, tier in enumerate(tiers)
            ]
    return problems


def _json_value(value: object) -> object:
    if isinstance(value, (Decimal, datetime.date, datetime.time)):
        return str(value)
    raise TypeError(type(value))
