"""What one SLURM cluster looks like to one of its jobs: may it be used, and how fresh is the view.

Apart from the reconciler of SlurmJobs, which asks it once per pass.
"""

from collections.abc import Callable

from isthmus.api.conditions import Phase
from isthmus.api.desired import ClusterReference
from isthmus.api.slurmcluster import SlurmCluster
from isthmus.apiserver.objects import dig, uid
from isthmus.apiserver.resources import SLURM_JOBS
from isthmus.plan.slurmjob_observation import ClusterObservation
from isthmus.reconcile.access import access
from isthmus.reconcile.cluster_state import ClusterStates
from isthmus.reconcile.store import Store

UNCLEAR = frozenset({Phase.SUBMITTING, Phase.SUBMIT_UNKNOWN})


class ClusterView:
    """Reads the store and what the pollers saw."""

    def __init__(self, *, store: Store, states: ClusterStates, clock: Callable[[], float]) -> None:
        """Prepare; `clock` is the wall clock in epoch seconds."""
        self._store = store
        self._states = states
        self._clock = clock

    def observe(
        self,
        *,
        cluster: SlurmCluster | None,
        reference: ClusterReference,
        namespace: str,
        except_for: str,
    ) -> ClusterObservation:
        """The cluster as a job of `namespace` sees it.

        Args:
            cluster: its object, None if there is none.
            reference: its place.
            namespace: of the job.
            except_for: uid of the SlurmJob, which is not counted among the unresolved.
        """
        denied = access(cluster=cluster, reference=reference, namespace=namespace)
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
        )

    def _unresolved(self, reference: ClusterReference, *, except_for: str) -> int:
        """Submissions of other attempts on this cluster whose outcome is not known."""
        wanted = {"namespace": reference.namespace, "name": reference.name}
        return sum(
            dig(obj, "spec", "clusterRef") == wanted
            and dig(obj, "status", "phase") in UNCLEAR
            and uid(obj) != except_for
            for obj in self._store.list(SLURM_JOBS)
        )
