"""The main job on real parts: six workers, three dialects over HTTP, and what people do to a batch."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator
from typing import Any

import laws
import pytest
import redis
import yard as yards
from yard import Yard

from worker.local import servers as local_servers
from worker.simulator import billing, process

#: Longest call. All answers come at once, except where one hangs.
DEADLINE_S = 3.0
#: Calls that a worker for Groq has out at most, by the registry.
GROQ_WINDOW = 64
SHARDS_OF_50 = {"PROMPTYARD_SHARD_PROMPTS": "50"}

GROQ_ROUTE = ("groq", "llama-3.3-70b-versatile")
CEREBRAS_ROUTE = ("cerebras", "gpt-oss-120b")


@pytest.fixture(scope="module")
def staffed(
    servers: local_servers.Urls, module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Yard]:
    """A yard with a worker for each provider, for all tests here."""
    with redis.Redis.from_url(servers.broker) as client:
        client.flushall()
    settings = {"PROMPTYARD_CALL_DEADLINE_S": str(DEADLINE_S), "PROMPTYARD_LEASE_S": "4"}
    folder = tmp_path_factory.mktemp("staffed")
    with process.running() as simulator:
        yard = Yard(module_database_url, servers.broker, simulator, folder, settings)
        try:
            workers = [yard.worker(provider) for provider in yards.PROVIDERS]
            yield yard
            for worker in workers:
                worker.process.terminate()
            assert [worker.process.wait(yards.PATIENCE_S) for worker in workers] == [0] * len(workers)
        finally:
            yard.close()


class Bill:
    """What the simulated providers have answered since this was made."""

    def __init__(self, yard: Yard) -> None:
        self._simulator = yard.simulator
        self._before = yard.simulator.bill().calls

    def calls(self) -> list[billing.Call]:
        return [call for call in self._simulator.calls() if call.call_no > self._before]


@pytest.fixture
def bill(staffed: Yard) -> Iterator[Bill]:
    """The bill of one test, which begins with providers that are well and ends with them so."""
    yield Bill(staffed)
    staffed.slow(0)


async def test_every_prompt_gets_one_result_and_the_cost_is_the_bill(staffed: Yard, bill: Bill) -> None:
    batch_id = await staffed.submit(yards.mixed(3000))
    await staffed.completed(batch_id)

    await laws.assert_laws(staffed)
    await laws.assert_bill(staffed, batch_id, bill.calls())
    assert await staffed.rows(
        "SELECT state, provider_simulated, attempts, fallbacks, count(*) FROM results "
        "WHERE batch_id = $1 GROUP BY 1, 2, 3, 4",
        batch_id,
    ) == [("succeeded", True, 1, 0, 3000)]
    providers = await staffed.rows(
        "SELECT category, array_agg(DISTINCT provider ORDER BY provider), count(*) FROM results "
        "WHERE batch_id = $1 GROUP BY 1 ORDER BY 1",
        batch_id,
    )
    assert [row for row in providers if row[0] != "complex_reasoning"] == [
        ("code", ["cerebras"], 600),
        ("multilingual", ["gemini"], 600),
        ("simple_qa", ["groq"], 600),
        ("summarization", ["zai"], 600),
    ]
    # Two providers share this one by pulling: who gets how much is nobody's decision.
    (shared,) = (row for row in providers if row[0] == "complex_reasoning")
    assert set(shared[1]) <= {"anthropic", "openai"} and shared[2] == 600


async def test_the_result_file_has_an_openai_line_for_every_prompt_in_input_order(
    staffed: Yard, bill: Bill
) -> None:
    lines = yards.mixed(25)
    batch_id = await staffed.submit(lines)
    await staffed.completed(batch_id)

    results = await staffed.results(batch_id)
    await laws.assert_laws(staffed)

    assert [result["custom_id"] for result in results] == [line["custom_id"] for line in lines]
    stored = dict(
        await staffed.rows(
            "SELECT custom_id, content FROM prompts JOIN results USING "
            "(batch_id, prompt_no) WHERE batch_id = $1",
            batch_id,
        )
    )
    for result in results:
        assert set(result) == {"id", "custom_id", "response", "error"} and result["error"] is None
        response = result["response"]
        assert response["status_code"] == 200 and response["request_id"]
        body = response["body"]
        assert body["object"] == "chat.completion" and isinstance(body["created"], int) and body["model"]
        (choice,) = body["choices"]
        assert choice["index"] == 0 and choice["finish_reason"] == "stop"
        assert choice["message"]["role"] == "assistant"
        assert choice["message"]["content"] == stored[result["custom_id"]]
        usage = body["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0


async def test_what_a_dead_provider_leaves_goes_to_the_next_one_of_the_chain(staffed: Yard, bill: Bill) -> None:
    staffed.simulator.set_faults("groq:server_error=1.0")
    batch_id = await staffed.submit(yards.mixed(500))
    await staffed.completed(batch_id)

    await laws.assert_laws(staffed)
    await laws.assert_bill(staffed, batch_id, bill.calls())
    assert await staffed.rows(
        "SELECT provider, model, state, attempts, fallbacks, count(*) FROM results "
        "WHERE batch_id = $1 AND category = 'simple_qa' GROUP BY 1, 2, 3, 4, 5",
        batch_id,
    ) == [(*CEREBRAS_ROUTE, "succeeded", 4, 1, 100)]
    assert await staffed.rows(
        "SELECT provider, model, outcome, error_class, http_status, count(*) FROM attempts "
        "WHERE batch_id = $1 AND category = 'simple_qa' GROUP BY 1, 2, 3, 4, 5 ORDER BY 6",
        batch_id,
    ) == [
        (*CEREBRAS_ROUTE, "succeeded", None, 200, 100),
        (*GROQ_ROUTE, "failed", "transient", 500, 300),
    ]
    assert await staffed.rows(
        "SELECT state, attempts, fallbacks, count(*) FROM results "
        "WHERE batch_id = $1 AND category <> 'simple_qa' GROUP BY 1, 2, 3",
        batch_id,
    ) == [("succeeded", 1, 0, 400)]


async def test_a_mix_of_faults_ends_complete_and_booked(staffed: Yard, bill: Bill) -> None:
    staffed.simulator.set_faults(
        "rate_limited=0.08,retry_after_s=0.3",
        "server_error=0.08",
        "reset=0.05",
        "reset=0.05,when=mid_answer",
        "malformed=0.08",
        "hang=0.01",
    )
    batch_id = await staffed.submit(yards.mixed(600))
    await staffed.completed(batch_id)

    await laws.assert_laws(staffed)
    calls = bill.calls()
    await laws.assert_bill(staffed, batch_id, calls)
    assert await staffed.rows(
        "SELECT state, count(*) FROM results WHERE batch_id = $1 GROUP BY 1", batch_id
    ) == [("succeeded", 600)]
    # What happened is what the providers did, class by class.
    did = collections.Counter(call.fault for call in calls)
    ours = dict(
        await staffed.rows(
            "SELECT error_class, count(*) FROM attempts WHERE batch_id = $1 GROUP BY 1", batch_id
        )
    )
    assert ours == {
        None: did[None],
        "rate_limited": did["rate_limited"],
        "transient": did["server_error"] + did["reset"],
        "malformed": did["malformed"],
        "timeout": did["hang"],
    }
    assert min(ours.values()) > 0


async def test_a_retry_waits_as_long_as_the_provider_asks(staffed: Yard, bill: Bill) -> None:
    staffed.simulator.set_faults("groq:rate_limited=0.5,retry_after_s=1.5,form=seconds")
    batch_id = await staffed.submit(yards.of_one(40))
    await staffed.completed(batch_id)

    calls: dict[Any, list[billing.Call]] = collections.defaultdict(list)
    for call in bill.calls():
        calls[call.prompt_digest].append(call)
    waits = [
        later.answered_at_s - earlier.answered_at_s
        for made in calls.values()
        for earlier, later in itertools.pairwise(made)
        if earlier.provider == later.provider
    ]
    assert len(calls) == 40 and waits and min(waits) >= 1.5
    await laws.assert_laws(staffed)


async def test_a_paused_batch_makes_no_call_until_it_is_resumed(staffed: Yard, bill: Bill) -> None:
    staffed.slow(300)
    batch_id = await staffed.submit(yards.of_one(800), env=SHARDS_OF_50)
    await staffed.results_reach(1, batch_id)
    await staffed.do("pause", str(batch_id))

    async def nothing_runs() -> bool:
        return not await staffed.count("shards", "batch_id = $1 AND state = 'running'", batch_id)

    await yards.until(nothing_runs, "the workers let go of the paused batch")
    before = len(bill.calls())
    assert GROQ_WINDOW <= before < 800
    # Another batch goes through the same worker meanwhile.
    staffed.slow(0)
    other = await staffed.submit(yards.of_one(100))
    await staffed.completed(other)
    assert len(bill.calls()) == before + 100
    assert await staffed.count("attempts", "batch_id = $1", batch_id) == before

    await staffed.do("resume", str(batch_id))
    await staffed.completed(batch_id)
    await laws.assert_laws(staffed)
    assert len(bill.calls()) == 800 + 100
    assert await staffed.count("results", "batch_id = $1 AND state = 'succeeded'", batch_id) == 800


async def test_a_cancelled_batch_has_a_result_for_every_prompt_and_books_what_was_out(
    staffed: Yard, bill: Bill
) -> None:
    staffed.slow(700)
    batch_id = await staffed.submit(yards.of_one(800), env=SHARDS_OF_50)
    await staffed.results_reach(1, batch_id)
    await staffed.do("cancel", str(batch_id))
    answered = await staffed.count("results", "batch_id = $1 AND state = 'succeeded'", batch_id)
    assert 0 < answered < 800
    assert await staffed.count("results", "batch_id = $1 AND state = 'cancelled'", batch_id) == 800 - answered

    # The calls that were out come back, and nothing follows them: another batch gets all of the worker.
    staffed.slow(0)
    other = await staffed.submit(yards.of_one(200))
    await staffed.completed(other)

    async def all_is_booked() -> bool:
        return await staffed.count("attempts", "batch_id = $1", batch_id) == len(bill.calls()) - 200

    await yards.until(all_is_booked, "the calls that were out are booked")
    await laws.assert_laws(staffed)
    late = await staffed.count("attempts", "batch_id = $1", batch_id) - answered
    # The worker sees it with its next heartbeat at the latest, a second later.
    assert 0 < late < 5 * GROQ_WINDOW
    assert await staffed.count("results", "batch_id = $1 AND state = 'succeeded'", batch_id) == answered


# The last one here: what it leaves is an exception to what `assert_laws` asks of the others.
async def test_failed_prompts_run_again_and_the_others_do_not(staffed: Yard, bill: Bill) -> None:
    staffed.simulator.set_faults("groq:content_filter=1.0")
    pinned = yards.of_one(30, model="groq/llama-3.3-70b-versatile")
    batch_id = await staffed.submit([*pinned, *yards.of_one(10, "code")])
    await staffed.completed(batch_id)
    assert await staffed.rows(
        "SELECT category, state, error_class, attempts, count(*) FROM results "
        "WHERE batch_id = $1 GROUP BY 1, 2, 3, 4 ORDER BY 1",
        batch_id,
    ) == [("code", "succeeded", None, 1, 10), ("simple_qa", "failed", "content_refused", 1, 30)]
    failed = [
        result
        for result in await staffed.results(batch_id, status=1)
        if result["error"] or result["response"]["status_code"] != 200
    ]
    assert len(failed) == 30
    await staffed.do("status", str(batch_id), status=1)

    staffed.slow(0)
    assert "30 prompts run again" in await staffed.do("retry", str(batch_id))
    await staffed.completed(batch_id)

    await staffed.do("status", str(batch_id))
    # A result counts its attempts from the retry, and the ledger has them all.
    await laws.assert_laws(staffed, may_double=True)
    await laws.assert_bill(staffed, batch_id, bill.calls())
    assert await staffed.count("attempts", "batch_id = $1", batch_id) == 30 + 30 + 10
    assert await staffed.count("results", "batch_id = $1 AND state = 'succeeded'", batch_id) == 40
    assert "no failed prompt" in await staffed.do("retry", str(batch_id))
