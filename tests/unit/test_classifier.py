"""The first classifier, on prompts written for this test."""

from __future__ import annotations

import time

import hypothesis
import pytest
from hypothesis import strategies as st

from worker import settings
from worker.classify import rules
from worker.routing import load

REGISTRY = load.registry(settings.Settings())
CLASSIFIER = rules.RulesClassifier(REGISTRY)


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("Who painted the ceiling of the Sistine Chapel?", "simple_qa"),
        ("what is the capital of Peru", "simple_qa"),
        ("Write a Python function that merges two sorted lists.", "code"),
        ("fix this\n```\nfor x in y:\n    print(x\n```", "code"),
        ("SELECT name FROM users WHERE id = 3; -- why is this slow?", "code"),
        (
            "Summarize the following article in two sentences:\n\nThe harbour was rebuilt after the storm.",
            "summarization",
        ),
        ("TL;DR of this, please: the meeting was moved to Monday since the room is taken.", "summarization"),
        (
            "Premises: all birds lay eggs. A robin is a bird. Does the conclusion follow? Explain why.",
            "complex_reasoning",
        ),
        (
            "Anna has 3 boxes with 12 apples each and gives away 7. How many apples are left?",
            "complex_reasoning",
        ),
        ("Solve $x^2 - 5x + 6 = 0$ and prove that there are two roots.", "complex_reasoning"),
        ("Translate to Finnish: the train leaves at noon.", "multilingual"),
        ("How do you say 'good morning' in Japanese?", "multilingual"),
        ("¿Cuál es la capital de Francia y por qué es famosa?", "multilingual"),
        ("Welche Städte liegen an der Donau und wie groß sind sie?", "multilingual"),
        ("日本の首都はどこですか", "multilingual"),
        ("Какая столица Норвегии?", "multilingual"),
    ],
)
def test_a_clear_prompt_is_put_where_it_belongs(text: str, category: str) -> None:
    (verdict,) = CLASSIFIER.classify([text])
    assert (verdict.category, verdict.source) == (category, "classified")
    assert verdict.confidence >= rules.THRESHOLD


def test_what_nobody_can_tell_goes_to_the_default_category() -> None:
    for text in ["", "hmm", "🙂", "Lorem ipsum."]:
        (verdict,) = CLASSIFIER.classify([text])
        assert (verdict.category, verdict.source) == (REGISTRY.default_category, "default")


def test_cue_words_count_only_whole() -> None:
    assert rules.evidence("capital")["code"] == 0, "no `api` in capital"
    assert rules.evidence("a digit")["code"] == 0, "no `git` in digit"
    assert rules.evidence("an api")["code"] > 0


def test_a_category_that_the_registry_lacks_becomes_the_default() -> None:
    own = REGISTRY.model_copy(
        update={"categories": {"chat": REGISTRY.categories["code"]}, "default_category": "chat"}
    )
    (verdict,) = rules.RulesClassifier(own).classify(["Write a Python function that adds two numbers."])
    assert (verdict.category, verdict.source) == ("chat", "default")


def test_the_length_of_a_text_costs_nothing() -> None:
    def cpu_s(text: str) -> float:
        started = time.process_time()
        CLASSIFIER.classify([text] * 50)
        return time.process_time() - started

    text = "a = b; (the) {file} $x$ 12 "
    short = min(cpu_s(text * 40) for _ in range(5))
    assert min(cpu_s(text * 40_000) for _ in range(5)) < 10 * short


@hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
@hypothesis.given(st.lists(st.text(max_size=60), max_size=5))
def test_every_text_gets_one_verdict_of_the_registry(texts: list[str]) -> None:
    verdicts = CLASSIFIER.classify(texts)
    assert len(verdicts) == len(texts)
    assert all(v.category in REGISTRY.categories and 0 <= v.confidence <= 1 for v in verdicts)
