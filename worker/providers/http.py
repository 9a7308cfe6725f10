"""HTTP to the providers: the only file that knows httpx and aiohttp.

`Client` is an httpx transport over aiohttp's connection pool and its parser in C. A worker calls `post`,
which shares all of it but builds no httpx objects. Neither goes through aiohttp's session, which costs
twice what the exchange itself does (see `benchmarks/http_client.py`): the head of a request is prepared
once for an endpoint, head and body leave in one write, and the answer is read from the parser's queue.
Nothing here retries or follows a redirect: a request is sent once or reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import Iterable, Mapping

import aiohttp
import httpx
import yarl
from aiohttp import helpers as aiohttp_helpers
from aiohttp import http_exceptions
from aiohttp.streams import StreamReader

from worker.providers.types import CallError, ErrorClass, Reply

#: Bytes of an answer that are read at most; what is longer is no answer to a prompt.
MAX_BODY_BYTES = 64 * 2**20
#: Seconds to set up a connection, name lookup and TLS included.
CONNECT_DEADLINE_S = 15.0
#: Seconds that an unused connection is kept. Providers close theirs after a minute or more.
KEEPALIVE_S = 30.0
#: Deadline of a request by an httpx client that set no read timeout.
DEFAULT_DEADLINE_S = 600.0

USER_AGENT = "promptyard"


class Client(httpx.AsyncBaseTransport):
    """Connections to providers, as many as calls are made at once. To be made inside a running event loop.

    Proxies come from the environment (`HTTPS_PROXY`, `NO_PROXY`), for https, when a host is first used.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S)
        self._peers: dict[yarl.URL, aiohttp.ClientRequest] = {}
        self._prepared: dict[str, tuple[Mapping[str, str], aiohttp.ClientRequest, bytes]] = {}

    async def aclose(self) -> None:
        await self._connector.close()

    async def post(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        deadline_s: float,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> Reply:
        """Send one POST and read its answer whole, whatever its status.

        Args:
            deadline_s: wall-clock limit of everything: connecting, waiting, reading.

        Raises:
            CallError: no answer was had. `TIMEOUT` at the deadline, `MALFORMED` for what is too long or not
                HTTP, `CONFIG` for an address or certificate that cannot work, `TRANSIENT` for the rest.
        """
        try:
            known = self._prepared.get(url)
            if known is None or known[0] != headers:
                target = yarl.URL(url)
                peer = self._peer(target)
                head = _head("POST", target.raw_path_qs, peer.headers["Host"], headers.items())
                known = self._prepared[url] = (dict(headers), peer, head)
            return await self._exchange("POST", known[1], known[2], body, deadline_s, max_body_bytes)
        except (OSError, ValueError, aiohttp.ClientError, http_exceptions.HttpProcessingError) as error:
            raise _call_error(error, _host(url), deadline_s) from None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Serve an `httpx.AsyncClient`. Its read timeout becomes the deadline of the whole exchange."""
        deadline_s = request.extensions.get("timeout", {}).get("read") or DEFAULT_DEADLINE_S
        body = await request.aread()
        try:
            peer = self._peer(yarl.URL(str(request.url), encoded=True))
            target = request.url.raw_path.decode("ascii")
            host = request.headers["Host"]
            head = _head(request.method, target, host, request.headers.multi_items())
            reply = await self._exchange(request.method, peer, head, body, deadline_s, MAX_BODY_BYTES)
        except (OSError, ValueError, aiohttp.ClientError, http_exceptions.HttpProcessingError) as error:
            raise _httpx_error(error, request) from error
        # The body is decoded already: httpx must not do it again.
        coding = ("content-encoding", "content-length", "transfer-encoding")
        headers = [(name, value) for name, value in reply.headers.items() if name.lower() not in coding]
        return httpx.Response(reply.status, headers=headers, content=reply.body, request=request)

    def _peer(self, url: yarl.URL) -> aiohttp.ClientRequest:
        """What aiohttp's pool needs to know of a host. It is never sent itself.

        Raises:
            ValueError: it is not http, names no host, or holds credentials, which belong into a header.
        """
        origin = url.origin()
        if url.scheme not in ("http", "https") or url.raw_authority != origin.raw_authority:
            raise ValueError("not a plain http address")
        peer = self._peers.get(origin)
        if peer is None:
            proxy = proxy_auth = None
            if url.scheme == "https":
                with contextlib.suppress(LookupError):
                    proxy, proxy_auth = aiohttp_helpers.get_env_proxy_for_url(url)
            peer = aiohttp.ClientRequest("POST", origin, loop=self._loop, proxy=proxy, proxy_auth=proxy_auth)
            self._peers[origin] = peer
        return peer

    async def _exchange(
        self,
        method: str,
        peer: aiohttp.ClientRequest,
        head: bytes,
        body: bytes,
        deadline_s: float,
        max_bytes: int,
    ) -> Reply:
        """Send a request and read its answer.

        Raises:
            TimeoutError: the deadline has passed.
            OSError, ClientError, HttpProcessingError, ValueError: as aiohttp says it.
        """
        deadline = self._loop.time() + deadline_s
        try:
            connection = await self._connector.connect(peer, [], _connect_timeout(deadline_s))
        except TimeoutError:
            raise aiohttp.ConnectionTimeoutError from None
        try:
            protocol = connection.protocol
            if protocol is None or protocol.transport is None:
                raise aiohttp.ServerDisconnectedError
            cut = _Cut(protocol.transport)
            timer = self._loop.call_at(deadline, cut)
            try:
                protocol.set_response_params(skip_payload=method == "HEAD", read_until_eof=True)
                protocol.transport.write(b"%b%d\r\n\r\n%b" % (head, len(body), body))
                message, payload = await protocol.read()
                while 100 <= message.code < 200 and message.code != 101:  # interim answers
                    message, payload = await protocol.read()
                if message.code == 101:
                    raise _Unreadable("the provider switched protocols")
                answer = await _read(payload, max_bytes)
            except Exception:
                if cut.made:
                    raise TimeoutError from None
                raise
            finally:
                timer.cancel()
            if cut.made:  # a body that ends with the connection looks whole when the connection is cut
                raise TimeoutError
        except BaseException:
            connection.close()
            raise
        connection.release()
        return Reply(message.code, message.headers, answer)


class _Cut:
    """Breaks a connection at the deadline of the call on it."""

    __slots__ = ("made", "transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.made = False

    def __call__(self) -> None:
        self.made = True
        self.transport.abort()


class _Unreadable(ValueError):
    """The answer cannot be one. The text may be shown."""


async def _read(payload: StreamReader, max_bytes: int) -> bytes:
    answer = await payload.readany()
    if payload.at_eof() and len(answer) <= max_bytes:
        return answer  # nearly every answer comes in one piece
    pieces = bytearray(answer)
    while len(pieces) <= max_bytes:
        if payload.at_eof():
            return bytes(pieces)
        pieces += await payload.readany()
    raise _Unreadable(f"the answer is longer than {max_bytes} bytes")


def _head(method: str, target: str, host: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """The head of a request up to the value of Content-Length.

    Raises:
        ValueError: a header holds characters that would end it.
    """
    # Framing is ours: the body is one piece of known length, on a connection that is kept.
    ours = ("host", "content-length", "transfer-encoding", "connection")
    given = [(name, value) for name, value in headers if name.lower() not in ours]
    names = {name.lower() for name, _ in given}
    defaults = [("User-Agent", USER_AGENT), *aiohttp.ClientRequest.DEFAULT_HEADERS.items()]
    given += [(name, value) for name, value in defaults if name.lower() not in names]
    for name, value in given:
        if any(bad in name or bad in value for bad in "\r\n\0"):
            raise ValueError("a line break in a header")
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in given)]
    return "\r\n".join([*lines, "Content-Length: "]).encode("latin-1")


@functools.lru_cache(maxsize=64)
def _connect_timeout(deadline_s: float) -> aiohttp.ClientTimeout:
    # aiohttp rounds longer timeouts up to whole seconds unless told not to.
    return aiohttp.ClientTimeout(connect=min(CONNECT_DEADLINE_S, deadline_s), ceil_threshold=float("inf"))


def _host(url: str) -> str:
    try:
        return yarl.URL(url).host or "the provider"
    except ValueError:
        return "the provider"


def _call_error(error: Exception, host: str, deadline_s: float) -> CallError:
    """What a failed exchange means. Texts are our own: aiohttp's may hold whole addresses."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        limit_s = min(CONNECT_DEADLINE_S, deadline_s)
        return CallError(ErrorClass.TIMEOUT, f"{host} could not be connected to within {limit_s:g} s")
    if isinstance(error, TimeoutError):
        return CallError(ErrorClass.TIMEOUT, f"{host} gave no whole answer within {deadline_s:g} s")
    if isinstance(error, _Unreadable):
        return CallError(ErrorClass.MALFORMED, f"{host}: {error}")
    if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
        return CallError(ErrorClass.TRANSIENT, f"the proxy for {host} does not let the call through")
    if isinstance(error, http_exceptions.HttpProcessingError):
        return CallError(ErrorClass.MALFORMED, f"{host} answered something that is not HTTP")
    if isinstance(error, aiohttp.ClientPayloadError):
        if isinstance(error.__cause__, http_exceptions.ContentEncodingError):
            return CallError(ErrorClass.MALFORMED, f"{host} answered a body that cannot be decompressed")
        return CallError(ErrorClass.TRANSIENT, f"{host} closed the connection within its answer")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return CallError(ErrorClass.CONFIG, f"{host} has no valid TLS certificate; check its base_url")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return CallError(ErrorClass.TRANSIENT, f"the name {host} cannot be resolved")
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = os.strerror(error.os_error.errno) if error.os_error.errno else type(error.os_error).__name__
        return CallError(ErrorClass.TRANSIENT, f"{host}:{error.port} cannot be reached: {reason}")
    if isinstance(error, ValueError):
        return CallError(ErrorClass.CONFIG, f"{host}: the address or a header of the request is not valid")
    return CallError(ErrorClass.TRANSIENT, f"{host} closed the connection before it answered")


def _httpx_error(error: Exception, request: httpx.Request) -> httpx.TransportError:
    """The same in httpx's terms."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return httpx.ConnectTimeout("no connection within the timeout", request=request)
    if isinstance(error, TimeoutError):
        return httpx.ReadTimeout("no whole answer within the read timeout", request=request)
    if isinstance(error, aiohttp.ClientConnectorError):
        return httpx.ConnectError(str(error), request=request)
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError | ValueError):
        return httpx.RemoteProtocolError(str(error), request=request)
    if isinstance(error, http_exceptions.HttpProcessingError):
        return httpx.RemoteProtocolError(str(error), request=request)
    return httpx.ReadError(str(error), request=request)
