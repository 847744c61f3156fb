"""What one SLURM cluster looks like to one of its jobs: may it be used, and how fresh is the view.

Apart from the reconciler of SlurmJobs, which asks it once per pass.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from isthmus.api.conditions import UNCLEAR, Phase, Reason
from isthmus.api.desired import ClusterReference
from isthmus.api.slurmcluster import SlurmCluster
from isthmus.apiserver.clusters import cluster_of
from isthmus.apiserver.objects import Object, dig, namespace, uid
from isthmus.apiserver.resources import SLURM_JOBS, Resource
from isthmus.apiserver.store import Store
from isthmus.backends.slurm.sbatch_answers import speaks_of_an_outage
from isthmus.slurmcluster.access import access
from isthmus.slurmcluster.observation import ClusterObservation
from isthmus.slurmcluster.state import ClusterStates

SHARE = 8
"""Of the unclear submissions of one namespace so many count for the whole cluster, and no more:
half of what stops everybody (`Limits.max_unresolved`), so that none alone looks like an outage."""


@dataclass(slots=True)
class _Unclear:
    """Uids of the SlurmJobs of one namespace on one cluster that are submitted unclearly.

    Attributes:
        every: all of them.
        unanswered: those of which sbatch said nothing, or spoke of an outage.
    """

    every: set[str] = field(default_factory=set)
    unanswered: set[str] = field(default_factory=set)


class ClusterView:
    """Reads the store and what the pollers saw."""

    def __init__(self, *, store: Store, states: ClusterStates, clock: Callable[[], float]) -> None:
        """Prepare; `clock` is the wall clock in epoch seconds."""
        self._states = states
        self._clock = clock
        self._unclear: defaultdict[ClusterReference, defaultdict[str, _Unclear]] = defaultdict(
            lambda: defaultdict(_Unclear)  # by namespace
        )
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
                reason=Reason.NOT_OBSERVED_YET,
                message="the cluster has not been looked at since the operator started",
            )
        now = self._clock()
        reason, message = state.why_not_fresh(now=now)
        unclear: Mapping[str, _Unclear] = self._unclear.get(reference, {})
        here = unclear.get(namespace, _Unclear())
        return ClusterObservation(
            usable=True,
            fresh=state.fresh(now=now),
            reason=reason,
            message=message,
            snapshot=state.snapshot,
            snapshot_starts=state.snapshot_starts,
            unresolved=sum(
                min(SHARE, len(each.unanswered - {except_for})) for each in unclear.values()
            ),
            unresolved_here=len(here.every - {except_for}),
            unread=unread,
        )

    def _changed(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        """Keep account instead of counting in each pass (`Listener`)."""
        if resource != SLURM_JOBS:
            return
        for obj in (old, new):
            if obj is None or dig(obj, "status", "phase") not in UNCLEAR:
                continue
            self._count(obj, there=obj is new)

    def _count(self, obj: Object, *, there: bool) -> None:
        cluster, namespace_ = cluster_of(obj), namespace(obj)
        found = self._unclear[cluster][namespace_]
        words = str(dig(obj, "status", "lastAnswer", default="") or "")
        if there:
            found.every.add(uid(obj))
            asked = dig(obj, "status", "phase") == Phase.SUBMIT_UNKNOWN
            if not (asked and words) or speaks_of_an_outage(words):
                found.unanswered.add(uid(obj))
            return
        found.every.discard(uid(obj))
        found.unanswered.discard(uid(obj))
        if not found.every:
            del self._unclear[cluster][namespace_]
        if not self._unclear[cluster]:
            del self._unclear[cluster]
