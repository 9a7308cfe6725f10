"""What a worker has to write, and where prompts go next: plain data."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import pytest

from worker.routing import decide
from worker.routing.registry import Route
from worker.shards import book, claim

LLAMA = Route("groq", "llama-3.3-70b-versatile")
GPT_OSS = Route("cerebras", "gpt-oss-120b")
NOW = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC)


def held(left: set[int], **changes: Any) -> claim.Held:
    values: dict[str, Any] = {
        "id": uuid.uuid4(),
        "batch_id": 1,
        "category": "simple_qa",
        "queue": "simple_qa",
        "pinned": None,
        "route": LLAMA,
        "attempt_no": 2,
        "attempts_before": 4,
        "tried": (),
        "reason": None,
        "providers": frozenset({"groq", "cerebras"}),
        "fence": 1,
        "frontier": GPT_OSS,
        "left": left,
    }
    return claim.Held(**{**values, **changes})


def ended(shard: claim.Held, prompt_no: int) -> book.Call:
    return book.Call(
        held=shard,
        prompt_no=prompt_no,
        outcome="succeeded",
        called=True,
        final=True,
        started_at=NOW,
        finished_at=NOW,
        latency_ms=1,
    )


def test_a_retry_stays_at_its_route_and_counts_on() -> None:
    move = book.move(held({1}), decide.Retry(NOW), "transient", called=True)
    assert (move.route, move.attempt_no, move.attempts_before, move.tried) == (LLAMA, 3, 5, ())
    assert move.queue == "simple_qa.groq"
    assert move.reason == "transient"


def test_a_fallback_counts_from_one_at_its_new_route() -> None:
    move = book.move(held({1}), decide.Fallback(GPT_OSS, (LLAMA,)), "auth", called=True)
    assert (move.route, move.attempt_no, move.attempts_before, move.tried) == (GPT_OSS, 1, 5, (LLAMA,))
    assert move.queue == "simple_qa.cerebras"


def test_what_was_refused_before_it_was_sent_is_no_attempt() -> None:
    move = book.move(held({1}), decide.Fallback(GPT_OSS, (LLAMA,)), "config", called=False)
    assert move.attempts_before == 4


def test_prompts_that_go_the_same_way_share_a_shard_which_waits_for_the_last_of_them() -> None:
    shard, other = held({1, 2}), held({3})
    flush = book.Flush()
    later = NOW + datetime.timedelta(seconds=5)
    for owner, prompt_no, not_before in ((shard, 1, NOW), (other, 3, later), (shard, 2, NOW)):
        flush.send_on(
            owner, prompt_no, book.move(owner, decide.Retry(NOW), "transient", called=True), not_before
        )
    (new,) = flush.new_shards
    assert new.prompts == [(shard, 1), (other, 3), (shard, 2)]
    assert new.not_before == later


def test_prompts_with_another_history_get_a_shard_of_their_own() -> None:
    first, second = held({1}), held({2}, attempts_before=0, attempt_no=1)
    flush = book.Flush()
    for owner, prompt_no in ((first, 1), (second, 2)):
        flush.send_on(owner, prompt_no, book.move(owner, decide.Retry(NOW), "transient", called=True), None)
    assert len({shard.id for shard in flush.new_shards}) == 2


def test_a_flush_without_anything_is_false_and_one_with_a_touched_shard_is_true() -> None:
    flush = book.Flush()
    assert not flush
    flush.touched.add(held({1}))
    assert flush


@pytest.mark.parametrize(
    ("left", "handing_back", "calls_out", "ending"),
    [
        (set(), False, 0, book.Ending.CLOSE),
        (set(), True, 0, book.Ending.CLOSE),
        ({3}, False, 0, book.Ending.KEEP),
        ({3}, True, 1, book.Ending.KEEP),
        ({3}, True, 0, book.Ending.HAND_BACK),
    ],
)
def test_what_becomes_of_a_shard(
    left: set[int], handing_back: bool, calls_out: int, ending: book.Ending
) -> None:
    shard = held(left, handing_back=handing_back, calls_out=calls_out)
    flush = book.Flush()
    flush.add(ended(shard, 1))
    flush.seal()
    assert flush.endings == {shard: (ending, sorted(left))}


def test_a_sealed_flush_does_not_see_what_ends_later() -> None:
    shard = held({5, 2})
    flush = book.Flush()
    flush.add(ended(shard, 1))
    flush.seal()
    shard.left.clear()
    assert flush.endings == {shard: (book.Ending.KEEP, [2, 5])}
