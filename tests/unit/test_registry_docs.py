"""docs/registry.md and the comments of registry.toml say what is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from worker.providers import endpoint, told
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


@pytest.mark.parametrize(
    ("provider", "key_env"),
    [("local", None), ("vllm", None), ("openrouter", "OPENROUTER_API_KEY"), ("mistral", "MISTRAL_API_KEY")],
)
def test_a_provider_of_the_page_takes_some_ten_lines_and_can_be_called(
    provider: str, key_env: str | None
) -> None:
    (example,) = [example for example in EXAMPLES if f"[providers.{provider}]" in example]
    assert len(example.strip().splitlines()) <= 11
    text = example if "extends" in example else f'extends = "default"\n{example}'
    found = load.parse(text, source="docs/registry.md")
    described = found.provider(provider)
    assert described.key_env == key_env
    (model,) = described.models
    ready = endpoint.endpoint(found, registry.Route(provider, model), "a-key" if key_env else None)
    request = json.loads(ready.build('{"messages":[{"role":"user","content":"hi"}],"max_completion_tokens":5}'))
    assert request["model"] == model
    assert request[described.models[model].max_tokens_field] == 5


def test_the_headers_that_mistral_sends_are_read_by_the_registry_of_the_page() -> None:
    (example,) = [example for example in EXAMPLES if "[providers.mistral]" in example]
    found = load.parse(f'extends = "default"\n{example}', source="docs/registry.md")
    headers = {
        "x-ratelimit-limit-req-minute": "720",
        "x-ratelimit-remaining-req-minute": "717",
        "x-ratelimit-limit-tokens-minute": "5000000",
        "x-ratelimit-remaining-tokens-minute": "4999911",
    }
    assert told.limits_told(found.provider("mistral"), headers) == told.Told(
        requests_limit=720, requests_remaining=717, tokens_limit=5_000_000, tokens_remaining=4_999_911
    )


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
        registry.RateLimitHeaders,
        registry.Rates,
        registry.Category,
    ],
)
def test_the_page_names_every_key(model: type[registry.Frozen]) -> None:
    derived = {"simulated"}  # not from the file
    tables = {"providers", "categories", "aliases", "models"}  # named by their headings
    for key in model.model_fields.keys() - derived:
        assert f"`{key}`" in DOCS or (key in tables and re.search(rf"`\[[^`]*\b{key}\b", DOCS)), key
