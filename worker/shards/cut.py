"""Cut a stream of prompts into shards: prompts of one category and one pin, up to a number and a size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

#: Bytes of bodies in a shard, at most, unless one alone is larger: a worker holds a shard's bodies in memory.
MAX_SHARD_BYTES = 8 * 1024 * 1024


class Cut(NamedTuple):
    """Prompts that become one shard."""

    category: str
    pinned: str | None  #: `provider/model`
    prompt_nos: list[int]


class Cutter:
    """Collects prompts until a shard is full.

    Memory is that of one unfinished shard for each category and pin, which the registry bounds.
    """

    def __init__(self, max_prompts: int, max_bytes: int = MAX_SHARD_BYTES) -> None:
        self._max_prompts = max_prompts
        self._max_bytes = max_bytes
        self._open: dict[tuple[str, str | None], list[int]] = {}
        self._bytes: dict[tuple[str, str | None], int] = {}

    def add(self, prompt_no: int, category: str, pinned: str | None, size: int) -> Cut | None:
        """Add a prompt with a body of `size` bytes; return the shard that is finished by it, if one is."""
        key = (category, pinned)
        prompt_nos = self._open.get(key)
        if prompt_nos is None:
            self._open[key], self._bytes[key] = [prompt_no], size
            return self._take(key) if self._max_prompts == 1 else None
        if self._bytes[key] + size > self._max_bytes:
            finished = Cut(category, pinned, prompt_nos)
            self._open[key], self._bytes[key] = [prompt_no], size
            return finished
        prompt_nos.append(prompt_no)
        self._bytes[key] += size
        return self._take(key) if len(prompt_nos) == self._max_prompts else None

    def rest(self) -> Iterator[Cut]:
        """Take what is left as shards that are not full."""
        for key in list(self._open):
            yield self._take(key)

    def _take(self, key: tuple[str, str | None]) -> Cut:
        del self._bytes[key]
        return Cut(*key, self._open.pop(key))
