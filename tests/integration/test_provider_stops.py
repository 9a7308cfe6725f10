"""A provider that refuses every call, and queues that nobody serves: their prompts move on."""

from __future__ import annotations

import laws
import pytest
import yard as yards
from yard import Yard

CALLED = "SELECT count(*) FROM attempts WHERE provider = $1 AND outcome = $2"


@pytest.mark.parametrize(
    ("fault", "error_class"), [("auth", "auth"), ("out_of_credit", "quota")], ids=["401", "out of credit"]
)
async def test_a_provider_that_refuses_in_the_middle_is_called_no_more_and_its_prompts_move_on(
    yard: Yard, fault: str, error_class: str
) -> None:
    # Given two workers of Groq and one of the next in its chain, in the middle of a batch
    yard.slow(20)
    batch_id = await yard.submit(yards.of_one(3000))
    for provider in ("groq", "groq", "cerebras"):
        yard.worker(provider)
    await yard.results_reach(500, batch_id)
    # When Groq refuses every call
    yard.slow(20, f"groq:{fault}=1.0")
    await yard.completed(batch_id)
    # Then the rest is answered by the next one, no more calls were wasted than were out, and it is shown
    assert await yard.count("results", "state = 'succeeded'") == 3000
    assert await yard.count("results", "provider = 'cerebras' AND fallbacks = 1") > 1000
    wasted = await yard.value(CALLED, "groq", "failed")
    assert 0 < wasted <= 2 * 64
    stop = await yard.rows("SELECT provider, simulated, error_class FROM provider_stops")
    assert stop == [("groq", True, error_class)]
    said = await yard.do("status", str(batch_id))
    assert f"groq refuses every call ({error_class})" in said
    await laws.assert_laws(yard)


async def test_a_stopped_provider_is_called_again_when_its_worker_is_started_anew(yard: Yard) -> None:
    yard.slow(0, "groq:auth=1.0")
    worker, _ = yard.worker("groq"), yard.worker("cerebras")
    first = await yard.submit(yards.of_one(50))
    await yard.completed(first)
    assert await yard.count("provider_stops") == 1
    assert await worker.stop() == 0

    yard.slow(0)
    yard.worker("groq")
    second = await yard.submit(yards.of_one(50))
    await yard.completed(second)
    assert await yard.count("provider_stops") == 0
    assert await yard.count("results", "batch_id = $1 AND provider = 'groq'", second) == 50


async def test_a_queue_without_a_worker_is_shown_and_then_moved_on(yard: Yard) -> None:
    # Given prompts whose first provider has no worker
    batch_id = await yard.submit(yards.of_one(20))
    pinned = await yard.submit(yards.of_one(1, model="groq/openai/gpt-oss-120b"))
    assert "No live worker for simple_qa: 20 prompts" in await yard.do("status", str(batch_id))
    # When the next one of the chain has one
    yard.worker("cerebras", {"PROMPTYARD_IDLE_QUEUE_S": "0.5"})
    # Then they go there after the set time, and a prompt that is pinned waits
    await yard.completed(batch_id)
    assert await yard.rows("SELECT DISTINCT provider, fallbacks, attempts FROM results") == [("cerebras", 1, 1)]
    assert await yard.rows("SELECT DISTINCT reason FROM shards WHERE state = 'done'") == [("no_worker",)]
    assert await yard.rows("SELECT state FROM shards WHERE batch_id = $1", pinned) == [("queued",)]
    await laws.assert_laws(yard)


async def test_a_batch_goes_to_no_provider_that_was_left_out(yard: Yard) -> None:
    # Given a batch that may not use the second of its chain
    path = yard.file(yards.of_one(30))
    batch_id = int((await yard.do("submit", str(path), "--without", "cerebras")).splitlines()[-1])
    # When the first one fails
    yard.slow(0, "groq:server_error=1.0")
    for provider in ("groq", "cerebras", "openai"):
        yard.worker(provider)
    await yard.completed(batch_id)
    # Then its prompts go to the third
    assert await yard.rows("SELECT provider, count(*) FROM results GROUP BY 1") == [("openai", 30)]
    assert await yard.count("attempts", "provider = 'cerebras'") == 0


async def test_retry_after_the_cause_is_mended_calls_the_stopped_provider_again(yard: Yard) -> None:
    # Given prompts that failed, since the only provider they may go to refuses every call
    yard.slow(0, "groq:auth=1.0")
    yard.worker("groq")
    path = yard.file(yards.of_one(30))
    batch_id = int((await yard.do("submit", str(path), "--only", "groq")).splitlines()[-1])
    await yard.completed(batch_id)
    assert await yard.count("results", "state = 'failed'") == 30
    # When the account is mended and they run again
    yard.slow(0)
    await yard.do("retry", str(batch_id))
    await yard.completed(batch_id)
    # Then the same worker calls the provider
    assert await yard.count("results", "state = 'succeeded' AND provider = 'groq'") == 30
