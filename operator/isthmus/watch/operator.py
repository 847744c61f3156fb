"""Runs kopf as watch engine, and only as that: no finalizers, no annotations, no peering.

kopf 1.45 is crash-only by design: whatever ends a watch for good is raised by `kopf.operator()`,
and the process has to end with it. Start-up is fast and idempotent in return.

kopf takes the whole process for its own: both signals, and every task that appeared after its
start, for which it waits five seconds at its end before it cancels it. It gets neither here.
"""

import asyncio
import dataclasses
import logging
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kopf

from isthmus.api.ip_family import IpFamily, host_port
from isthmus.apiserver.client import PAGE
from isthmus.apiserver.connection import Connection
from isthmus.apiserver.resources import WATCHED, Resource
from isthmus.apiserver.store import Store
from isthmus.watch.events import register_handlers

_CREDENTIALS_LIFETIME = timedelta(minutes=10)
_KOPF = Path(kopf.__file__).parent
_ENDING_SECONDS = 15.0  # kopf ends at once unless a request of its own hangs


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """How to watch.

    Attributes:
        namespaces: names of the namespaces, empty for the whole cluster.
        liveness_port: port of `/healthz` on all addresses of a family, None for no endpoint.
        family: of the address at which the kubelet asks there.
        request_timeout: seconds for one request that is not a watch.
        inactivity_timeout: seconds without an event or bookmark after which a watch is renewed;
            the API server sends a bookmark every minute.
        kill_after: seconds after the end of a watch by an error in which the process must have
            ended too, or kopf kills it; None where the process goes on without a watch.
        watched: (resource, label selector) pairs.
    """

    namespaces: tuple[str, ...] = ()
    liveness_port: int | None = None
    family: IpFamily = IpFamily.IPV4
    request_timeout: float = 30.0
    inactivity_timeout: float = 70.0
    kill_after: float | None = 30.0
    watched: Sequence[tuple[Resource, str]] = field(default=WATCHED)


async def run_watch(
    *,
    settings: WatchSettings,
    store: Store,
    connection: Connection,
    probes: Mapping[str, Callable[[], object]],
    on_listed: Callable[[], None] = lambda: None,
    take_signals: Callable[[], None] = lambda: None,
    ready_flag: asyncio.Event | None = None,
    stop_flag: asyncio.Event | None = None,
) -> None:
    """Watch until `stop_flag` is set. Tasks of others are neither waited for nor cancelled.

    Args:
        settings: how to watch.
        store: where the objects go.
        connection: how to log in.
        probes: liveness by name: each is called for GET /healthz (at most every 10 s) and raises
            if something is stuck; its value is shown.
        on_listed: see `register_handlers`.
        take_signals: called once kopf has taken SIGTERM and SIGINT for itself, which it does in
            the main thread: who wants them takes them again here.
        ready_flag: set once watching begins.
        stop_flag: set it to end this call normally.

    Raises:
        SettingsError: there is no usable configuration for the API server.
        Exception: whatever else ended the watching. The process must end with a non-zero code.
    """
    await connection.load()
    registry = kopf.OperatorRegistry()
    register_handlers(registry=registry, store=store, watched=settings.watched, on_listed=on_listed)
    login_failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    _register_login(registry, connection, login_failed)
    for name, probe in probes.items():
        _register_probe(registry, name, probe)
    # Every object has a logger of kopf's that tells each event; the loop tells what matters.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    ending = asyncio.Event()
    asked = asyncio.create_task(_wait_for(stop_flag or asyncio.Event()), name="stop flag")
    watching = asyncio.create_task(
        _run_kopf(
            take_signals,
            registry=registry,
            settings=_kopf_settings(settings),
            standalone=True,
            clusterwide=not settings.namespaces,
            namespaces=settings.namespaces,
            liveness_endpoint=_endpoint(settings.liveness_port, settings.family),
            ready_flag=ready_flag,
            stop_flag=ending,
        ),
        name="kopf",
    )
    try:
        await asyncio.wait({watching, asked, login_failed}, return_when=asyncio.FIRST_COMPLETED)
        ending.set()
        await asyncio.wait({watching}, timeout=_ENDING_SECONDS)
        if login_failed.done():
            await login_failed
        if watching.done():
            await watching
    finally:
        ending.set()
        login_failed.cancel()
        for task in (asked, watching):
            task.cancel()
        await asyncio.wait({asked, watching})


async def _run_kopf(take_signals: Callable[[], None], **arguments: Any) -> None:
    """As `kopf.operator`, without the signals and without a wait for tasks that are not kopf's."""
    before = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(**arguments)
    take_signals()
    try:
        await kopf.run_tasks(tasks, ignored=_Every())
    finally:
        # Requests of a discovery of which one has failed go on trying by themselves.
        left = [task for task in asyncio.all_tasks() - before if _is_of_kopf(task)]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


class _Every(Collection["asyncio.Task[Any]"]):
    """Holds every task there is or will be, as what kopf is to ignore at its end.

    It ends the tasks that `spawn_tasks` returned, and these end theirs. Our handlers never wait, so
    none needs the grace that this takes away; a daemon or a timer would.
    """

    def __contains__(self, task: object) -> bool:
        return True

    def __iter__(self) -> "Iterator[asyncio.Task[Any]]":
        return iter(asyncio.all_tasks())

    def __len__(self) -> int:
        return len(asyncio.all_tasks())


def _is_of_kopf(task: "asyncio.Task[Any]") -> bool:
    """Whether what a task runs is defined in kopf; a context would tell, but not in Python 3.11."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and Path(code.co_filename).is_relative_to(_KOPF)


async def _wait_for(flag: asyncio.Event) -> None:
    await flag.wait()


def _kopf_settings(settings: WatchSettings) -> kopf.OperatorSettings:
    theirs = kopf.OperatorSettings()
    theirs.peering.standalone = True  # leadership is our own Lease
    theirs.scanning.disabled = True  # no cluster-wide watch of CRDs and namespaces, nor its RBAC
    theirs.posting.enabled = False  # no Events from log lines
    theirs.persistence.diffbase_storage = _NoDiffBase()
    theirs.persistence.progress_storage = _NoProgress()
    theirs.networking.request_timeout = settings.request_timeout
    theirs.networking.connect_timeout = settings.request_timeout / 3
    theirs.watching.connect_timeout = settings.request_timeout / 3
    theirs.watching.inactivity_timeout = settings.inactivity_timeout
    theirs.watching.server_timeout = 600
    for resource, selector in settings.watched:
        if selector:
            # Three parts: of "v1/services" kopf would take "v1" for the group, and match nothing.
            key = (resource.group, resource.version, resource.plural)
            theirs.watching.label_selectors[key] = selector
    # What a start needs in memory: a page of each kind, and a task for each object just heard of.
    theirs.watching.chunk_size = PAGE
    theirs.queueing.idle_timeout = 0.2
    theirs.queueing.error_delays = (1, 2, 5, 10, 30, 60)
    theirs.process.ultimate_exiting_timeout = settings.kill_after
    return theirs


def _endpoint(port: int | None, family: IpFamily) -> str | None:
    return None if port is None else f"http://{host_port(family.any_address, port)}/healthz"


def _register_login(
    registry: kopf.OperatorRegistry, connection: Connection, failed: asyncio.Future[None]
) -> None:
    logins = 0

    @kopf.on.login(registry=registry, errors=kopf.ErrorsMode.PERMANENT)
    async def login(**_: object) -> kopf.ConnectionInfo:
        nonlocal logins
        if logins:
            await asyncio.sleep(1)  # kopf logs in again without a pause while the answer is 401
        logins += 1
        # A fresh expiration makes kopf read the rotated token in time, and makes equal
        # credentials differ from those it remembers as refused: one 401 is not the end.
        expiration = datetime.now(UTC) + _CREDENTIALS_LIFETIME
        try:
            return dataclasses.replace(await credentials(connection), expiration=expiration)
        except Exception as error:
            # Of a login that fails kopf takes no notice: it waits for credentials for ever. So
            # the failure is told to `run_watch`, which ends kopf and with it this wait.
            if not failed.done():
                failed.set_exception(error)
            await asyncio.Event().wait()
            raise


async def credentials(connection: Connection) -> kopf.ConnectionInfo:
    """Translate the configuration of the client into the one of kopf."""
    configuration = await connection.load()
    header = await configuration.get_api_key_with_prefix("BearerToken")
    scheme, _, token = (header or "").strip().rpartition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        scheme=scheme or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        proxy_url=configuration.proxy,
        # With trust_env, aiohttp looks for proxies in a thread before each request, and dies of an
        # assertion when kopf changes its credentials meanwhile: only where it is needed.
        trust_env=configuration.proxy is None and bool(urllib.request.getproxies()),
    )


def _register_probe(
    registry: kopf.OperatorRegistry, name: str, probe: Callable[[], object]
) -> None:
    # With any other mode a failing probe hangs the endpoint instead of failing it.
    @kopf.on.probe(registry=registry, id=name, errors=kopf.ErrorsMode.PERMANENT)
    async def run_probe(**_: object) -> object:
        return probe()


class _NoDiffBase(kopf.DiffBaseStorage):
    """Keeps nothing: what was handled last is a question only for handlers we do not have."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """Keeps nothing: event handlers have no progress."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence
