"""Short makers of the planner's records: a test names only what it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from isthmus.api.conditions import PendingClass, Phase
from isthmus.api.desired import (
    ClusterReference,
    Desired,
    Engine,
    EngineType,
    Health,
    KubernetesPlacement,
    Model,
    Pool,
    SlurmPlacement,
)
from isthmus.api.desired import Worker as WorkerShape
from isthmus.api.modeldeployment_status import ModelDeploymentStatus
from isthmus.api.slurmjob import SlurmJobStatus
from isthmus.api.times import rfc3339
from isthmus.backends.base import Backend, Draining, Load, Pending, Worker, WorkerGroup
from isthmus.backends.slurm.records import JobRecord, NodeRecord, Snapshot
from isthmus.modeldeployment.observation import (
    FrozenRevision,
    ModelDeploymentObservation,
    Reachability,
)
from isthmus.modeldeployment.policy.rollout import PoolState, Step, key_of
from isthmus.slurmcluster.observation import ClusterObservation
from isthmus.slurmjob.observation import EndpointRules, Limits, SlurmJobObservation
from isthmus.slurmjob.record import AttemptStatus

NOW = 1_800_000_000.0
ATTEMPT = "x7k2qp"
JOB_NAME = f"llama-isthmus0-0123456789-0-{ATTEMPT}"
COMMENT = f"isthmus:v1:isthmus0:team-a/llama:hpc:0:{ATTEMPT}"
PUBLISHED = f"{COMMENT}:port=41000"
CLUSTER = ClusterReference(namespace="isthmus-system", name="hpc")

# ---- what is asked for


def k8s_pool(name: str = "k8s", **changes: Any) -> Pool:
    pool = Pool(
        name=name,
        worker=WorkerShape(),
        engine=Engine(type=EngineType.VLLM, image="vllm/vllm-openai:v0.33.0"),
        kubernetes=KubernetesPlacement(node_selector={}),
    )
    return replace(pool, **changes)


def slurm_pool(name: str = "hpc", **changes: Any) -> Pool:
    pool = Pool(
        name=name,
        worker=WorkerShape(),
        engine=Engine(type=EngineType.SGLANG),
        slurm=SlurmPlacement(cluster=CLUSTER),
    )
    return replace(pool, **changes)


def desired(*pools: Pool, replicas: int = 1, **changes: Any) -> Desired:
    wanted = Desired(
        namespace="team-a",
        name="llama",
        uid="uid-llama",
        generation=1,
        replicas=replicas,
        model=Model(source="hf://meta-llama/Llama-3.1-8B", served_names=("llama",)),
        pools=pools or (k8s_pool(),),
        health=Health(),
    )
    return replace(wanted, **changes)


# ---- workers


async def no_own_key(desired: Desired, *, job_name: str) -> str | None:
    """No attempt has an API key of its own."""
    return None


def pending(kind: PendingClass, reason: str = "", message: str = "because") -> Pending:
    return Pending(pending_class=kind, reason=reason or str(kind), message=message, since=NOW - 60)


def worker(
    name: str = "w-0",
    *,
    state: str = "ready",
    pool: str = "k8s",
    backend: Backend = "kubernetes",
    revision: str = "new",
    **changes: Any,
) -> Worker:
    """One worker; `state` is one of the ways in which a worker can be for the planner."""
    waits = pending(PendingClass.STARTUP, "JobStarting")
    fields: Mapping[str, Mapping[str, Any]] = {
        "ready": {"phase": "Ready", "ready": True, "in_rotation": True, "serving": True},
        "joining": {"phase": "Ready", "ready": True, "serving": True},
        "degraded": {"phase": "Degraded", "serving": True, "in_rotation": True},
        "ejected": {"phase": "Degraded", "serving": True},
        "starting": {"phase": "Starting", "pending": waits},
        "pending": {"phase": "Pending", "pending": pending(PendingClass.RESOURCES)},
        "crashing": {"phase": "Starting", "pending": pending(PendingClass.FAILING, "Crashed")},
        "waiting": {"phase": "Waiting", "pending": pending(PendingClass.SUBMISSION)},
        "stopping": {"phase": "Draining", "stopping": True, "ready": False},
        "draining": {"stopping": True, "serving": True, "draining": Draining(since=NOW - 1)},
        "busy": {
            "stopping": True,
            "serving": True,
            "draining": Draining(since=NOW - 60),
            "load": Load(requests=3),
        },
        "drained": {
            "stopping": True,
            "serving": True,
            "draining": Draining(since=NOW - 60),
            "load": Load(requests=0),
        },
        "released": {
            "stopping": True,
            "serving": True,
            "draining": Draining(since=NOW - 60, released_at=NOW - 1),
        },
        "failed": {
            "phase": "Failed",
            "failed": True,
            "finished_at": NOW - 1.0,
            "pending": pending(PendingClass.FAILING, "JobFailed"),
        },
    }
    return Worker(
        name=name,
        uid=f"uid-{name}",
        pool=pool,
        backend=backend,
        revision=revision,
        **{"phase": "Draining", **fields[state], **changes},
    )


def slurm_worker(name: str = "j-0", *, state: str = "ready", **changes: Any) -> Worker:
    values: dict[str, Any] = {"pool": "hpc", "backend": "slurm", "slot": 0, **changes}
    return worker(name, state=state, **values)


def group(
    *states: str,
    wanted: int | None = None,
    pool: str = "k8s",
    backend: Backend = "kubernetes",
    revision: str = "new",
    exists: bool = True,
    problem: Pending | None = None,
) -> WorkerGroup:
    """A group whose workers are in the given states; by default it asks for the live ones."""
    workers = tuple(
        worker(
            f"{pool}-{revision}-{index}",
            state=state,
            pool=pool,
            backend=backend,
            revision=revision,
            slot=index,
        )
        for index, state in enumerate(states)
    )
    live = sum(one.live for one in workers)
    return WorkerGroup(
        pool=pool,
        backend=backend,
        revision=revision,
        wanted=live if wanted is None or backend == "slurm" else wanted,
        exists=exists,
        workers=workers,
        problem=problem,
    )


def slurm_group(*states: str, pool: str = "hpc", revision: str = "new") -> WorkerGroup:
    return group(*states, pool=pool, backend="slurm", revision=revision)


def asked(pools: Sequence[PoolState], step: Step) -> Mapping[tuple[str, str], int]:
    """(pool, revision) to the number of workers asked for after a step."""
    return {
        (key.pool, key.revision): one.wanted + len(step.created(key)) - len(step.retired(key))
        for pool in pools
        for one in pool.groups
        for key in [key_of(one)]
    }


REACHABLE = Reachability(reachable=True)
UNREACHABLE = Reachability(
    reachable=False, reason="ControllerUnreachable", message="slurmctld does not answer"
)


def deployment(
    wanted: Desired,
    *groups: WorkerGroup,
    current: Mapping[str, str] | None = None,
    revisions: Sequence[tuple[str, str]] | None = None,
    clusters: Mapping[str, Reachability] | None = None,
    **changes: Any,
) -> ModelDeploymentObservation:
    """One ModelDeployment with its finalizer and Service in place."""
    running = current or {pool.name: "new" for pool in wanted.pools}
    known = [(g.pool, g.revision) for g in groups] if revisions is None else revisions
    found = ModelDeploymentObservation(
        desired=wanted,
        has_finalizer=True,
        current=running,
        revisions=tuple(
            FrozenRevision(pool=pool, revision=revision, created_at=NOW - 1000 + index)
            for index, (pool, revision) in enumerate(known)
        ),
        groups=groups,
        clusters={pool.name: REACHABLE for pool in wanted.pools if pool.backend == "slurm"}
        if clusters is None
        else clusters,
        service_ok=True,
        status=ModelDeploymentStatus(),
        retry_base=10.0,
        retry_cap=300.0,
    )
    return replace(found, **changes)


# ---- SLURM jobs


def record(state: str = "RUNNING", **changes: Any) -> JobRecord:
    found = JobRecord(
        job_id=101,
        name=JOB_NAME,
        state=state,
        restart_count=0,
        batch_host="" if state == "PENDING" else "gpu01",
        nodes="" if state == "PENDING" else "gpu01",
        submit_time=int(NOW) - 120,
        start_time=None if state == "PENDING" else int(NOW) - 100,
        end_time=None if state == "PENDING" else int(NOW) + 3600,
        time_limit_minutes=480,
        exit_code=0,
        partition="gpu",
        qos="",
        reason="Priority" if state == "PENDING" else "None",
        comment=COMMENT,
    )
    return replace(found, **changes)


def node(name: str = "gpu01", address: str = "10.10.0.1") -> NodeRecord:
    return NodeRecord(
        name=name,
        address=address,
        states=frozenset({"MIXED"}),
        reason="",
        partitions=frozenset({"gpu"}),
    )


def snapshot(
    *jobs: JobRecord,
    at: float = NOW - 5,
    nodes: Sequence[NodeRecord] | None = None,
    **changes: Any,
) -> Snapshot:
    found = (node(),) if nodes is None else nodes
    return Snapshot(
        jobs=jobs,
        nodes={one.name: one for one in found},
        started_at=at,
        taken_at=at + 0.2,
        cluster_time=int(at),
        **changes,
    )


LIMITS = Limits(submit_unknown_wait=120.0, deregister_delay=5.0, termination_grace=300.0)
RULES = EndpointRules(port_from=41000, port_to=41999, startup_timeout=1800.0)


def cluster(*jobs: JobRecord, starts: Sequence[float] = (NOW - 5,), **changes: Any) -> Any:
    """A cluster that is seen well; the last snapshot was begun at the last of `starts`."""
    found = ClusterObservation(
        usable=True,
        fresh=True,
        snapshot=snapshot(*jobs, at=starts[-1]) if starts else None,
        snapshot_starts=tuple(starts),
    )
    return replace(found, **changes)


STALE: Mapping[str, Any] = {
    "fresh": False,
    "reason": "ControllerUnreachable",
    "message": "slurmctld does not answer",
}
DENIED: Mapping[str, Any] = {**STALE, "usable": False, "reason": "ClusterNotFound"}


def job(
    *records: JobRecord,
    status: AttemptStatus | SlurmJobStatus | None = None,
    cluster_changes: Mapping[str, Any] | None = None,
    starts: Sequence[float] = (NOW - 5,),
    **changes: Any,
) -> SlurmJobObservation:
    """One SlurmJob with its finalizer, on a cluster whose last snapshot shows `records`."""
    before = status if isinstance(status, AttemptStatus) else AttemptStatus.read(status)
    found = SlurmJobObservation(
        job_name=JOB_NAME,
        attempt=ATTEMPT,
        deleting=False,
        has_finalizer=True,
        status=before,
        cluster=cluster(*records, starts=starts, **(cluster_changes or {})),
        limits=LIMITS,
        endpoint=RULES,
        records=records,
        last_seen=starts[-1] if records and starts else None,
        load=Load(requests=0),
        work_directory="/scratch/isthmus",
    )
    return replace(found, **changes)


def stored(phase: Phase | None, **changes: Any) -> SlurmJobStatus:
    """A status as it is stored when an attempt has come to this phase in the usual way."""
    values: dict[str, Any] = {"phase": phase}
    order = [Phase.PENDING, Phase.STARTING, Phase.READY, Phase.DEGRADED]
    if phase is not None and phase is not Phase.WAITING:
        values["submit_started_at"] = rfc3339(NOW - 130)
    if phase in order:
        values |= {"job_id": 101, "state": "PENDING", "submit_time": rfc3339(NOW - 120)}
    if phase in order[1:]:
        values |= {
            "state": "RUNNING",
            "nodes": "gpu01",
            "host": "10.10.0.1",
            "port": 41000,
            "url": "http://10.10.0.1:41000",
            "start_time": rfc3339(NOW - 100),
        }
    if phase in order[2:]:
        values |= {"ever_ready": True, "healthy": phase is Phase.READY}
    if phase is Phase.SUBMIT_UNKNOWN:
        values["unknown_since"] = rfc3339(NOW - 100)
    return SlurmJobStatus(**{**values, **changes})


def status(phase: Phase | None, **changes: Any) -> AttemptStatus:
    """The same as its rules read it; `changes` are the names and values of the stored one."""
    return AttemptStatus.read(stored(phase, **changes))


MEMBER = ("10.10.0.1", 41000)
"""Address and port of the worker that `status` and `record` describe."""
