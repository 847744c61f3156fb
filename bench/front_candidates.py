"""The fronts that were compared, each as thin as it can be, and engines that answer at once."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from bench.http_load import Address
from bench.idle import processor_time
from isthmus.front import drain, envoy
from isthmus.front.files import write
from isthmus.routing.members import Worker
from playground.config import default_cache
from playground.engines.launch import free_port
from playground.errors import PlaygroundError
from playground.progress import Progress
from playground.routers import SGLANG_ROUTER, SMG, environment, envoy_binary

PATIENCE = 60.0
SILENT = Progress(silent=True)


class Candidate(Protocol):
    """A front on loopback."""

    address: Address

    def start(self, workers: Sequence[Address]) -> None:
        """Start, and return when it takes requests."""

    def set(self, workers: Sequence[Address]) -> None:
        """Change the membership."""

    async def stop(self) -> None:
        """End as gracefully as it can."""

    def kill(self) -> None:
        """End now."""

    def memory(self) -> float:
        """MiB, resident, of all its processes."""


class Process:
    """What all of them share: one process in a session of its own."""

    def __init__(self, folder: Path) -> None:
        """Prepare."""
        self.folder = folder
        self.address: Address = ("127.0.0.1", free_port())
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it takes requests."""
        return f"http://{self.address[0]}:{self.address[1]}"

    def spawn(self, *command: str | Path) -> None:
        """Start it with its output in a file."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """End now."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    async def terminate(self) -> None:
        """TERM, and wait for its end."""
        assert self._process is not None
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, 30)

    def memory(self) -> float:
        """MiB, resident, of all its processes."""
        assert self._process is not None
        total = 0.0
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                if os.getsid(int(status.parent.name)) != self._process.pid:
                    continue
                fields = dict(
                    line.split(":", 1) for line in status.read_text().splitlines() if ":" in line
                )
                total += int(fields.get("VmRSS", "0 kB").split()[0]) / 1024
        return total

    def wait(self, url: str, accept: str = "") -> None:
        """Until a GET answers 200 with a text in it."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
                if accept in answer.read().decode():
                    return
            time.sleep(0.1)
        raise PlaygroundError(f"{url} does not answer; see {self.folder}/log")


class Envoy(Process):
    """Envoy with the configuration of `isthmus front`, endpoints from a file."""

    def start(self, workers: Sequence[Address]) -> None:
        """See `Candidate`."""
        ports = envoy.Ports(
            address="127.0.0.1", requests=self.address[1], health=free_port(), admin=free_port()
        )
        self._admin = f"http://127.0.0.1:{ports.admin}"
        write(self.folder / envoy.BOOTSTRAP_FILE, self.bootstrap(ports))
        self.set(workers)
        self.spawn(
            *(
                envoy_binary(default_cache(), SILENT),
                "--config-path",
                self.folder / "bootstrap.json",
            ),
            *("--use-dynamic-base-id", "--log-level", "warning", "--concurrency", "2"),
            *("--drain-strategy", "immediate", "--drain-time-s", "60"),
        )
        self.wait(f"http://127.0.0.1:{ports.health}/ready")

    def bootstrap(self, ports: envoy.Ports) -> str:
        """The text of its configuration."""
        return envoy.text(envoy.bootstrap(directory=str(self.folder), ports=ports))

    def processor_time(self) -> float:
        """Seconds that it has used so far."""
        assert self._process is not None
        return processor_time(self._process.pid)[0]

    def set(self, workers: Sequence[Address]) -> None:
        """See `Candidate`."""
        found = [Worker(*address) for address in workers]
        write(self.folder / envoy.EDS_FILE, envoy.text(envoy.endpoints(found)))

    async def stop(self) -> None:
        """See `Candidate`."""
        await asyncio.to_thread(lambda: drain.drain(admin=self._admin, budget=30, floor=1.5))
        await self.terminate()


class Smg(Process):
    """smg with its file discovery."""

    def start(self, workers: Sequence[Address]) -> None:
        """See `Candidate`."""
        self.set(workers)
        python = environment(default_cache(), SMG, SILENT) / "bin" / "python"
        self.spawn(
            *(python, "-m", "smg.launch_router", "--host", "127.0.0.1"),
            *("--port", str(self.address[1]), "--policy", "least_load"),
            *("--discovery-provider", "file", "--discovery-file", self.folder / "workers.json"),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())),
            *("--log-level", "warn", "--shutdown-grace-period-secs", "10"),
        )
        self.wait(f"{self.url}/readiness")
        wait_listed(self, workers)

    def set(self, workers: Sequence[Address]) -> None:
        """See `Candidate`."""
        listed = [
            {"id": f"{port}", "url": f"http://{host}:{port}", "model_id": "llama"}
            for host, port in workers
        ]
        write(self.folder / "workers.json", json.dumps({"version": 1, "workers": listed}))

    async def stop(self) -> None:
        """See `Candidate`."""
        await self.terminate()


class SglangRouter(Process):
    """sglang-router; workers come and go by its API."""

    def start(self, workers: Sequence[Address]) -> None:
        """See `Candidate`."""
        python = environment(default_cache(), SGLANG_ROUTER, SILENT) / "bin" / "python"
        self.spawn(
            *(python, "-m", "sglang_router.launch_router", "--host", "127.0.0.1"),
            *("--port", str(self.address[1]), "--policy", "round_robin"),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())),
            *("--log-level", "warn", "--shutdown-grace-period-secs", "10"),
        )
        self.wait(f"{self.url}/liveness")
        self.set(workers)
        wait_listed(self, workers)

    def set(self, workers: Sequence[Address]) -> None:
        """See `Candidate`."""
        wanted = {f"http://{host}:{port}" for host, port in workers}
        for worker in listed_workers(self.url):
            if worker["url"] not in wanted:
                call("DELETE", f"{self.url}/workers/{worker['id']}")
        for url in sorted(wanted - {worker["url"] for worker in listed_workers(self.url)}):
            call("POST", f"{self.url}/workers", {"url": url, "model_id": "llama"})

    async def stop(self) -> None:
        """See `Candidate`."""
        await self.terminate()


def wait_listed(router: Process, workers: Sequence[Address]) -> None:
    """Until a router of sglang's kind lists all workers as healthy."""
    wanted, end = {f"http://{host}:{port}" for host, port in workers}, time.monotonic() + PATIENCE
    while not wanted <= {w["url"] for w in listed_workers(router.url) if w["healthy"]}:
        if time.monotonic() > end:
            raise PlaygroundError(f"{router.url} does not list its workers")
        time.sleep(0.2)


def listed_workers(url: str) -> list[dict[str, str]]:
    """Id, URL and health of what is registered."""
    found = call("GET", f"{url}/workers").get("workers")
    return [
        {
            "id": str(worker.get("id")),
            "url": str(worker.get("url")),
            "healthy": "yes" if worker.get("is_healthy") or worker.get("status") == "ready" else "",
        }
        for worker in (found if isinstance(found, list) else [])
    ]


def call(method: str, url: str, body: Mapping[str, object] | None = None) -> dict[str, object]:
    """One call of a router's API; {} for an answer that is no object."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            found = json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        error.close()
        return {}
    return found if isinstance(found, dict) else {}


CANDIDATES: Mapping[str, type[Envoy] | type[Smg] | type[SglangRouter]] = {
    "envoy": Envoy,
    "smg": Smg,
    "sglang-router": SglangRouter,
}


def instant_engines(folder: Path, *, count: int) -> tuple[Process, list[Address]]:
    """One Envoy that answers for so many engines without thinking."""
    addresses = [("127.0.0.1", free_port()) for _ in range(count)]
    answer = {
        "id": "x",
        "object": "chat.completion",
        "model": "llama",
        "choices": [
            {
                "index": 0,
                "finish_reason": "length",
                "message": {"role": "assistant", "content": " token" * 16},
            }
        ],
    }
    model = {"id": "llama", "object": "model", "owned_by": "vllm", "max_model_len": 4096}
    bodies = {
        "/health": {},
        "/v1/chat/completions": answer,
        "/v1/models": {"object": "list", "data": [model]},
        "/version": {"version": "0.33.0"},
    }
    routes = [
        {
            "match": {"path": path},
            "direct_response": {"status": 200, "body": {"inline_string": json.dumps(body)}},
        }
        for path, body in bodies.items()
    ]
    kind = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{kind}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "engine",
        "route_config": {"virtual_hosts": [{"name": "e", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            # The whole request is read first, as engines do: who answers sooner has to close the
            # connection, and each request would pay for a new one.
            {
                "name": "envoy.filters.http.buffer",
                "typed_config": {
                    "@type": f"{kind}.http.buffer.v3.Buffer",
                    "max_request_bytes": 2**20,
                },
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{kind}.http.router.v3.Router"},
            },
        ],
    }
    chain = {
        "filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        ]
    }
    listeners = [
        {
            "name": f"engine-{port}",
            "address": {"socket_address": {"address": host, "port_value": port}},
            "filter_chains": [chain],
        }
        for host, port in addresses
    ]
    file = folder / "instant.json"
    file.write_text(json.dumps({"static_resources": {"listeners": listeners}}), encoding="utf-8")
    process = Process(folder)
    process.spawn(
        *(envoy_binary(default_cache(), SILENT), "--config-path", file),
        *("--use-dynamic-base-id", "--log-level", "warning", "--concurrency", "1"),
    )
    for host, port in addresses:
        process.wait(f"http://{host}:{port}/health")
    return process, addresses
