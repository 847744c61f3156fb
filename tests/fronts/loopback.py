"""Engines and an Envoy as processes of their own; each ends with its `with` block."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from isthmus.front import envoy
from isthmus.front.files import write
from isthmus.routing.members import Worker
from playground.config import default_cache
from playground.engines.install import install
from playground.engines.launch import EngineProcess, start
from playground.progress import Progress
from playground.routers import envoy_binary
from tests.ports import free_port

QUICK = {
    "SIMULATOR_LOAD_SECONDS": "0.1",
    "SIMULATOR_FIRST_TOKEN_SECONDS": "0.02",
    "SIMULATOR_TOKENS_PER_SECOND": "500",
}


def engine_tree(folder: Path) -> Path:
    install(folder)
    return folder


def engine(
    tree: Path, folder: Path, *words: str, port: int | None = None, **knobs: str
) -> EngineProcess:
    """A vLLM that serves the model `llama`."""
    port = port or free_port()
    command = [tree / "bin" / "vllm", "serve", "org/model", "--port", str(port), *words]
    command += ["--served-model-name", "llama", "--shutdown-timeout", "30"]
    return start(command, log_path=folder / f"{port}.log", port=port, environment=QUICK | knobs)


def sglang(tree: Path, folder: Path, *, key: str) -> EngineProcess:
    """An SGLang that serves the model `llama` and has an API key."""
    port = free_port()
    command = [tree / "bin" / "sglang", "serve", "--model-path", "org/model", "--port", str(port)]
    command += ["--served-model-name", "llama", "--api-key", key]
    return start(command, log_path=folder / f"{port}.log", port=port, environment=QUICK)


def worker_of(served: EngineProcess) -> Worker:
    return Worker("127.0.0.1", int(served.url.rpartition(":")[2]))


def until(look: Callable[[], Any], what: str, *, timeout: float = 20.0) -> Any:
    end = time.monotonic() + timeout
    while not (seen := look()):
        assert time.monotonic() < end, f"waited {timeout:.0f} s for: {what}; last seen: {seen!r}"
        time.sleep(0.05)
    return seen


def get(url: str) -> httpx.Response | None:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url, timeout=10, trust_env=False)
    return None


def answered(served: EngineProcess) -> int:
    """Requests that an engine has finished, 0 while it does not answer."""
    said = get(f"{served.url}/metrics")
    lines = [] if said is None else said.text.splitlines()
    found = [line for line in lines if line.startswith("vllm:request_success_total")]
    return int(sum(float(line.rpartition(" ")[2]) for line in found))


class Front:
    """An Envoy with the files that the sidecar would write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = envoy.Ports(
            address="127.0.0.1", requests=free_port(), health=free_port(), admin=free_port()
        )
        self.url = f"http://127.0.0.1:{self.ports.requests}"
        self.health = f"http://127.0.0.1:{self.ports.health}"
        self.admin = f"http://127.0.0.1:{self.ports.admin}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What Envoy has said so far."""
        return (self.folder / "envoy.log").read_text(encoding="utf-8", errors="replace")

    def follow(self, *served: EngineProcess) -> None:
        """What the sidecar does when the membership changes."""
        found = sorted(map(worker_of, served))
        write(self.folder / envoy.EDS_FILE, envoy.text(envoy.endpoints(found)))

    def wait_for(self, *served: EngineProcess) -> None:
        """Follow, and wait until Envoy has taken it in."""
        self.wait_for_workers({worker_of(one): "" for one in served})

    def wait_for_workers(self, keys: Mapping[Worker, str]) -> None:
        """Write workers with their keys, and wait until Envoy has taken them in."""
        document = envoy.endpoints(sorted(keys), keys=keys)
        write(self.folder / envoy.EDS_FILE, envoy.text(document))
        wanted = sorted(map(str, keys))

        def seen() -> bool:
            said = httpx.get(f"{self.admin}/clusters?format=json", trust_env=False).json()
            cluster = next(c for c in said["cluster_statuses"] if c["name"] == envoy.CLUSTER)
            places = [h["address"]["socket_address"] for h in cluster.get("host_statuses", [])]
            return sorted(f"{p['address']}:{p['port_value']}" for p in places) == wanted

        until(seen, f"Envoy knows {wanted}")


@contextlib.contextmanager
def front(
    folder: Path, *served: EngineProcess, behaviour: envoy.Behaviour | None = None
) -> Iterator[Front]:
    """A front that sends to these engines."""
    made = Front(folder)
    bootstrap = envoy.bootstrap(directory=str(folder), ports=made.ports, behaviour=behaviour)
    write(folder / envoy.BOOTSTRAP_FILE, envoy.text(bootstrap))
    made.follow(*served)
    log = (folder / "envoy.log").open("wb")
    process = subprocess.Popen(
        [
            envoy_binary(default_cache(), Progress(silent=True)),
            *("--config-path", str(folder / envoy.BOOTSTRAP_FILE)),
            *("--use-dynamic-base-id", "--log-level", "warning", "--concurrency", "2"),
            *("--drain-strategy", "immediate", "--drain-time-s", "60"),
            *("--file-flush-interval-msec", "50"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    made.process = process
    try:
        until(
            lambda: (said := get(f"{made.health}/ready")) is not None and said.status_code == 200,
            "Envoy is ready",
        )
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        log.close()
