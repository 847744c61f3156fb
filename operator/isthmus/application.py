"""The operator put together: every part made once, wired, started in order and ended together.

Order matters: the lease first, then a complete list of everything, and only then workers. Any part
that ends by an error ends the process with it; a restart continues from what exists.
"""

import asyncio
import functools
import logging
import random
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass

import httpx

from isthmus.api.slurmcluster import SlurmCluster
from isthmus.apiserver.client import KubernetesApiServer
from isthmus.apiserver.connection import Connection
from isthmus.apiserver.gate import Gate, GatedApiServer, OpenGate
from isthmus.apiserver.resources import WATCHED
from isthmus.apiserver.secrets import Secrets
from isthmus.backends.slurm.login import make_client
from isthmus.health.client import HttpProbeClient, ProbeClient
from isthmus.health.prober import Prober
from isthmus.observe.events import EventRecorder
from isthmus.plan.slurmjob_observation import Limits
from isthmus.reconcile.cluster_state import ClusterStates
from isthmus.reconcile.clusters import Clusters
from isthmus.reconcile.deployment_actions import DeploymentActions
from isthmus.reconcile.external_routers import ExternalRouters
from isthmus.reconcile.forward_ports import ForwardPorts
from isthmus.reconcile.keys import DeploymentKeys
from isthmus.reconcile.leader import LeaderElector
from isthmus.reconcile.loop import Loop, Reconciler
from isthmus.reconcile.modeldeployment import ModelDeploymentReconciler
from isthmus.reconcile.pod_actions import PodActions
from isthmus.reconcile.probes import WorkerProbes
from isthmus.reconcile.queue import Key, WorkQueue
from isthmus.reconcile.relist import Relist
from isthmus.reconcile.slurmcluster import SlurmClusterReconciler, cluster_access
from isthmus.reconcile.slurmjob import SlurmJobReconciler
from isthmus.reconcile.staging import KeyStaging
from isthmus.reconcile.standby import standing_by
from isthmus.reconcile.store import Store
from isthmus.reconcile.submission_line import SubmissionLine
from isthmus.reconcile.triggers import (
    MODEL_DEPLOYMENT,
    SLURM_CLUSTER,
    SLURM_JOB,
    Triggers,
)
from isthmus.settings import Settings
from isthmus.watch.operator import WatchSettings, run_watch

_log = logging.getLogger(__name__)

_ATTEMPT_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_KILL_AFTER_SECONDS = 5.0
_MESSAGE_TIMEOUT_SECONDS = 10.0
_MARGIN_SECONDS = 30.0
_FINISH_SECONDS = 20.0
"""Below the 30 s after which kopf kills a process whose watch has ended."""


def new_attempt() -> str:
    """Draw an attempt token: six random characters, so that no lost counter can repeat one."""
    return "".join(secrets.choice(_ATTEMPT_ALPHABET) for _ in range(6))


def new_api_key() -> str:
    """Draw an API key: 32 random bytes, told from other secrets by what it begins with."""
    return f"isthmus-{secrets.token_urlsafe(32)}"


def limits_of(settings: Settings) -> Callable[[SlurmCluster | None], Limits]:
    """The times that apply to the jobs of a cluster.

    An unclear submission may turn up as long as sbatch may run (with the time to kill it), two of
    SLURM's own message time-outs (10 s by default) and a margin.
    """

    def limits(cluster: SlurmCluster | None) -> Limits:
        submit = (
            60.0 if cluster is None else cluster_access(cluster, settings=settings).submit_timeout
        )
        derived = submit + _KILL_AFTER_SECONDS + 2 * _MESSAGE_TIMEOUT_SECONDS + _MARGIN_SECONDS
        return Limits(
            submit_unknown_wait=settings.submit_unknown_wait or derived,
            deregister_delay=settings.deregister_delay,
            termination_grace=settings.termination_grace,
        )

    return limits


@dataclass(slots=True)
class _Parts:
    """What `_assemble` makes and `_run_parts` runs."""

    store: Store
    queue: WorkQueue
    relist: Relist
    loop: Loop
    triggers: Triggers
    clusters: Clusters
    prober: Prober
    routers: ExternalRouters
    events: EventRecorder
    fatal: "asyncio.Future[None]"


async def run(settings: Settings) -> None:
    """Run the operator until it is told to stop.

    Raises:
        SettingsError: no usable configuration.
        NotLeaderError: the lease was lost.
        Exception: whatever ended a part; the process must end non-zero.
    """
    connection = Connection(kubeconfig=settings.kubeconfig, context=settings.context)
    api = await KubernetesApiServer.connect(connection, timeout=settings.api_timeout)
    elector_api = await KubernetesApiServer.connect(connection, timeout=settings.election_timeout)
    elector: LeaderElector | None = None
    try:
        if settings.leader_election:
            elector = _elector(elector_api, settings)
            async with standing_by(settings.liveness_port):
                await elector.acquire()
        await _lead(settings, connection, api, elector)
    finally:
        if elector is not None:
            await elector.release()
        await elector_api.close()
        await api.close()


def _elector(api: KubernetesApiServer, settings: Settings) -> LeaderElector:
    return LeaderElector(
        api,
        namespace=settings.namespace,
        name=settings.lease_name,
        identity=settings.identity,
        lease_duration=settings.lease_duration,
        renew_interval=settings.renew_interval,
        request_timeout=settings.election_timeout,
        renew_deadline=settings.election_deadline,
    )


async def _lead(
    settings: Settings,
    connection: Connection,
    api: KubernetesApiServer,
    elector: LeaderElector | None,
) -> None:
    gate: Gate = OpenGate() if elector is None else elector
    async with HttpProbeClient() as http, httpx.AsyncClient(trust_env=False) as routers:
        parts = _assemble(settings, api=api, gate=gate, prober_client=http, router_client=routers)
        background = [] if elector is None else [elector.keep()]
        try:
            await _run_parts(settings, connection, parts, background)
        finally:
            parts.queue.shut_down()
            await parts.prober.close()
            await parts.clusters.close()


def _assemble(
    settings: Settings,
    *,
    api: KubernetesApiServer,
    gate: Gate,
    prober_client: ProbeClient,
    router_client: httpx.AsyncClient,
) -> _Parts:
    store = Store(watched=[resource for resource, _ in WATCHED])
    gated = GatedApiServer(api, gate=gate, observer=store)
    monotonic = asyncio.get_running_loop().time
    queue = WorkQueue(
        retry_base=settings.retry_base,
        retry_cap=settings.retry_cap,
        random=random.Random(),
        clock=monotonic,
    )
    triggers = Triggers(store=store, queue=queue, operator_namespace=settings.namespace)
    fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def die(error: BaseException) -> None:
        if not fatal.done():
            fatal.set_exception(error)

    events = EventRecorder(gated, instance=settings.identity, clock=monotonic)
    states = ClusterStates()
    clusters = Clusters(
        states=states,
        make_client=functools.partial(make_client, secrets=Secrets(api, clock=monotonic)),
        on_change=triggers.cluster_changed,
        on_death=die,
    )
    values = Secrets(gated, clock=monotonic)
    prober = Prober(prober_client, on_change=triggers.probe_changed, clock=monotonic)
    routers = ExternalRouters(
        store=store,
        client=router_client,
        secrets=Secrets(api, clock=monotonic),
        check=gate.check,
        interval=settings.router_interval,
        operator_namespace=settings.namespace,
        said=lambda namespace, name: queue.add(Key(MODEL_DEPLOYMENT, namespace, name)),
    )
    reconcilers: Mapping[str, Reconciler] = {
        SLURM_CLUSTER: SlurmClusterReconciler(
            store=store,
            api=gated,
            gate=gate,
            states=states,
            clusters=clusters,
            settings=settings,
            clock=time.time,
        ),
        SLURM_JOB: SlurmJobReconciler(
            store=store,
            api=gated,
            gate=gate,
            states=states,
            clusters=clusters,
            probes=WorkerProbes(prober=prober, secrets=values),
            staging=KeyStaging(
                secrets=values, clusters=clusters, check=gate.check, clock=time.time
            ),
            installation_id=settings.installation_id,
            limits=limits_of(settings),
            ports=ForwardPorts(
                store=store,
                first=settings.tunnel_port_first,
                last=settings.tunnel_port_last,
                hold=settings.tunnel_port_hold,
                clock=monotonic,
            ),
            resync=settings.resync_interval,
            clock=time.time,
            events=events,
            line=SubmissionLine(wake=queue.add, clock=monotonic),
        ),
        MODEL_DEPLOYMENT: ModelDeploymentReconciler(
            store=store,
            api=gated,
            states=states,
            actions=DeploymentActions(
                store=store, api=gated, settings=settings, new_attempt=new_attempt
            ),
            pods=PodActions(store=store, api=gated, prober=prober),
            prober=prober,
            keys=DeploymentKeys(store=store, api=gated, secrets=values, new_key=new_api_key),
            settings=settings,
            clock=time.time,
            events=events,
            router_problem=routers.problem,
        ),
    }
    return _Parts(
        store=store,
        queue=queue,
        relist=Relist(
            api=api,
            store=store,
            watched=WATCHED,
            namespaces=settings.watch_namespaces or None,
            interval=settings.relist_interval,
        ),
        loop=Loop(
            queue=queue,
            reconcilers=reconcilers,
            workers=settings.workers,
            time_limit=settings.pass_time_limit,
            clock=monotonic,
        ),
        triggers=triggers,
        clusters=clusters,
        prober=prober,
        routers=routers,
        events=events,
        fatal=fatal,
    )


async def _run_parts(
    settings: Settings,
    connection: Connection,
    parts: _Parts,
    background: Sequence[Coroutine[object, object, None]],
) -> None:
    """Sync, then run everything until the watch ends or anything fails."""
    tasks: list[asyncio.Future[None]] = [asyncio.ensure_future(each) for each in background]
    try:
        sync = asyncio.create_task(
            parts.relist.first_sync(deadline=settings.first_sync_deadline), name="first sync"
        )
        await _first_of(sync, tasks)
        parts.triggers.attach()
        parts.triggers.add_all()
        _log.info("In sync with the API server; reconciling")
        loop = asyncio.create_task(parts.loop.run(), name="loop")
        tasks += [
            loop,
            asyncio.create_task(parts.relist.run(), name="relist"),
            asyncio.create_task(parts.events.run(), name="events"),
            asyncio.create_task(parts.routers.run(), name="external routers"),
            asyncio.ensure_future(parts.fatal),
        ]
        watch = asyncio.create_task(
            run_watch(
                settings=WatchSettings(
                    namespaces=settings.watch_namespaces, liveness_port=settings.liveness_port
                ),
                store=parts.store,
                connection=connection,
                probes={
                    "sync": lambda: _require(parts.store.synced),
                    "loop": parts.loop.check_progress,
                },
                on_listed=parts.relist.request,
            ),
            name="watch",
        )
        await _first_of(watch, tasks)
        await _finish_passes(loop, parts.queue)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _finish_passes(loop: "asyncio.Task[None]", queue: WorkQueue) -> None:
    """Told to stop: begin no pass, and let those under way end, which may hold an sbatch."""
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
                raise RuntimeError("a background task ended by itself")
        await main
    finally:
        if not main.done():
            main.cancel()
            await asyncio.gather(main, return_exceptions=True)
