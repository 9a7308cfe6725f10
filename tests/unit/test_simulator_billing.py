"""The simulator's bill: its sums are those of its calls, and it stays small."""

from __future__ import annotations

import itertools
import tracemalloc

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from worker.providers import types
from worker.simulator import billing

DIGEST = bytes(range(16))

tokens = st.integers(0, 2**31)
entries = st.builds(
    billing.Entry,
    provider=st.sampled_from(["groq", "zai"]),
    model=st.sampled_from(["", "a", "b"]),
    dialect=st.sampled_from(["openai_chat", "anthropic_messages", "gemini_generate_content"]),
    status=st.sampled_from([0, 200, 429, 499, 529]),
    billed=st.booleans(),
    fault=st.sampled_from([None, "limit", "reset"]),
    usage=st.none() | st.builds(types.Usage, tokens, tokens, tokens, tokens, tokens),
    digest=st.none() | st.just(DIGEST),
)


def calls_of(ledger: billing.Ledger, provider: str | None = None) -> list[billing.Call]:
    lines = b"".join(ledger.lines(provider)).splitlines()
    return [msgspec.json.decode(line, type=billing.Call) for line in lines]


@given(st.lists(entries, max_size=30))
def test_the_sums_of_the_bill_are_those_of_its_calls(recorded: list[billing.Entry]) -> None:
    ledger = billing.Ledger()
    for at, entry in enumerate(recorded):
        ledger.record(entry, float(at))
    calls = calls_of(ledger)
    bill = ledger.bill()
    assert bill.calls == len(calls) == len(recorded)
    assert bill.billed_calls == sum(call.billed for call in calls)
    for route in bill.routes:
        own = [call for call in calls if (call.provider, call.model) == (route.provider, route.model)]
        assert route.calls == len(own)
        assert route.billed_calls == sum(call.billed for call in own)
        assert sum(route.statuses.values()) == len(own)
        assert sum(route.faults.values()) == sum(call.fault is not None for call in own)
        assert route.usage == types.Usage(
            sum(call.input_tokens for call in own),
            sum(call.cache_read_tokens for call in own),
            sum(call.cache_write_tokens for call in own),
            sum(call.output_tokens for call in own),
            sum(call.reasoning_tokens for call in own),
        )
    for call, entry in zip(calls, recorded, strict=True):
        assert (call.status, call.fault, call.billed) == (entry.status, entry.fault, entry.billed)
        assert call.prompt_digest == (entry.digest.hex() if entry.digest else None)
        assert call.billed or call.input_tokens == call.output_tokens == 0


def test_calls_keep_their_numbers_when_one_provider_is_asked_for() -> None:
    ledger = billing.Ledger()
    providers = itertools.islice(itertools.cycle(["groq", "zai"]), 5000)
    for provider in providers:
        ledger.record(billing.Entry(provider, "m", "openai_chat", 200, True, None, types.Usage(1), DIGEST), 0.0)
    found = calls_of(ledger, "zai")
    assert [call.call_no for call in found] == list(range(2, 5001, 2))
    assert found[0].response_id == billing.response_id("openai_chat", 2)
    assert [route.provider for route in ledger.bill("zai").routes] == ["zai"]


def test_a_million_calls_would_take_less_than_a_hundred_megabytes() -> None:
    ledger, calls = billing.Ledger(), 20_000
    entry = billing.Entry("groq", "m", "openai_chat", 200, True, None, types.Usage(1000, 2, 3, 400, 5), DIGEST)
    tracemalloc.start()
    for at in range(calls):
        ledger.record(entry, float(at))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / calls < 100
