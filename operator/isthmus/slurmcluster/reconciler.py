"""The reconciler of SlurmCluster: polls it, reports, and keeps it while jobs depend on it."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from isthmus.api import names
from isthmus.api.conditions import ConditionType, Phase, Reason
from isthmus.api.desired import ClusterReference
from isthmus.api.durations import parse_duration
from isthmus.api.slurmcluster import SlurmCluster, SlurmClusterStatus
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.gate import Gate
from isthmus.apiserver.key import Key
from isthmus.apiserver.objects import Object, deletion_timestamp, dig, finalizers
from isthmus.apiserver.reading import read, read_cluster
from isthmus.apiserver.resources import SLURM_CLUSTERS, SLURM_JOBS
from isthmus.apiserver.secrets import SecretRef
from isthmus.apiserver.statuses import set_finalizer, write_status
from isthmus.apiserver.store import Store
from isthmus.backends.slurm.login import ClusterAccess, SshAccess
from isthmus.errors import SlurmUnavailableError
from isthmus.rules.telling import with_problem
from isthmus.settings import Settings
from isthmus.slurmcluster.access import login_refused
from isthmus.slurmcluster.leftovers import Leftovers
from isthmus.slurmcluster.orphans import Orphans, shown
from isthmus.slurmcluster.plan import SlurmClusterObservation, slurm_cluster_status
from isthmus.slurmcluster.running import Clusters
from isthmus.telemetry.events import EventSink
from isthmus.telemetry.report import report

_TERMINAL = frozenset(phase for phase in Phase if phase.terminal)


class SlurmClusterReconciler:
    """One pass over one SlurmCluster per call."""

    def __init__(
        self,
        *,
        store: Store,
        api: ApiServer,
        gate: Gate,
        clusters: Clusters,
        settings: Settings,
        clock: Callable[[], float],
        events: EventSink,
    ) -> None:
        """Prepare; `clock` is the wall clock in epoch seconds."""
        self._events = events
        self._store = store
        self._api = api
        self._states = clusters.states
        self._clusters = clusters
        self._settings = settings
        self._clock = clock
        self._orphans = Orphans(
            store=store,
            gate=gate,
            installation_id=settings.installation_id,
            watched=settings.watch_namespaces,
            after=settings.orphan_after,
        )
        self._leftovers = Leftovers(
            store=store,
            gate=gate,
            installation_id=settings.installation_id,
            keep=settings.keep_job_files,
            clock=clock,
        )

    async def reconcile(self, key: Key) -> float | None:
        """Make one pass over the SlurmCluster."""
        reference = ClusterReference(namespace=key.namespace, name=key.name)
        raw = self._store.get(SLURM_CLUSTERS, key.namespace, key.name)
        if raw is None:
            self._stop(reference)
            return None
        reading = self._store.derived.of(raw, read_cluster)
        cluster, deleting = reading.value, deletion_timestamp(raw) is not None
        used = self._job_names(reference)
        held = names.FINALIZER_SLURM_CLUSTER in finalizers(raw)
        if deleting and not used:
            self._stop(reference)
            if held:
                await set_finalizer(
                    self._api,
                    SLURM_CLUSTERS,
                    obj=raw,
                    finalizer=names.FINALIZER_SLURM_CLUSTER,
                    present=False,
                )
            return None
        if cluster is None:
            await self._tell_unreadable(raw, reading.problem)  # it is polled as it was
            return None
        if not held and not deleting:
            raw = await set_finalizer(
                self._api,
                SLURM_CLUSTERS,
                obj=raw,
                finalizer=names.FINALIZER_SLURM_CLUSTER,
                present=True,
            )
        access = cluster_access(cluster, settings=self._settings)
        refused = login_refused(
            cluster,
            allowed=self._settings.local_login,
            own_namespace=self._settings.namespace,
        )
        if refused:
            failure = SlurmUnavailableError(refused, reason=Reason.CLUSTER_NOT_ALLOWED)
            self._clusters.refuse(reference, failure)
        else:
            self._clusters.ensure(reference, access)
        state = self._states.get(reference)
        fresh = state is not None and state.fresh(now=self._clock())
        snapshot = state.snapshot if state is not None and fresh else None
        orphans = None if snapshot is None else self._orphans.look(reference, snapshot)
        observed = replace(
            self._observe(cluster, reference, used),
            unread=reading.problem,
            orphans=None if orphans is None else shown(orphans),
        )
        status = slurm_cluster_status(observed, now=self._clock())
        await write_status(self._api, SLURM_CLUSTERS, obj=raw, status=status)
        report(self._events, raw, before=observed.status, after=status)
        if snapshot is not None and orphans and cluster.spec.orphan_policy == "Cancel":
            client = self._clusters.client(reference)
            await self._orphans.cancel(reference, orphans, client=client, snapshot=snapshot)
        if snapshot is not None:
            files = self._clusters.work_folder(reference)
            folder = cluster.spec.files.work_directory
            await self._leftovers.look(reference, snapshot, work_folder=files, folder=folder)
        # A poller that hangs is noticed by the age of its last snapshot.
        return access.stale_after

    async def _tell_unreadable(self, raw: Object, problem: str) -> None:
        found = dig(raw, "status", default={})
        written = found if isinstance(found, Mapping) else {}
        before = read(SlurmClusterStatus, written).value or SlurmClusterStatus()
        conditions = with_problem(
            before.conditions,
            ConditionType.READABLE,
            reason=Reason.INVALID_SPEC,
            problem=problem,
            now=self._clock(),
        )
        told = before.model_copy(
            update={"conditions": conditions, "summary": str(Reason.INVALID_SPEC)}
        )
        await write_status(self._api, SLURM_CLUSTERS, obj=raw, status=told)

    def _stop(self, reference: ClusterReference) -> None:
        self._clusters.stop(reference)
        self._orphans.forget(reference)
        self._leftovers.forget(reference)

    def _observe(
        self, cluster: SlurmCluster, reference: ClusterReference, used: frozenset[str]
    ) -> SlurmClusterObservation:
        state = self._states.get(reference)
        now = self._clock()
        reason, message = (
            (Reason.NOT_OBSERVED_YET, "") if state is None else state.why_not_fresh(now=now)
        )
        return SlurmClusterObservation(
            generation=cluster.metadata.generation,
            fresh=state is not None and state.fresh(now=now),
            reason=reason,
            message=message,
            warning="" if state is None else state.warning,
            snapshot=None if state is None else state.snapshot,
            version=None if state is None else state.version,
            our_jobs=used,
            status=cluster.status or SlurmClusterStatus(),
        )

    def _job_names(self, reference: ClusterReference) -> frozenset[str]:
        wanted = {"namespace": reference.namespace, "name": reference.name}
        return frozenset(
            str(dig(obj, "spec", "jobName"))
            for obj in self._store.list(SLURM_JOBS)
            if dig(obj, "spec", "clusterRef") == wanted and not _ended(obj)
        )


def _ended(obj: Object) -> bool:
    """Whether an attempt is over: such an object is a record and needs no cluster any more."""
    phase = dig(obj, "status", "phase")
    return isinstance(phase, str) and phase in _TERMINAL


def cluster_access(cluster: SlurmCluster, *, settings: Settings) -> ClusterAccess:
    """How a cluster is reached, with the operator's overrides of its times."""
    commands = cluster.spec.commands
    interval = settings.slurm_poll_interval or parse_duration(commands.poll_interval)
    timeout = settings.slurm_timeout or parse_duration(commands.timeout)
    return ClusterAccess(
        bin_directory=commands.bin_dir,
        work_directory=cluster.spec.files.work_directory,
        poll_interval=interval,
        timeout=timeout,
        submit_timeout=settings.slurm_submit_timeout or parse_duration(commands.submit_timeout),
        stale_after=settings.stale_after * interval + timeout,
        ssh=_ssh_access(cluster, reconnect_pause=settings.ssh_reconnect_pause),
    )


def _ssh_access(cluster: SlurmCluster, *, reconnect_pause: float) -> SshAccess | None:
    ssh = cluster.spec.login.ssh
    if ssh is None:
        return None
    namespace = cluster.metadata.namespace
    key, known_hosts = ssh.key_secret_ref, ssh.known_hosts_ref
    return SshAccess(
        hosts=ssh.hosts,
        port=ssh.port,
        user=ssh.user,
        key=SecretRef(namespace=namespace, name=key.name, key=key.key),
        known_hosts=SecretRef(namespace=namespace, name=known_hosts.name, key=known_hosts.key),
        reconnect_pause=reconnect_pause,
    )
