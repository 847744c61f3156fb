"""Passes over SlurmJobs, beside a SLURM that shows a job and takes commands."""

import contextlib
from dataclasses import dataclass, field
from typing import Any

from isthmus.api import names
from isthmus.api.desired import ClusterReference
from isthmus.apiserver import resources
from isthmus.apiserver.resources import MODEL_DEPLOYMENTS, SLURM_CLUSTERS, SLURM_JOBS
from isthmus.backends.slurm.records import JobRecord, NodeRecord
from isthmus.errors import SlurmError, SlurmUnavailableError
from tests.before.findings import any_of, built, finding
from tests.before.memory import MemoryApi, Nothing, key

_REFERENCE = ClusterReference(namespace="isthmus-system", name="hpc")
_NAME = names.slurm_job_name(
    installation_id="isthmus0",
    namespace="team-a",
    deployment="llama",
    uid="uid-llama",
    slot=0,
    attempt="abcdef",
)


@dataclass
class _Slurm(Nothing):
    """The clusters with their client, and what else of them nothing is asked of.

    Attributes:
        states: what was seen of the clusters.
        fails: what is raised for each command that ends something.
        ended: the job ids of such commands.
    """

    states: Any
    fails: SlurmError | None = None
    ended: list[int] = field(default_factory=list)

    def client(self, *_: Any) -> Any:
        return self

    def poke(self, *_: Any) -> None: ...

    def withdraw(self, *_: Any) -> None: ...

    def release(self, *_: Any) -> None: ...

    def told(self, *_: Any, **__: Any) -> None: ...

    async def terminate(self, *, job_id: int, job_name: str) -> None:
        self._end(job_id)

    async def cancel(self, *, job_id: int, job_name: str) -> None:
        self._end(job_id)

    def _end(self, job_id: int) -> None:
        self.ended.append(job_id)
        if self.fails is not None:
            raise self.fails


class _Probes(Nothing):
    """Of workers, of which nothing is known."""

    async def watch(self, *_: Any, **__: Any) -> None: ...  # type: ignore[override]

    def forget(self, *_: Any) -> None: ...

    def probe_now(self, *_: Any) -> None: ...

    def state(self, *_: Any) -> None: ...

    def states(self) -> tuple[()]:
        return ()

    def age(self, *_: Any) -> float:
        return 0.0

    def load(self, *_: Any) -> Any:
        return any_of("isthmus.rules.drain:UNREADABLE", "isthmus.plan.policy.drain:UNREADABLE")


class _Staging(Nothing):
    async def keep(self, **_: Any) -> None: ...

    async def remove(self, **_: Any) -> None: ...


class _Operator:
    """The reconciler of SlurmJobs, alone, on a clock that is set."""

    def __init__(self, *, fails: SlurmError | None = None) -> None:
        self.now = 1.8e9
        self.api = MemoryApi(
            SLURM_JOBS,
            SLURM_CLUSTERS,
            MODEL_DEPLOYMENTS,
            resources.CONTROLLER_REVISIONS,
            resources.ENDPOINT_SLICES,
        )
        states = built(
            "isthmus.slurmcluster.state:ClusterStates",
            "isthmus.reconcile.cluster_state:ClusterStates",
        )
        self.seen = built(
            "isthmus.slurmcluster.state:ClusterState",
            "isthmus.reconcile.cluster_state:ClusterState",
            stale_after=60.0,
        )
        states.put(_REFERENCE, self.seen)
        self.slurm = _Slurm(states, fails=fails)
        self._reconciler = self._made(states)

    def _made(self, states: Any) -> Any:
        limits = built(
            "isthmus.slurmjob.observation:Limits",
            "isthmus.plan.slurmjob_observation:Limits",
            submit_unknown_wait=60.0,
            deregister_delay=0.0,
            termination_grace=3600.0,
        )
        parts: dict[str, Any] = {
            "store": self.api.store,
            "api": self.api,
            "gate": Nothing(),
            "states": states,
            "clusters": self.slurm,
            "probes": _Probes(),
            "staging": _Staging(),
            "installation_id": "isthmus0",
            "identity": "isthmus0",
            "limits": lambda _: limits,
            "ports": self.slurm,
            "port_files": self.slurm,
            "resync": 600.0,
            "clock": lambda: self.now,
            "events": Nothing(),
            "line": self.slurm,
        }
        sides = "isthmus.slurmjob.sides"
        with contextlib.suppress(LookupError):  # then the parts themselves are taken
            parts["slurm"] = built(f"{sides}:SlurmSide", **parts)
            parts["installation"] = built(f"{sides}:Installation", **parts)
            parts["api"] = built(f"{sides}:ApiSide", **parts)
        return built(
            "isthmus.slurmjob.reconciler:SlurmJobReconciler",
            "isthmus.reconcile.slurmjob:SlurmJobReconciler",
            **parts,
        )

    def has(self, *, owned: bool) -> None:
        """A cluster, a deployment, and a SlurmJob that is deleted while its job runs."""
        spec = {
            "login": {"local": {}},
            "files": {"workDirectory": "/work"},
            "access": {"allowedNamespaces": {"names": ["team-a"]}},
            "network": {"mode": "Direct"},
        }
        place = {"namespace": _REFERENCE.namespace, "name": _REFERENCE.name}
        self.api.put(SLURM_CLUSTERS, {"metadata": place, "spec": spec})
        deployment = {
            "metadata": {"namespace": "team-a", "name": "llama"},
            "spec": {
                "model": {"source": "hf://org/model", "servedNames": ["llama"]},
                "pools": [{"name": "hpc", "slurm": {"clusterRef": {"name": "hpc"}}}],
            },
        }
        self.api.put(MODEL_DEPLOYMENTS, deployment)
        self.api.put(SLURM_JOBS, _slurm_job(owned=owned))

    async def passes(self, number: int) -> str:
        """Passes, each on a fresh look at SLURM; the status of the SlurmJob after them."""
        for _ in range(number):
            self.now += 30.0
            self.seen.take(_snapshot(self.now))
            try:
                await self._reconciler.reconcile(key("SlurmJob", "team-a", "llama-0"))
            except SlurmError:
                continue  # tried again, as the loop does
        return str(self.api.objects[SLURM_JOBS, "team-a", "llama-0"].get("status"))


def _slurm_job(*, owned: bool) -> dict[str, Any]:
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": "ModelDeployment",
        "name": "llama",
        "uid": "uid-llama",
        "controller": True,
    }
    return {
        "apiVersion": names.API_VERSION,
        "kind": "SlurmJob",
        "metadata": {
            "namespace": "team-a",
            "name": "llama-0",
            "uid": "uid-job",
            "deletionTimestamp": "2026-11-30T12:00:00Z",
            "finalizers": [names.FINALIZER_SLURM_JOB],
            "ownerReferences": [owner] if owned else [],
            "labels": {names.LABEL_DEPLOYMENT: "llama"},
        },
        "spec": {
            "clusterRef": {"namespace": "isthmus-system", "name": "hpc"},
            "deployment": "llama",
            "pool": "hpc",
            "slot": 0,
            "attempt": "abcdef",
            "revision": "0123456789",
            "jobName": _NAME,
        },
        "status": {
            "phase": "Ready",
            "jobId": 101,
            "state": "RUNNING",
            "host": "10.0.0.1",
            "port": 41007,
            "submitStartedAt": "2026-11-30T11:00:00Z",
            "startTime": "2026-11-30T11:00:00Z",
        },
    }


def _snapshot(now: float) -> Any:
    record = JobRecord(
        job_id=101,
        name=_NAME,
        state="RUNNING",
        restart_count=0,
        batch_host="gpu01",
        nodes="gpu01",
        submit_time=int(now) - 3600,
        start_time=int(now) - 3600,
        end_time=None,
        time_limit_minutes=None,
        exit_code=0,
        partition="gpu",
        qos="normal",
        reason="",
        comment="",
    )
    node = NodeRecord(
        name="gpu01",
        address="10.0.0.1",
        states=frozenset({"ALLOCATED"}),
        reason="",
        partitions=frozenset({"gpu"}),
    )
    return built(
        "isthmus.backends.slurm.records:Snapshot",
        jobs=(record,),
        nodes={"gpu01": node},
        started_at=now,
        taken_at=now,
        cluster_time=int(now),
    )


@finding("H4", "a SlurmJob that names another tenant's job ends it, once it is deleted")
async def anybody_ends_a_job() -> bool:
    ours, others = _Operator(), _Operator()
    ours.has(owned=True)
    await ours.passes(40)
    assert ours.slurm.ended, "what is ours is ended"
    others.has(owned=False)
    await others.passes(40)
    return bool(others.slurm.ended)


@finding("B8", "TERM fails again and again, and the status goes on to say what it said before")
async def failing_term_is_told_nowhere() -> bool:
    words = "scancel: error: Kill job error on job id 101"
    failing = SlurmUnavailableError(words, reason="CommandFailed")  # type: ignore[arg-type]
    operator = _Operator(fails=failing)
    operator.has(owned=True)
    status = await operator.passes(40)
    assert len(operator.slurm.ended) > 1
    return "Kill job error" not in status
