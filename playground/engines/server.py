"""A small HTTP/1.1 server on asyncio, as strict as the one under the real engines (uvicorn).

It is apart so that the engines' behaviours read without any wire detail. It knows keep-alive with
an idle limit, Content-Length and chunked bodies in both directions, `Expect: 100-continue`, and
that a request whose client has gone away is abandoned.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import urllib.parse
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
FIRST_REQUEST_SECONDS = 60.0
BODY_SECONDS = 60.0
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""
    client: str = "-"
    keep_alive: bool = True


@dataclass(frozen=True, slots=True)
class Response:
    """One answer; with `stream` set the body is sent in chunks as they come."""

    status: int = 200
    body: bytes = b""
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: AsyncGenerator[bytes, None] | None = None


Handler = Callable[[Request], Awaitable[Response]]
Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class BadRequestError(Exception):
    """The bytes received are not a request this server takes."""

    def __init__(self, status: int, message: str) -> None:
        """Keep the status to answer with."""
        super().__init__(message)
        self.status = status


def json_response(content: object, *, status: int = 200) -> Response:
    """Wrap a JSON document as an answer."""
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(status=status, body=body, content_type="application/json")


class _Protocol(asyncio.StreamReaderProtocol):
    """A stream protocol that also tells when the client has hung up."""

    def __init__(self, reader: asyncio.StreamReader, connected: Connected) -> None:
        super().__init__(reader, connected)
        self.hung_up = asyncio.Event()

    def eof_received(self) -> bool | None:
        self.hung_up.set()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.hung_up.set()
        super().connection_lost(exc)


class HttpServer:
    """Serves one handler on one socket that is bound already.

    `quiet` is set while no request is being answered.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        keep_alive_seconds: float = 5.0,
        access_log: Callable[[Request, int], None] | None = None,
        begun: Callable[[Request], None] = lambda _request: None,
        ended: Callable[[Request], None] = lambda _request: None,
    ) -> None:
        """Prepare; nothing listens before `listen`.

        Args:
            handler: makes the answers.
            keep_alive_seconds: how long a connection may idle.
            access_log: told each request with the status of its answer.
            begun: told each request when it has come.
            ended: told it when its whole answer is sent, or nobody waits for it any more.
        """
        self._begun, self._ended = begun, ended
        self._handler = handler
        self._keep_alive_seconds = keep_alive_seconds
        self._access_log = access_log
        self._server: asyncio.Server | None = None
        self._idle: set[asyncio.StreamWriter] = set()
        self._stopping = False
        self._in_flight = 0
        self.quiet = asyncio.Event()
        self.quiet.set()

    async def listen(self, bound: socket.socket) -> None:
        """Start to accept connections on a bound socket."""
        bound.setblocking(False)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, sock=bound, backlog=2048)

    def stop_listening(self) -> None:
        """Refuse new connections and close those without a request in flight."""
        self._stopping = True
        if self._server is not None:
            self._server.close()
        for writer in tuple(self._idle):
            writer.close()

    def _protocol(self) -> asyncio.BaseProtocol:
        reader = asyncio.StreamReader(limit=MAX_HEAD_BYTES)
        protocol = _Protocol(reader, lambda r, w: self._serve(r, w, protocol.hung_up))
        return protocol

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hung_up: asyncio.Event
    ) -> None:
        try:
            patience = FIRST_REQUEST_SECONDS
            while await self._serve_one(reader, writer, hung_up, patience):
                patience = self._keep_alive_seconds
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            self._idle.discard(writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve_one(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        hung_up: asyncio.Event,
        patience: float,
    ) -> bool:
        """Take one request and answer it; tell whether the connection goes on."""
        self._idle.add(writer)
        try:
            async with asyncio.timeout(patience):
                head = await reader.readuntil(b"\r\n\r\n")
            self._idle.discard(writer)
            request = await _read_request(head, reader, writer)
        except asyncio.LimitOverrunError:
            await _refuse(writer, BadRequestError(431, "Request header fields too large."))
            return False
        except BadRequestError as error:
            await _refuse(writer, error)
            return False
        exchange = asyncio.ensure_future(self._exchange(request, writer))
        gone = asyncio.ensure_future(hung_up.wait())
        try:
            await asyncio.wait({exchange, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not exchange.done():
                exchange.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                return await exchange and not hung_up.is_set()
            return False
        finally:
            gone.cancel()
            exchange.cancel()

    async def _exchange(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        self._in_flight += 1
        self.quiet.clear()
        self._begun(request)
        try:
            try:
                response = await self._handler(request)
            except Exception as error:  # a fault of the simulator must be seen
                response = Response(500, f"{type(error).__name__}: {error}".encode(), "text/plain")
            if self._access_log is not None:
                self._access_log(request, response.status)
            keep_alive = request.keep_alive and not self._stopping
            await _send(writer, request, response, keep_alive=keep_alive)
            return keep_alive
        finally:
            self._ended(request)
            self._in_flight -= 1
            if not self._in_flight:
                self.quiet.set()


async def _read_request(
    head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Request:
    lines = head[:-4].decode("latin-1").lstrip("\r\n").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or parts[0] not in METHODS or parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequestError(400, "Invalid HTTP request received.")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequestError(400, "Invalid HTTP request received.")
        headers[name.lower()] = value.strip()
    if parts[2] == "HTTP/1.1" and "host" not in headers:
        raise BadRequestError(400, "Invalid HTTP request received.")
    connection = headers.get("connection", "").lower()
    keep_alive = "keep-alive" in connection if parts[2] == "HTTP/1.0" else "close" not in connection
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    async with asyncio.timeout(BODY_SECONDS):
        body = await _read_body(headers, reader)
    peer = writer.get_extra_info("peername")
    client = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) and len(peer) >= 2 else "-"
    path = urllib.parse.unquote(parts[1].partition("?")[0])
    return Request(parts[0], path, headers, body, client, keep_alive)


async def _read_body(headers: Mapping[str, str], reader: asyncio.StreamReader) -> bytes:
    if "transfer-encoding" in headers:
        if headers["transfer-encoding"].lower() != "chunked" or "content-length" in headers:
            raise BadRequestError(400, "Invalid HTTP request received.")
        return await _read_chunks(reader)
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise BadRequestError(400, "Invalid HTTP request received.")
    if int(length) > MAX_BODY_BYTES:
        raise BadRequestError(413, "Request body too large.")
    return await reader.readexactly(int(length))


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        line = await reader.readuntil(b"\r\n")
        try:
            size = int(line.split(b";")[0].strip(), 16)
        except ValueError:
            raise BadRequestError(400, "Invalid HTTP request received.") from None
        if size < 0 or len(body) + size > MAX_BODY_BYTES:
            raise BadRequestError(413 if size >= 0 else 400, "Request body too large.")
        if size == 0:
            while await reader.readuntil(b"\r\n") != b"\r\n":  # trailers
                pass
            return bytes(body)
        body += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise BadRequestError(400, "Invalid HTTP request received.")


def _head(response: Response, extra: list[str]) -> bytes:
    lines = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
    lines += ["server: uvicorn"]
    if response.content_type:
        lines.append(f"content-type: {response.content_type}")
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    return "\r\n".join([*lines, *extra, "", ""]).encode("latin-1")


async def _refuse(writer: asyncio.StreamWriter, error: BadRequestError) -> None:
    body = str(error).encode()
    response = Response(error.status, body, "text/plain; charset=utf-8")
    writer.write(_head(response, [f"content-length: {len(body)}", "connection: close"]) + body)
    with contextlib.suppress(ConnectionError):
        await writer.drain()


async def _send(
    writer: asyncio.StreamWriter, request: Request, response: Response, *, keep_alive: bool
) -> None:
    closing = [] if keep_alive else ["connection: close"]
    if response.stream is None:
        length = [f"content-length: {len(response.body)}"]
        body = b"" if request.method == "HEAD" else response.body
        writer.write(_head(response, length + closing) + body)
        await writer.drain()
        return
    async with contextlib.aclosing(response.stream) as chunks:
        writer.write(_head(response, ["transfer-encoding: chunked", *closing]))
        async for chunk in chunks:
            if chunk:
                writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()
