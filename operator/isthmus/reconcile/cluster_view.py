"""What one SLURM cluster looks like to one of its jobs: may it be used, and how fresh is the view.

Apart from the reconciler of SlurmJobs, which asks it once per pass.
"""

from collections.abc import Callable

from isthmus.api.conditions import Phase
from isthmus.api.desired import ClusterReference
from isthmus.api.slurmcluster import SlurmCluster
from isthmus.apiserver.objects import Object, dig, uid
from isthmus.apiserver.resources import SLURM_JOBS, Resource
from isthmus.plan.slurmjob_observation import ClusterObservation
from isthmus.reconcile.access import access
from isthmus.reconcile.cluster_state import ClusterStates
from isthmus.reconcile.store import Store

UNCLEAR = frozenset({Phase.SUBMITTING, Phase.SUBMIT_UNKNOWN})


class ClusterView:
    """Reads the store and what the pollers saw."""

    def __init__(self, *, store: Store, states: ClusterStates, clock: Callable[[], float]) -> None:
        """Prepare; `clock` is the wall clock in epoch seconds."""
        self._states = states
        self._clock = clock
        self._unclear: dict[ClusterReference, set[str]] = {}  # → uids of SlurmJobs
        for obj in store.list(SLURM_JOBS):
            self._changed(SLURM_JOBS, None, obj)
        store.on_change(self._changed)

    def observe(
        self,
        *,
        cluster: SlurmCluster | None,
        reference: ClusterReference,
        namespace: str,
        except_for: str,
        unread: str = "",
    ) -> ClusterObservation:
        """The cluster as a job of `namespace` sees it.

        Args:
            cluster: its object, None if there is none.
            reference: its place.
            namespace: of the job.
            except_for: uid of the SlurmJob, which is not counted among the unresolved.
            unread: which fields of the cluster's object cannot be read.
        """
        denied = access(cluster=cluster, reference=reference, namespace=namespace, unread=unread)
        if denied is not None:
            reason, message = denied
            return ClusterObservation(usable=False, fresh=False, reason=reason, message=message)
        state = self._states.get(reference)
        if state is None:
            return ClusterObservation(
                usable=True,
                fresh=False,
                reason="NotObservedYet",
                message="the cluster has not been looked at since the operator started",
            )
        now = self._clock()
        reason, message = state.why_not_fresh(now=now)
        return ClusterObservation(
            usable=True,
            fresh=state.fresh(now=now),
            reason=reason,
            message=message,
            snapshot=state.snapshot,
            snapshot_starts=state.snapshot_starts,
            unresolved=self._unresolved(reference, except_for=except_for),
            unread=unread,
        )

    def _unresolved(self, reference: ClusterReference, *, except_for: str) -> int:
        """Submissions of other attempts on this cluster whose outcome is not known."""
        return len(self._unclear.get(reference, set()) - {except_for})

    def _changed(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        """Keep account instead of counting in each pass (`Listener`)."""
        if resource != SLURM_JOBS:
            return
        for obj in (old, new):
            if obj is None or dig(obj, "status", "phase") not in UNCLEAR:
                continue
            reference = cluster_of(obj)
            found = self._unclear.setdefault(reference, set())
            (found.discard if obj is old else found.add)(uid(obj))
            if not found:
                del self._unclear[reference]


def cluster_of(obj: Object) -> ClusterReference:
    """The SlurmCluster that a SlurmJob names, as it is stored."""
    place = dig(obj, "spec", "clusterRef")
    return ClusterReference(
        namespace=str(dig(place, "namespace", default="")), name=str(dig(place, "name", default=""))
    )
