"""Observes a ModelDeployment: everything that belongs to it, from the store, as one record. No I/O.

Apart from the reconciler, which acts: here is what is read, and of whom it is believed.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from isthmus.api import names
from isthmus.api.conditions import Reason
from isthmus.api.defaults import effective
from isthmus.api.desired import ApiKey, ClusterReference, Desired
from isthmus.api.modeldeployment import ModelDeployment
from isthmus.api.modeldeployment_status import ModelDeploymentStatus
from isthmus.api.revision import revision_hash
from isthmus.api.slurmjob import SlurmJob
from isthmus.api.times import epoch
from isthmus.apiserver.key import Key
from isthmus.apiserver.objects import (
    Object,
    deletion_timestamp,
    dig,
    finalizers,
    labels,
    metadata,
    name,
    namespace,
    owner_uids,
)
from isthmus.apiserver.reading import Reading, read, read_cluster, read_job
from isthmus.apiserver.resources import (
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    MODEL_DEPLOYMENTS,
    PODS,
    SERVICES,
    SLURM_CLUSTERS,
    SLURM_JOBS,
)
from isthmus.apiserver.store import Store
from isthmus.backends.kubernetes import observe as pods
from isthmus.backends.kubernetes.render import service_spec
from isthmus.backends.slurm import workers as slurm_workers
from isthmus.backends.slurm.states import draining_nodes, has_a_place
from isthmus.loop.triggers import SLURM_JOB
from isthmus.modeldeployment.execute_front import front_state, service_waits
from isthmus.modeldeployment.execute_pods import POD, PodWatch
from isthmus.modeldeployment.observation import (
    FrozenRevision,
    ModelDeploymentObservation,
    Reachability,
)
from isthmus.modeldeployment.policy.lost_labels import lost_labels
from isthmus.probing.prober import Prober
from isthmus.routing.slices import members
from isthmus.settings import Settings
from isthmus.slurmcluster.access import access
from isthmus.slurmcluster.state import ClusterStates
from isthmus.slurmjob.ownership import ownership


@dataclass(frozen=True, slots=True)
class Meaning:
    """What stands in one ModelDeployment: `current` is its pools' present revisions."""

    desired: Desired
    current: Mapping[str, str]
    status: ModelDeploymentStatus
    _keyed: dict[ApiKey | None, "Meaning"] = field(default_factory=dict, repr=False, compare=False)

    def with_key(self, desired: Desired) -> "Meaning":
        """The same with the digest of its key, which is part of the revisions; made once each."""
        if desired is self.desired:
            return self
        key = desired.api_key
        if key not in self._keyed:
            self._keyed[key] = Meaning(
                desired=desired, current=_current(desired), status=self.status
            )
        return self._keyed[key]


class DeploymentObserver:
    """Reads ModelDeployments and what belongs to them; has the loads of draining pods read."""

    def __init__(
        self,
        *,
        store: Store,
        states: ClusterStates,
        prober: Prober,
        settings: Settings,
        clock: Callable[[], float],
        router_problem: Callable[[str], str | None] = lambda uid: None,
    ) -> None:
        """Prepare.

        Args:
            store: what the API server said.
            states: what the pollers saw.
            prober: knows the loads of workers.
            settings: the operator's.
            clock: the wall clock, epoch seconds.
            router_problem: tells of a deployment's uid what keeps its external router out of step
                ("" nothing, None not known).
        """
        self._store = store
        self._states = states
        self._prober = prober
        self._settings = settings
        self._clock = clock
        self._router_problem = router_problem
        self._pod_watch = PodWatch(store=store, prober=prober)

    def find(self, key: Key) -> Object | None:
        """The object as it is stored; one that is gone is forgotten."""
        raw = self._store.get(MODEL_DEPLOYMENTS, key.namespace, key.name)
        if raw is None:
            self._pod_watch.forget(key.namespace, key.name)
        return raw

    def meaning(self, raw: Object) -> Meaning:
        """What stands in the object.

        Raises:
            ValueError: it cannot be read (also as `pydantic.ValidationError`).
        """
        return self._store.derived.of(raw, self._read)

    def follow_draining(self, observed: ModelDeploymentObservation) -> None:
        """Have the loads of exactly the pods read whose requests are waited for."""
        self._pod_watch.follow(observed.desired, _waiting_pods(observed))

    def _read(self, raw: Object) -> Meaning:
        # A pass writes the status and the finalizer: the specification is not read again for these.
        parts = (raw.get("spec"), metadata(raw).get("generation"), deletion_timestamp(raw))
        desired, current = self._store.derived.of_parts(raw, parts=parts, make=self._wanted)
        return Meaning(desired=desired, current=current, status=status_of(raw))

    def _wanted(self, raw: Object) -> tuple[Desired, Mapping[str, str]]:
        # Its status is ours, and found again; what a newer release wrote there is not missed.
        deployment = ModelDeployment.model_validate({**raw, "status": None})
        desired = effective(
            deployment,
            operator_namespace=self._settings.namespace,
            generate_api_keys=self._settings.generate_api_keys,
        )
        return desired, _current(desired)

    def _jobs(self, desired: Desired) -> Iterator[tuple[str, Reading[SlurmJob]]]:
        for obj in self._store.owned(SLURM_JOBS, desired.uid):  # whatever became of its labels
            here = namespace(obj) == desired.namespace
            if here and not ownership(obj, store=self._store).problem:
                yield name(obj), self._store.derived.of(obj, read_job)

    def unreadable_jobs(self, desired: Desired) -> str:
        """Why jobs of the deployment cannot be read at all; "" if they can."""
        lost = [(job, found) for job, found in self._jobs(desired) if found.value is None]
        return "" if not lost else f"SlurmJob {lost[0][0]} cannot be read: {lost[0][1].problem}"

    def observe(
        self, raw: Object, meaning: Meaning, *, client_keys_problem: str | None
    ) -> ModelDeploymentObservation:
        """Everything that belongs to it.

        Args:
            raw: as it is stored.
            meaning: what stands in it, with the digest of its key.
            client_keys_problem: see `ModelDeploymentObservation`.
        """
        desired = meaning.desired
        place = desired.namespace, desired.name
        slices = self._store.labelled(ENDPOINT_SLICES, *place)
        in_rotation = members(slices, service=desired.membership_service)
        jobs = tuple(found.value for _, found in self._jobs(desired) if found.value is not None)
        groups = (
            *pods.groups(
                deployments=[
                    obj
                    for obj in self._store.labelled(DEPLOYMENTS, *place)
                    if desired.uid in owner_uids(obj) and names.LABEL_COMPONENT not in labels(obj)
                ],
                pods=self._store.labelled(PODS, *place),
                members=in_rotation,
                load=lambda name: self._prober.load(Key(POD, desired.namespace, name)),
            ),
            *slurm_workers.groups(
                jobs=jobs,
                members=in_rotation,
                load=lambda name: self._prober.load(Key(SLURM_JOB, desired.namespace, name)),
                started=self._has_a_place,
            ),
        )
        front = front_state(self._store, desired=desired, settings=self._settings)
        waits = service_waits(self._store, desired=desired, front_available=front.available)
        return ModelDeploymentObservation(
            desired=desired,
            has_finalizer=names.FINALIZER_DEPLOYMENT in finalizers(raw),
            current=meaning.current,
            revisions=self._revisions(desired),
            groups=groups,
            clusters=self._reachability(desired, jobs),
            service_ok=waits or self._service_ok(desired),
            front_ok=front.ok,
            front_exists=front.exists,
            front_available=front.available or waits,
            front_problem=front.problem,
            front_rolled_out=front.rolled_out,
            front_understands=front.understands,
            client_keys_problem=client_keys_problem,
            router_problem=self._router_problem(desired.uid),
            lost_labels=tuple(
                lost
                for job in jobs
                if (lost := lost_labels(job, desired=desired, current=meaning.current))
            ),
            status=meaning.status,
            retry_base=self._settings.failure_backoff_base,
            retry_cap=self._settings.failure_backoff_cap,
            floor=self._settings.deregister_delay,
            shutdown=self._settings.termination_grace,
        )

    def _has_a_place(self, job: SlurmJob) -> bool:
        """Whether its cluster shows so: after some time without a look, statuses are behind."""
        state = self._states.get(job.spec.cluster)
        if state is None or not state.fresh(now=self._clock()):
            return False
        return any(has_a_place(record) for record in state.records(job.spec.job_name))

    def _revisions(self, desired: Desired) -> tuple[FrozenRevision, ...]:
        return tuple(
            FrozenRevision(
                pool=labels(obj).get(names.LABEL_POOL, ""),
                revision=labels(obj).get(names.LABEL_REVISION, ""),
                created_at=epoch(str(metadata(obj).get("creationTimestamp", ""))) or 0.0,
            )
            for obj in self._store.labelled(CONTROLLER_REVISIONS, desired.namespace, desired.name)
            if desired.uid in owner_uids(obj)
        )

    def _service_ok(self, desired: Desired) -> bool:
        found = self._store.get(SERVICES, desired.namespace, desired.name)
        if found is None or desired.uid not in owner_uids(found):
            return False
        wanted = service_spec(desired=desired)
        ports = dig(found, "spec", "ports", default=[])
        return (
            dig(found, "spec", "selector") == wanted["selector"]
            and isinstance(ports, list)
            and len(ports) == 1
            and dig(ports[0], "name") == "http"
            and dig(ports[0], "port") == 80
            and dig(ports[0], "targetPort") == "http"
            and labels(found).get(names.LABEL_MANAGED_BY) == names.MANAGED_BY
        )

    def _reachability(
        self, desired: Desired, jobs: tuple[SlurmJob, ...]
    ) -> Mapping[str, Reachability]:
        references = {job.spec.pool: job.spec.cluster for job in jobs}
        references |= {pool.name: pool.slurm.cluster for pool in desired.pools if pool.slurm}
        return {
            pool: self._reachable(reference, desired.namespace)
            for pool, reference in references.items()
        }

    def _reachable(self, reference: ClusterReference, namespace: str) -> Reachability:
        raw = self._store.get(SLURM_CLUSTERS, reference.namespace, reference.name)
        reading = None if raw is None else self._store.derived.of(raw, read_cluster)
        cluster, unread = (None, "") if reading is None else (reading.value, reading.problem)
        denied = access(cluster=cluster, reference=reference, namespace=namespace, unread=unread)
        if denied is not None:
            return Reachability(reachable=False, reason=denied[0], message=denied[1])
        state = self._states.get(reference)
        now = self._clock()
        if state is not None and state.fresh(now=now):
            if cluster is not None and cluster.metadata.deleting:
                return Reachability(
                    reachable=True,
                    accepts=False,
                    reason=Reason.DELETING,
                    message=f"SlurmCluster {reference.namespace}/{reference.name} is being "
                    "deleted and waits for its last worker: move this pool elsewhere",
                )
            if unread:
                message = (
                    f"SlurmCluster {reference.namespace}/{reference.name} cannot be read in full "
                    f"({unread}): its workers continue, and nothing new is submitted to it"
                )
                return Reachability(
                    reachable=True, accepts=False, reason=Reason.INVALID_SPEC, message=message
                )
            return Reachability(reachable=True, draining=draining_nodes(state.snapshot))
        reason, message = (
            (Reason.NOT_OBSERVED_YET, "the cluster has not been looked at yet")
            if state is None
            else state.why_not_fresh(now=now)
        )
        return Reachability(reachable=False, reason=reason, message=message)


def status_of(raw: Object) -> ModelDeploymentStatus:
    """Its status as far as it can be read."""
    found = dig(raw, "status", default={})
    written = found if isinstance(found, Mapping) else {}
    return read(ModelDeploymentStatus, written).value or ModelDeploymentStatus()


def _waiting_pods(observed: ModelDeploymentObservation) -> frozenset[str]:
    """The pods whose requests are waited for."""
    return frozenset(
        worker.name
        for group in observed.groups
        if group.backend == "kubernetes"
        for worker in group.waiting
    )


def _current(desired: Desired) -> Mapping[str, str]:
    """Pool name to the revision that it is meant to run."""
    return {pool.name: revision_hash(desired=desired, pool=pool) for pool in desired.pools}
