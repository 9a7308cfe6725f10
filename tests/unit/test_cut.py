"""Cutting a stream into shards."""

from __future__ import annotations

import hypothesis
from hypothesis import strategies as st

from worker.shards import cut

PROMPTS = st.lists(
    st.tuples(st.sampled_from(["code", "simple_qa"]), st.sampled_from([None, "groq/a"]), st.integers(1, 50)),
    max_size=80,
)


@hypothesis.settings(deadline=None)
@hypothesis.given(PROMPTS, st.integers(1, 7), st.integers(1, 120))
def test_every_prompt_is_in_one_shard_of_its_kind_within_both_limits(
    prompts: list[tuple[str, str | None, int]], max_prompts: int, max_bytes: int
) -> None:
    cutter = cut.Cutter(max_prompts, max_bytes)
    cuts = []
    for number, (category, pinned, size) in enumerate(prompts, start=1):
        finished = cutter.add(number, category, pinned, size)
        cuts += [finished] if finished else []
    cuts += cutter.rest()
    assert sorted(number for made in cuts for number in made.prompt_nos) == list(range(1, len(prompts) + 1))
    for made in cuts:
        members = [prompts[number - 1] for number in made.prompt_nos]
        assert {(category, pinned) for category, pinned, _ in members} == {(made.category, made.pinned)}
        assert len(members) <= max_prompts
        assert len(members) == 1 or sum(size for _, _, size in members) <= max_bytes
        assert made.prompt_nos == sorted(made.prompt_nos)


def test_a_shard_is_handed_out_as_soon_as_it_is_full() -> None:
    cutter = cut.Cutter(2)
    assert cutter.add(1, "code", None, 10) is None
    assert cutter.add(2, "simple_qa", None, 10) is None
    assert cutter.add(3, "code", None, 10) == cut.Cut("code", None, [1, 3])
    assert list(cutter.rest()) == [cut.Cut("simple_qa", None, [2])]
    assert list(cutter.rest()) == []


def test_a_shard_that_would_grow_too_large_ends_before() -> None:
    cutter = cut.Cutter(200, max_bytes=100)
    assert cutter.add(1, "code", None, 60) is None
    assert cutter.add(2, "code", None, 41) == cut.Cut("code", None, [1])
    assert cutter.add(3, "code", None, 500) == cut.Cut("code", None, [2])
    assert list(cutter.rest()) == [cut.Cut("code", None, [3])]


def test_shards_of_one_prompt_are_possible() -> None:
    assert cut.Cutter(1).add(1, "code", "groq/a", 1) == cut.Cut("code", "groq/a", [1])
