"""Finds everything that is wrong with a registry, in words that name the table and the key."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence

import pydantic

from worker.routing import registry
from worker.routing.registry import Registry, Route

#: Where a value stands: keys of tables and indices of arrays, outermost first.
Location = tuple[str | int, ...]

#: What a line's `model` may say to be routed by category; no alias may take it.
AUTO = "auto"

#: The tables of the file; `*` is any name.
_TABLES: dict[tuple[str, ...], type[pydantic.BaseModel]] = {
    (): Registry,
    ("providers", "*"): registry.Provider,
    ("providers", "*", "limits"): registry.Limits,
    ("providers", "*", "rate_limit_headers"): registry.RateLimitHeaders,
    ("providers", "*", "models", "*"): registry.Model,
    ("providers", "*", "models", "*", "rates"): registry.Rates,
    ("categories", "*"): registry.Category,
}
#: Keys of the file itself, which `worker.routing.load` takes out before the registry is built.
_FILE_KEYS = ("extends", "chain")

#: Pydantic's words for what a TOML author knows by others.
_MESSAGES = {
    "missing": "is missing",
    "string_type": "must be text in quotes",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "tuple_type": "must be an array",
    "frozen_set_type": "must be an array",
    "mapping_type": "must be a table",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    where: Location
    what: str

    def __str__(self) -> str:
        """As `[table] key: what`, the way the file is written."""
        keys = [part for part in self.where if isinstance(part, str)]
        table = ".".join(_quoted(part) for part in keys[:-1])
        tail = "".join(f"[{part}]" for part in self.where if isinstance(part, int))
        key = (_quoted(keys[-1]) if keys else "the file") + tail
        return f"[{table}] {key}: {self.what}" if table else f"{key}: {self.what}"


def of_structure(error: pydantic.ValidationError) -> Iterator[Problem]:
    """What pydantic found."""
    for found in error.errors(include_url=False, include_input=True):
        where = tuple(part for part in found["loc"] if part != "[key]")
        kind = found["type"]
        if kind == "extra_forbidden":
            yield Problem(where, f"unknown key{_did_you_mean(str(where[-1]), _keys_at(where[:-1]))}")
        elif "[key]" in found["loc"]:
            yield Problem(where, "is no name: use small letters, digits, - and _, and begin with a letter")
        elif kind == "string_pattern_mismatch":
            yield Problem(where, _bad_text(where, found["input"]))
        elif kind == "literal_error":
            yield Problem(where, f"must be one of {found['ctx']['expected'].replace(' or ', ', ')}")
        else:
            yield Problem(where, _MESSAGES.get(kind, found["msg"]))


def of_references(registry: Registry) -> Iterator[Problem]:
    """What names something that is not there, or names it twice."""
    if not registry.providers:
        yield Problem(("providers",), "there is none; describe at least one")
    if not registry.categories:
        yield Problem(("categories",), "there is none; describe at least one")
    if registry.default_category not in registry.categories:
        what = f"{registry.default_category} is not among the categories"
        yield Problem(
            ("default_category",), what + _did_you_mean(registry.default_category, registry.categories)
        )
    yield from _unknown_route(("frontier",), registry.frontier, registry)
    for alias, route in registry.aliases.items():
        yield from _unknown_route(("aliases", alias), route, registry)
        yield from _alias_clash(alias, registry)
    for name, provider in registry.providers.items():
        if not provider.models:
            yield Problem(("providers", name, "models"), "there is none; describe at least one")
        for index, task in enumerate(provider.tasks):
            if task not in registry.categories:
                what = f"{task} is not among the categories{_did_you_mean(task, registry.categories)}"
                yield Problem(("providers", name, "tasks", index), what)
    for name, category in registry.categories.items():
        yield from _of_chain(name, category, registry)


def _of_chain(name: str, category: registry.Category, all_of_it: Registry) -> Iterator[Problem]:
    where: Location = ("categories", name, "chain")
    if not category.chain:
        yield Problem(where, "is empty; name at least one provider/model")
    seen: set[Route] = set()
    for tier_index, tier in enumerate(category.chain):
        if not tier:
            yield Problem((*where, tier_index), "this tier is empty")
        for route in tier:
            yield from _unknown_route((*where, tier_index), route, all_of_it)
            if route in seen:
                yield Problem((*where, tier_index), f"{route} stands in the chain twice")
            seen.add(route)


def _unknown_route(where: Location, route: Route, registry: Registry) -> Iterator[Problem]:
    provider = registry.providers.get(route.provider)
    if provider is None:
        what = f"{route} names the unknown provider {route.provider}"
        yield Problem(where, what + _did_you_mean(route.provider, registry.providers))
    elif route.model not in provider.models:
        what = f"{route} names a model that [providers.{route.provider}.models] does not have"
        yield Problem(where, what + _did_you_mean(route.model, provider.models))


def _alias_clash(alias: str, registry: Registry) -> Iterator[Problem]:
    if alias == AUTO:
        yield Problem(("aliases", alias), "is taken: a prompt with this model is routed by category")
    elif alias.partition("/")[0] in registry.providers and "/" in alias:
        yield Problem(("aliases", alias), "reads as provider/model; take a name that does not")


def _keys_at(table: Location) -> Sequence[str]:
    """The keys that a table may have."""
    for pattern, model in _TABLES.items():
        if len(pattern) == len(table) and all(
            want in ("*", have) for want, have in zip(pattern, table, strict=True)
        ):
            return [*model.model_fields, *(_FILE_KEYS if not pattern else ())]
    return ()


def _bad_text(where: Location, value: object) -> str:
    if where[-1] == "base_url":
        return f"{value!r} is no address; write it as https://host/path or http://127.0.0.1:port/path"
    if "rate_limit_headers" in where:
        return f"{value!r} needs one * in the place of limit, remaining and reset, as in x-ratelimit-*-tokens"
    return f"{value!r} is no name: use small letters, digits, - and _, and begin with a letter"


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _quoted(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else f'"{key}"'


def summary(source: str, problems: Sequence[Problem], *, most: int = 5) -> str:
    """All of it in one line, or the first few."""
    listed = "; ".join(str(problem) for problem in problems[:most])
    more = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return f"{source}: {listed}{more}"


def is_below(where: Location, places: Iterable[Location]) -> bool:
    """Whether one of the places holds this one."""
    return any(where[: len(place)] == place for place in places)


__all__ = ["AUTO", "Location", "Problem", "is_below", "of_references", "of_structure", "summary"]
