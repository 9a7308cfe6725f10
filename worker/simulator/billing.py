"""What the simulated providers charge for: every call they answered, written down by them and not by us."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from worker.providers import types
from worker.simulator import conversation

#: Calls in a block of memory; a block is what is turned into text at once.
_BLOCK_CALLS = 1024
#: Route, status, dialect, fault, billed, five token buckets, digest, seconds since 1970.
_RECORD = struct.Struct(f"<IHBBB5I{conversation.DIGEST_BYTES}sd")

#: Ids begin as the provider's own do.
_ID_PREFIXES = {"openai_chat": "chatcmpl-", "anthropic_messages": "msg_", "gemini_generate_content": ""}
_DIALECTS = tuple(_ID_PREFIXES)


class Call(msgspec.Struct, frozen=True):
    """One call as its provider saw it."""

    call_no: int  #: from 1, in the order of the answers
    provider: str
    model: str  #: empty where the request was refused before it was read
    status: int  #: HTTP status; 0 where no whole answer was sent; 499 where the client left before it was made
    billed: bool
    fault: str | None  #: kind of the fault it met; `limit` where a rate limit refused it
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int  #: a part of output_tokens
    response_id: str | None  #: of billed calls
    prompt_digest: str | None
    answered_at_s: float  #: seconds since 1970


class Route(msgspec.Struct):
    """Sums of one model of one provider. Tokens are those of billed calls."""

    provider: str
    model: str
    calls: int = 0
    billed_calls: int = 0
    statuses: dict[str, int] = {}
    faults: dict[str, int] = {}
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def usage(self) -> types.Usage:
        return types.Usage(
            self.input_tokens,
            self.cache_read_tokens,
            self.cache_write_tokens,
            self.output_tokens,
            self.reasoning_tokens,
        )


class Bill(msgspec.Struct, frozen=True):
    """Sums of all calls, by provider and model."""

    calls: int
    billed_calls: int
    routes: list[Route]

    def of(self, provider: str) -> list[Route]:
        return [route for route in self.routes if route.provider == provider]


class Entry(NamedTuple):
    """What is written down of a call."""

    provider: str
    model: str
    dialect: str
    status: int
    billed: bool
    fault: str | None
    usage: types.Usage | None  #: counted only where the call is billed
    digest: bytes | None


class Ledger:
    """The calls of this process: some 60 bytes each, so that a million of them fit in memory."""

    def __init__(self) -> None:
        self.count = 0
        self._blocks: list[bytearray] = []
        self._route_numbers: dict[tuple[str, str], int] = {}
        self._routes: list[Route] = []
        self._fault_numbers: dict[str | None, int] = {None: 0}
        self._faults: list[str | None] = [None]

    def record(self, entry: Entry, at_s: float) -> None:
        route_no = self._route(entry)
        fault_no = self._fault_numbers.get(entry.fault)
        if fault_no is None:
            fault_no = self._fault_numbers[entry.fault] = len(self._faults)
            self._faults.append(entry.fault)
        usage = entry.usage if entry.billed and entry.usage is not None else types.Usage()
        if self.count % _BLOCK_CALLS == 0:
            self._blocks.append(bytearray())
        self.count += 1
        self._blocks[-1] += _RECORD.pack(
            route_no,
            entry.status,
            _DIALECTS.index(entry.dialect),
            fault_no,
            entry.billed,
            usage.input_tokens,
            usage.cache_read_tokens,
            usage.cache_write_tokens,
            usage.output_tokens,
            usage.reasoning_tokens,
            entry.digest or bytes(conversation.DIGEST_BYTES),
            at_s,
        )
        _add(self._routes[route_no], entry, usage)

    def bill(self, provider: str | None = None) -> Bill:
        """The sums up to now, of all providers or of one."""
        wanted = [route for route in self._routes if provider in (None, route.provider)]
        routes = sorted(wanted, key=lambda route: (route.provider, route.model))
        return Bill(sum(r.calls for r in routes), sum(r.billed_calls for r in routes), routes)

    def lines(self, provider: str | None = None) -> Iterator[bytes]:
        """The calls up to now as JSON lines, some hundreds at a time."""
        encoder, left, first_no = msgspec.json.Encoder(), self.count, 1
        for block in list(self._blocks):
            size = min(left, _BLOCK_CALLS)
            calls = self._calls(bytes(block[: size * _RECORD.size]), first_no)
            yield encoder.encode_lines([call for call in calls if provider in (None, call.provider)])
            left -= size
            first_no += size

    def _route(self, entry: Entry) -> int:
        key = (entry.provider, entry.model)
        found = self._route_numbers.get(key)
        if found is None:
            found = self._route_numbers[key] = len(self._routes)
            self._routes.append(Route(*key))
        return found

    def _calls(self, block: bytes, first_no: int) -> Iterator[Call]:
        for call_no, record in enumerate(_RECORD.iter_unpack(block), start=first_no):
            route_no, status, dialect_no, fault_no, billed, *tokens, digest, at_s = record
            fresh, read, written, output, reasoning = tokens
            route = self._routes[route_no]
            yield Call(
                call_no,
                route.provider,
                route.model,
                status,
                bool(billed),
                self._faults[fault_no],
                fresh,
                read,
                written,
                output,
                reasoning,
                response_id(_DIALECTS[dialect_no], call_no) if billed else None,
                digest.hex() if any(digest) else None,
                at_s,
            )


def response_id(dialect: str, call_no: int) -> str:
    """The id in the answer to a call: made from its number, so that it need not be kept."""
    return f"{_ID_PREFIXES[dialect]}sim{call_no:021d}"


def _add(route: Route, entry: Entry, usage: types.Usage) -> None:
    route.calls += 1
    status = str(entry.status)
    route.statuses[status] = route.statuses.get(status, 0) + 1
    if entry.fault:
        route.faults[entry.fault] = route.faults.get(entry.fault, 0) + 1
    if entry.billed:
        route.billed_calls += 1
        route.input_tokens += usage.input_tokens
        route.cache_read_tokens += usage.cache_read_tokens
        route.cache_write_tokens += usage.cache_write_tokens
        route.output_tokens += usage.output_tokens
        route.reasoning_tokens += usage.reasoning_tokens
