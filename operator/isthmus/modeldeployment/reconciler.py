"""The reconciler of ModelDeployment: observes its parts in the store, plans, acts, writes once."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from isthmus.api import names
from isthmus.api.conditions import PendingClass, Reason
from isthmus.api.defaults import effective
from isthmus.api.desired import ApiKey, ClusterReference, Desired
from isthmus.api.modeldeployment import ModelDeployment
from isthmus.api.modeldeployment_status import ModelDeploymentStatus
from isthmus.api.revision import revision_hash
from isthmus.api.slurmjob import SlurmJob
from isthmus.api.times import epoch
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.key import Key, spread
from isthmus.apiserver.objects import (
    Object,
    deletion_timestamp,
    dig,
    finalizers,
    labels,
    metadata,
    name,
    owner_uids,
)
from isthmus.apiserver.reading import Reading, read, read_cluster, read_job, to_be_deleted
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
from isthmus.apiserver.statuses import write_status
from isthmus.apiserver.store import Store
from isthmus.backends.kubernetes import observe as pods
from isthmus.backends.kubernetes.render import service_spec
from isthmus.backends.slurm import workers as slurm_workers
from isthmus.backends.slurm.records import Snapshot
from isthmus.backends.slurm.states import node_draining
from isthmus.errors import SecretMissingError
from isthmus.guarded import unreadable
from isthmus.loop.triggers import SLURM_JOB
from isthmus.modeldeployment.actions import (
    AsksForWorkers,
    DeploymentAction,
    DrainPods,
    ReleasePod,
    ReturnPod,
    ShortenPod,
    may_wait,
)
from isthmus.modeldeployment.drain_events import tell_of_cut_pod
from isthmus.modeldeployment.execute import DeploymentActions
from isthmus.modeldeployment.execute_front import front_state, service_waits
from isthmus.modeldeployment.execute_pods import POD, PodActions, PodWatch
from isthmus.modeldeployment.failures import REFUSALS, Failure, Failures, failure, with_failures
from isthmus.modeldeployment.keys import DeploymentKeys
from isthmus.modeldeployment.observation import (
    FrozenRevision,
    ModelDeploymentObservation,
    Reachability,
)
from isthmus.modeldeployment.plan import plan_model_deployment
from isthmus.probing.prober import Prober
from isthmus.routing.slices import members
from isthmus.rules.actions import RemoveFinalizer
from isthmus.settings import Settings
from isthmus.slurmcluster.access import access
from isthmus.slurmcluster.state import ClusterStates
from isthmus.slurmjob.ownership import ownership
from isthmus.telemetry.events import EventSink
from isthmus.telemetry.report import report

_REFUSED_RETRY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What stands in one ModelDeployment: `current` is its pools' present revisions."""

    desired: Desired
    current: Mapping[str, str]
    status: ModelDeploymentStatus
    _keyed: dict[ApiKey | None, "_Meaning"] = field(default_factory=dict, repr=False, compare=False)

    def with_key(self, desired: Desired) -> "_Meaning":
        """The same with the digest of its key, which is part of the revisions; made once each."""
        key = desired.api_key
        if key not in self._keyed:
            self._keyed[key] = _Meaning(
                desired=desired, current=_current(desired), status=self.status
            )
        return self._keyed[key]


class ModelDeploymentReconciler:
    """One pass over one ModelDeployment per call."""

    def __init__(
        self,
        *,
        store: Store,
        api: ApiServer,
        states: ClusterStates,
        actions: DeploymentActions,
        keys: DeploymentKeys,
        pods: PodActions,
        prober: Prober,
        settings: Settings,
        clock: Callable[[], float],
        events: EventSink,
        router_problem: Callable[[str], str | None] = lambda uid: None,
    ) -> None:
        """Prepare.

        `clock` is the wall clock in epoch seconds; `router_problem` tells of a deployment's uid
        what keeps its external router out of step ("" nothing, None not known).
        """
        self._router_problem = router_problem
        self._events = events
        self._store = store
        self._api = api
        self._states = states
        self._actions = actions
        self._keys = keys
        self._pods = pods
        self._prober = prober
        self._pod_watch = PodWatch(store=store, prober=prober)
        self._settings = settings
        self._clock = clock

    async def reconcile(self, key: Key) -> float | None:
        """Make one pass over the ModelDeployment."""
        raw = self._store.get(MODEL_DEPLOYMENTS, key.namespace, key.name)
        if raw is None:
            self._pod_watch.forget(key.namespace, key.name)
            return None
        try:
            meaning = self._store.derived.of(raw, self._meaning)
        except ValueError as error:
            if deletion_timestamp(raw) is None:
                # An object of another release's schema: nothing that runs is touched.
                wrong = Failure(Reason.INVALID_SPEC, PendingClass.NEVER, unreadable(error))
                await self._say(raw, wrong)
                return None
            meaning = _Meaning(desired=to_be_deleted(raw), current={}, status=_status_of(raw))
        desired = meaning.desired
        if lost := self._unreadable_jobs(desired):
            # They may run, and nobody could say of which pool they are.
            await self._say(raw, Failure(Reason.INVALID_SPEC, PendingClass.NEVER, lost))
            return None
        failures = Failures()
        if not desired.deleting:
            try:
                told = dig(raw, "status", "apiKey") is not None
                desired, lacks = await self._keys.settled(desired, had_key=told)
            except (*REFUSALS, SecretMissingError) as error:
                # Without a key nothing new can be made, and what runs is not touched.
                await self._say(raw, failure(error))
                return _REFUSED_RETRY_SECONDS
            if lacks:
                failures.note(Failure(Reason.API_KEY_UNUSABLE, PendingClass.NEVER, lacks))
            meaning = meaning.with_key(desired)
        clients = None if desired.deleting else await self._keys.clients_problem(desired)
        observed = self._observe(raw, meaning, client_keys_problem=clients)
        self._pod_watch.follow(desired, _waiting_pods(observed))
        now = self._clock()
        plan = plan_model_deployment(observed, now=now)
        status, requeue = self._with_last_key(plan.status, observed), plan.requeue_after
        for waits in (False, True):
            asked = False
            for action in (each for each in plan.actions if may_wait(each) is waits):
                if failures.hinder(action):
                    continue
                try:
                    raw = await self._act(action, raw=raw, desired=desired)
                except (*REFUSALS, SecretMissingError) as error:
                    failures.add(action, error)
                    continue
                if isinstance(action, RemoveFinalizer):
                    return None
                asked = asked or isinstance(action, AsksForWorkers)
            if asked:
                return 0.0
        try:
            await self._keys.forget_unused(desired)
        except REFUSALS as error:
            failures.note(failure(error))
        if failures.found:
            status = with_failures(status, failures.found, before=observed.status, now=now)
            requeue = min(requeue or _REFUSED_RETRY_SECONDS, _REFUSED_RETRY_SECONDS)
        await write_status(self._api, MODEL_DEPLOYMENTS, obj=raw, status=status)
        report(self._events, raw, before=observed.status, after=status)
        resync = spread(self._settings.resync_interval, key=key)
        return resync if requeue is None else min(requeue, resync)

    def _with_last_key(
        self, status: ModelDeploymentStatus, observed: ModelDeploymentObservation
    ) -> ModelDeploymentStatus:
        """Clients are told of the key until no worker has it; by that it is known to be there."""
        last = observed.status.api_key
        if status.api_key is not None or last is None or observed.desired.deleting:
            return status
        in_use = self._keys.in_use(observed.desired)
        return status.model_copy(update={"api_key": last}) if in_use else status

    async def _act(self, action: DeploymentAction, *, raw: Object, desired: Desired) -> Object:
        """Execute one action; returns the ModelDeployment as it is stored then."""
        if isinstance(action, DrainPods | ReleasePod | ReturnPod | ShortenPod):
            await self._pods.execute(action, desired=desired)
            if isinstance(action, ReleasePod):
                tell_of_cut_pod(self._events, raw, action)
            return raw
        return await self._actions.execute(action, raw=raw, desired=desired)

    async def _say(self, raw: Object, failed: Failure) -> None:
        """Write a failure into the conditions and leave the rest of the status as it is."""
        status = _status_of(raw)
        told = with_failures(status, [failed], before=status, now=self._clock())
        await write_status(self._api, MODEL_DEPLOYMENTS, obj=raw, status=told)

    # ---- observing: no I/O

    def _meaning(self, raw: Object) -> _Meaning:
        """Read the object.

        Raises:
            ValueError: it cannot be read (also as `pydantic.ValidationError`).
        """
        # Its status is ours, and found again; what a newer release wrote there is not missed.
        deployment = ModelDeployment.model_validate({**raw, "status": None})
        desired = effective(
            deployment,
            operator_namespace=self._settings.namespace,
            generate_api_keys=self._settings.generate_api_keys,
        )
        return _Meaning(
            desired=desired,
            current=_current(desired),
            status=_status_of(raw),
        )

    def _jobs(self, desired: Desired) -> Iterator[tuple[str, Reading[SlurmJob]]]:
        for obj in self._store.labelled(SLURM_JOBS, desired.namespace, desired.name):
            if desired.uid in owner_uids(obj) and not ownership(obj, store=self._store).problem:
                yield name(obj), self._store.derived.of(obj, read_job)

    def _unreadable_jobs(self, desired: Desired) -> str:
        """Why jobs of the deployment cannot be read at all; "" if they can."""
        lost = [(job, found) for job, found in self._jobs(desired) if found.value is None]
        return "" if not lost else f"SlurmJob {lost[0][0]} cannot be read: {lost[0][1].problem}"

    def _observe(
        self, raw: Object, meaning: _Meaning, *, client_keys_problem: str | None
    ) -> ModelDeploymentObservation:
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
            status=meaning.status,
            retry_base=self._settings.failure_backoff_base,
            retry_cap=self._settings.failure_backoff_cap,
            floor=self._settings.deregister_delay,
            shutdown=self._settings.termination_grace,
        )

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
            return Reachability(reachable=True, draining=draining(state.snapshot))
        reason, message = (
            (Reason.NOT_OBSERVED_YET, "the cluster has not been looked at yet")
            if state is None
            else state.why_not_fresh(now=now)
        )
        return Reachability(reachable=False, reason=reason, message=message)


def draining(snapshot: Snapshot | None) -> Mapping[str, str]:
    """Drained nodes of a snapshot, each with SLURM's reason for it."""
    nodes = () if snapshot is None else snapshot.nodes.values()
    return {node.name: node.reason for node in nodes if node_draining(node)}


def _status_of(raw: Object) -> ModelDeploymentStatus:
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
