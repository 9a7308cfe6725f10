"""docs/registry.md and the comments of registry.toml say what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from worker.routing import load, registry

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "registry.md").read_text("utf-8")
SHIPPED = (ROOT / "worker" / "routing" / "registry.toml").read_text("utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", DOCS, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_of_the_page_is_a_registry(example: str) -> None:
    text = example if "extends" in example else f'extends = "default"\n{example}'
    load.parse(text, source="docs/registry.md")


def test_the_local_server_of_the_page_takes_ten_lines_and_runs_everything_without_a_key() -> None:
    (example,) = [example for example in EXAMPLES if "providers.local" in example]
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    usable = load.usable(load.parse(example, source="docs/registry.md"), {})
    assert usable.categories_without_provider == []


def test_the_commented_server_of_the_shipped_file_works_once_uncommented() -> None:
    _, _, commented = SHIPPED.partition("In a file of your own:\n#\n")
    text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in commented.splitlines())
    usable = load.usable(load.parse(text, source="registry.toml"), {})
    assert {route.provider for chain in usable.chains.values() for tier in chain for route in tier} == {"local"}


@pytest.mark.parametrize(
    "model",
    [
        registry.Registry,
        registry.Provider,
        registry.Model,
        registry.Limits,
        registry.Rates,
        registry.Category,
    ],
)
def test_the_page_names_every_key(model: type[registry.Frozen]) -> None:
    derived = {"simulated"}  # not from the file
    tables = {"providers", "categories", "aliases", "models"}  # named by their headings
    for key in model.model_fields.keys() - derived:
        assert f"`{key}`" in DOCS or (key in tables and re.search(rf"`\[[^`]*\b{key}\b", DOCS)), key
