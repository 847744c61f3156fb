"""Operator processes: the project's own application, wired as it is, above simulated edges.

`isthmus.application` is run unchanged; what it reaches outside with (the wall clock, randomness,
SLURM's commands, HTTP, kopf) is replaced by what belongs to the process that asks.
"""

import asyncio
import contextlib
import random
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from isthmus import application, assembly
from isthmus.api.desired import Endpoint
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.election import LeaderElector
from isthmus.apiserver.resources import WATCHED, Resource
from isthmus.apiserver.store import Store
from isthmus.backends.slurm.login import ClusterAccess, ClusterHandle
from isthmus.modeldeployment import plan as planner
from isthmus.modeldeployment.plan import STRATEGY
from isthmus.settings import Settings
from isthmus.telemetry.metrics import Metrics
from isthmus.watch.events import take_in
from tests.simulation.apiedge import ApiEdge
from tests.simulation.apiserver import Json, selected
from tests.simulation.clock import Process, current_process, outside
from tests.simulation.engines import ProbeClient
from tests.simulation.promises.secrecy import SECRET_MARK
from tests.simulation.slurmclient import SimulatedSlurmClient

if TYPE_CHECKING:
    from tests.simulation.world import World

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_SELECTORS = dict(WATCHED)


class OperatorProcess(Process):
    """One life of one operator replica."""

    def __init__(self, world: "World", name: str, seed: str) -> None:
        super().__init__(name)
        self.world = world
        self.random = Random(seed)
        self.watch: Watch | None = None


class Replica:
    """One replica of the operator's Deployment: a process, started again when it ends."""

    def __init__(self, world: "World", number: int) -> None:
        self._world, self._number, self._lives = world, number, 0
        self.process: OperatorProcess | None = None
        self.lives: list[OperatorProcess] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.ended_by: list[BaseException] = []

    def start(self) -> None:
        self._lives += 1
        name = f"op{self._number}.{self._lives}"
        process = OperatorProcess(self._world, name, f"{self._world.seed}/{name}")
        self.process = process
        self.lives.append(process)
        self._world.tell(f"{name}: starts")
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._run(process), context=process.context)
        task.add_done_callback(lambda task: self._ended(process, task), context=outside())
        self.tasks.append(task)

    def kill(self, *, restart_after: float) -> None:
        """SIGKILL; the kubelet starts it again."""
        if self.process is None:
            return
        self._world.tell(f"{self.process.name}: killed")
        self.process.stopped = True
        self._forget()
        self._again(restart_after)

    def _forget(self) -> None:
        if self.process is not None and self.process.watch is not None:
            self.process.watch.close()
        self.process = None

    def _again(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, self.start, context=outside())

    def _ended(self, process: OperatorProcess, task: "asyncio.Task[None]") -> None:
        if self._world.over:
            return
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.ended_by.append(error)
        self._world.tell(f"{process.name}: ends: {error!r}")
        if self.process is process:
            self._forget()
            self._again(2.0)

    async def _run(self, process: OperatorProcess) -> None:
        """As `application.run`, from the point where the clients are made."""
        world, settings = self._world, self._world.settings(process.name)
        api = world.edge(process, timeout=settings.api_timeout)
        elector = LeaderElector(
            world.edge(process, timeout=settings.election_timeout),
            namespace=settings.namespace,
            name=settings.lease_name,
            identity=process.name,
            lease_duration=settings.lease_duration,
            renew_interval=settings.renew_interval,
            request_timeout=settings.election_timeout,
            renew_deadline=settings.election_deadline,
            clock=asyncio.get_running_loop().time,
            wall_clock=lambda: datetime.fromtimestamp(process.wall_clock(), tz=UTC),
            random=Random(process.random.random()),
        )
        try:
            await elector.acquire()
            await _lead(settings, api, elector)
        finally:
            await elector.release()


_lead: Callable[[Settings, ApiEdge, LeaderElector], Awaitable[None]]


async def _lead(settings: Settings, api: ApiEdge, elector: LeaderElector) -> None:
    run: Callable[..., Awaitable[None]] = application.lead
    await run(settings, None, api, elector, asyncio.Event(), metrics=Metrics())


class Watch:
    """kopf's place: a list, then events with a delay; a broken watch misses deletions."""

    def __init__(
        self,
        process: OperatorProcess,
        *,
        store: Store,
        on_listed: Callable[[], None],
        selectors: Mapping[Resource, str],
    ) -> None:
        self._process, self._store, self._on_listed = process, store, on_listed
        self._selectors = selectors
        self._due: dict[Resource, float] = {}
        self._world = process.world
        self._missed: set[Resource] = set()

    def open(self) -> None:
        for resource in self._selectors:
            self._relist(resource)
        self._world.api.listeners.append(self._changed)

    def close(self) -> None:
        with contextlib.suppress(ValueError):
            self._world.api.listeners.remove(self._changed)

    def mend(self) -> None:
        """The watches are back: kopf lists, which tells nothing of what was deleted."""
        for resource in sorted(self._missed, key=str):
            self._process.context.run(self._relist, resource)
        self._missed.clear()

    def _relist(self, resource: Resource) -> None:
        selector = self._selectors[resource]
        listed = self._world.api.list(resource, label_selector=selector, namespaces=None)
        for obj in listed.items:
            self._later(resource, None, dict(obj))

    def _changed(self, resource: Resource, event: str, obj: Json, by: str) -> None:
        selector = self._selectors.get(resource)
        if selector is None or not selected(obj, selector):
            return
        cut_off = self._process.cut_off_until - self._world.now
        if cut_off > 0 and not self._missed:
            loop = asyncio.get_running_loop()
            loop.call_later(cut_off + 1, self.mend, context=outside())
        if self._world.watches_broken or cut_off > 0:
            self._missed.add(resource)
        else:
            self._later(resource, event, obj)

    def _later(self, resource: Resource, event: str | None, obj: Json) -> None:
        loop = asyncio.get_running_loop()
        delay = self._process.random.random() * self._world.watch_delay
        due = max(self._due.get(resource, 0.0), loop.time() + delay)
        self._due[resource] = due
        loop.call_at(due, self._deliver, resource, event, obj, context=self._process.context)

    def _deliver(self, resource: Resource, event: str | None, obj: Json) -> None:
        assert k8s.name(obj)
        take_in(self._store, resource, event, obj)
        if event is None:
            self._on_listed()


async def _run_watch(*, store: Store, on_listed: Callable[[], None], **_: Any) -> None:
    process = _process()
    process.watch = Watch(process, store=store, on_listed=on_listed, selectors=_SELECTORS)
    process.watch.open()
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        process.watch.close()


def _process() -> OperatorProcess:
    process = current_process()
    assert isinstance(process, OperatorProcess)
    return process


def _reach(access: ClusterAccess, *, secrets: object) -> ClusterHandle:
    process = _process()
    process.world.oracle.stale_after = access.stale_after
    return SimulatedSlurmClient(
        process.world.behind(access.bin_directory),
        process=process,
        oracle=process.world.oracle,
        submit_timeout=access.submit_timeout,
    ).handle()


def _attempt() -> str:
    return "".join(_process().random.choice(_ALPHABET) for _ in range(6))


def _api_key() -> str:
    return SECRET_MARK + "".join(_process().random.choice(_ALPHABET) for _ in range(20))


def _seeded(*_: object) -> Random:
    return Random(_process().random.random())


@contextlib.contextmanager
def simulated_edges(*, surge: int = STRATEGY.surge) -> Iterator[None]:
    """Replace what the application reaches outside with, and its strategy where that is another."""
    wall_clock = SimpleNamespace(time=lambda: _process().wall_clock())
    with contextlib.ExitStack() as stack:
        for module, name, value in (
            (assembly, "time", wall_clock),
            (assembly, "random", SimpleNamespace(Random=_seeded)),
            (assembly, "new_attempt", _attempt),
            (assembly, "reach", _reach),
            (assembly, "new_api_key", _api_key),
            (Endpoint, "key_per_attempt", property(lambda _: _process().world.keys_apart)),
            (application, "HttpProbeClient", lambda: ProbeClient(_process().world.machines)),
            (application, "run_watch", _run_watch),
            (application, "EndLimit", _EndLimit),
        ):
            stack.enter_context(patch.object(module, name, value))
        if surge != STRATEGY.surge:
            stack.enter_context(patch.object(planner, "STRATEGY", replace(STRATEGY, surge=surge)))
        stack.enter_context(patch("isthmus.apiserver.relist.Random", _seeded))
        stack.enter_context(patch("isthmus.probing.prober.Random", _seeded))
        # Nothing is sent over TLS, and reading all authorities took a fifth of a run.
        stack.enter_context(patch("ssl.create_default_context", _trusts_nobody))
        yield


class _EndLimit:
    """Kills nobody: the process is the one of the whole run, and virtual time may jump."""

    def __init__(self, seconds: float) -> None:
        pass

    def begin(self) -> None:
        pass

    def over(self) -> None:
        pass


_TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _trusts_nobody(*_: object, **__: object) -> ssl.SSLContext:
    return _TRUSTS_NOBODY


def seed_everything(seed: str) -> None:
    """The pollers of the project spread themselves by the global source."""
    random.seed(seed)
