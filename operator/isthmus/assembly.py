"""The parts of the operator, each made once and wired to the others. Nothing runs yet.

Apart from the application, which starts and ends them in their order.
"""

import asyncio
import functools
import random
import secrets
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx

from isthmus.api.slurmcluster import SlurmCluster
from isthmus.apiserver.client import ApiServer, KubernetesApiServer
from isthmus.apiserver.gate import Gate, GatedApiServer
from isthmus.apiserver.key import Key
from isthmus.apiserver.relist import Relist, RelistTimes
from isthmus.apiserver.resources import WATCHED
from isthmus.apiserver.secrets import Secrets
from isthmus.apiserver.store import Store
from isthmus.backends.slurm.login import reach
from isthmus.loop.loop import Loop, Reconciler
from isthmus.loop.queue import WorkQueue
from isthmus.loop.triggers import MODEL_DEPLOYMENT, SLURM_CLUSTER, SLURM_JOB, Triggers
from isthmus.modeldeployment.execute import DeploymentActions
from isthmus.modeldeployment.execute_jobs import JobActions
from isthmus.modeldeployment.execute_pods import PodActions
from isthmus.modeldeployment.keys import DeploymentKeys
from isthmus.modeldeployment.observe import DeploymentObserver
from isthmus.modeldeployment.reconciler import Executors, ModelDeploymentReconciler
from isthmus.probing.client import ProbeClient
from isthmus.probing.prober import Prober
from isthmus.routing.keep_external import ExternalRouters, RouterClients, RouterTimes
from isthmus.settings import Settings
from isthmus.slurmcluster.port_files import PortFiles
from isthmus.slurmcluster.reconciler import SlurmClusterReconciler, cluster_access
from isthmus.slurmcluster.running import Clusters
from isthmus.slurmcluster.state import ClusterStates
from isthmus.slurmcluster.submission_line import SubmissionLine
from isthmus.slurmjob.attempt_keys import AttemptKeys, InstallationSeed
from isthmus.slurmjob.forward_ports import ForwardPorts
from isthmus.slurmjob.key_files import KeyStaging
from isthmus.slurmjob.observation import Limits
from isthmus.slurmjob.probes import WorkerProbes
from isthmus.slurmjob.reconciler import SlurmJobReconciler
from isthmus.slurmjob.sides import ApiSide, Installation, SlurmSide
from isthmus.telemetry.events import EventRecorder, EventSink
from isthmus.telemetry.metrics import Metrics
from isthmus.telemetry.report import Readers

_ATTEMPT_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_KILL_AFTER_SECONDS = 5.0
_MESSAGE_TIMEOUT_SECONDS = 10.0
_MARGIN_SECONDS = 30.0


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
class Parts:
    """What `assemble` makes and the application runs."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """What several of the reconcilers are made with.

    Attributes:
        api: every write passes the gate, and its answer goes into the store.
        values: Secrets, read through the gate.
        monotonic: seconds, for durations.
    """

    settings: Settings
    store: Store
    queue: WorkQueue
    gate: Gate
    api: ApiServer
    states: ClusterStates
    clusters: Clusters
    prober: Prober
    values: Secrets
    seed: InstallationSeed
    keys: AttemptKeys
    events: EventSink
    monotonic: Callable[[], float]


def assemble(
    settings: Settings,
    *,
    api: KubernetesApiServer,
    gate: Gate,
    prober_client: ProbeClient,
    router_client: httpx.AsyncClient,
    trusting: Callable[[ssl.SSLContext], httpx.AsyncClient],
    metrics: Metrics,
) -> Parts:
    """Make every part.

    Args:
        settings: of the operator.
        api: the API server, not gated.
        gate: asked before every write whether this process leads.
        prober_client: asks the engines.
        router_client: asks the routers of endpoints that are External.
        trusting: makes such a client that believes other CAs.
        metrics: counts what is told.
    """
    monotonic = asyncio.get_running_loop().time
    secrets_of = functools.partial(Secrets, clock=monotonic, max_age=settings.secrets_interval)
    store = Store(watched=[resource for resource, _ in WATCHED])
    gated = GatedApiServer(api, gate=gate, observer=store)
    queue = WorkQueue(
        retry_base=settings.retry_base,
        retry_cap=settings.retry_cap,
        random=random.Random(),
        clock=monotonic,
    )
    triggers = Triggers(store=store, queue=queue, operator_namespace=settings.namespace)
    fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    states = ClusterStates()
    values = secrets_of(gated)
    events = EventRecorder(gated, instance=settings.identity, clock=monotonic)
    seed = InstallationSeed(
        api=gated,
        secrets=values,
        namespace=settings.namespace,
        draw=new_api_key,
    )
    shared = _Shared(
        settings=settings,
        store=store,
        queue=queue,
        gate=gate,
        api=gated,
        states=states,
        clusters=Clusters(
            states=states,
            reach=functools.partial(reach, secrets=secrets_of(api)),
            on_change=triggers.cluster_changed,
            on_death=functools.partial(_die, fatal),
        ),
        prober=Prober(prober_client, on_change=triggers.probe_changed, clock=monotonic),
        values=values,
        seed=seed,
        keys=AttemptKeys(store=store, api=gated, secrets=values, seed=seed),
        events=Readers(events, metrics),
        monotonic=monotonic,
    )
    routers = _routers(shared, client=router_client, trusting=trusting, secrets=secrets_of(api))
    return Parts(
        store=store,
        queue=queue,
        relist=Relist(
            api=api,
            store=store,
            watched=WATCHED,
            namespaces=settings.watch_namespaces or None,
            times=RelistTimes(interval=settings.relist_interval),
        ),
        loop=Loop(
            queue=queue,
            reconcilers=_reconcilers(shared, routers),
            workers=settings.workers,
            time_limit=settings.pass_time_limit,
            clock=monotonic,
        ),
        triggers=triggers,
        clusters=shared.clusters,
        prober=shared.prober,
        routers=routers,
        events=events,
        fatal=fatal,
    )


def _die(fatal: "asyncio.Future[None]", error: BaseException) -> None:
    if not fatal.done():
        fatal.set_exception(error)


def _routers(
    shared: _Shared,
    *,
    client: httpx.AsyncClient,
    trusting: Callable[[ssl.SSLContext], httpx.AsyncClient],
    secrets: Secrets,
) -> ExternalRouters:
    return ExternalRouters(
        store=shared.store,
        clients=RouterClients(usual=client, trusting=trusting),
        secrets=secrets,
        check=shared.gate.check,
        times=RouterTimes(interval=shared.settings.router_interval),
        operator_namespace=shared.settings.namespace,
        said=lambda namespace, name: shared.queue.add(Key(MODEL_DEPLOYMENT, namespace, name)),
    )


def _reconcilers(shared: _Shared, routers: ExternalRouters) -> Mapping[str, Reconciler]:
    return {
        SLURM_CLUSTER: SlurmClusterReconciler(
            store=shared.store,
            api=shared.api,
            gate=shared.gate,
            clusters=shared.clusters,
            settings=shared.settings,
            clock=time.time,
            events=shared.events,
        ),
        SLURM_JOB: _of_slurm_jobs(shared),
        MODEL_DEPLOYMENT: _of_model_deployments(shared, routers),
    }


def _of_slurm_jobs(shared: _Shared) -> SlurmJobReconciler:
    settings, store, clusters, states = (
        shared.settings,
        shared.store,
        shared.clusters,
        shared.states,
    )
    return SlurmJobReconciler(
        api=ApiSide(store=store, api=shared.api, gate=shared.gate, events=shared.events),
        slurm=SlurmSide(
            clusters=clusters,
            states=states,
            port_files=PortFiles(clusters=clusters, states=states, clock=time.time),
            line=SubmissionLine(wake=shared.queue.add, clock=shared.monotonic),
        ),
        probes=WorkerProbes(prober=shared.prober, secrets=shared.values, keys=shared.keys),
        staging=KeyStaging(
            keys=shared.keys,
            clusters=clusters,
            check=shared.gate.check,
            clock=time.time,
        ),
        ports=ForwardPorts(
            store=store,
            first=settings.tunnel_port_first,
            last=settings.tunnel_port_last,
            hold=settings.tunnel_port_hold,
            clock=shared.monotonic,
        ),
        installation=Installation(
            identity=settings.installation_id,
            limits=limits_of(settings),
            resync=settings.resync_interval,
        ),
        clock=time.time,
    )


def _of_model_deployments(shared: _Shared, routers: ExternalRouters) -> ModelDeploymentReconciler:
    settings, store, api = shared.settings, shared.store, shared.api
    jobs = JobActions(
        store=store,
        api=api,
        settings=settings,
        new_attempt=new_attempt,
        attempt_digest=shared.keys.digest,
    )
    return ModelDeploymentReconciler(
        observer=DeploymentObserver(
            store=store,
            states=shared.states,
            prober=shared.prober,
            settings=settings,
            clock=time.time,
            router_problem=routers.problem,
        ),
        api=api,
        executors=Executors(
            objects=DeploymentActions(store=store, api=api, settings=settings, jobs=jobs),
            pods=PodActions(store=store, api=api, prober=shared.prober),
        ),
        keys=DeploymentKeys(
            store=store,
            api=api,
            secrets=shared.values,
            attempts=shared.keys,
            seed=shared.seed,
            new_key=new_api_key,
        ),
        events=shared.events,
        clock=time.time,
        resync=settings.resync_interval,
    )
