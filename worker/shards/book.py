"""What a worker has to write: finished calls, and prompts that move on. Plain data, no I/O."""

from __future__ import annotations

import enum
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

import msgspec

from worker.providers import types
from worker.routing import decide, queues, registry
from worker.shards import claim, cut


class Call(msgspec.Struct):
    """One prompt's turn at a provider: how it ended and, when that is final, its result."""

    held: claim.Held
    prompt_no: int
    outcome: str  #: succeeded, failed or unknown
    called: bool  #: False: refused before anything was sent, so nothing can have been charged
    final: bool  #: it ends the prompt: there is a result
    started_at: datetime
    finished_at: datetime
    latency_ms: int
    error_class: str | None = None
    error_message: str | None = None
    http_status: int | None = None
    usage: types.Usage | None = None
    cost_usd: Decimal | None = None
    price_id: int | None = None
    baseline_cost_usd: Decimal | None = None
    finish_reason: str | None = None
    content: str | None = None
    response: str | None = None

    @property
    def size(self) -> int:
        """Characters of the answer: what the call takes of the memory, but for a little."""
        return len(self.content or "") + len(self.response or "")


@dataclass(frozen=True, slots=True)
class Move:
    """Where prompts go next. Equal moves of one flush become one shard."""

    batch_id: int
    category: str
    pinned: str | None
    route: registry.Route
    attempt_no: int
    attempts_before: int
    tried: tuple[registry.Route, ...]
    reason: str

    @property
    def queue(self) -> str:
        return queues.provider_queue(self.category, self.route.provider)


def move(held: claim.Held, decision: decide.Retry | decide.Fallback, reason: str, *, called: bool) -> Move:
    """Where a prompt of this shard goes by the decision.

    Args:
        called: whether a call was made, which counts as an attempt.
    """
    if isinstance(decision, decide.Retry):
        route, attempt_no, tried = held.route, held.attempt_no + 1, held.tried
    else:
        route, attempt_no, tried = decision.route, 1, decision.tried
    return Move(
        batch_id=held.batch_id,
        category=held.category,
        pinned=held.pinned,
        route=route,
        attempt_no=attempt_no,
        attempts_before=held.attempts_before + called,
        tried=tried,
        reason=reason,
    )


@dataclass(slots=True)
class NewShard:
    """Prompts that move on together. The id is fixed here: writing it twice makes one shard."""

    move: Move
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    prompts: list[tuple[claim.Held, int]] = field(default_factory=list)
    size: int = 0  #: bytes of their bodies
    not_before: datetime | None = None


class Ending(enum.Enum):
    """What a flush does to a shard."""

    KEEP = enum.auto()  #: some of it is still to do
    CLOSE = enum.auto()  #: nothing is left
    HAND_BACK = enum.auto()  #: the rest goes back to its queue


@dataclass(slots=True)
class Flush:
    """All that is written in one transaction.

    A worker keeps it bounded: it writes when `calls` or `size` grow, and stops calling when Postgres is away.
    """

    shard_prompts: int = 200  #: prompts in a new shard, at most
    calls: list[Call] = field(default_factory=list)
    size: int = 0  #: characters of the answers in `calls`
    new_shards: list[NewShard] = field(default_factory=list)
    filling: dict[Move, NewShard] = field(default_factory=dict)  #: the last new shard of each move
    touched: set[claim.Held] = field(default_factory=set)
    endings: dict[claim.Held, tuple[Ending, list[int]]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.touched)

    def add(self, call: Call) -> None:
        self.calls.append(call)
        self.size += call.size
        self.touched.add(call.held)

    def send_on(
        self, held: claim.Held, prompt_no: int, to: Move, not_before: datetime | None, *, size: int = 0
    ) -> None:
        """Put a prompt into a new shard.

        Args:
            size: bytes of its body.
        """
        shard = self.filling.get(to)
        if shard is None or len(shard.prompts) >= self.shard_prompts or shard.size + size > cut.MAX_SHARD_BYTES:
            shard = self.filling[to] = NewShard(to)
            self.new_shards.append(shard)
        shard.prompts.append((held, prompt_no))
        shard.size += size
        if not_before is not None and (shard.not_before is None or shard.not_before < not_before):
            shard.not_before = not_before
        self.touched.add(held)

    def seal(self) -> None:
        """Fix what happens to each shard, before the first await of the writing.

        Calls that end while the flush is under way belong to the next one: a shard must not forget a prompt
        whose answer is not written in the same transaction.
        """
        for held in self.touched:
            if not held.left:
                ending = Ending.CLOSE
            elif held.handing_back and not held.calls_out:
                ending = Ending.HAND_BACK
            else:
                ending = Ending.KEEP
            self.endings[held] = ending, sorted(held.left)
