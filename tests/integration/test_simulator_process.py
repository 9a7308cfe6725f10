"""The simulator as a process: it starts, stops, dies with its parent, and serves this machine only."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse

import pytest
import simulator_client as client

from worker import errors
from worker.simulator import process, server, settings

BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
#: A whole request, as bytes on the wire.
HELLO = b"\r\n".join(
    [
        b"POST /groq/chat/completions HTTP/1.1",
        b"authorization: Bearer k",
        b"content-length: %d" % len(BODY),
        b"",
        BODY,
    ]
)


def is_open(url: str) -> bool:
    address = urllib.parse.urlsplit(url)
    assert address.hostname and address.port
    with socket.socket() as probe:
        return probe.connect_ex((address.hostname, address.port)) == 0


def until_closed(url: str) -> None:
    deadline = time.monotonic() + client.TIMEOUT_S
    while is_open(url):
        assert time.monotonic() < deadline, "the simulator still listens"
        time.sleep(0.01)


def test_it_serves_with_its_settings_until_the_block_ends() -> None:
    chosen = settings.Settings().with_faults(["groq:overloaded"])
    with process.running(chosen) as simulator:
        assert simulator.settings() == chosen
        assert client.ask(simulator.url, "groq").status == 498
    assert not is_open(simulator.url)
    with pytest.raises(errors.ServerError, match="does not answer"):
        simulator.bill()


def test_it_stops_while_calls_hang() -> None:
    with process.running(settings.Settings().with_faults(["hang"])) as simulator:
        address = urllib.parse.urlsplit(simulator.url)
        waiting = socket.create_connection((address.hostname, address.port))
        waiting.sendall(HELLO)
        started = time.monotonic()
    assert time.monotonic() - started < 5
    waiting.close()


def test_it_dies_with_its_parent() -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from worker.simulator import process\n"
            "with process.running() as simulator:\n"
            "    print(simulator.url, flush=True)\n"
            "    input()\n",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().decode().strip()
        assert is_open(url)
        os.kill(parent.pid, signal.SIGKILL)
    until_closed(url)


def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(errors.SettingsError, match=f"port {port}.*0 for any"), process.running(port=port):
            pass


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "localhost", "example.org", ""])
async def test_it_serves_on_loopback_only(host: str) -> None:
    with pytest.raises(errors.SettingsError, match="this machine only"):
        await server.serve(settings.Settings(), host=host)


async def test_it_serves_in_a_loop_of_the_caller_too() -> None:
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(server.serve(settings.Settings(), ready=told.set_result))
    url = await told
    answer = await asyncio.to_thread(client.ask, url, "gemini")
    assert answer.status == 200
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert not is_open(url)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GARBAGE\r\n\r\n", b"400"),
        (b"POST /groq/chat/completions HTTP/1.1\r\ncontent-length: many\r\n\r\n", b"400"),
        (b"POST /groq/chat/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", b"411"),
        (b"POST /" + b"a" * 70_000, b"431"),
    ],
)
def test_what_is_not_http_is_refused_and_the_connection_closed(
    simulator: process.Simulator, sent: bytes, status: bytes
) -> None:
    address = urllib.parse.urlsplit(simulator.url)
    with socket.create_connection((address.hostname, address.port), client.TIMEOUT_S) as connection:
        connection.sendall(sent)
        received = b"".join(iter(lambda: connection.recv(4096), b""))
    assert received.startswith(b"HTTP/1.1 " + status)


def test_requests_in_pieces_and_requests_in_a_row_are_each_answered(simulator: process.Simulator) -> None:
    address = urllib.parse.urlsplit(simulator.url)
    with socket.create_connection((address.hostname, address.port), client.TIMEOUT_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(HELLO), 7):
            connection.sendall(HELLO[at : at + 7])
        connection.sendall(HELLO * 2)
        received = b""
        while received.count(b"HTTP/1.1 200") < 3 or received.count(b'"x_groq"') < 3:
            piece = connection.recv(65536)
            assert piece, "closed too early"
            received += piece
    assert simulator.bill().calls == 3
