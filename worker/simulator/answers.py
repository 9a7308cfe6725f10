"""What a simulated model says, and how many tokens it counts: a function of the prompt alone."""

from __future__ import annotations

import json
import random
import re
from typing import NamedTuple

from worker.providers import types
from worker.simulator import conversation

# fmt: off
_WORDS = (
    "yard", "wagon", "track", "signal", "engine", "coal", "switch", "brake", "line", "depot", "freight",
    "timber", "copper", "harvest", "river", "bridge", "tunnel", "valley", "morning", "evening", "north",
    "quiet", "heavy", "narrow", "steady", "careful", "distant", "early", "late", "moves", "waits", "turns",
    "carries", "follows", "reaches", "leaves", "crosses", "holds", "gathers", "counts", "marks", "opens",
)
# fmt: on

#: Sentences are made once, so that an answer costs a few look-ups.
_random = random.Random("promptyard")
_SENTENCES = tuple(
    " ".join(_random.choice(_WORDS) for _ in range(_random.randint(4, 18))).capitalize() + "."
    for _ in range(256)
)

#: Models that think before they answer, by the beginning of their name.
_REASONING_MODEL = re.compile(r"gpt-([5-9]|oss)|o\d|glm-(4\.[5-9]|[5-9])|gemini-(2\.5|[3-9])|qwen3|deepseek-r")
#: Providers whose answers tell of tokens written to a prompt cache.
_CACHE_WRITERS = frozenset({"anthropic"})
#: Providers that do not tell how much of the output was thinking.
_NO_REASONING = frozenset({"anthropic"})


class Answer(NamedTuple):
    """An answer before it is put into a dialect's form."""

    text: str
    reasoning: str  #: what the model thought, where it did
    finish: types.FinishReason
    usage: types.Usage


def answer(asked: conversation.Conversation, digest: bytes, flavour: str) -> Answer:
    """Compose the answer to a prompt.

    Text, length, and the shares of cached and reasoning tokens come from the digest. Tokens are a quarter of
    the characters, rounded up, and three more for each message sent. A quarter of the prompts has input read
    from a cache; for flavours that tell of it, an eighth has input written to one.
    """
    text = " ".join(
        [f"Simulated answer {digest.hex()[:8]}."] + [_SENTENCES[i] for i in digest[: 1 + digest[15] % 12]]
    )
    if asked.wants_json:
        text = json.dumps({"answer": text})
    reasoning = ""
    if digest[14] < 160 and flavour not in _NO_REASONING and reasons(asked.model):
        reasoning = " ".join([_SENTENCES[i] for i in digest[12 : 13 + digest[13] % 3]])

    reasoning_tokens, text_tokens = _tokens(reasoning), _tokens(text)
    finish: types.FinishReason = "stop"
    allowed = asked.max_tokens
    if allowed is not None and reasoning_tokens + text_tokens > allowed:
        # Thinking comes first, and may leave nothing for the answer.
        finish = "length"
        reasoning_tokens = min(reasoning_tokens, allowed)
        text_tokens = allowed - reasoning_tokens
        reasoning, text = reasoning[: 4 * reasoning_tokens], text[: 4 * text_tokens]

    sent = input_tokens(asked)
    read = sent * (1 + digest[1] % 3) // 4 if digest[0] < 64 else 0
    written = (sent - read) // 2 if digest[2] < 32 and flavour in _CACHE_WRITERS else 0
    usage = types.Usage(sent - read - written, read, written, reasoning_tokens + text_tokens, reasoning_tokens)
    return Answer(text, reasoning, finish, usage)


def input_tokens(asked: conversation.Conversation) -> int:
    return sum([3 + (len(text) + 3) // 4 for _, text in asked.texts])


def reasons(model: str) -> bool:
    """Whether a model of this name thinks before it answers."""
    return _REASONING_MODEL.match(model.rpartition("/")[2]) is not None


def _tokens(text: str) -> int:
    return (len(text) + 3) // 4
