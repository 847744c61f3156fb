"""Routers that are not ours, as real processes: what we put in, what we take out, what we leave."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from isthmus.apiserver.resources import ENDPOINT_SLICES, MODEL_DEPLOYMENTS
from isthmus.apiserver.secrets import Secrets
from isthmus.apiserver.store import Store
from isthmus.routing.keep_external import ExternalRouters, RouterClients, RouterTimes
from isthmus.routing.slices import worker_slice
from playground.config import default_cache
from playground.engines.launch import EngineProcess
from playground.progress import Progress
from playground.routers import SGLANG_ROUTER, SMG, environment
from tests.fronts.loopback import answered, engine, engine_tree, get, until
from tests.ports import free_port

KEY = "router-key-0123"
MODULES = {
    "smg": ("smg.launch_router", SMG),
    "sglang-router": ("sglang_router.launch_router", SGLANG_ROUTER),
}


class RouterProcess:
    """One router on a port of its own, which can be ended and started empty."""

    def __init__(self, kind: str, folder: Path, *, guarded: bool = True) -> None:
        self.kind, self.folder, self.port = kind, folder, free_port()
        self.key = KEY if guarded else ""
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        module, requirement = MODULES[self.kind]
        python = environment(default_cache(), requirement, Progress(silent=True)) / "bin/python"
        with (self.folder / f"{self.kind}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(python, "-m", module, "--host", "127.0.0.1", "--port", str(self.port)),
                    *("--policy", "round_robin", "--log-level", "warn"),
                    *(("--api-key", self.key) if self.key else ()),
                    *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())),
                    *("--health-check-interval-secs", "1"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(lambda: get(f"{self.url}/liveness") is not None, "the router answers", timeout=60)

    def kill(self) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)

    def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx.request(
            method, self.url + path, json=body, headers=headers, trust_env=False, timeout=10
        )

    def workers(self) -> set[str]:
        """URLs of the workers that it lists as healthy."""
        listed = self.call("GET", "/workers").json()["workers"]
        return {worker["url"] for worker in listed if worker["is_healthy"]}

    def chat(self) -> int:
        body = {
            "model": "llama",
            "max_tokens": 2,
            "messages": [{"role": "user", "content": "hello"}],
        }
        return self.call("POST", "/v1/chat/completions", body).status_code


class Cluster:
    """The operator's store with one deployment, and the task that is tested."""

    def __init__(self, router: RouterProcess) -> None:
        self.router = router
        self.store = Store(watched=[MODEL_DEPLOYMENTS, ENDPOINT_SLICES])
        self.version = 0
        self.gate_open = True
        self.worker_keys: Any = None
        self.secrets = Secrets(self, clock=lambda: 0.0)  # type: ignore[arg-type]
        self.put(MODEL_DEPLOYMENTS, self.deployment())

    def deployment(self, **endpoint: Any) -> dict[str, Any]:
        external = {"kind": self.router.kind, "url": self.router.url}
        external["authSecretRef"] = {"name": "router", "key": "key"}  # type: ignore[assignment]
        return {
            "metadata": {"name": "llama", "namespace": "team-a", "uid": "uid-llama"},
            "spec": {
                "model": {"source": "hf://org/model", "servedNames": ["llama"]},
                "pools": [{"name": "hpc", "slurm": {"clusterRef": {"name": "hpc"}}}],
                "endpoint": endpoint or {"type": "External", "external": external},
            },
        }

    def put(self, resource: Any, obj: Any) -> None:
        self.version += 1
        meta = {**obj["metadata"], "resourceVersion": str(self.version)}
        meta.setdefault("uid", f"uid-{meta['name']}")
        self.store.put(resource, {**obj, "metadata": meta})

    def join(self, name: str, url: str, *, key: str | None = None) -> None:
        """What the operator does when a worker's health and identity are good."""
        host, port = url.removeprefix("http://").split(":")
        self.put(
            ENDPOINT_SLICES,
            worker_slice(
                namespace="team-a",
                deployment="llama",
                service="llama",
                owner={"name": name, "uid": f"uid-{name}"},
                address=host,
                port=int(port),
                key=key,
            ),
        )

    def leave(self, name: str) -> None:
        self.store.remove(ENDPOINT_SLICES, "team-a", name, f"uid-{name}")

    async def get(self, resource: Any, *, namespace: str, name: str) -> Any:
        """The API server, as far as Secrets are concerned."""
        assert namespace == "team-a"
        if name == "llama-worker-keys":
            return self.worker_keys
        assert name == "router"
        return {"data": {"key": base64.b64encode(KEY.encode()).decode()}}

    def check(self) -> None:
        assert self.gate_open


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return engine_tree(tmp_path_factory.mktemp("engines"))


@pytest.fixture(scope="module")
def engines(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[EngineProcess]]:
    folder = tmp_path_factory.mktemp("logs")
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(engine(tree, folder)) for _ in range(3)]
        for one in found:
            one.wait_ready(timeout=60)
        yield found


@pytest.fixture(params=list(MODULES))
def router(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RouterProcess]:
    found = RouterProcess(request.param, tmp_path)
    found.start()
    yield found
    found.kill()


@pytest.fixture
async def cluster(router: RouterProcess) -> AsyncIterator[tuple[Cluster, ExternalRouters]]:
    made = Cluster(router)
    async with httpx.AsyncClient(trust_env=False) as client:
        yield made, routers(made, client)


def routers(made: Cluster, client: httpx.AsyncClient) -> ExternalRouters:
    return ExternalRouters(
        store=made.store,
        clients=RouterClients(usual=client),
        secrets=made.secrets,
        check=made.check,
        times=RouterTimes(interval=3600.0),  # only what the test asks for
        operator_namespace="isthmus-system",
    )


async def wait_workers(router: RouterProcess, *wanted: str) -> None:
    def seen() -> bool:
        return router.workers() == set(wanted)

    await asyncio.to_thread(until, seen, f"the router has {wanted}", timeout=30)


Both = tuple[Cluster, ExternalRouters]


async def test_it_holds_what_the_membership_holds(
    cluster: Both, engines: list[EngineProcess]
) -> None:
    made, task = cluster
    one, two, _ = (served.url for served in engines)
    made.join("a", one)
    made.join("b", two)
    await task.cycle()
    await wait_workers(made.router, one, two)
    assert made.router.chat() == 200
    await task.cycle()  # nothing to do, nothing done
    await wait_workers(made.router, one, two)
    made.leave("a")
    await task.cycle()
    await wait_workers(made.router, two)


async def test_a_router_that_starts_empty_has_all_again_within_one_cycle(
    cluster: Both, engines: list[EngineProcess]
) -> None:
    made, task = cluster
    urls = [served.url for served in engines]
    for number, url in enumerate(urls):
        made.join(f"w{number}", url)
    await task.cycle()
    await wait_workers(made.router, *urls)
    assert task.problem("uid-llama") == ""
    made.router.kill()
    await task.cycle()  # nobody there: nothing is lost
    assert "does not answer" in (task.problem("uid-llama") or "")
    made.router.start()
    assert made.router.workers() == set()
    await task.cycle()
    await wait_workers(made.router, *urls)
    assert made.router.chat() == 200
    assert task.problem("uid-llama") == ""


async def test_a_worker_of_somebody_else_is_never_touched(
    cluster: Both, engines: list[EngineProcess]
) -> None:
    made, task = cluster
    ours, theirs, shared = (served.url for served in engines)
    for url in (theirs, shared):
        made.router.call("POST", "/workers", {"url": url, "model_id": "llama"})
    await wait_workers(made.router, theirs, shared)
    made.join("a", ours)
    made.join("b", shared)  # ours too, but they were first
    await task.cycle()
    await wait_workers(made.router, ours, theirs, shared)
    made.leave("a")
    made.leave("b")
    await task.cycle()
    await task.cycle()
    await wait_workers(made.router, theirs, shared)


async def test_a_foreign_server_on_a_reused_port_gets_no_request(
    cluster: Both, engines: list[EngineProcess], tree: Path, tmp_path: Path
) -> None:
    """Our worker has ended, another server listens at its address; the membership knows."""
    made, task = cluster
    ours = engines[0].url
    with engine(tree, tmp_path) as worker:
        worker.wait_ready(timeout=60)
        made.join("a", ours)
        made.join("b", worker.url)
        await task.cycle()
        await wait_workers(made.router, ours, worker.url)
        made.leave("b")
        await task.cycle()
        await wait_workers(made.router, ours)
        address = worker.url
    port = int(address.rpartition(":")[2])
    with engine(tree, tmp_path, port=port) as foreign:
        foreign.wait_ready(timeout=60)
        made.router.kill()
        made.router.start()
        await task.cycle()
        await wait_workers(made.router, ours)
        for _ in range(10):
            assert made.router.chat() == 200
        assert answered(foreign) == 0


async def test_it_leaves_a_router_that_the_deployment_leaves(
    cluster: Both, engines: list[EngineProcess]
) -> None:
    made, task = cluster
    made.join("a", engines[0].url)
    await task.cycle()
    await wait_workers(made.router, engines[0].url)
    made.put(MODEL_DEPLOYMENTS, made.deployment(type="Service"))
    await task.cycle()
    await wait_workers(made.router)


async def test_who_may_not_write_changes_nothing(
    cluster: Both, engines: list[EngineProcess]
) -> None:
    made, task = cluster
    made.join("a", engines[0].url)
    made.gate_open = False
    with pytest.raises(AssertionError):
        await task.cycle()
    assert made.router.workers() == set()


@pytest.mark.parametrize("kind", MODULES)
async def test_a_worker_with_a_key_is_registered_with_it(
    kind: str, tree: Path, tmp_path: Path
) -> None:
    """A router sends it where its client sent no Authorization of its own (measured)."""
    router, key = RouterProcess(kind, tmp_path, guarded=False), "key-of-the-worker-0123"
    router.start()
    try:
        made = Cluster(router)
        async with httpx.AsyncClient(trust_env=False) as client:
            task = routers(made, client)
            with engine(tree, tmp_path, "--api-key", key) as served:
                served.wait_ready()
                made.join("a", served.url, key="digest")
                await task.cycle()  # its key is not written down yet: not registered without it
                assert router.workers() == set()
                made.worker_keys = {"data": {"digest": base64.b64encode(key.encode()).decode()}}
                made.secrets.forget()
                await task.cycle()
                await wait_workers(router, served.url)
                assert router.chat() == 200
    finally:
        router.kill()
