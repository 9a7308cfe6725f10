from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path

import pytest

from worker import errors, settings
from worker.ledger import cost, rates
from worker.providers.types import Usage
from worker.routing import load
from worker.routing.registry import Registry, Route

CATEGORIES = ["simple_qa", "code", "summarization", "complex_reasoning", "multilingual"]
#: Shares of real traffic, in percent.
TRAFFIC = {"simple_qa": 35, "code": 25, "summarization": 20, "complex_reasoning": 15, "multilingual": 5}

LOCAL_SERVER = """
[providers.local]
dialect = "openai_chat"
base_url = "http://127.0.0.1:11434/v1"
limits = { concurrency = 8 }

[providers.local.models."qwen3:8b"]
context_window = 40_960
rates = { input = 0, output = 0.25 }
"""


def shipped() -> Registry:
    return load.registry(settings.Settings())


def message_about(text: str) -> str:
    with pytest.raises(errors.RegistryError) as raised:
        load.parse(text, source="mine.toml")
    return str(raised.value)


# The registry of the package


def test_the_shipped_registry_serves_the_five_categories() -> None:
    assert list(shipped().categories) == CATEGORIES


@pytest.mark.parametrize(
    ("category", "first"),
    [
        ("simple_qa", ["groq"]),
        ("code", ["cerebras"]),
        ("summarization", ["zai"]),
        ("complex_reasoning", ["openai", "anthropic"]),
        ("multilingual", ["gemini"]),
    ],
)
def test_each_category_starts_where_its_work_is_done_well(category: str, first: list[str]) -> None:
    chain = shipped().categories[category].chain
    assert [route.provider for route in chain[0]] == first
    assert len(chain) >= 3, "two fallbacks at least"


def test_every_provider_stands_in_every_chain_so_that_one_key_is_enough() -> None:
    registry = shipped()
    for provider in registry.providers.values():
        assert provider.key_env is not None
        usable = load.usable(registry, {provider.key_env: "k"})
        assert usable.categories_without_provider == []


def test_every_shipped_model_has_a_price_and_none_is_deprecated() -> None:
    from genai_prices import data_snapshot

    now = datetime.datetime.now(datetime.UTC)
    quotes = rates.quotes(shipped(), now)
    for name, provider in shipped().providers.items():
        for model in provider.models:
            assert Route(name, model) in quotes
            _, info = data_snapshot.get_snapshot().find_provider_model(
                model, None, {"gemini": "google"}.get(name, name), None
            )
            assert not info.deprecated, f"{name}/{model} is deprecated in genai-prices"


def test_the_usual_traffic_costs_seventy_percent_less_than_at_the_frontier() -> None:
    """Routes that share a tier share its prompts evenly."""
    registry = shipped()
    quotes = rates.quotes(registry, datetime.datetime.now(datetime.UTC))
    usage = Usage(input_tokens=600, output_tokens=300)
    spent = Decimal(0)
    for category, percent in TRAFFIC.items():
        tier = registry.categories[category].chain[0]
        tier_cost = sum((cost.cost_usd(usage, quotes[route].prices)[0] for route in tier), Decimal(0))
        spent += percent * tier_cost / len(tier)
    frontier, _ = cost.cost_usd(usage, quotes[registry.frontier].prices)
    assert 1 - spent / (100 * frontier) >= Decimal("0.70")


# A file of one's own


def test_a_local_server_is_added_over_the_shipped_registry() -> None:
    found = load.parse('extends = "default"\n' + LOCAL_SERVER, source="mine.toml")
    assert [*found.providers] == [*shipped().providers, "local"]
    assert found.categories == shipped().categories


def test_one_chain_of_the_file_replaces_all_shipped_chains() -> None:
    found = load.parse('extends = "default"\nchain = ["local/qwen3:8b"]\n' + LOCAL_SERVER, source="mine.toml")
    local = ((Route("local", "qwen3:8b"),),)
    assert {name: category.chain for name, category in found.categories.items()} == dict.fromkeys(
        CATEGORIES, local
    )
    assert found.frontier == shipped().frontier, "savings are still measured against it"
    assert load.usable(found, {}).categories_without_provider == []


def test_a_category_of_the_file_keeps_its_own_chain_beside_the_one_for_all() -> None:
    found = load.parse(
        'extends = "default"\nchain = ["local/qwen3:8b"]\n'
        f'[categories.code]\nchain = ["groq/openai/gpt-oss-120b"]\n{LOCAL_SERVER}',
        source="mine.toml",
    )
    assert found.categories["code"].routes() == [Route("groq", "openai/gpt-oss-120b")]
    assert found.categories["code"].description == shipped().categories["code"].description


def test_a_file_with_one_local_server_needs_no_more_than_a_frontier_and_a_chain() -> None:
    found = load.parse(
        'frontier = "local/qwen3:8b"\nchain = ["local/qwen3:8b"]\n' + LOCAL_SERVER, source="mine.toml"
    )
    assert list(found.providers) == ["local"]
    assert list(found.categories) == CATEGORIES
    assert load.usable(found, {}).missing == {}


def test_tables_are_merged_and_arrays_replaced() -> None:
    found = load.parse(
        'extends = "default"\n[providers.groq]\ntasks = ["code"]\nlimits = { rpm = 30 }\n', source="mine.toml"
    )
    before, after = shipped().providers["groq"], found.providers["groq"]
    assert after.limits == before.limits.model_copy(update={"rpm": 30})
    assert after.tasks == ("code",)
    assert after.models == before.models


def test_rates_are_read_to_the_last_digit() -> None:
    text = 'extends = "default"\n' + LOCAL_SERVER.replace("0.25", "0.1234567890123456789")
    own = load.parse(text, source="mine.toml").providers["local"].models["qwen3:8b"].rates
    assert own is not None
    assert own.output == Decimal("0.1234567890123456789")


def test_a_tier_may_be_one_route_or_several() -> None:
    found = load.parse(
        'extends = "default"\n[categories.code]\n'
        'chain = [["openai/gpt-6-luna", "gemini/gemini-3.8-flash"], "zai/glm-5.3"]\n',
        source="mine.toml",
    )
    assert found.categories["code"].chain == (
        (Route("openai", "gpt-6-luna"), Route("gemini", "gemini-3.8-flash")),
        (Route("zai", "glm-5.3"),),
    )


# What can be wrong with it


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[providers.groq]\nbase_ulr = 'https://x'",
            "[providers.groq] base_ulr: unknown key; did you mean base_url?",
        ),
        ("provders = {}", "provders: unknown key; did you mean providers?"),
        ("[providers.groq.limits]\nrpm = 'many'", "[providers.groq.limits] rpm: must be a whole number"),
        ("[providers.groq.limits]\nrpm = 0", "[providers.groq.limits] rpm: "),
        (
            "[providers.groq]\nbase_url = 'api.groq.com'",
            "[providers.groq] base_url: 'api.groq.com' is no address",
        ),
        ("[providers.groq]\ndialect = 'openai'", "[providers.groq] dialect: must be one of 'openai_chat', "),
        ("[providers.'My Server']\n", '[providers] "My Server": is no name'),
        ("[providers.local]\ndialect = 'openai_chat'", "[providers.local] base_url: is missing"),
        (
            "[providers.groq.models.'a.b']\ncontext_window = 1.5",
            '[providers.groq.models."a.b"] context_window: must be a whole number',
        ),
        (
            "[providers.groq.models.new]\ncontext_window = 1\ncapabilities = ['tool']",
            "[providers.groq.models.new] capabilities[0]: must be one of 'tools', ",
        ),
        ("frontier = 'opus'", "frontier: 'opus' must be written \"provider/model\""),
        ("frontier = 3", 'frontier: 3 must be written "provider/model"'),
        (
            "frontier = 'antropic/claude-opus-5-5'",
            "frontier: antropic/claude-opus-5-5 names the unknown provider antropic; did you mean anthropic?",
        ),
        (
            "[categories.code]\nchain = ['groq/llama-3.3-70b-versatil']",
            "[categories.code] chain[0]: groq/llama-3.3-70b-versatil names a model that "
            "[providers.groq.models] does not have; did you mean llama-3.3-70b-versatile?",
        ),
        ("[categories.code]\nchain = []", "[categories.code] chain: is empty"),
        ("[categories.code]\nchain = ['zai/glm-5.3', []]", "[categories.code] chain[1]: this tier is empty"),
        (
            "[categories.code]\nchain = ['zai/glm-5.3', ['zai/glm-5.3']]",
            "[categories.code] chain[1]: zai/glm-5.3 stands in the chain twice",
        ),
        ("[categories.code]\nchain = 'zai/glm-5.3'", "[categories.code] chain: must be an array"),
        ("[categories.poetry]\ndescription = 'x'", "[categories.poetry] chain: is missing"),
        ("categories = 3", "categories: must be a table"),
        (
            "default_category = 'cod'",
            "default_category: cod is not among the categories; did you mean code?",
        ),
        ("[providers.groq]\ntasks = ['cod']", "[providers.groq] tasks[0]: cod is not among the categories"),
        ("[aliases]\nauto = 'zai/glm-5.3'", "[aliases] auto: is taken"),
        ("[aliases]\n'groq/new' = 'zai/glm-5.3'", '[aliases] "groq/new": reads as provider/model'),
        ("[aliases]\nx = 'zai/glm'", "[aliases] x: zai/glm names a model that"),
    ],
)
def test_a_wrong_value_is_named_with_its_table_and_key(text: str, words: str) -> None:
    assert message_about(f'extends = "default"\n{text}').startswith(f"mine.toml: {words}")


def test_extends_takes_only_the_shipped_registry() -> None:
    assert message_about('extends = "groq"') == 'mine.toml: extends: must be "default", or left out'


def test_text_that_is_not_toml_is_named_with_its_line() -> None:
    assert "line 2" in message_about('extends = "default"\nfrontier = \nx = 1')


def test_an_empty_file_says_all_that_is_missing() -> None:
    message = message_about("")
    for key in ("frontier", "default_category", "providers", "categories"):
        assert f"{key}: is missing" in message


def test_several_problems_are_told_at_once_and_the_rest_counted() -> None:
    message = message_about('extends = "default"\n[providers.groq]\na = 1\nb = 2\nc = 3\nd = 4\ne = 5\nf = 6')
    assert message.count("unknown key") == 5
    assert message.endswith("; and 1 more")


def test_the_registry_of_the_environment_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('extends = "default"\n' + LOCAL_SERVER)
    assert "local" in load.registry(settings.Settings(registry=path)).providers


def test_a_file_that_is_not_there_is_named_with_its_variable(tmp_path: Path) -> None:
    with pytest.raises(errors.RegistryError, match=r"none\.toml: No such file.*PROMPTYARD_REGISTRY"):
        load.registry(settings.Settings(registry=tmp_path / "none.toml"))


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes(b"# caf\xe9")
    with pytest.raises(errors.RegistryError, match="not UTF-8"):
        load.registry(settings.Settings(registry=path))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('rate_limit_headers = { tokens_minute = "x-tokens" }', "needs one *"),
        ('rate_limit_headers = { tokens = "x-*" }', "unknown key"),
        ('errors = { E1 = "busy" }', "'overloaded'"),
        ('models.small.unsupported = ["temprature"]', "'temperature'"),
    ],
)
def test_a_wrong_quirk_of_a_server_is_named(table: str, said: str) -> None:
    quirky = LOCAL_SERVER.replace("limits = { concurrency = 8 }", table).replace(
        "[providers.local.models", "models.small.context_window = 1\n[providers.local.models"
    )
    message = message_about(f'extends = "default"\n{quirky}')
    assert "providers.local" in message
    assert said in message
