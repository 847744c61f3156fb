"""K10: an engine, its hook, probes, the front and our own servers where there is IPv6 alone.

In a network namespace with what a pod of an IPv6-only cluster has: loopback, and one address, which
is IPv6. What a whole such cluster does (kubelet, kube-proxy, DNS) is not shown here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isthmus.api.desired import Engine, EngineType
from isthmus.api.ip_family import IpFamily
from isthmus.backends.kubernetes.render import CONTAINER_PORT, pod_template
from isthmus.front import envoy
from isthmus.front.files import write
from isthmus.routing.members import Worker
from playground.config import default_cache
from playground.engines.install import install
from playground.progress import Progress
from playground.routers import envoy_binary
from tests.fronts.loopback import QUICK
from tests.traffic.client import REPOSITORY
from tests.unit.builders import desired, k8s_pool

ADDRESS = "fd00:10::7"
IPV6 = IpFamily.IPV6

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes a network namespace: needs root")

ASK = """\
import asyncio, sys
from isthmus.probing.client import HttpProbeClient

async def main():
    async with HttpProbeClient() as client:
        print((await asyncio.wait_for(client.get(sys.argv[1], headers={}), 5)).status)

asyncio.run(main())
"""
STAND_BY = """\
import asyncio, sys
from isthmus.loop.standby import standing_by

async def main():
    async with standing_by(9000):
        await asyncio.Event().wait()

asyncio.run(main())
"""


class Pod:
    """A network namespace; it goes with the process that holds it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        hold = (
            f"ip link set lo up && ip -6 addr add {ADDRESS}/128 dev lo && echo up && exec sleep 600"
        )
        self.holder = subprocess.Popen(
            ["unshare", "--net", "/bin/sh", "-c", hold], stdout=subprocess.PIPE, text=True
        )
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == "up\n"
        self.inside = ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net"]
        self.environment = {
            "PATH": f"{folder}/bin:{os.environ['PATH']}",
            "PYTHONPATH": f"{REPOSITORY}/operator",
            **QUICK,
        }

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.inside, *command],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @contextlib.contextmanager
    def serving(self, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        log = (self.folder / "log").open("ab")
        process = subprocess.Popen(
            [*self.inside, *command],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
            log.close()

    def end(self) -> None:
        """Kill whoever is inside: process 1 of a container, killed here, leaves its engine."""
        inside = os.readlink(f"/proc/{self.holder.pid}/ns/net")
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdigit() and os.readlink(folder / "ns" / "net") == inside:
                    os.kill(int(folder.name), signal.SIGKILL)
        self.holder.communicate(timeout=10)

    def status(self, port: int, path: str, *, host: str = f"[{ADDRESS}]") -> str:
        """What our own probe client is answered, "" for nothing."""
        return self.run(sys.executable, "-c", ASK, f"http://{host}:{port}{path}").stdout.strip()

    def wait_200(self, port: int, path: str) -> None:
        end = time.monotonic() + 60
        while (seen := self.status(port, path)) != "200":
            log = (self.folder / "log").read_text(encoding="utf-8")[-2000:]
            assert time.monotonic() < end, f"{port}{path}: {seen!r}\n{log}"
            time.sleep(0.1)


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    install(tmp_path)
    made = Pod(tmp_path)
    try:
        yield made
    finally:
        made.end()


def container(engine: EngineType) -> dict[str, Any]:
    """The engine's container as it is rendered for such a cluster."""
    pool = k8s_pool(engine=Engine(type=engine, image="engine"))
    made: Any = pod_template(
        desired=desired(pool),
        pool=pool,
        revision="r",
        pre_stop_seconds=0,
        shutdown_seconds=5,
        family=IPV6,
    )
    found: dict[str, Any] = made["spec"]["containers"][0]
    return found


@pytest.mark.parametrize("engine", list(EngineType))
def test_k10_a_pod_serves_drains_and_ends(pod: Pod, engine: EngineType) -> None:
    """Both engines, with process 1 and the hook: SGLang's server takes one family only."""
    rendered = container(engine)
    with pod.serving(*rendered["command"], *rendered["args"]) as process:
        pod.wait_200(CONTAINER_PORT, rendered["readinessProbe"]["httpGet"]["path"])
        if engine is EngineType.SGLANG:
            assert pod.status(CONTAINER_PORT, "/ready", host="127.0.0.1") == "", "IPv6 alone"
        hook = rendered["lifecycle"]["preStop"]["exec"]["command"]
        done = pod.run(*hook)
        assert (done.returncode, done.stderr) == (0, "")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_k10_the_front_and_our_own_servers(pod: Pod) -> None:
    rendered = container(EngineType.VLLM)
    listen = pod.run(
        sys.executable, "-c", "from isthmus.listening import any_address; print(any_address())"
    ).stdout.strip()
    assert listen == "::"
    ports = envoy.Ports(address=listen)
    folder = pod.folder
    bootstrap = envoy.bootstrap(directory=str(folder), ports=ports)
    write(folder / envoy.BOOTSTRAP_FILE, envoy.text(bootstrap))
    worker = Worker(ADDRESS, CONTAINER_PORT)
    write(folder / envoy.EDS_FILE, envoy.text(envoy.endpoints([worker])))
    command = [
        str(envoy_binary(default_cache(), Progress(silent=True))),
        *("--config-path", str(folder / envoy.BOOTSTRAP_FILE)),
        *("--use-dynamic-base-id", "--log-level", "warning", "--concurrency", "1"),
    ]
    with (
        pod.serving(*rendered["command"], *rendered["args"]),
        pod.serving(*command),
        pod.serving(sys.executable, "-c", STAND_BY),
    ):
        pod.wait_200(CONTAINER_PORT, "/health")
        pod.wait_200(ports.health, "/ready")
        pod.wait_200(ports.requests, "/v1/models")
        pod.wait_200(9000, "/healthz")
        # The same listeners take IPv4, where there is some.
        for port, path in ((ports.requests, "/v1/models"), (9000, "/healthz")):
            assert pod.status(port, path, host="127.0.0.1") == "200"
