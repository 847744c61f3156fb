"""The reconciler of SlurmJob: one attempt and one SLURM job, brought together.

Observing and planning need no I/O; what the plan asks for is done here, in its order. The only
action with a write before it is the submission: the status says `Submitting` and the API server
has acknowledged that before sbatch runs, so that no restart can take a submission for untried.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from isthmus.api import names
from isthmus.api.conditions import Phase, Reason
from isthmus.api.desired import ClusterReference
from isthmus.api.durations import parse_duration
from isthmus.api.health import HealthSpec
from isthmus.api.modeldeployment import DrainSpec
from isthmus.api.slurmcluster import SlurmCluster
from isthmus.api.slurmjob import SlurmJob
from isthmus.api.times import epoch
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.clusters import cluster_of
from isthmus.apiserver.forgetting import when_gone
from isthmus.apiserver.gate import Gate
from isthmus.apiserver.key import Key, spread
from isthmus.apiserver.objects import (
    Object,
    deletion_timestamp,
    dig,
    finalizers,
    name,
    namespace,
    uid,
)
from isthmus.apiserver.reading import read_cluster, read_deployment, read_job
from isthmus.apiserver.resources import (
    CONTROLLER_REVISIONS,
    ENDPOINT_SLICES,
    MODEL_DEPLOYMENTS,
    SLURM_CLUSTERS,
    SLURM_JOBS,
)
from isthmus.apiserver.statuses import set_finalizer, tell_unreadable, write_status
from isthmus.apiserver.store import Store
from isthmus.backends.slurm import frozen as freezing
from isthmus.backends.slurm.frozen import FrozenJob
from isthmus.backends.slurm.records import NotSent
from isthmus.errors import SecretMissingError, SlurmError
from isthmus.routing.slices import slice_service, slice_target
from isthmus.rules.actions import AddFinalizer, RemoveFinalizer
from isthmus.slurmcluster.port_files import PortFiles
from isthmus.slurmcluster.running import Clusters
from isthmus.slurmcluster.state import ClusterStates
from isthmus.slurmcluster.submission_line import LOOK_AGAIN, SubmissionLine, Turn
from isthmus.slurmcluster.view import ClusterView
from isthmus.slurmjob.action_failures import ActionFailures
from isthmus.slurmjob.actions import (
    Cancel,
    CloseGate,
    ConfirmGone,
    DeleteSlice,
    EnsureSlice,
    ReadPort,
    SlurmJobAction,
    Submit,
    Terminate,
    WithdrawTunnels,
)
from isthmus.slurmjob.blamed_nodes import excluded_nodes
from isthmus.slurmjob.forward_ports import ForwardPorts, observe_network
from isthmus.slurmjob.key_files import KeyStaging
from isthmus.slurmjob.neighbours import others_answer, others_good
from isthmus.slurmjob.observation import (
    EndpointRules,
    Limits,
    SlurmJobObservation,
)
from isthmus.slurmjob.ownership import ownership
from isthmus.slurmjob.plan import plan_slurm_job
from isthmus.slurmjob.policy.forwarding import detours
from isthmus.slurmjob.policy.polling import LEAST, LOOK_EVERY, look_in
from isthmus.slurmjob.probes import ProbedAttempt, WorkerProbes
from isthmus.slurmjob.record import AttemptStatus
from isthmus.slurmjob.refused_jobs import refuse
from isthmus.slurmjob.slices import delete_slice, ensure_slice, withdraw_tunnels
from isthmus.slurmjob.start_gate import StartGate, waits_for
from isthmus.slurmjob.submit import announced, submit
from isthmus.slurmjob.submitting import after_submission
from isthmus.telemetry.events import EventSink
from isthmus.telemetry.report import report

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Parts:
    """The objects around one SlurmJob, as the store has them."""

    raw: Object
    job: SlurmJob
    unread: str
    cluster: SlurmCluster | None
    cluster_unread: str
    frozen: FrozenJob | None
    health: HealthSpec
    drain: DrainSpec
    service: str


class SlurmJobReconciler:
    """Observes, plans and acts for one SlurmJob per call."""

    def __init__(
        self,
        *,
        store: Store,
        api: ApiServer,
        gate: Gate,
        states: ClusterStates,
        clusters: Clusters,
        probes: WorkerProbes,
        staging: KeyStaging,
        installation_id: str,
        limits: Callable[[SlurmCluster | None], Limits],
        ports: ForwardPorts,
        resync: float,
        clock: Callable[[], float],
        events: EventSink,
        line: SubmissionLine,
    ) -> None:
        """Prepare.

        Args:
            store: what the API server said.
            api: gated; its answers go into the store.
            gate: checked once more right before a SLURM command that changes something.
            states: what the pollers saw.
            clusters: the clients of the clusters.
            probes: probes of running workers.
            staging: brings API keys to the jobs.
            installation_id: stands in the comment of a job.
            limits: times that apply to jobs of a cluster.
            ports: of forwards.
            resync: seconds after which an attempt is looked at again although nothing changed.
            clock: wall clock, epoch seconds.
            events: told of each transition.
            line: who may submit now.
        """
        self._line = line
        self._events = events
        self._store = store
        self._api = api
        self._gate = gate
        self._states = states
        self._clusters = clusters
        self._probes = probes
        self._staging = staging
        self._installation_id = installation_id
        self._limits = limits
        self._ports = ports
        self._view = ClusterView(store=store, states=states, clock=clock)
        self._resync = resync
        self._clock = clock
        self._port_files = PortFiles(clusters=clusters, states=states, clock=clock)
        self._start_gate = StartGate(clusters=clusters, gate=gate)
        self._failures = ActionFailures()
        when_gone(store, SLURM_JOBS, self._forget)

    async def reconcile(self, key: Key) -> float | None:
        """Make one pass over the SlurmJob."""
        raw = self._store.get(SLURM_JOBS, key.namespace, key.name)
        if raw is None:
            self._probes.forget(key)
            self._ports.release(key)
            self._failures.forget(key)
            return None
        try:
            return await self._pass(key, raw)
        except SlurmError as error:
            await self._tell_failure(key, error)
            raise

    async def _tell_failure(self, key: Key, error: SlurmError) -> None:
        """Say what is tried in vain, beside what was known: nothing else is known of this pass."""
        raw = self._store.get(SLURM_JOBS, key.namespace, key.name)
        job = None if raw is None else self._store.derived.of(raw, read_job).value
        if raw is None or job is None:
            return
        status = AttemptStatus.read(job.status)
        told = self._failures.told(key, status, error, now=self._clock()).write()
        raw = await write_status(self._api, SLURM_JOBS, obj=raw, status=told)
        report(self._events, raw, before=status.write(), after=told)

    async def _pass(self, key: Key, raw: Object) -> float | None:
        owned = ownership(raw, store=self._store, installation_id=self._installation_id)
        if owned.problem:
            self._probes.forget(key)
            self._ports.release(key)
            await refuse(self._api, self._store, raw, problem=owned.problem)
            return spread(self._resync, key=key)
        job = self._store.derived.of(raw, read_job)
        if job.value is None:
            await tell_unreadable(self._api, SLURM_JOBS, raw, job.problem)
            return None
        parts = self._parts(raw, job.value, unread=job.problem)
        observed = replace(self._observe(key, parts), owner_is_there=owned.owner_is_there)
        plan = plan_slurm_job(observed, now=self._clock())
        probed = replace(_probed(parts, plan.status), detours=detours(observed, plan.status))
        await self._probes.watch(key, probed)
        if plan.probe_now:
            self._probes.probe_now(key)
        status = plan.status
        if not any(isinstance(action, Submit) for action in plan.actions):
            self._line.withdraw(parts.job.spec.cluster, key)
        for action in plan.actions:
            self._failures.begin(key, action)
            if isinstance(action, RemoveFinalizer):
                await self._staging.remove(
                    job=parts.job, frozen=parts.frozen, cluster=parts.cluster
                )
                await self._finalizer(raw, present=False)
                self._probes.forget(key)
                return None
            if isinstance(action, AddFinalizer):
                raw = await self._finalizer(raw, present=True)
            elif isinstance(action, Submit):
                turn = self._line.enter(parts.job.spec.cluster, key)
                if turn is Turn.WAITING:  # of one that has just joined nothing is written
                    await self._write(raw, status)
                if turn is not Turn.NOW:
                    return LOOK_AGAIN
                try:
                    raw, status = await self._submission(parts, action, waiting=status)
                finally:
                    self._line.leave(parts.job.spec.cluster, key)
            elif isinstance(action, CloseGate):
                gate = await self._start_gate.close(
                    parts.job, parts.cluster, unread=parts.cluster_unread
                )
                if (found := waits_for(gate, action, status, now=self._clock())) is not None:
                    await self._write(raw, found)
                    self._clusters.poke(parts.job.spec.cluster)
                    return LOOK_EVERY
            else:
                await self._act(parts, action)
        status = self._failures.settled(key, status, done=plan.actions, now=self._clock())
        told = status.write()
        await write_status(self._api, SLURM_JOBS, obj=raw, status=told)
        report(self._events, raw, before=observed.status.write(), after=told)
        await self._staging.keep(
            job=parts.job, frozen=parts.frozen, cluster=parts.cluster, status=told
        )
        again = self._again(parts, observed, status=status, requeue_after=plan.requeue_after)
        # Not everything that makes a difference is a change: a snapshot only grows old.
        resync = spread(self._resync, key=key)
        return resync if again is None else min(again, resync)

    def _again(
        self,
        parts: _Parts,
        observed: SlurmJobObservation,
        *,
        status: AttemptStatus,
        requeue_after: float | None,
    ) -> float | None:
        """When to look again; a start that is awaited has its cluster looked at sooner."""
        soon = look_in(observed, status=status, now=self._clock())
        if soon is None:
            return requeue_after
        if soon == 0.0:
            self._clusters.poke(parts.job.spec.cluster)
            soon = LEAST
        return soon if requeue_after is None else min(soon, requeue_after)

    def _forget(self, gone: Object) -> None:
        """Of an attempt whose object is gone, however it went."""
        job_name = str(dig(gone, "spec", "jobName", default=""))
        self._staging.forget(job_name)
        self._states.forget_job(cluster_of(gone), job_name)

    # ---- observing: no I/O

    def _parts(self, raw: Object, job: SlurmJob, *, unread: str) -> _Parts:
        derived = self._store.derived
        reference = job.spec.cluster
        found = self._store.get(SLURM_CLUSTERS, reference.namespace, reference.name)
        cluster = None if found is None else derived.of(found, read_cluster)
        revision = self._store.get(
            CONTROLLER_REVISIONS,
            namespace(raw),
            names.revision_object_name(
                deployment=job.spec.deployment, pool=job.spec.pool, revision=job.spec.revision
            ),
        )
        owner = self._store.get(MODEL_DEPLOYMENTS, namespace(raw), job.spec.deployment)
        read_owner = None if owner is None else derived.of(owner, read_deployment).value
        spec = None if read_owner is None else read_owner.spec
        managed = spec is None or spec.endpoint.type == "Managed"
        return _Parts(
            raw=raw,
            job=job,
            unread=unread,
            cluster=None if cluster is None else cluster.value,
            cluster_unread="" if cluster is None else cluster.problem,
            frozen=None if revision is None else derived.of(revision, _frozen),
            health=HealthSpec() if spec is None else spec.health,
            drain=DrainSpec() if spec is None else spec.drain,
            service=names.membership_service(job.spec.deployment, managed=managed),
        )

    def _observe(self, key: Key, parts: _Parts) -> SlurmJobObservation:
        job, raw = parts.job, parts.raw
        status = AttemptStatus.read(job.status)
        state = self._states.get(job.spec.cluster)
        probe = self._probes.state(key)
        current = self._store.get(ENDPOINT_SLICES, namespace(raw), name(raw))
        ports = None if parts.cluster is None else parts.cluster.spec.network.ports
        return SlurmJobObservation(
            job_name=job.spec.job_name,
            attempt=job.spec.attempt,
            deleting=job.metadata.deleting,
            has_finalizer=names.FINALIZER_SLURM_JOB in finalizers(raw),
            status=status,
            unread=parts.unread,
            cluster=self._view.observe(
                cluster=parts.cluster,
                unread=parts.cluster_unread,
                reference=job.spec.cluster,
                namespace=namespace(raw),
                except_for=uid(raw),
            ),
            limits=self._limits(parts.cluster),
            endpoint=EndpointRules(
                port_from=1 if ports is None else ports.first,
                port_to=65535 if ports is None else ports.last,
                startup_timeout=parse_duration(parts.health.startup_timeout),
                networks=() if parts.cluster is None else parts.cluster.spec.network.node_cidrs,
            ),
            records=() if state is None else state.records(job.spec.job_name),
            unreadable=() if state is None else state.unreadable(job.spec.job_name),
            last_seen=None if state is None else state.last_seen(job.spec.job_name),
            confirmed_gone=state is not None
            and (status.job.job_id, job.spec.job_name) in state.confirmed_gone,
            probe_healthy=None if probe is None else probe.healthy,
            probe_reason="" if probe is None or probe.last is None else probe.last.reason,
            probe_message="" if probe is None or probe.last is None else probe.last.message,
            probe_age=self._probes.age(key),
            slice_target=None if current is None else slice_target(current),
            load=self._probes.load(key, _probed(parts, status)),
            drain_timeout=parse_duration(parts.drain.timeout),
            slice_in_service=current is None or slice_service(current) == parts.service,
            renderable=parts.frozen is not None,
            work_directory=_folder(parts),
            others_good=probe is None
            or probe.healthy is not False
            or others_good(key, job, service=parts.service, probes=self._probes, store=self._store),
            others_answer=status.phase == Phase.DEGRADED
            and others_answer(key, job, probes=self._probes, store=self._store),
            network=observe_network(
                parts.raw,
                job=job,
                cluster=parts.cluster,
                service=parts.service,
                store=self._store,
                ports=self._ports,
            ),
            deleting_since=epoch(job.metadata.deletion_timestamp),
            told_port=self._port_files.told(
                job.spec.cluster, job_name=job.spec.job_name, job_id=status.job.job_id
            ),
            excluded_nodes=excluded_nodes(
                job,
                store=self._store,
                snapshot=None if state is None else state.snapshot,
                frozen=parts.frozen,
                cluster=parts.cluster,
                now=self._clock(),
            ),
        )

    # ---- acting

    async def _write(self, raw: Object, status: AttemptStatus) -> None:
        await write_status(self._api, SLURM_JOBS, obj=raw, status=status.write())

    async def _finalizer(self, raw: Object, *, present: bool) -> Object:
        return await set_finalizer(
            self._api,
            SLURM_JOBS,
            obj=raw,
            finalizer=names.FINALIZER_SLURM_JOB,
            present=present,
        )

    async def _stage(self, parts: _Parts, *, place: str | None) -> str:
        """Put the attempt's API key where its job takes it; what is wrong where there is none."""
        if parts.frozen is None or parts.cluster is None:
            return ""
        folder = place or parts.cluster.spec.files.work_directory
        try:
            await self._staging.stage(job=parts.job, frozen=parts.frozen, folder=folder)
        except SecretMissingError as error:
            return str(error)
        return ""

    async def _submission(
        self, parts: _Parts, action: Submit, *, waiting: AttemptStatus
    ) -> tuple[Object, AttemptStatus]:
        """Submit once; the object as it is stored then, and the status to write."""
        problem = await self._stage(parts, place=action.before.submission.work_directory)
        if problem:
            return parts.raw, replace(waiting, reason=Reason.API_KEY_UNUSABLE, message=problem)
        before = await announced(
            action.before,
            job=parts.job,
            cluster=parts.cluster,
            clusters=self._clusters,
            check=self._gate.check,
        )
        acknowledged = before.write()
        raw = await write_status(self._api, SLURM_JOBS, obj=parts.raw, status=acknowledged)
        outcome = await submit(
            acknowledged,
            job=parts.job,
            frozen=parts.frozen,
            cluster=parts.cluster,
            clusters=self._clusters,
            installation_id=self._installation_id,
            check=lambda: self._unwanted(raw),
        )
        if isinstance(outcome, NotSent):  # its deletion may be what was written last
            raw = self._store.get(SLURM_JOBS, namespace(raw), name(raw)) or raw
        limits = self._limits(parts.cluster)
        return raw, after_submission(before, outcome=outcome, limits=limits, now=self._clock())

    def _unwanted(self, raw: Object) -> str:
        """Why an attempt must not be submitted after all: others' submissions took long."""
        self._gate.check()
        now = self._store.get(SLURM_JOBS, namespace(raw), name(raw))
        gone = now is None or uid(now) != uid(raw) or deletion_timestamp(now) is not None
        return "its SlurmJob is being deleted" if gone else ""

    async def _act(self, parts: _Parts, action: SlurmJobAction) -> None:
        spec, reference = parts.job.spec, parts.job.spec.cluster
        self._gate.check()
        if isinstance(action, EnsureSlice):
            await ensure_slice(
                self._api,
                parts.raw,
                deployment=spec.deployment,
                service=parts.service,
                address=action.address,
                port=action.port,
            )
        elif isinstance(action, DeleteSlice):
            await delete_slice(self._api, self._store, parts.raw)
        elif isinstance(action, WithdrawTunnels):
            await withdraw_tunnels(self._api, self._store, parts.raw)
        elif isinstance(action, Terminate):
            client = self._clusters.client(reference)
            await client.terminate(job_id=action.job_id, job_name=spec.job_name)
        elif isinstance(action, Cancel):
            client = self._clusters.client(reference)
            await client.cancel(job_id=action.job_id, job_name=spec.job_name)
            self._clusters.poke(reference)
        elif isinstance(action, ReadPort):
            await self._port_files.read(
                reference,
                folder=_folder(parts),
                job_name=spec.job_name,
                job_id=action.job_id,
            )
        elif isinstance(action, ConfirmGone):
            await self._confirm_gone(reference, job_id=action.job_id, job_name=spec.job_name)

    async def _confirm_gone(
        self, reference: ClusterReference, *, job_id: int, job_name: str
    ) -> None:
        """Ask the second source; another job under the same id is not ours either."""
        record = await self._clusters.client(reference).show_job(job_id)
        state = self._states.get(reference)
        if state is not None and (record is None or record.name != job_name):
            state.confirmed_gone.add((job_id, job_name))
        self._clusters.poke(reference)


def _frozen(revision: Object) -> FrozenJob | None:
    """What a ControllerRevision of a pool on SLURM holds."""
    data = dig(revision, "data", "job")
    return freezing.from_json(data) if isinstance(data, Mapping) else None


def _folder(parts: _Parts) -> str:
    """The work directory of an attempt: its own, or else the cluster's."""
    ours = "" if parts.cluster is None else parts.cluster.spec.files.work_directory
    return parts.job.work_directory or ours


def _probed(parts: _Parts, status: AttemptStatus) -> ProbedAttempt:
    return ProbedAttempt(job=parts.job, frozen=parts.frozen, health=parts.health, status=status)
