"""Items in handfuls: parsed, classified, and small enough to hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from worker import errors
from worker.classify.verdicts import Classifier
from worker.prompts.files import Item
from worker.prompts.lines import Parser, Prompt
from worker.routing.load import Usable

T = TypeVar("T")

#: Prompts in a chunk, at most.
CHUNK_PROMPTS = 2000
#: Bytes of their bodies, about: the prompt that passes it is the chunk's last.
CHUNK_BYTES = 8 * 1024 * 1024

#: What stands for a prompt in the input: an item, or what made it unreadable.
Input = Item | errors.LineError


class Sorted(NamedTuple):
    """A prompt and the category it goes to."""

    prompt: Prompt
    category: str
    category_source: str  #: given, classified or default
    confidence: float | None  #: of the classifier; None when the category was given


class Chunk(NamedTuple):
    prompts: list[Sorted]
    rejected: list[errors.LineError]


class Sorter:
    """Parses and classifies.

    Raises:
        RegistryError: a prompt's category is served by no provider that has a key; nothing can be stored.
    """

    def __init__(self, parser: Parser, classifier: Classifier, usable: Usable) -> None:
        self._parser = parser
        self._classifier = classifier
        self._usable = usable

    def chunks(self, inputs: Iterable[Input]) -> Iterator[Chunk]:
        """Read on, one chunk at a time. None is empty."""
        filling = _Filling(self._parser)
        for item in inputs:
            if filling.add(item):
                yield self._chunk(filling)
                filling = _Filling(self._parser)
        if filling.count:
            yield self._chunk(filling)

    async def chunks_in_background(
        self, inputs: Iterable[Input] | AsyncIterable[Input]
    ) -> AsyncGenerator[Chunk]:
        """Do the same while the event loop goes on.

        A plain iterable is read in another thread, an async one in the loop's own.
        """
        if isinstance(inputs, AsyncIterable):
            filling = _Filling(self._parser)
            async for item in inputs:
                if filling.add(item):
                    yield await _in_thread(self._chunk, filling)
                    filling = _Filling(self._parser)
            if filling.count:
                yield await _in_thread(self._chunk, filling)
            return
        read = self.chunks(inputs)
        while (chunk := await _in_thread(next, read, None)) is not None:
            yield chunk

    def _chunk(self, filling: _Filling) -> Chunk:
        open_ = [prompt.text for prompt in filling.prompts if prompt.category is None]
        verdicts = iter(self._classifier.classify(open_)) if open_ else iter(())
        prompts = []
        for prompt in filling.prompts:
            if prompt.category is not None:
                made = Sorted(prompt, prompt.category, "given", None)
            else:
                verdict = next(verdicts)
                made = Sorted(prompt, verdict.category, verdict.source, verdict.confidence)
            if prompt.pinned is None and not self._usable.chains[made.category]:
                self._usable.require(made.category)
            prompts.append(made)
        return Chunk(prompts, filling.rejected)


async def _in_thread(function: Callable[..., T], *args: object) -> T:
    """Run in a thread, and wait for it even when cancelled: nothing can stop it in the middle of a chunk."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *args))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        running.exception()  # nobody is left to hear of it
        raise


class _Filling:
    """A chunk that is being read."""

    def __init__(self, parser: Parser) -> None:
        self._parser = parser
        self._bytes = 0
        self.prompts: list[Prompt] = []
        self.rejected: list[errors.LineError] = []

    @property
    def count(self) -> int:
        return len(self.prompts) + len(self.rejected)

    def add(self, item: Input) -> bool:
        """Take an item; say whether the chunk is full."""
        if isinstance(item, errors.LineError):
            self.rejected.append(item)
        else:
            try:
                prompt = self._parser.parse(item)
            except errors.LineError as e:
                self.rejected.append(e)
            else:
                self.prompts.append(prompt)
                self._bytes += len(prompt.body) + len(prompt.metadata or "")
        return self.count >= CHUNK_PROMPTS or self._bytes >= CHUNK_BYTES
