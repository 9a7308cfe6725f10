from __future__ import annotations

import pytest

from worker import errors, settings
from worker.routing import keys, load, queues
from worker.routing.registry import Registry, Route


def shipped(simulator: str | None = None) -> Registry:
    return load.registry(settings.Settings(simulator=simulator))


# Keys


def test_a_key_is_read_from_the_variable_of_its_provider() -> None:
    groq = shipped().providers["groq"]
    assert keys.key(groq, {"GROQ_API_KEY": " k1 \n"}) == "k1"
    assert keys.key(groq, {"OPENAI_API_KEY": "k2"}) is None


def test_an_empty_variable_is_no_key() -> None:
    groq = shipped().providers["groq"]
    assert keys.key(groq, {"GROQ_API_KEY": ""}) is None
    assert not keys.is_usable(groq, {"GROQ_API_KEY": "  "})


def test_a_simulated_provider_never_sees_the_real_key() -> None:
    assert keys.key(shipped().providers["groq"], {"GROQ_API_KEY": "real"}, simulated=True) == "simulated"


def test_a_server_without_a_key_variable_needs_none() -> None:
    local = shipped().providers["groq"].model_copy(update={"key_env": None})
    assert keys.key(local, {}, simulated=True) is None
    assert keys.is_usable(local, {})


# What is usable with the keys at hand


def test_providers_without_a_key_leave_the_chains_and_that_is_said() -> None:
    usable = load.usable(shipped(), {"OPENAI_API_KEY": "k", "GEMINI_API_KEY": "k"})
    assert usable.providers == ["openai", "gemini"]
    assert usable.sentence() == (
        "Left out, since no key is set: groq (GROQ_API_KEY), cerebras (CEREBRAS_API_KEY), zai (ZAI_API_KEY), "
        "anthropic (ANTHROPIC_API_KEY)."
    )
    assert usable.chains["simple_qa"] == (
        (Route("openai", "gpt-6-luna"),),
        (Route("gemini", "gemini-3.5-flash-lite"),),
    )


def test_a_provider_without_a_key_leaves_the_others_of_its_tier() -> None:
    usable = load.usable(shipped(), {"ANTHROPIC_API_KEY": "k"})
    assert usable.chains["complex_reasoning"] == ((Route("anthropic", "claude-opus-5-5"),),)


def test_with_every_key_nothing_is_left_out() -> None:
    registry = shipped()
    usable = load.usable(registry, {p.key_env: "k" for p in registry.providers.values() if p.key_env})
    assert usable.sentence() == ""
    assert usable.require("code") == registry.categories["code"].chain


def test_a_category_without_any_provider_names_the_keys_to_set() -> None:
    usable = load.usable(shipped(), {})
    assert usable.categories_without_provider == list(usable.registry.categories)
    with pytest.raises(errors.RegistryError, match=r"No provider for code has a key.*CEREBRAS_API_KEY, GROQ_"):
        usable.require("code")


def test_an_unknown_category_names_those_that_there_are() -> None:
    with pytest.raises(errors.RegistryError, match=r"no category poetry.*simple_qa, code"):
        load.usable(shipped(), {}).require("poetry")


def test_a_simulated_registry_needs_no_key_and_points_every_provider_at_the_simulator() -> None:
    registry = shipped("http://127.0.0.1:8765/")
    assert registry.simulated
    assert registry.providers["zai"].base_url == "http://127.0.0.1:8765/zai"
    usable = load.usable(registry, {})
    assert usable.missing == {}
    assert usable.categories_without_provider == []


# Queues


def test_a_worker_consumes_the_categories_it_is_first_for_and_its_own_queue_of_each() -> None:
    assert queues.consumed_by("anthropic", shipped()) == [
        "complex_reasoning",
        "simple_qa.anthropic",
        "code.anthropic",
        "summarization.anthropic",
        "complex_reasoning.anthropic",
        "multilingual.anthropic",
    ]


def test_shards_begin_in_the_shared_queue_when_the_whole_first_tier_has_keys() -> None:
    usable = load.usable(shipped("http://127.0.0.1:1"), {})
    assert queues.entries("complex_reasoning", usable) == [("complex_reasoning", None)]


def test_shards_begin_with_a_provider_of_the_first_tier_that_has_a_key() -> None:
    usable = load.usable(shipped(), {"OPENAI_API_KEY": "k", "GROQ_API_KEY": "k"})
    first = shipped().categories["complex_reasoning"].chain[0]
    (openai,) = (route for route in first if route.provider == "openai")
    assert queues.entries("complex_reasoning", usable) == [("complex_reasoning.openai", openai)]


def test_a_second_choice_becomes_first_where_the_first_has_no_key() -> None:
    usable = load.usable(shipped(), {"OPENAI_API_KEY": "k"})
    ((queue, route),) = queues.entries("simple_qa", usable)
    assert queue == "simple_qa.openai"
    assert route is not None
    assert route.provider == "openai"


def test_every_queue_that_is_consumed_or_published_to_is_declared() -> None:
    registry = shipped("http://127.0.0.1:1")
    declared = queues.all_queues(registry)
    assert len(declared) == len(set(declared)) == 5 + 5 * 6
    for provider in registry.providers:
        assert set(queues.consumed_by(provider, registry)) <= set(declared)


def test_the_provider_of_a_worker_is_read_from_its_queues() -> None:
    registry = shipped()
    for provider in registry.providers:
        assert queues.provider_of(queues.consumed_by(provider, registry), registry) == provider


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["simple_qa", "code"], "name no provider.*simple_qa.groq"),
        (["code.groq", "code.openai"], r"several providers \(groq, openai\)"),
        (["code.grok"], "the provider grok, which the registry does not have"),
    ],
)
def test_queues_that_fit_no_one_provider_are_refused(names: list[str], words: str) -> None:
    with pytest.raises(errors.SettingsError, match=words):
        queues.provider_of(names, shipped())


# Providers that may not be used


def test_only_the_providers_that_are_named_stay() -> None:
    usable = load.usable(shipped("http://127.0.0.1:1"), {}).restricted(only=["groq", "zai"])
    assert usable.providers == ["groq", "zai"]
    assert {route.provider for tier in usable.chains["simple_qa"] for route in tier} == {"groq", "zai"}
    ((queue, route),) = queues.entries("complex_reasoning", usable)
    assert queue.split(".")[1] in {"groq", "zai"}
    assert route is not None


def test_a_provider_that_is_named_may_be_left_out() -> None:
    usable = load.usable(shipped("http://127.0.0.1:1"), {}).restricted(without=["groq"])
    assert "groq" not in usable.providers
    assert queues.entries("simple_qa", usable)[0][0] == "simple_qa.cerebras"


@pytest.mark.parametrize("option", ["only", "without"])
def test_a_provider_that_does_not_exist_cannot_be_named(option: str) -> None:
    usable = load.usable(shipped("http://127.0.0.1:1"), {})
    with pytest.raises(errors.RegistryError, match="There is no provider grok"):
        usable.restricted(**{option: ["grok"]})


def test_a_provider_without_a_key_cannot_be_the_only_one() -> None:
    usable = load.usable(shipped(), {"OPENAI_API_KEY": "k"})
    with pytest.raises(errors.RegistryError, match=r"groq has no key\. Set GROQ_API_KEY"):
        usable.restricted(only=["groq"])


def test_a_category_whose_providers_are_all_left_out_says_so() -> None:
    registry = shipped("http://127.0.0.1:1")
    usable = load.usable(registry, {}).restricted(without=list(registry.providers))
    with pytest.raises(errors.RegistryError, match="No provider for code is left"):
        usable.require("code")
