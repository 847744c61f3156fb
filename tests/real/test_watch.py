"""The watch against a real kube-apiserver: what it tells, what it misses, and who finds that."""

import asyncio
import contextlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from isthmus.apiserver.client import KubernetesApiServer
from isthmus.apiserver.connection import Connection
from isthmus.apiserver.objects import dig, name, uid
from isthmus.apiserver.relist import Relist, RelistTimes
from isthmus.apiserver.resources import PODS, SERVICES, SLURM_JOBS, WATCHED
from isthmus.apiserver.store import Store
from isthmus.errors import SettingsError
from isthmus.watch.operator import WatchSettings, run_watch
from tests.bareapi import bare_api, connect, connection, new_namespace
from tests.ports import free_port

MANAGED = {"app.kubernetes.io/managed-by": "isthmus"}


async def until(
    condition: Callable[[], object], *, what: str, watch: "Watch | None" = None
) -> None:
    try:
        async with asyncio.timeout(30):
            while not condition():
                if watch is not None and watch.task.done():
                    await watch.task
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"in 30 s it did not come true that {what}")


async def until_closed(url: str) -> None:
    """Wait until nothing listens there any more."""
    host, port = url.removeprefix("https://").split(":")
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except ConnectionRefusedError:
                return
            writer.close()
            await asyncio.sleep(0.05)


@dataclass
class Watch:
    """A running watch in this event loop."""

    store: Store
    task: asyncio.Task[None]
    stop: asyncio.Event
    listed: list[None] = field(default_factory=list)


@asynccontextmanager
async def watching(
    *namespaces: str,
    store: Store | None = None,
    port: int | None = None,
    probes: dict[str, Callable[[], object]] | None = None,
    source: Connection | None = None,
) -> AsyncIterator[Watch]:
    held = store or Store(watched=[resource for resource, _ in WATCHED])
    ready, stop, listed = asyncio.Event(), asyncio.Event(), list[None]()
    task = asyncio.create_task(
        run_watch(
            settings=WatchSettings(namespaces=namespaces, liveness_port=port),
            store=held,
            connection=source or connection(),
            probes=probes or {},
            on_listed=lambda: listed.append(None),
            ready_flag=ready,
            stop_flag=stop,
        )
    )
    connections = open_connections()
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    try:
        yield Watch(store=held, task=task, stop=stop, listed=listed)
    finally:
        stop.set()
        await asyncio.wait({task}, timeout=20)
        assert task.done(), "the watch did not stop"
        # kopf does not wait for its TLS connections to close; whoever runs next would be blamed.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                while open_connections() > connections:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)


def open_connections() -> int:
    """Return how many files the running loop waits for."""
    selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    return len(selector.get_map())


@pytest.fixture
async def api() -> AsyncIterator[KubernetesApiServer]:
    client = await connect()
    yield client
    await client.close()


@pytest.fixture
async def namespace(api: KubernetesApiServer) -> str:
    return await new_namespace(api)


def service(namespace: str, name: str, **labels: str) -> dict[str, object]:
    return {
        "metadata": {"namespace": namespace, "name": name, "labels": MANAGED | labels},
        "spec": {"ports": [{"port": 80}]},
    }


def slurm_job(namespace: str, name: str) -> dict[str, object]:
    return {
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "clusterRef": {"name": "hpc", "namespace": namespace},
            "deployment": "llama",
            "pool": "hpc",
            "slot": 0,
            "attempt": "x7k2qp",
            "revision": "0123456789",
            "jobName": "llama-isthmus0-0123456789-0-x7k2qp",
        },
    }


async def test_store_follows_what_happens(api: KubernetesApiServer, namespace: str) -> None:
    before = await api.create(SLURM_JOBS, slurm_job(namespace, "before"))
    async with watching(namespace) as watch:
        store = watch.store
        await until(lambda: store.get(SLURM_JOBS, namespace, "before"), what="it is listed")
        assert watch.listed, "objects from a list are told apart"
        await api.create(SLURM_JOBS, slurm_job(namespace, "after"))
        await until(lambda: store.get(SLURM_JOBS, namespace, "after"), what="it is seen")
        await api.patch(
            SLURM_JOBS,
            namespace=namespace,
            name="after",
            patch={"status": {"phase": "Pending"}},
            subresource="status",
        )
        await until(
            lambda: dig(store.get(SLURM_JOBS, namespace, "after"), "status", "phase") == "Pending",
            what="its change is seen",
        )
        await api.delete(SLURM_JOBS, namespace=namespace, name="before", uid=uid(before))
        await until(lambda: store.get(SLURM_JOBS, namespace, "before") is None, what="it is gone")


async def test_only_our_objects_and_namespaces_are_held(
    api: KubernetesApiServer, namespace: str
) -> None:
    other = await new_namespace(api)
    await api.create(SERVICES, service(namespace, "ours"))
    await api.create(SERVICES, service(other, "elsewhere"))
    foreign = service(namespace, "foreign")
    foreign["metadata"] = {"namespace": namespace, "name": "foreign"}
    await api.create(SERVICES, foreign)
    async with watching(namespace) as watch:
        await until(lambda: watch.store.get(SERVICES, namespace, "ours"), what="ours is seen")
        await api.create(SERVICES, service(namespace, "later"))
        await until(lambda: watch.store.get(SERVICES, namespace, "later"), what="later is seen")
        assert [name(item) for item in watch.store.list(SERVICES)] == ["later", "ours"]
        # Without the label it is no object of ours any more, and with it again it is.
        unlabelled = {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}}
        await api.patch(SERVICES, namespace=namespace, name="later", patch=unlabelled)
        await until(lambda: watch.store.get(SERVICES, namespace, "later") is None, what="it left")
        labelled = {"metadata": {"labels": MANAGED}}
        await api.patch(SERVICES, namespace=namespace, name="later", patch=labelled)
        await until(lambda: watch.store.get(SERVICES, namespace, "later"), what="it is back")


async def test_watching_leaves_no_trace_on_objects(
    api: KubernetesApiServer, namespace: str
) -> None:
    made = await api.create(SLURM_JOBS, slurm_job(namespace, "j"))
    service_made = await api.create(SERVICES, service(namespace, "s"))
    async with watching(namespace) as watch:
        await until(lambda: watch.store.get(SLURM_JOBS, namespace, "j"), what="it is seen")
        patch = {"metadata": {"labels": {"touched": "yes"}}}
        touched = await api.patch(SLURM_JOBS, namespace=namespace, name="j", patch=patch)
        await until(
            lambda: dig(watch.store.get(SLURM_JOBS, namespace, "j"), "metadata", "labels"),
            what="its change is seen",
        )
    assert made != touched
    assert await api.get(SLURM_JOBS, namespace=namespace, name="j") == touched
    assert await api.get(SERVICES, namespace=namespace, name="s") == service_made


async def test_whole_cluster_is_watched_without_namespaces(api: KubernetesApiServer) -> None:
    one, two = await new_namespace(api), await new_namespace(api)
    async with watching() as watch:
        for each in (one, two):
            await api.create(SLURM_JOBS, slurm_job(each, "j"))
            await until(
                lambda at=each: watch.store.get(SLURM_JOBS, at, "j"),  # type: ignore[misc]
                what=f"{each}/j is seen",
            )


async def test_relist_finds_a_deletion_that_no_watch_told(
    api: KubernetesApiServer, namespace: str
) -> None:
    """What happens while the operator's watch is down: kopf never tells it."""
    store = Store(watched=[resource for resource, _ in WATCHED])
    relist = Relist(
        api=api, store=store, watched=WATCHED, namespaces=[namespace],
        times=RelistTimes(interval=3600, request_delay=0.05),
    )  # fmt: skip
    await relist.first_sync(deadline=30)
    assert store.synced
    made = await api.create(SLURM_JOBS, slurm_job(namespace, "gone"))
    async with watching(namespace, store=store):
        await until(lambda: store.get(SLURM_JOBS, namespace, "gone"), what="it is seen")
    await api.delete(SLURM_JOBS, namespace=namespace, name="gone", uid=uid(made))
    await api.create(SLURM_JOBS, slurm_job(namespace, "new"))
    async with watching(namespace, store=store):
        await until(lambda: store.get(SLURM_JOBS, namespace, "new"), what="the new one is seen")
        assert store.get(SLURM_JOBS, namespace, "gone"), "kopf tells it after all: simplify"
        relisting = asyncio.create_task(relist.run())
        relist.request()
        await until(
            lambda: store.get(SLURM_JOBS, namespace, "gone") is None, what="the relist found it"
        )
        relisting.cancel()


async def test_watch_survives_a_restart_of_the_api_server(
    api: KubernetesApiServer, namespace: str
) -> None:
    kubernetes = bare_api().kubernetes
    async with watching(namespace) as watch:
        await api.create(SLURM_JOBS, slurm_job(namespace, "before"))
        await until(lambda: watch.store.get(SLURM_JOBS, namespace, "before"), what="it is seen")
        try:
            await asyncio.to_thread(kubernetes.kill_apiserver)
            await until_closed(kubernetes.server)
        finally:
            await asyncio.to_thread(kubernetes.start_apiserver)
        await api.create(SLURM_JOBS, slurm_job(namespace, "after"))
        await until(lambda: watch.store.get(SLURM_JOBS, namespace, "after"), what="it is seen")
        assert not watch.task.done()


async def test_one_refused_token_does_not_end_the_watch(
    api: KubernetesApiServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the API server forgets for a moment whom the token belongs to."""
    logins = 0
    original = Connection.load

    async def load(self: Connection, **_: object) -> object:
        nonlocal logins
        logins += 1
        configuration = await original(self)
        if logins <= 2:  # the first look, and the first login
            configuration.api_key["BearerToken"] = "Bearer refused"
        return configuration

    source = connection()
    monkeypatch.setattr(Connection, "load", load)
    async with watching(namespace, source=source) as watch:
        await api.create(SLURM_JOBS, slurm_job(namespace, "j"))
        await until(
            lambda: watch.store.get(SLURM_JOBS, namespace, "j"), what="it is seen", watch=watch
        )
    assert logins >= 3


async def test_watch_without_a_configuration_does_not_start() -> None:
    source = Connection(kubeconfig="/nonexistent")
    with pytest.raises(SettingsError, match="no kubeconfig /nonexistent"):
        await run_watch(
            settings=WatchSettings(), store=Store(watched=[]), connection=source, probes={}
        )


async def test_watch_that_cannot_log_in_again_ends(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Crash-only: kopf by itself would wait for credentials for ever, and watch nothing."""
    loads = 0
    original = Connection.load

    async def load(self: Connection, **_: object) -> object:
        nonlocal loads
        loads += 1
        if loads > 2:
            raise SettingsError("the token file is gone")
        configuration = await original(self)
        configuration.api_key["BearerToken"] = "Bearer refused"
        return configuration

    source = connection()
    monkeypatch.setattr(Connection, "load", load)
    with pytest.raises(SettingsError, match="token file is gone"):
        async with watching(namespace, source=source) as watch:
            await asyncio.wait_for(watch.task, timeout=20)


async def test_liveness_endpoint_shows_and_fails_with_its_probes(namespace: str) -> None:
    sick = False

    def probe() -> str:
        if sick:
            raise RuntimeError("the workers are stuck")
        return "fine"

    def ask(port: int) -> tuple[int, bytes]:
        end = time.monotonic() + 10
        while time.monotonic() < end:  # it is served a moment after the watch says ready
            with contextlib.suppress(urllib.error.URLError):
                return ask_once(port)
        raise TimeoutError("the endpoint does not answer")

    def ask_once(port: int) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, b""

    port = free_port()
    async with watching(namespace, port=port, probes={"loop": probe}) as watch:
        status, body = await asyncio.to_thread(ask, port)
        assert (status, json.loads(body)) == (200, {"loop": "fine"})
        assert not watch.task.done()
    sick = True
    port = free_port()
    async with watching(namespace, port=port, probes={"loop": probe}):
        status, _ = await asyncio.to_thread(ask, port)
        assert status == 500


def test_pods_are_watched_by_label_only() -> None:
    """All pods of a cluster would cost its memory; the label costs nothing."""
    assert dict(WATCHED)[PODS] == "app.kubernetes.io/managed-by=isthmus"
