"""The judge: what must never happen, told from the simulators' own ledgers.

It reads what etcd holds, what slurmctld and the nodes did and which commands were called, and never
what an operator thinks. What depends on something that an operator can only learn later (a watch
event under way) is judged with the delay that the world has just then.

What comes with what is not built yet stands in docs/reliability.md.
"""

from isthmus.api.conditions import Phase
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    EVENTS,
    MODEL_DEPLOYMENTS,
    PODS,
    SLURM_CLUSTERS,
    SLURM_JOBS,
    Resource,
)
from tests.simulation.apiserver import ApiSimulator, Json
from tests.simulation.engines import Machines
from tests.simulation.promises.counts import CountRules
from tests.simulation.promises.desired import startup_timeout
from tests.simulation.promises.fairness import FairnessRules
from tests.simulation.promises.ledger import INTRUDERS, Attempt, over
from tests.simulation.promises.node_states import NodeStateRules
from tests.simulation.promises.numbers import NumberRules
from tests.simulation.promises.object_names import ObjectNameRules
from tests.simulation.promises.pods import PodRules
from tests.simulation.promises.reason_words import unknown_reasons
from tests.simulation.promises.rotation import RotationRules
from tests.simulation.promises.secrecy import Secrecy
from tests.simulation.promises.stops import StopRules
from tests.simulation.promises.submissions import SubmissionRules
from tests.simulation.promises.told_once import ToldOnceRules
from tests.simulation.shape import Shape
from tests.simulation.slurm import Slurm
from tests.simulation.slurm_jobs import Job


class Oracle(
    SubmissionRules,
    StopRules,
    RotationRules,
    NumberRules,
    PodRules,
    CountRules,
    FairnessRules,
    ObjectNameRules,
    ToldOnceRules,
    NodeStateRules,
):
    """Collects violations; the first one ends a run."""

    def __init__(
        self,
        *,
        api: ApiSimulator,
        slurm: Slurm,
        machines: Machines,
        shape: Shape | None = None,
    ) -> None:
        super().__init__(api=api, slurm=slurm, machines=machines, shape=shape)
        self.secrecy = Secrecy(api=api, machines=machines, require=self.require)
        api.listeners.append(self.changed)
        slurm.on_claim.append(self.claimed)

    def joined_by(self, slurm: Slurm) -> None:
        """A further cluster of this world."""
        self._clusters[slurm.name] = slurm
        slurm.on_claim.append(self.claimed)

    def lost(self, job_name: str) -> None:
        """The object of an attempt vanishes from etcd without anybody having deleted it."""
        self.attempts[job_name].lost = True

    def claimed(self, job: Job) -> None:
        """A job passed the start gate: an engine starts."""
        if self.is_anothers(job.name):
            return  # its own judge looks at it
        attempt = self.attempts.get(job.name)
        # A job that was over and that slurmctld has forgotten to be; a ghost of an attempt whose
        # status, with the count of its submissions, was wiped. Its engine is the only one of the
        # attempt all the same, and the orphan policy ends it: see `ending`.
        risen = attempt is not None and (
            job.rolled_back or attempt.wiped or attempt.forsaken or attempt.lost
        )
        self.require(
            risen or (attempt is not None and not attempt.gone),
            f"engine of {job.name} starts, whose SlurmJob is gone",
        )
        engines = [engine for engine in self._machines.ledger if engine.job_name == job.name]
        self.require(not engines, f"a second engine of attempt {job.name} starts")

    def changed(self, resource: Resource, event: str, obj: Json, by: str) -> None:
        ours = by.startswith("op")
        if ours and k8s.namespace(obj) != INTRUDERS:
            unknown = unknown_reasons(resource, obj)
            self.require(not unknown, f"{k8s.name(obj)} is given no reason of ours: {unknown}")
        if ours and event == "ADDED":
            self._well_named(resource, obj)
            if resource is EVENTS:
                self.event_made(obj)
        self.status_changed(obj)
        if resource is MODEL_DEPLOYMENTS:
            place = k8s.namespace(obj), k8s.name(obj)
            wanted = 0 if k8s.deletion_timestamp(obj) else int(obj["spec"].get("replicas", 1))
            startup = startup_timeout(self._api, place)
            self._patience[place] = min(startup, self._patience.get(place, startup))
            known = self._replicas.setdefault(place, [])
            if not known or known[-1][1] != wanted:
                known.append((self.now, wanted))
            if ours and event == "MODIFIED":
                self._counts(obj, place)
                self._displaced_rightly(obj)
        elif resource is SLURM_CLUSTERS:
            if ours:
                self._counts_nodes(obj)
        elif resource is SLURM_JOBS and k8s.namespace(obj) != INTRUDERS:
            self._slurm_job(event, obj, by=by)
        elif resource is ENDPOINT_SLICES:
            self._slice(event, obj, ours=ours)
            if by == "controller" and event != "DELETED":
                self._keys_are_found(obj)
        elif resource is DEPLOYMENTS and ours and event != "ADDED":
            self._not_below(obj, removed=frozenset())
        elif resource is PODS and event == "MODIFIED":
            self._pod(obj, by=by)

    def _slurm_job(self, event: str, obj: Json, *, by: str) -> None:
        ours = by.startswith("op")
        job_name = str(obj["spec"]["jobName"])
        attempt = self.attempts.get(job_name)
        if event == "ADDED":
            again = attempt is not None and attempt.lost  # restored
            self.require(attempt is None or again, f"two SlurmJobs of the name {job_name}")
            self.attempts[job_name] = Attempt(
                namespace=k8s.namespace(obj),
                name=k8s.name(obj),
                uid=k8s.uid(obj),
                deployment=str(obj["spec"]["deployment"]),
                job_name=job_name,
                cluster=str(obj["spec"]["clusterRef"]["name"]),
                made_at=self.now,
            )
            if attempt is not None:
                self._restored(self.attempts[job_name], attempt)
            if ours:
                self._not_above(obj)
            return
        assert attempt is not None
        if event == "DELETED":
            attempt.gone = True
            if attempt.lost and by == "backup":
                return
            running = [e for e in self._machines.running(job_name) if not e.lost_by_slurm]
            # Two complete snapshots that both lie, and a job that nobody has ever seen.
            lied = self.now - self.cluster_of(job_name).lied_at < 150
            attempt.forsaken = lied and k8s.dig(obj, "status", "state") is None
            good = attempt.forsaken or attempt.lost or not running
            self.require(good, f"SlurmJob of {job_name} let go while its engine runs")
            # Nobody can close a gate on a cluster whose object is deleted: what is late starts.
            attempt.forsaken |= self._its_object(attempt.cluster) is None
            return
        if k8s.deletion_timestamp(obj) and attempt.deleted_at is None:
            attempt.deleted_at = self.now
            if ours:
                self._not_below(obj, removed=frozenset({attempt.uid}))
        status = obj.get("status", {})
        phase = status.get("phase")
        if ours and phase == Phase.SUBMITTING and attempt.phase != phase:
            attempt.intents += 1
        attempt.phase = phase
        attempt.over_at = (attempt.over_at or self.now) if over(obj) else None
        self._forward(attempt, status.get("forward"))

    def _restored(self, new: Attempt, old: Attempt) -> None:
        """An object that came back without its status is the same attempt still."""
        new.intents, new.submissions = old.intents, old.submissions
        new.wiped = new.lost = True
        self._lost_uids.add(old.uid)
