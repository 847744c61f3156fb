"""The supervisor put together: watch, rounds, heartbeat, and an orderly end.

Unlike the operator it does not end when its watch of the API server does: connections run through
it, so it goes on with what it knows and watches again.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from isthmus.apiserver.client import KubernetesApiServer
from isthmus.apiserver.connection import Connection
from isthmus.apiserver.gate import GatedApiServer, OpenGate
from isthmus.apiserver.relist import Relist, RelistTimes
from isthmus.apiserver.resources import (
    ENDPOINT_SLICES,
    MANAGED_BY_SELECTOR,
    MODEL_DEPLOYMENTS,
    SLURM_CLUSTERS,
    SLURM_JOBS,
    Resource,
)
from isthmus.apiserver.secrets import Secrets
from isthmus.apiserver.store import Store
from isthmus.errors import ApiError
from isthmus.signals import take_signals, unless_asked
from isthmus.tunnels.admission import Admission
from isthmus.tunnels.bastion import Bastions
from isthmus.tunnels.checks import Checks, check_client
from isthmus.tunnels.heartbeat import Heartbeat
from isthmus.tunnels.links import Links
from isthmus.tunnels.publisher import Publisher
from isthmus.tunnels.rules import Outcome
from isthmus.tunnels.settings import TunnelSettings
from isthmus.tunnels.status_server import StatusServer
from isthmus.tunnels.supervisor import Identity, Parts, Supervisor, Times
from isthmus.watch.operator import WatchSettings, run_watch

_log = logging.getLogger(__name__)

WATCHED: tuple[tuple[Resource, str], ...] = (
    (MODEL_DEPLOYMENTS, ""),
    (SLURM_JOBS, ""),
    (SLURM_CLUSTERS, ""),
    (ENDPOINT_SLICES, MANAGED_BY_SELECTOR),
)
_STUCK_SECONDS = 60.0
_WATCH_AGAIN_SECONDS = 5.0


async def run(settings: TunnelSettings) -> None:
    """Run the supervisor until it gets SIGTERM or SIGINT.

    Raises:
        SettingsError: no usable configuration.
        ApiError: the API server did not answer at the start.
        Exception: whatever ended a part; the process must end non-zero.
    """
    asked = asyncio.Event()
    take_signals(asked)
    connection = Connection(kubeconfig=settings.kubeconfig, context=settings.context)
    api = await KubernetesApiServer.connect(connection, timeout=settings.api_timeout)
    store = Store(watched=[resource for resource, _ in WATCHED])
    relist = Relist(
        api=api,
        store=store,
        watched=WATCHED,
        namespaces=settings.watch_namespaces or None,
        times=RelistTimes(interval=settings.relist_interval),
    )
    try:
        await unless_asked(asked, relist.first_sync(deadline=settings.first_sync_deadline))
        if asked.is_set():
            return
        async with check_client() as http:

            def checks(on_outcome: Callable[[str, Outcome], None]) -> Checks:
                return Checks(
                    http,
                    interval=settings.check_interval,
                    timeout=settings.check_timeout,
                    on_outcome=on_outcome,
                )

            supervisor, heartbeat = _supervisor(settings, api=api, store=store, checks=checks)
            await _serve(settings, connection, supervisor, heartbeat, store, relist, asked)
    finally:
        await api.close()


def _supervisor(
    settings: TunnelSettings,
    *,
    api: KubernetesApiServer,
    store: Store,
    checks: Callable[[Callable[[str, Outcome], None]], Checks],
) -> tuple[Supervisor, Heartbeat]:
    written = GatedApiServer(api, gate=OpenGate(), observer=store)
    heartbeat = Heartbeat(
        api=api,
        namespace=settings.namespace,
        host=settings.host_id,
        duration=settings.lease_duration,
        clock=time.monotonic,
    )
    secrets = Secrets(api, clock=time.monotonic)
    wake: list[Callable[[], None]] = []

    def changed() -> None:
        for call in wake:
            call()

    links = Links(
        secrets=secrets,
        on_change=changed,
        clock=time.monotonic,
        connect_timeout=settings.connect_timeout,
        pause=settings.reconnect_pause,
    )
    supervisor = Supervisor(
        store=store,
        parts=Parts(
            publisher=Publisher(api=written, store=store, host=settings.host_id),
            heartbeat=heartbeat,
            links=links,
            checks=checks,
            bastion=Bastions(store=store, secrets=secrets, address=settings.address),
            admission=Admission(store=store, first=settings.port_first, last=settings.port_last),
        ),
        identity=Identity(host=settings.host_id, address=settings.address),
        times=Times(
            successor_wait=settings.successor_wait,
            leave_floor=settings.leave_floor,
            drain_budget=settings.drain_budget,
        ),
        clock=time.monotonic,
    )
    wake.append(supervisor.wake)
    store.on_change(lambda resource, old, new: supervisor.wake())
    return supervisor, heartbeat


async def _serve(
    settings: TunnelSettings,
    connection: Connection,
    supervisor: Supervisor,
    heartbeat: Heartbeat,
    store: Store,
    relist: Relist,
    asked: asyncio.Event,
) -> None:
    status = StatusServer(
        port=settings.status_port or 0,
        counts=supervisor.counts,
        healthy=lambda: time.monotonic() - supervisor.last_round < _STUCK_SECONDS,
    )
    if settings.status_port:
        await status.start()
    _log.info("Supervisor %s holds forwards on %s", settings.host_id, settings.address)
    tasks = [
        asyncio.create_task(supervisor.run(), name="rounds"),
        asyncio.create_task(heartbeat.run(on_beat=supervisor.wake), name="heartbeat"),
        asyncio.create_task(relist.run(), name="relist"),
        asyncio.create_task(_watch(settings, connection, store, relist, asked), name="watch"),
    ]
    ending = asyncio.create_task(_leave(supervisor, asked), name="asked to end")
    try:
        done, _ = await asyncio.wait([ending, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        if ending not in done:
            raise RuntimeError("a background task ended unexpectedly")
    finally:
        for task in (ending, *tasks):
            task.cancel()
        await asyncio.gather(ending, *tasks, return_exceptions=True)
        with contextlib.suppress(ApiError):
            await supervisor.close()
        await status.close()


async def _leave(supervisor: Supervisor, asked: asyncio.Event) -> None:
    await asked.wait()
    _log.info("Asked to end: waiting for a successor and for open connections")
    await supervisor.leave()


async def _watch(
    settings: TunnelSettings,
    connection: Connection,
    store: Store,
    relist: Relist,
    asked: asyncio.Event,
) -> None:
    """Watch, and watch again when that ended."""
    while True:
        try:
            await run_watch(
                settings=WatchSettings(
                    namespaces=settings.watch_namespaces, watched=WATCHED, kill_after=None
                ),
                store=store,
                connection=connection,
                probes={},
                on_listed=relist.request,
                take_signals=lambda: take_signals(asked),
            )
        except Exception as error:
            _log.warning("The watch ended (%s); it is begun again", error)
            relist.request()
        await asyncio.sleep(_WATCH_AGAIN_SECONDS)
