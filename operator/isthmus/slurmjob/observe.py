"""What is known of one SlurmJob, from the store, the snapshots and the probes: no I/O."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from isthmus.api import names
from isthmus.api.conditions import Phase
from isthmus.api.durations import parse_duration
from isthmus.api.health import HealthSpec
from isthmus.api.modeldeployment import DrainSpec
from isthmus.api.slurmcluster import SlurmCluster
from isthmus.api.slurmjob import SlurmJob
from isthmus.api.times import epoch
from isthmus.apiserver.key import Key
from isthmus.apiserver.objects import Object, dig, finalizers, name, namespace, uid
from isthmus.apiserver.reading import read_cluster, read_deployment
from isthmus.apiserver.resources import (
    CONTROLLER_REVISIONS,
    ENDPOINT_SLICES,
    MODEL_DEPLOYMENTS,
    SLURM_CLUSTERS,
)
from isthmus.apiserver.store import Store
from isthmus.backends.slurm import frozen as freezing
from isthmus.backends.slurm.frozen import FrozenJob
from isthmus.routing.slices import slice_service, slice_target
from isthmus.slurmcluster.view import ClusterView
from isthmus.slurmjob.blamed_nodes import excluded_nodes
from isthmus.slurmjob.forward_ports import ForwardPorts, observe_network
from isthmus.slurmjob.neighbours import others_answer, others_good
from isthmus.slurmjob.observation import EndpointRules, SlurmJobObservation
from isthmus.slurmjob.probes import ProbedAttempt, WorkerProbes
from isthmus.slurmjob.record import AttemptStatus
from isthmus.slurmjob.sides import Installation, SlurmSide
from isthmus.slurmjob.stored_status import stored_status


@dataclass(frozen=True, slots=True)
class Parts:
    """The objects around one SlurmJob, as the store has them.

    Attributes:
        raw: the SlurmJob as stored.
        job: the same, read.
        status: what it says of the attempt.
        unread: which of its fields cannot be read.
        cluster: its SlurmCluster, None where there is none that can be read.
        cluster_unread: why that cannot be read in full.
        frozen: its revision, None where that is gone.
        health: how its deployment has workers probed.
        drain: and drained.
        service: whose membership it belongs to.
    """

    raw: Object
    job: SlurmJob
    status: AttemptStatus
    unread: str
    cluster: SlurmCluster | None
    cluster_unread: str
    frozen: FrozenJob | None
    health: HealthSpec
    drain: DrainSpec
    service: str

    @property
    def folder(self) -> str:
        """The work directory of the attempt: its own, or else the cluster's."""
        ours = "" if self.cluster is None else self.cluster.spec.files.work_directory
        return self.job.work_directory or ours

    def probed(self, status: AttemptStatus, *, detours: tuple[str, ...] = ()) -> ProbedAttempt:
        """What is to be probed of the attempt, going on with a status."""
        return ProbedAttempt(
            job=self.job, frozen=self.frozen, health=self.health, status=status, detours=detours
        )


class SlurmJobObserver:
    """Brings together what is known of one SlurmJob."""

    def __init__(
        self,
        *,
        store: Store,
        slurm: SlurmSide,
        probes: WorkerProbes,
        ports: ForwardPorts,
        installation: Installation,
        clock: Callable[[], float],
    ) -> None:
        """Prepare.

        Args:
            store: what the API server said.
            slurm: the clusters.
            probes: probes of running workers.
            ports: of forwards.
            installation: the times that apply.
            clock: wall clock, epoch seconds.
        """
        self._store = store
        self._slurm = slurm
        self._probes = probes
        self._ports = ports
        self._installation = installation
        self._clock = clock
        self._view = ClusterView(store=store, states=slurm.states, clock=clock)

    def parts(self, raw: Object, job: SlurmJob, *, unread: str) -> Parts:
        """The objects around a SlurmJob."""
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
        return Parts(
            raw=raw,
            job=job,
            status=stored_status(raw, store=self._store),
            unread=unread,
            cluster=None if cluster is None else cluster.value,
            cluster_unread="" if cluster is None else cluster.problem,
            frozen=None if revision is None else derived.of(revision, _frozen),
            health=HealthSpec() if spec is None else spec.health,
            drain=DrainSpec() if spec is None else spec.drain,
            service=names.membership_service(job.spec.deployment, managed=managed),
        )

    def observe(self, key: Key, parts: Parts, *, owner_is_there: bool) -> SlurmJobObservation:
        """All that is known of it now."""
        job, raw, status = parts.job, parts.raw, parts.status
        job_name, reference = job.spec.job_name, job.spec.cluster
        state = self._slurm.states.get(reference)
        probe = self._probes.state(key)
        last = None if probe is None else probe.last
        current = self._store.get(ENDPOINT_SLICES, namespace(raw), name(raw))
        return SlurmJobObservation(
            job_name=job_name,
            attempt=job.spec.attempt,
            deleting=job.metadata.deleting,
            has_finalizer=names.FINALIZER_SLURM_JOB in finalizers(raw),
            status=status,
            unread=parts.unread,
            cluster=self._view.observe(
                cluster=parts.cluster,
                unread=parts.cluster_unread,
                reference=reference,
                namespace=namespace(raw),
                except_for=uid(raw),
            ),
            limits=self._installation.limits(parts.cluster),
            endpoint=_endpoint_rules(parts),
            records=() if state is None else state.records(job_name),
            unreadable=() if state is None else state.unreadable(job_name),
            last_seen=None if state is None else state.last_seen(job_name),
            confirmed_gone=state is not None
            and (status.job.job_id, job_name) in state.confirmed_gone,
            probe_healthy=None if probe is None else probe.healthy,
            probe_reason="" if last is None else last.reason,
            probe_message="" if last is None else last.message,
            probe_age=self._probes.age(key),
            slice_target=None if current is None else slice_target(current),
            load=self._probes.load(key, parts.probed(status)),
            drain_timeout=parse_duration(parts.drain.timeout),
            slice_in_service=current is None or slice_service(current) == parts.service,
            renderable=parts.frozen is not None,
            work_directory=parts.folder,
            others_good=probe is None
            or probe.healthy is not False
            or others_good(key, job, service=parts.service, probes=self._probes, store=self._store),
            others_answer=status.phase == Phase.DEGRADED
            and others_answer(key, job, probes=self._probes, store=self._store),
            network=observe_network(
                raw,
                job=job,
                cluster=parts.cluster,
                service=parts.service,
                store=self._store,
                ports=self._ports,
            ),
            deleting_since=epoch(job.metadata.deletion_timestamp),
            owner_is_there=owner_is_there,
            told_port=self._slurm.port_files.told(
                reference, job_name=job_name, job_id=status.job.job_id
            ),
            excluded_nodes=self._excluded_nodes(parts),
        )

    def _excluded_nodes(self, parts: Parts) -> tuple[str, ...]:
        state = self._slurm.states.get(parts.job.spec.cluster)
        return excluded_nodes(
            parts.job,
            store=self._store,
            snapshot=None if state is None else state.snapshot,
            frozen=parts.frozen,
            cluster=parts.cluster,
            now=self._clock(),
        )


def _endpoint_rules(parts: Parts) -> EndpointRules:
    network = None if parts.cluster is None else parts.cluster.spec.network
    return EndpointRules(
        port_from=1 if network is None else network.ports.first,
        port_to=65535 if network is None else network.ports.last,
        startup_timeout=parse_duration(parts.health.startup_timeout),
        networks=() if network is None else network.node_cidrs,
    )


def _frozen(revision: Object) -> FrozenJob | None:
    """What a ControllerRevision of a pool on SLURM holds."""
    data = dig(revision, "data", "job")
    return freezing.from_json(data) if isinstance(data, Mapping) else None
