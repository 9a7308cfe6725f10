"""A worker takes a shard: one statement, a lease and a fencing number."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.routing import registry


@dataclass(eq=False, slots=True)
class Held:
    """A shard in this worker's hands. Its prompts all have the same history."""

    id: uuid.UUID
    batch_id: int
    category: str
    queue: str
    pinned: str | None
    route: registry.Route
    attempt_no: int
    attempts_before: int
    tried: tuple[registry.Route, ...]
    reason: str | None
    providers: frozenset[str]  #: where the batch's prompts may go
    fence: int
    frontier: registry.Route
    left: set[int]  #: prompts that still need something
    calls_out: int = 0
    handing_back: bool = False  #: start no further call, and return the rest
    lost: bool = False  #: the lease is gone: start no further call, book what comes back

    @property
    def stopped(self) -> bool:
        return self.handing_back or self.lost


@dataclass(frozen=True, slots=True)
class Claimed:
    held: Held
    bodies: list[tuple[int, str]] = field(repr=False)  #: prompt number and canonical request


# The one who turns `queued` into `running` owns the shard; a second delivery of its message finds it running
# and gets no row. A category's queue is shared by providers, so the claim says whose route it takes.
_CLAIM = sa.text("""
    UPDATE shards s
    SET state = 'running', fence = fence + 1, worker_id = :worker_id,
        lease_until = now() + make_interval(secs => :lease_s),
        route = CASE WHEN s.queue = s.category THEN CAST(:routes AS json) ->> s.category ELSE s.route END
    FROM batches b
    WHERE s.id = :id AND s.state = 'queued'
      AND (s.queue <> s.category OR CAST(:routes AS json) ->> s.category IS NOT NULL)
      AND b.id = s.batch_id AND b.state = 'running' AND b.simulated = :simulated
    RETURNING s.id, s.batch_id, s.category, s.queue, s.pinned, s.route, s.prompt_nos, s.attempt_no,
              s.attempts_before, s.tried, s.reason, s.fence, b.frontier, b.providers
""")

# A worker that had lost its lease may have answered some of them since.
_BODIES = sa.text("""
    SELECT p.prompt_no, p.body::text AS body
    FROM prompts p
    WHERE p.batch_id = :batch_id AND p.prompt_no = ANY(CAST(:prompt_nos AS int[]))
      AND NOT EXISTS (SELECT FROM results r WHERE r.batch_id = p.batch_id AND r.prompt_no = p.prompt_no)
    ORDER BY p.prompt_no
""")


async def claim(
    engine: AsyncEngine,
    shard_id: uuid.UUID,
    *,
    worker_id: int,
    lease_s: float,
    routes: Mapping[str, registry.Route],
    simulated: bool,
) -> Claimed | None:
    """Take the shard, or return None when it is not to be had: taken, done, or its batch does not run.

    Args:
        routes: for each category whose shared queue this worker consumes, the route it takes there.
    """
    async with engine.begin() as connection:
        row = (
            await connection.execute(
                _CLAIM,
                {
                    "id": shard_id,
                    "worker_id": worker_id,
                    "lease_s": lease_s,
                    "routes": json.dumps({category: str(route) for category, route in routes.items()}),
                    "simulated": simulated,
                },
            )
        ).first()
        if row is None:
            return None
        bodies = await connection.execute(_BODIES, {"batch_id": row.batch_id, "prompt_nos": row.prompt_nos})
        todo = [(body.prompt_no, body.body) for body in bodies]
    shard = held(row)
    shard.left = {prompt_no for prompt_no, _ in todo}
    return Claimed(shard, todo)


def held(row: sa.Row[Any]) -> Held:
    """Read a shard from a row of the tables `shards` and `batches`."""
    return Held(
        id=row.id,
        batch_id=row.batch_id,
        category=row.category,
        queue=row.queue,
        pinned=row.pinned,
        route=registry.Route.parse(row.route),
        attempt_no=row.attempt_no,
        attempts_before=row.attempts_before,
        tried=tuple(registry.Route.parse(route) for route in row.tried),
        reason=row.reason,
        providers=frozenset(row.providers),
        fence=row.fence,
        frontier=registry.Route.parse(row.frontier),
        left=set(row.prompt_nos),
    )
