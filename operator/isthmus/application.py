"""The operator as a process: its parts started in order and ended together.

Order matters: the lease first, then a complete list of everything, and only then workers. Any part
that ends by an error ends the process with it; a restart continues from what exists. That is for
faults of ours alone: what a tenant or a site wrote is guarded where it is read (docs/security.md),
because a restart would find it again.

Told to stop, it begins nothing more, and gives the lease back as soon as all that writes has ended:
the next instance waits for that, and for nothing else of this one.
"""

import asyncio
import logging

from isthmus.allow_list import allow_list
from isthmus.apiserver.client import KubernetesApiServer
from isthmus.apiserver.connection import Connection
from isthmus.apiserver.election import Candidate, ElectionTimes, LeaderElector
from isthmus.apiserver.gate import Gate, OpenGate
from isthmus.assembly import Parts, assemble
from isthmus.bounded_http import addresses_of, bounded_client
from isthmus.loop.queue import WorkQueue
from isthmus.loop.standby import standing_by
from isthmus.probing.client import HttpProbeClient
from isthmus.settings import Settings
from isthmus.signals import EndLimit, take_signals, unless_asked
from isthmus.small_server import serving
from isthmus.telemetry.metrics import PATH, Metrics
from isthmus.watch.operator import WatchSettings, run_watch

_log = logging.getLogger(__name__)

_FINISH_SECONDS = 20.0
_KILL_SECONDS = 30.0
"""After its end has begun: more than `_FINISH_SECONDS`, for closing what is open."""


async def run(settings: Settings) -> None:
    """Run the operator until it gets SIGTERM or SIGINT.

    Raises:
        SettingsError: no usable configuration.
        NotLeaderError: the lease was lost.
        Exception: whatever ended a part; the process must end non-zero.
    """
    asked = asyncio.Event()
    take_signals(asked, kill_after=_KILL_SECONDS)
    connection = Connection(kubeconfig=settings.kubeconfig, context=settings.context)
    api = await KubernetesApiServer.connect(connection, timeout=settings.api_timeout)
    elector_api = await KubernetesApiServer.connect(connection, timeout=settings.election_timeout)
    elector: LeaderElector | None = None
    metrics = Metrics()
    try:
        async with serving(settings.metrics_port, {PATH: metrics.page}):
            if settings.leader_election:
                elector = _elector(elector_api, settings)
                async with standing_by(settings.liveness_port):
                    await unless_asked(asked, elector.acquire())
            if not asked.is_set():
                await lead(settings, connection, api, elector, asked, metrics=metrics)
    finally:
        if elector is not None:
            await elector.release()
        await elector_api.close()
        await api.close()


def _elector(api: KubernetesApiServer, settings: Settings) -> LeaderElector:
    return LeaderElector(
        api,
        candidate=Candidate(
            namespace=settings.namespace, name=settings.lease_name, identity=settings.identity
        ),
        times=ElectionTimes(
            lease_duration=settings.lease_duration,
            renew_interval=settings.renew_interval,
            request_timeout=settings.election_timeout,
            renew_deadline=settings.election_deadline,
        ),
    )


async def lead(
    settings: Settings,
    connection: Connection,
    api: KubernetesApiServer,
    elector: LeaderElector | None,
    asked: asyncio.Event,
    *,
    metrics: Metrics,
) -> None:
    """Do the work of the one that leads, until it is asked to end or a part of it ends.

    Args:
        settings: the operator's.
        connection: to the API server, for the watch.
        api: a client of it.
        elector: that holds the lease, None where there is no other instance.
        asked: set when the process is told to end.
        metrics: counts what is told.

    Raises:
        Exception: whatever ended a part; the process must end non-zero.
    """
    gate: Gate = OpenGate() if elector is None else elector
    protected = await addresses_of(api.host) if api.host else ()
    allowed = allow_list(settings.router_allow, protected=protected)
    async with HttpProbeClient() as http, bounded_client(allowed) as routers:
        parts = assemble(
            settings,
            api=api,
            gate=gate,
            prober_client=http,
            router_client=routers,
            trusting=lambda context: bounded_client(allowed, verify=context),
            metrics=metrics,
        )
        limit = EndLimit(_KILL_SECONDS)
        try:
            await _run_parts(settings, connection, parts, elector, asked=asked, limit=limit)
        finally:
            parts.queue.shut_down()
            await parts.prober.close()
            await parts.clusters.close()
            limit.over()


async def _run_parts(
    settings: Settings,
    connection: Connection,
    parts: Parts,
    elector: LeaderElector | None,
    *,
    asked: asyncio.Event,
    limit: EndLimit,
) -> None:
    """Sync, then run everything until `asked` is set or anything fails; gives the lease back."""
    writers: list[asyncio.Future[None]] = []
    watch: asyncio.Task[None] | None = None
    if elector is not None:
        writers.append(asyncio.create_task(elector.keep(), name="lease"))
    try:
        sync = parts.relist.first_sync(deadline=settings.first_sync_deadline)
        await unless_asked(asked, _first_of(asyncio.create_task(sync, name="first sync"), writers))
        if asked.is_set():
            return
        parts.triggers.attach()
        parts.triggers.add_all()
        _log.info("In sync with the API server; reconciling")
        loop = asyncio.create_task(parts.loop.run(), name="loop")
        writers += [
            loop,
            asyncio.create_task(parts.relist.run(), name="relist"),
            asyncio.create_task(parts.events.run(), name="events"),
            asyncio.create_task(parts.routers.run(), name="external routers"),
            asyncio.ensure_future(parts.fatal),
        ]
        watch = asyncio.create_task(_watch(settings, connection, parts, asked), name="watch")
        stop = asyncio.create_task(_wait_for(asked), name="asked to stop")
        await _first_of(stop, [*writers, watch])
        await _finish_passes(loop, parts.queue)
    finally:
        limit.begin()
        for task in writers:
            task.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        # Nothing is written from here on. What is left to close is in nobody's way.
        if elector is not None:
            await elector.release()
        if watch is not None:
            if not asked.is_set():
                watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)


async def _watch(
    settings: Settings, connection: Connection, parts: Parts, asked: asyncio.Event
) -> None:
    await run_watch(
        settings=WatchSettings(
            namespaces=settings.watch_namespaces,
            liveness_port=settings.liveness_port,
            family=settings.family,
        ),
        store=parts.store,
        connection=connection,
        probes={
            "sync": lambda: _require(parts.store.synced),
            "loop": parts.loop.check_progress,
        },
        on_listed=parts.relist.request,
        take_signals=lambda: take_signals(asked, kill_after=_KILL_SECONDS),
        stop_flag=asked,
    )


async def _wait_for(flag: asyncio.Event) -> None:
    await flag.wait()


async def _finish_passes(loop: "asyncio.Task[None]", queue: WorkQueue) -> None:
    """Told to stop: begin no pass, and let those under way end, which may hold an sbatch."""
    _log.info("Stopping: %d passes are under way", queue.active())
    queue.shut_down()
    done, _ = await asyncio.wait({loop}, timeout=_FINISH_SECONDS)
    if not done:
        _log.warning("Passes still run after %.0f s and are cut off", _FINISH_SECONDS)


def _require(synced: bool) -> str:
    if not synced:
        raise RuntimeError("not in sync with the API server yet")
    return "in sync"


async def _first_of(main: "asyncio.Task[None]", others: "list[asyncio.Future[None]]") -> None:
    """Wait for `main`; an error of any other comes first and ends it too."""
    try:
        done, _ = await asyncio.wait([main, *others], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task is not main:
                task.result()
                raise RuntimeError("a background task ended unexpectedly")
        await main
    finally:
        if not main.done():
            main.cancel()
            await asyncio.gather(main, return_exceptions=True)
