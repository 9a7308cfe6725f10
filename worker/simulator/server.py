"""The simulator on the wire."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import cast

from worker import errors
from worker.simulator import control, flavours, service, turns, wire
from worker.simulator import settings as simulator_settings

#: SO_LINGER with no time to linger: closing breaks the connection (RST) in place of ending it.
_BREAK = struct.pack("ii", 1, 0)
_BACKLOG = 4096


class Connection(asyncio.Protocol):
    """One client. Its requests are answered one after the other."""

    def __init__(self, providers: service.Service, connected: set[Connection]) -> None:
        self._providers = providers
        self._connected = connected
        self._buffer = bytearray()
        self._head: wire.Head | None = None
        self._turn: turns.Turn | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._chunks: Iterator[bytes] | None = None
        self._writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        self._connected.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connected.discard(self)
        self._chunks = None
        if self._timer is not None:
            self._timer.cancel()
        if self._turn is not None:
            self._turn.abandon()
            self._turn = None

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._chunks is not None:
            self._stream()

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._take()

    def _take(self) -> None:
        """Answer what the buffer holds, until a request is incomplete or an answer has to wait."""
        try:
            while self._turn is None and self._chunks is None and not self._transport.is_closing():
                if self._head is None:
                    self._head = wire.head(self._buffer) if self._buffer else None
                    if self._head is None:
                        return
                    self._begin(self._head)
                head = self._head
                end = head.body_at + head.body_bytes
                if len(self._buffer) < end or self._transport.is_closing():
                    return
                body = bytes(self._buffer[head.body_at : end])
                del self._buffer[:end]
                self._head = None
                self._answer(head, body)
        except wire.BadRequest as e:
            self._write(e.status, {"content-type": "text/plain", "connection": "close"}, e.message.encode())
            self._transport.close()

    def _begin(self, head: wire.Head) -> None:
        """What is to be said before the body has come."""
        if head.body_bytes > wire.MAX_BODY_BYTES:
            target = flavours.target(head.path)
            if target is None:
                raise wire.BadRequest(413, "The body is too large.")
            refused = self._providers.too_large(target)
            self._write(refused.status, {**refused.headers, "connection": "close"}, refused.body)
            self._transport.close()
        elif head.headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answer(self, head: wire.Head, body: bytes) -> None:
        if head.path.startswith(control.PREFIX):
            own = control.answer(self._providers, head, body)
            headers = {"content-type": own.content_type}
            if isinstance(own.body, bytes):
                self._write(own.status, headers, own.body)
            else:
                self._transport.write(wire.answer_head(own.status, headers, None))
                self._chunks = own.body
                self._stream()
            return
        target = flavours.target(head.path) if head.method == "POST" else None
        if target is None:
            missing = service.not_found(head.path)
            self._write(missing.status, missing.headers, missing.body)
            return
        turn = self._providers.call(target, head.headers, body)
        if isinstance(turn, turns.Outgoing):
            self._send(turn)
        elif turn.delay_s > 0:
            self._turn = turn
            self._timer = self._loop.call_later(turn.delay_s, self._ripe)
        else:
            self._send(turn.answer())

    def _ripe(self) -> None:
        turn, self._turn, self._timer = self._turn, None, None
        if turn is not None:
            self._send(turn.answer())
            self._take()

    def _send(self, outgoing: turns.Outgoing) -> None:
        if outgoing.ending == "whole":
            self._write(outgoing.status, outgoing.headers, outgoing.body)
            return
        if outgoing.ending == "cut":
            head = wire.answer_head(outgoing.status, outgoing.headers, len(outgoing.body))
            self._transport.write(head + outgoing.body[: len(outgoing.body) // 2])
        self._break()

    def _break(self) -> None:
        """Break the connection, once what was written has left."""
        connection = self._transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _BREAK)
        self._transport.close()

    def _write(self, status: int, headers: turns.Headers, body: bytes) -> None:
        self._transport.write(wire.answer_head(status, headers, len(body)) + body)

    def _stream(self) -> None:
        """Write chunks as long as the client takes them."""
        while self._chunks is not None and self._writable:
            data = next(self._chunks, None)
            if data is None:
                self._chunks = None
                self._transport.write(wire.chunk(b""))
                self._loop.call_soon(self._take)
            elif data:
                self._transport.write(wire.chunk(data))


async def serve(
    settings: simulator_settings.Settings,
    host: str = "127.0.0.1",
    port: int = 0,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve simulated providers until cancelled.

    Args:
        host: a loopback address; the simulator is for this machine only.
        port: 0 for any free one.
        ready: told the base URL once clients can connect. The providers are below it: `URL/groq`.

    Raises:
        SettingsError: the host is not loopback, or the port is taken.
    """
    _refuse_strangers(host)
    providers = service.Service(settings)
    connected: set[Connection] = set()
    loop = asyncio.get_running_loop()
    try:
        listener = await loop.create_server(
            lambda: Connection(providers, connected), host, port, backlog=_BACKLOG
        )
    except OSError as e:
        raise errors.SettingsError(
            f"The simulator cannot listen on port {port}: {e.strerror}. Choose another, or 0 for any."
        ) from None
    bound = listener.sockets[0].getsockname()
    shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
    try:
        ready(f"http://{shown}:{bound[1]}")
        await asyncio.Event().wait()
    finally:
        listener.close()
        for connection in tuple(connected):
            connection.abort()
        await asyncio.sleep(0)  # lets the transports see it


def _refuse_strangers(host: str) -> None:
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    raise errors.SettingsError(f"The simulator serves this machine only, not {host}. Use 127.0.0.1.")


def run(serving: Coroutine[None, None, None]) -> None:
    """Run a coroutine that serves on the fastest event loop there is."""
    factory = None
    if sys.platform != "win32":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serving)
