"""Fronts: Envoy itself, with the configuration that a tree writes, between clients and workers."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from isthmus.front import envoy
from tests.before.findings import any_of, finding
from tests.ports import free_port

ENVOY: Final = "ISTHMUS_BEFORE_ENVOY"
"""The environment variable that says where Envoy is."""

_KEY: Final = "KEY-OF-A-WORKER"
_SECONDS: Final = 20.0


class _Worker:
    """Answers 200, takes websockets, or resets each connection; keeps what it was asked."""

    def __init__(self, *, resets: bool = False) -> None:
        self.resets, self.port = resets, 0
        self.asked: list[str] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["_Worker"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            self.asked.append(head)
            if self.resets:
                writer.transport.abort()
                return
            if "upgrade: websocket" in head:
                status = "101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket"
            else:
                status = "200 OK\r\nContent-Length: 0\r\nConnection: close"
            writer.write(f"HTTP/1.1 {status}\r\n\r\n".encode())
            await writer.drain()
        writer.close()


def _bootstrap(folder: str, ports: envoy.Ports, *, engine: str) -> Any:
    """As a front of such workers has it; older ones know nothing of engines."""
    try:
        policy = any_of("isthmus.front.policy:Policy")(engines=(engine,))
    except LookupError:
        return envoy.bootstrap(directory=folder, ports=ports)
    behaviour = any_of("isthmus.front.envoy:Behaviour")(policy=policy)
    return any_of("isthmus.front.envoy:bootstrap")(
        directory=folder, ports=ports, behaviour=behaviour
    )


@asynccontextmanager
async def _front(*workers: tuple[_Worker, str], engine: str) -> AsyncIterator[int]:
    """The port of a front before workers, each with its key or ""."""
    made = any_of("isthmus.routing.members:Worker", "isthmus.front.workers:Worker")
    found = {made("127.0.0.1", worker.port): key for worker, key in workers}
    ports = envoy.Ports(
        address="127.0.0.1", requests=free_port(), health=free_port(), admin=free_port()
    )
    with tempfile.TemporaryDirectory(prefix="isthmus-before-") as folder:
        config = Path(folder) / envoy.BOOTSTRAP_FILE
        config.write_text(envoy.text(_bootstrap(folder, ports, engine=engine)), encoding="utf-8")
        endpoints = envoy.endpoints(list(found), keys=found)
        (Path(folder) / envoy.EDS_FILE).write_text(envoy.text(endpoints), encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            os.environ[ENVOY],
            *("--config-path", str(config), "--use-dynamic-base-id"),
            *("--log-level", "critical", "--concurrency", "1"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            await _ready(ports.health)
            yield ports.requests
        finally:
            process.kill()
            await process.wait()


async def _ready(port: int) -> None:
    for _ in range(400):
        if await _status(port, "GET /ready HTTP/1.1") == 200:
            return
        await asyncio.sleep(0.05)
    raise TimeoutError("Envoy does not get ready")


async def _status(port: int, line: str, *headers: str) -> int:
    """The status of an answer; 0 for none."""
    head = "\r\n".join((line, "Host: front", *headers, "", ""))
    with suppress(OSError, ValueError, IndexError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(head.encode())
            async with asyncio.timeout(_SECONDS):
                return int((await reader.readline()).split()[1])
        finally:
            writer.close()
    return 0


@finding("F1", "HTTP/1.0 is refused with 426, an offer of TLS and a websocket with 403")
async def ordinary_clients_are_refused() -> bool:
    handshake = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )
    async with _Worker().listening() as worker, _front((worker, ""), engine="vllm") as port:
        assert await _status(port, "GET /v1/models HTTP/1.1") == 200
        found = [
            await _status(port, "GET /v1/models HTTP/1.0"),
            await _status(
                port, "GET /v1/models HTTP/1.1", "Connection: Upgrade", "Upgrade: TLS/1.2"
            ),
            await _status(port, "GET /v1/realtime HTTP/1.1", *handshake),
        ]
    return found != [200, 200, 101]


@finding("F2", "a worker's key goes with requests for its settings and its administration")
async def administration_gets_the_key() -> bool:
    async with _Worker().listening() as worker, _front((worker, _KEY), engine="sglang") as port:
        await _status(port, "GET /v1/models HTTP/1.1")
        assert _KEY.lower() in worker.asked.pop()
        await _status(port, "GET /server_info HTTP/1.1")
        await _status(port, "POST /flush_cache HTTP/1.1", "Content-Length: 0")
    return any(_KEY.lower() in head for head in worker.asked)


@finding("M4", "on a retry a worker without a key is sent the key of the one before it")
async def keyless_worker_gets_a_key() -> bool:
    async with (
        _Worker(resets=True).listening() as keyed,
        _Worker().listening() as keyless,
        _front((keyed, _KEY), (keyless, ""), engine="vllm") as port,
    ):
        for _ in range(32):
            await _status(port, "GET /v1/models HTTP/1.1", "Authorization: Bearer clients-own")
    assert any(_KEY.lower() in head for head in keyed.asked)
    assert keyless.asked
    return any(_KEY.lower() in head for head in keyless.asked)


@finding("M3", "64 MiB are kept of each of a million requests, without a limit of memory")
def memory_has_no_limit() -> bool:
    made: Any = envoy.bootstrap(directory="/tmp", ports=envoy.Ports())
    (chain,) = made["static_resources"]["listeners"][0]["filter_chains"]
    manager = chain["filters"][0]["typed_config"]
    (host,) = manager["route_config"]["virtual_hosts"]
    return host["request_body_buffer_limit"] > 8 * 2**20 or "overload_manager" not in made


@finding("L8", "an address that is none is in the file of endpoints, which Envoy refuses whole")
def odd_address_is_an_endpoint() -> bool:
    workers = any_of("isthmus.routing.members:workers", "isthmus.front.workers:workers")
    found = workers([_slice("not-an-address"), _slice("10.0.0.1")])
    assert any(worker.address == "10.0.0.1" for worker in found)
    return any(worker.address == "not-an-address" for worker in found)


def _slice(address: str) -> dict[str, Any]:
    made = any_of("isthmus.routing.slices:worker_slice")
    found: dict[str, Any] = made(
        namespace="team-a",
        deployment="llama",
        service="llama",
        owner={"name": f"j-{address}", "uid": f"uid-{address}"},
        address=address,
        port=8000,
    )
    return found
