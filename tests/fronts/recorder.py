"""A worker that does as it is told and records what it was asked, byte for byte."""

from __future__ import annotations

import json
import socket
import socketserver
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass

from isthmus.routing.members import Worker

_NO_LINGER = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: int

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")


class Recorder:
    """Listens on loopback until its `with` block ends.

    Attributes:
        asked: the requests, in order.
        resets: every connection is reset once a request has arrived.
        answer: body of an answer by its request.
        connected: its connections.
        with_length: whether an answer has its length in its head.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.resets = False
        self.answer: Callable[[Asked], bytes] = _path_of
        self.with_length = True
        self.connected: set[socket.socket] = set()
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                outer.connected.add(self.connection)
                try:
                    while outer._one(self):
                        pass
                except OSError:
                    pass
                finally:
                    outer.connected.discard(self.connection)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.worker = Worker("127.0.0.1", self._server.server_address[1])

    def __enter__(self) -> Recorder:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self.connected):
            connection.close()

    def _one(self, handler: socketserver.StreamRequestHandler) -> bool:
        """Answer one request; whether the connection lives on."""
        first = handler.rfile.readline()
        if not first:
            return False
        method, path, _ = first.decode("latin-1").split(" ", 2)
        headers = {}
        while line := handler.rfile.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        if self.resets:
            self.asked.append(Asked(method, path, headers, 0))
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            handler.connection.close()
            return False
        asked = Asked(method, path, headers, _body(handler, headers))
        self.asked.append(asked)
        if headers.get("upgrade", "").lower() == "websocket":
            return _echo(handler)
        content = self.answer(asked)
        length = b"content-length: %d\r\n" % len(content) if self.with_length else b""
        handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + length)
        handler.wfile.write(b"\r\n" + content)
        return self.with_length


def _path_of(asked: Asked) -> bytes:
    return json.dumps({"path": asked.path}).encode()


def _body(handler: socketserver.StreamRequestHandler, headers: dict[str, str]) -> int:
    """Read a body; its size."""
    size = 0
    if "chunked" in headers.get("transfer-encoding", ""):
        while count := int(handler.rfile.readline(), 16):
            size += len(handler.rfile.read(count))
            handler.rfile.readline()
        handler.rfile.readline()
        return size
    rest = int(headers.get("content-length", 0))
    while rest:
        piece = handler.rfile.read(min(rest, 2**20))
        if not piece:
            break
        size, rest = size + len(piece), rest - len(piece)
    return size


def _echo(handler: socketserver.StreamRequestHandler) -> bool:
    handler.wfile.write(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n"
    )
    while piece := handler.connection.recv(4096):
        handler.wfile.write(piece)
    return False
