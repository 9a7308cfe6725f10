"""The HTTP client against servers that behave badly, on loopback."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager

import httpx
import pytest

from worker.providers import http
from worker.providers.types import CallError, ErrorClass

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Seen: yes\r\nContent-Length: 2\r\n\r\n{}"

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A server that does to each connection what it is told, and keeps what it was sent."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.connections = 0
        self.requests: list[tuple[bytes, bytes]] = []  # head, body
        self.url = ""
        self.hang = asyncio.Event()

    async def request(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        self.requests.append((head, await reader.readexactly(length)))

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self.behaviour(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(make: Callable[[Server], Behaviour]) -> AsyncIterator[Server]:
    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None: ...

    server = Server(nothing)
    server.behaviour = make(server)
    listener = await asyncio.start_server(server.connected, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1/chat/completions"
    try:
        yield server
    finally:
        server.hang.set()
        listener.close()
        await listener.wait_closed()


def answering(*pieces: bytes, then: str = "keep") -> Callable[[Server], Behaviour]:
    """Answer every request with the pieces; then keep the connection, close it, reset it, or hang."""

    def make(server: Server) -> Behaviour:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await server.request(reader)
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if then == "close":
                    return
                if then == "reset":
                    writer.transport.abort()
                    return
                if then == "hang":
                    await server.hang.wait()
                    return

        return behave

    return make


async def post(
    server: Server, body: bytes = b"{}", deadline_s: float = 5.0, max_body_bytes: int = http.MAX_BODY_BYTES
) -> bytes:
    async with http.Client() as client:
        reply = await client.post(server.url, {}, body, deadline_s=deadline_s, max_body_bytes=max_body_bytes)
    return reply.body


async def failing(
    server: Server, deadline_s: float = 5.0, max_body_bytes: int = http.MAX_BODY_BYTES
) -> CallError:
    with pytest.raises(CallError) as caught:
        await post(server, deadline_s=deadline_s, max_body_bytes=max_body_bytes)
    return caught.value


async def test_a_request_arrives_as_it_was_given_and_its_answer_comes_back() -> None:
    async with serving(answering(OK)) as server, http.Client() as client:
        headers = {"authorization": "Bearer k", "content-type": "application/json"}
        reply = await client.post(server.url + "?alt=json", headers, '{"ä":1}'.encode(), deadline_s=5)
    assert (reply.status, reply.body, reply.headers["x-SEEN"]) == (200, b"{}", "yes")
    head, body = server.requests[0]
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /v1/chat/completions?alt=json HTTP/1.1"
    assert body == '{"ä":1}'.encode()
    named = dict(line.split(": ", 1) for line in lines[1:-2])
    assert named["authorization"] == "Bearer k"
    assert named["content-type"] == "application/json"
    assert named["Content-Length"] == "8"
    assert named["Host"] == server.url.split("/")[2]
    assert "gzip" in named["Accept-Encoding"]


async def test_a_changed_header_reaches_the_server() -> None:
    async with serving(answering(OK)) as server, http.Client() as client:
        for key in ("one", "two", "two"):
            await client.post(server.url, {"x-api-key": key}, b"{}", deadline_s=5)
    assert [
        head.count(b"x-api-key: " + key)
        for head, key in zip((head for head, _ in server.requests), (b"one", b"two", b"two"), strict=True)
    ] == [1, 1, 1]


async def test_calls_one_after_another_share_a_connection() -> None:
    async with serving(answering(OK)) as server, http.Client() as client:
        for _ in range(20):
            await client.post(server.url, {}, b"{}", deadline_s=5)
    assert server.connections == 1


async def test_calls_at_once_get_a_connection_each_and_their_own_answers() -> None:
    def echo(server: Server) -> Behaviour:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await server.request(reader)
                body = server.requests[-1][1]
                await asyncio.sleep(0.01 if int(body) % 2 else 0)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

        return behave

    async with serving(echo) as server, http.Client() as client:
        calls = [client.post(server.url, {}, b"%d" % i, deadline_s=5) for i in range(200)]
        replies = await asyncio.gather(*calls)
    assert [reply.body for reply in replies] == [b"%d" % i for i in range(200)]


async def test_a_body_of_several_megabytes_goes_out_and_comes_back_whole() -> None:
    large = b"x" * 5_000_000
    async with serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n", large)) as server:
        assert await post(server, body=large) == large
    assert server.requests[0][1] == large


@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 4\r\n\r\nab", b"cd"),  # slow headers, slow body
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nab\r\n", b"2\r\ncd\r\n0\r\n\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd"),  # interim
    ],
)
async def test_an_answer_in_pieces_is_put_together(pieces: tuple[bytes, ...]) -> None:
    async with serving(answering(*pieces)) as server:
        assert await post(server) == b"abcd"


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async with serving(answering(b"HTTP/1.1 200 OK\r\n\r\nab", b"cd", then="close")) as server:
        assert await post(server) == b"abcd"


async def test_a_compressed_answer_is_decompressed() -> None:
    packed = gzip.compress(b'{"a":1}')
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    async with serving(answering(head + packed)) as server:
        assert await post(server) == b'{"a":1}'


async def test_an_answer_that_does_not_decompress_is_malformed() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 7\r\n\r\n"
    async with serving(answering(head + b"no gzip")) as server:
        assert (await failing(server)).error_class is ErrorClass.MALFORMED


@pytest.mark.parametrize(
    "pieces",
    [
        (),  # nothing at all
        (b"HTTP/1.1 200 OK\r\nContent-",),  # half of the head
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",),  # a part of the body
        (b"HTTP/1.1 200 OK\r\n\r\nabc",),  # a body without an end, which looks whole when the connection goes
    ],
)
async def test_a_server_that_hangs_is_left_at_the_deadline(pieces: tuple[bytes, ...]) -> None:
    async with serving(answering(*pieces, then="hang")) as server:
        started = time.monotonic()
        error = await failing(server, deadline_s=0.3)
        assert 0.25 < time.monotonic() - started < 2
    assert error.error_class is ErrorClass.TIMEOUT
    assert "0.3 s" in error.message


async def test_a_server_that_drips_is_left_at_the_deadline_too() -> None:
    def drip(server: Server) -> Behaviour:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server.request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while not server.hang.is_set():
                writer.write(b"1\r\nx\r\n")
                await writer.drain()
                await asyncio.sleep(0.02)

        return behave

    async with serving(drip) as server:
        started = time.monotonic()
        assert (await failing(server, deadline_s=0.3)).error_class is ErrorClass.TIMEOUT
        assert time.monotonic() - started < 2


async def test_an_endless_answer_is_cut() -> None:
    def flood(server: Server) -> Behaviour:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server.request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                await writer.drain()

        return behave

    async with serving(flood) as server:
        error = await failing(server, max_body_bytes=1_000_000)
    assert error.error_class is ErrorClass.MALFORMED
    assert "1000000 bytes" in error.message


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b"HTTP/1.1 200 OK\r\nContent-",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",),
    ],
)
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_connection_that_breaks_is_transient_and_the_request_is_sent_once(
    pieces: tuple[bytes, ...], how: str
) -> None:
    async with serving(answering(*pieces, then=how)) as server:
        error = await failing(server)
    assert error.error_class is ErrorClass.TRANSIENT
    assert len(server.requests) == 1


async def test_a_kept_connection_that_breaks_before_the_answer_is_not_tried_again_in_silence() -> None:
    def second_breaks(server: Server) -> Behaviour:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server.request(reader)
            writer.write(OK)
            await server.request(reader)
            writer.transport.abort()

        return behave

    async with serving(second_breaks) as server, http.Client() as client:
        await client.post(server.url, {}, b"{}", deadline_s=5)
        with pytest.raises(CallError) as caught:
            await client.post(server.url, {}, b"{}", deadline_s=5)
    assert caught.value.error_class is ErrorClass.TRANSIENT
    assert (len(server.requests), server.connections) == (2, 1)


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"HTTP/1.1 two hundred\r\n\r\n"])
async def test_what_is_not_http_is_malformed(answer: bytes) -> None:
    async with serving(answering(answer, then="close")) as server:
        assert (await failing(server)).error_class is ErrorClass.MALFORMED


async def test_a_redirect_is_given_back_and_not_followed() -> None:
    async with (
        serving(answering(b"HTTP/1.1 307 X\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n")) as server,
        http.Client() as client,
    ):
        reply = await client.post(server.url, {}, b"{}", deadline_s=5)
    assert (reply.status, len(server.requests)) == (307, 1)


async def test_a_port_where_nobody_listens_is_transient_and_named() -> None:
    async with serving(answering(OK)) as server:
        pass
    error = await failing(server)
    assert error.error_class is ErrorClass.TRANSIENT
    assert server.url.split("/")[2] in error.message


@pytest.mark.parametrize(
    "url",
    ["http://", "ftp://127.0.0.1/", "http://user:secret-word@127.0.0.1:1/v1", "http://[::1/"],
)
async def test_an_address_that_cannot_work_is_a_matter_of_configuration(url: str) -> None:
    async with http.Client() as client:
        with pytest.raises(CallError) as caught:
            await client.post(url, {}, b"{}", deadline_s=5)
    assert caught.value.error_class is ErrorClass.CONFIG
    assert "secret-word" not in str(caught.value)


async def test_a_header_with_a_line_break_is_refused_without_showing_it() -> None:
    async with serving(answering(OK)) as server, http.Client() as client:
        with pytest.raises(CallError) as caught:
            await client.post(server.url, {"authorization": "Bearer k\r\nx: y"}, b"{}", deadline_s=5)
    assert caught.value.error_class is ErrorClass.CONFIG
    assert "Bearer" not in str(caught.value)
    assert server.requests == []


async def test_a_cancelled_call_breaks_its_connection_and_leaves_the_client_usable() -> None:
    received = asyncio.Event()

    def hang_if_asked(server: Server) -> Behaviour:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await server.request(reader)
                if server.requests[-1][1] == b"hang":
                    received.set()
                    await reader.read()  # until the client goes
                    return
                writer.write(OK)

        return behave

    async with serving(hang_if_asked) as server, http.Client() as client:
        await client.post(server.url, {}, b"{}", deadline_s=5)
        hanging = asyncio.create_task(client.post(server.url, {}, b"hang", deadline_s=60))
        await asyncio.wait_for(received.wait(), 5)
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
        assert (await client.post(server.url, {}, b"{}", deadline_s=5)).status == 200
    assert server.connections == 2


async def test_https_goes_through_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    def refuse(server: Server) -> Behaviour:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()

        return behave

    async with serving(refuse) as server, http.Client() as client:
        monkeypatch.setenv("HTTPS_PROXY", server.url.removesuffix("/v1/chat/completions"))
        with pytest.raises(CallError) as caught:
            await client.post("https://provider.invalid/v1", {}, b"{}", deadline_s=5)
    assert seen[0].startswith(b"CONNECT provider.invalid:443 ")
    assert caught.value.error_class is ErrorClass.TRANSIENT


# The same transport below httpx.


async def test_an_httpx_client_runs_over_the_transport() -> None:
    packed = gzip.compress(b'{"a":1}')
    head = b"HTTP/1.1 201 Created\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    async with (
        serving(answering(head + packed)) as server,
        httpx.AsyncClient(transport=http.Client()) as client,
    ):
        response = await client.post(server.url, params={"a": "b c"}, json={"q": 1}, headers={"x-api-key": "k"})
    assert (response.status_code, response.json()) == (201, {"a": 1})
    head, body = server.requests[0]
    assert head.startswith(b"POST /v1/chat/completions?a=b+c HTTP/1.1\r\n") or b"?a=b%20c " in head
    assert b"x-api-key: k\r\n" in head
    assert head.lower().count(b"content-length:") == head.lower().count(b"host:") == 1
    assert body == b'{"q":1}'


async def test_an_httpx_client_gets_httpx_errors() -> None:
    async with (
        serving(answering(then="hang")) as server,
        httpx.AsyncClient(transport=http.Client()) as client,
    ):
        with pytest.raises(httpx.ReadTimeout):
            await client.post(server.url, content=b"{}", timeout=0.2)
    async with httpx.AsyncClient(transport=http.Client()) as client:
        with pytest.raises(httpx.ConnectError):
            await client.post(server.url, content=b"{}")
    for broken, error in (
        (answering(then="close"), httpx.RemoteProtocolError),
        (answering(b"no\r\n\r\n"), httpx.RemoteProtocolError),
    ):
        async with serving(broken) as server, httpx.AsyncClient(transport=http.Client()) as client:
            with pytest.raises(error):
                await client.post(server.url, content=b"{}")


@pytest.mark.parametrize(
    "case",
    [
        test_calls_at_once_get_a_connection_each_and_their_own_answers,
        test_a_body_of_several_megabytes_goes_out_and_comes_back_whole,
        lambda: test_a_server_that_hangs_is_left_at_the_deadline(()),
        lambda: test_a_server_that_hangs_is_left_at_the_deadline((b"HTTP/1.1 200 OK\r\n\r\nabc",)),
        test_a_server_that_drips_is_left_at_the_deadline_too,
        test_an_endless_answer_is_cut,
        test_a_kept_connection_that_breaks_before_the_answer_is_not_tried_again_in_silence,
        test_a_cancelled_call_breaks_its_connection_and_leaves_the_client_usable,
    ],
)
def test_it_holds_on_the_loop_of_the_workers_too(case: Callable[[], Coroutine[object, object, None]]) -> None:
    uvloop = pytest.importorskip("uvloop")
    uvloop.run(case())
