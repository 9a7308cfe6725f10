"""What each provider says when it refuses, over real HTTP: the class, the wait, and what follows from it.

The rows are in `recorded_errors`, one file for each provider, in the words of the providers' documentation.
`then` is what routing makes of it for a prompt whose chain is

    here/model, here/sibling (another model of the same provider), other/small (no larger window), other/large
"""

from __future__ import annotations

import asyncio
import datetime
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from worker.providers import endpoint, http
from worker.providers.types import CallError, ErrorClass
from worker.routing import decide, load, registry

RECORDED = Path(__file__).parent / "recorded_errors"
#: Every answer is of this moment, so that waits until a date are known.
DATE = "Mon, 23 Nov 2026 10:00:00 GMT"
NOW = datetime.datetime(2026, 11, 23, 10, tzinfo=datetime.UTC)

DIALECTS = {"anthropic": "anthropic_messages", "gemini": "gemini_generate_content"}
HERE, SIBLING = registry.Route("here", "model"), registry.Route("here", "sibling")
SMALL, LARGE = registry.Route("other", "small"), registry.Route("other", "large")
CHAIN = [[HERE], [SIBLING], [SMALL], [LARGE]]
WINDOWS = {HERE: 100_000, SIBLING: 100_000, SMALL: 100_000, LARGE: 200_000}


def rows() -> list[Any]:
    return [
        pytest.param(file.stem, row, id=f"{file.stem}-{row['status']}-{row['name']}")
        for file in sorted(RECORDED.glob("*.toml"))
        for row in tomllib.loads(file.read_text("utf-8"))["row"]
    ]


@asynccontextmanager
async def answering(row: Mapping[str, Any]) -> AsyncIterator[str]:
    """A server that answers any request with the row."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.partition(b":")[2]))
        body = row["body"].encode()
        headers = {"content-type": "application/json", "date": DATE} | row.get("headers", {})
        headers |= {"content-length": str(len(body)), "connection": "close"}
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {row['status']} Said\r\n{fields}\r\n".encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        await server.wait_closed()


def place_at(url: str, provider: str, own: Mapping[str, str]) -> endpoint.Endpoint:
    described = f"""
        frontier = "here/model"
        default_category = "any"
        categories.any.chain = ["here/model"]
        [providers.here]
        dialect = "{DIALECTS.get(provider, "openai_chat")}"
        base_url = "{url}"
        models.model.context_window = 100_000
        [providers.here.errors]
        """ + "\n".join(f'"{code}" = "{meaning}"' for code, meaning in own.items())
    return endpoint.endpoint(load.parse(described, source="the test"), HERE, "a-key-of-the-test")


@pytest.mark.parametrize(("provider", "row"), rows())
async def test_a_recorded_error_is_understood_and_followed_by_what_helps(
    provider: str, row: dict[str, Any]
) -> None:
    async with answering(row) as url:
        place = place_at(url, provider, row.get("errors", {}))
        client = http.Client()
        try:
            request = place.build('{"messages":[{"role":"user","content":"hi"}]}')
            reply = await client.post(place.url, place.headers, request, deadline_s=10)
        finally:
            await client.aclose()
    if "finish_reason" in row:
        completion = place.read(reply)
        assert (completion.finish_reason, completion.text) == (row["finish_reason"], "")
        return
    with pytest.raises(CallError) as caught:
        place.read(reply)
    error = caught.value
    assert error.error_class == row["class"], error.message
    assert error.retry_after_s == (pytest.approx(row["wait_s"]) if "wait_s" in row else None)
    assert error.status == row["status"]
    assert row["status"] == 200 or error.body is not None
    assert followed(error) == row["then"]


def followed(error: CallError) -> str:
    """What becomes of the prompt, in the words of the table."""
    place = decide.Place("any", HERE, attempt_no=1, attempts_before=0)
    after = decided(error, place)
    if isinstance(after, decide.Fail):
        return "fail"
    if isinstance(after, decide.Retry):
        assert after.not_before >= NOW + datetime.timedelta(seconds=error.retry_after_s or 0)
        return "later"
    if after.route == LARGE:
        return "larger window"
    if error.error_class is ErrorClass.CONTENT:
        moved = decide.Place(
            "any", after.route, attempt_no=1, attempts_before=1, tried=after.tried, reason=ErrorClass.CONTENT
        )
        assert isinstance(decided(error, moved), decide.Fail)
        return "one try elsewhere"
    return "next model" if after.route == SIBLING else "next provider"


def decided(error: CallError, place: decide.Place) -> decide.Decision:
    failure = decide.Failure(error.error_class, error.retry_after_s)
    return decide.after(failure, place, CHAIN, decide.Policy(), NOW, jitter=0.0, windows=WINDOWS)


def test_what_is_worth_another_try_ends_with_the_next_model_after_three_calls() -> None:
    place = decide.Place("any", HERE, attempt_no=3, attempts_before=2)
    after = decided(CallError(ErrorClass.TRANSIENT, "x"), place)
    assert isinstance(after, decide.Fallback)
    assert after.route == SIBLING


def test_every_provider_of_the_registry_has_its_rows() -> None:
    shipped = load.parse('extends = "default"', source="the test")
    assert set(shipped.providers) <= {file.stem for file in RECORDED.glob("*.toml")}
