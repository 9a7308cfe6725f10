"""HTTP/1.1, as much of it as clients of an API send: a request line, headers, and a body with its length.

It is read by hand because a call must cost the simulator less than it costs the client that is measured
against it. CPU a request on one core, before there is anything to say: aiohttp's server 63 us, this and
httptools alike 17 us.
"""

from __future__ import annotations

import http
import urllib.parse
from collections.abc import Mapping
from typing import NamedTuple

#: Larger bodies are refused, as providers do.
MAX_BODY_BYTES = 32 * 1024 * 1024
_MAX_HEAD_BYTES = 64 * 1024

_PHRASES = {status.value: status.phrase for status in http.HTTPStatus} | {498: "Capacity", 529: "Overloaded"}


class Head(NamedTuple):
    """All of a request but its body."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]  #: names in lower case
    body_at: int  #: where the body begins in the buffer
    body_bytes: int


class BadRequest(Exception):
    """What came is not HTTP that can be answered; `status` says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def head(buffer: bytearray) -> Head | None:
    """Read the head of the request at the start of the buffer, once all of it is there.

    Raises:
        BadRequest: it is not HTTP, or its body has no length.
    """
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if len(buffer) > _MAX_HEAD_BYTES:
            raise BadRequest(431, "The headers are too large.")
        return None
    line, *fields = buffer[:end].decode("latin-1").split("\r\n")
    try:
        method, target, _ = line.split(" ")
    except ValueError:
        raise BadRequest(400, "The first line is not an HTTP request.") from None
    headers: dict[str, str] = {}
    for field in fields:
        name, _, value = field.partition(":")
        headers[name.lower()] = value.strip()
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers:
        raise BadRequest(411, "Send the body with a Content-Length; the simulator takes no chunks.")
    if not length.isdecimal():
        raise BadRequest(400, "Content-Length is not a number.")
    path, _, query = target.partition("?")
    return Head(
        method,
        urllib.parse.unquote(path) if "%" in path else path,
        dict(urllib.parse.parse_qsl(query)) if query else {},
        headers,
        end + 4,
        int(length),
    )


def answer_head(status: int, headers: Mapping[str, str], body_bytes: int | None) -> bytes:
    """The head of an answer; without a length the body comes in chunks."""
    length = "transfer-encoding: chunked" if body_bytes is None else f"content-length: {body_bytes}"
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return f"HTTP/1.1 {status} {_PHRASES.get(status, 'Unknown')}\r\n{fields}{length}\r\n\r\n".encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One chunk of a body; an empty one ends it."""
    return b"%x\r\n%b\r\n" % (len(data), data)
