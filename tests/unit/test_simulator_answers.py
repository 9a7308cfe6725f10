"""Answers of the simulator: they come from the prompt alone, and their tokens add up."""

from __future__ import annotations

import collections
import json

from hypothesis import given
from hypothesis import strategies as st

from worker.simulator import answers, conversation, faults, flavours, settings


def asked(
    prompt: str, model: str = "gpt-5", max_tokens: int | None = None, *, wants_json: bool = False
) -> conversation.Conversation:
    return conversation.Conversation(model, [("user", prompt)], max_tokens, wants_json)


def said(conversed: conversation.Conversation, flavour: flavours.Flavour = "openai") -> answers.Answer:
    return answers.answer(conversed, conversation.digest(conversed.texts), flavour)


@given(st.text(), st.none() | st.integers(1, 400))
def test_the_buckets_of_an_answer_are_disjoint_and_within_what_was_allowed(
    prompt: str, max_tokens: int | None
) -> None:
    for flavour in ("openai", "anthropic", "gemini"):
        conversed = asked(prompt, "gpt-5" if flavour == "openai" else "gemini-2.5-pro", max_tokens)
        usage = said(conversed, flavour).usage
        assert usage.all_input_tokens == 3 + (len(prompt) + 3) // 4
        assert min(usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens) >= 0
        assert 0 <= usage.reasoning_tokens <= usage.output_tokens
        assert max_tokens is None or usage.output_tokens <= max_tokens


def test_an_answer_depends_on_the_prompt_and_on_nothing_else() -> None:
    assert said(asked("one")) == said(asked("one"))
    assert said(asked("one")).text == said(asked("one", "llama"), "groq").text
    assert said(asked("one")).text != said(asked("two")).text


def test_who_said_a_text_is_a_part_of_the_prompt() -> None:
    assert conversation.digest([("user", "a")]) != conversation.digest([("system", "a")])
    assert conversation.digest([("user", "a"), ("user", "b")]) != conversation.digest([("user", "ab")])


def test_lengths_caches_and_reasoning_vary_over_prompts() -> None:
    found = [said(asked(f"prompt {n} of many")).usage for n in range(400)]
    cached = sum(usage.cache_read_tokens > 0 for usage in found)
    thought = sum(usage.reasoning_tokens > 0 for usage in found)
    assert 60 <= cached <= 140  # a quarter
    assert 200 <= thought <= 300  # five eighths
    assert len({usage.output_tokens for usage in found}) > 100
    written = [said(asked(f"prompt {n} of many"), "anthropic").usage.cache_write_tokens for n in range(400)]
    assert 25 <= sum(count > 0 for count in written) <= 80  # an eighth


def test_a_limit_cuts_the_answer_and_says_so() -> None:
    whole = said(asked("a story", "llama"))
    cut = said(asked("a story", "llama", 5))
    assert (whole.finish, cut.finish) == ("stop", "length")
    assert cut.usage.output_tokens == 5
    assert whole.text.startswith(cut.text) and len(cut.text) == 20


def test_thinking_can_leave_nothing_for_the_answer() -> None:
    thinkers = (asked(f"hard question {n}", "glm-4.6", 3) for n in range(50))
    found = [answer for answer in (said(each, "zai") for each in thinkers) if answer.reasoning]
    assert found
    assert all(answer.text == "" and answer.usage.reasoning_tokens == 3 for answer in found)


def test_json_is_answered_where_json_is_asked_for() -> None:
    text = said(asked("list them", wants_json=True)).text
    assert json.loads(text) == {"answer": said(asked("list them")).text}


def test_faults_meet_their_share_of_the_calls_and_spare_most_retries() -> None:
    given_faults = settings.Settings().with_faults(["groq:reset=0.1", "groq:hang=0.2"]).of("groq").faults
    met: collections.Counter[str] = collections.Counter()
    again = 0
    for n in range(4000):
        digest = conversation.digest([("user", str(n))])
        first = faults.choose(given_faults, faults.chance("groq", digest, 1), n + 1)
        second = faults.choose(given_faults, faults.chance("groq", digest, 2), n + 1)
        met[first.kind if first else "none"] += 1
        again += first is not None and second is not None
    assert 340 <= met["reset"] <= 460
    assert 720 <= met["hang"] <= 880
    assert 300 <= again <= 420  # three tenths of three tenths


def test_a_fault_that_begins_later_spares_the_calls_before_and_prevails_after() -> None:
    given_faults = faults.ordered(
        settings.Settings().with_faults(["groq:reset=1", "groq:auth=1,after_calls=3"]).of("groq").faults
    )
    met = [faults.choose(given_faults, 0.5, call_no) for call_no in range(1, 6)]
    assert [fault.kind for fault in met if fault] == ["reset", "reset", "reset", "auth", "auth"]


def test_the_exponential_spread_keeps_the_mean() -> None:
    slow = settings.ProviderSettings(latency_ms=200, jitter="exponential")
    draws = [(n + 0.5) / 10_000 for n in range(10_000)]
    mean_s = sum(faults.latency_s(slow, draw) for draw in draws) / len(draws)
    assert abs(mean_s - 0.2) < 0.001
    assert faults.latency_s(settings.ProviderSettings(latency_ms=200), 0.9) == 0.2
