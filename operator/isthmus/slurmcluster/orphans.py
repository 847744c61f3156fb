"""Finds orphaned jobs of a cluster in its snapshots and ends those that the policy says.

Remembered in memory only: after a restart an orphan has to be seen for long again.
"""

import logging
from collections.abc import Sequence

from isthmus.api import names
from isthmus.api.desired import ClusterReference
from isthmus.api.slurmcluster import OrphanModel
from isthmus.apiserver.gate import Gate
from isthmus.apiserver.objects import dig, name, namespace, uid
from isthmus.apiserver.resources import MODEL_DEPLOYMENTS, SLURM_JOBS
from isthmus.apiserver.store import Store
from isthmus.backends.slurm.client import SlurmClient
from isthmus.backends.slurm.records import JobRecord, Snapshot
from isthmus.errors import SlurmCommandError
from isthmus.slurmcluster.policy import orphans as policy
from isthmus.slurmcluster.policy.orphans import Orphan, Sightings

_log = logging.getLogger(__name__)

SHOWN = 32
_AT_ONCE = 10


class Orphans:
    """The orphans of all clusters."""

    def __init__(
        self,
        *,
        store: Store,
        gate: Gate,
        installation_id: str,
        watched: Sequence[str],
        after: float,
    ) -> None:
        """Prepare.

        Args:
            store: what the API server said.
            gate: checked before each cancellation.
            installation_id: whose jobs are ours.
            watched: namespaces whose objects the store has, () for all.
            after: seconds for which an orphan must have been one.
        """
        self._store, self._gate = store, gate
        self._installation_id, self._watched = installation_id, frozenset(watched)
        self._after = after
        self._sightings: dict[ClusterReference, Sightings] = {}
        self._cancelled: dict[ClusterReference, float] = {}  # → begin of that snapshot
        self._refused: dict[ClusterReference, frozenset[int]] = {}  # → job ids

    def look(self, reference: ClusterReference, snapshot: Snapshot) -> tuple[Orphan, ...] | None:
        """Take in a fresh, complete snapshot and return what has been an orphan for long.

        Returns:
            None for a snapshot that does not show all jobs: it makes nothing an orphan.
        """
        if not snapshot.shows_all:
            return None
        found = policy.find(
            snapshot.jobs,
            installation_id=self._installation_id,
            known=frozenset(
                str(dig(obj, "spec", "jobName")) for obj in self._store.list(SLURM_JOBS)
            ),
            deployments=self._deployments,
            in_sight=self._in_sight,
        )
        sightings = policy.sighted(
            self._sightings.get(reference, {}), found, started_at=snapshot.started_at
        )
        self._sightings[reference] = sightings
        return tuple(
            orphan
            for orphan in found
            if sightings[orphan.record.job_id, orphan.record.name].long_enough(seconds=self._after)
        )

    def forget(self, reference: ClusterReference) -> None:
        """A cluster is not polled any more."""
        self._sightings.pop(reference, None)
        self._cancelled.pop(reference, None)
        self._refused.pop(reference, None)

    async def cancel(
        self,
        reference: ClusterReference,
        orphans: Sequence[Orphan],
        *,
        client: SlurmClient,
        snapshot: Snapshot,
    ) -> None:
        """Cancel some of them, once for each snapshot that shows them alive.

        One that SLURM refuses to cancel stops none of the others, and comes last from then on.

        Raises:
            SlurmUnavailableError: slurmctld does not answer.
        """
        if self._cancelled.get(reference) == snapshot.started_at:
            return
        self._cancelled[reference] = snapshot.started_at
        refused = self._refused.get(reference, frozenset())
        alive = [each for each in orphans if not each.ends_by_itself]
        alive.sort(key=lambda each: each.record.job_id in refused)
        for orphan in alive[:_AT_ONCE]:
            record = orphan.record
            _log.warning("Job %d %s is an orphan: %s", record.job_id, record.name, orphan.reason)
            self._gate.check()
            try:
                await client.cancel(job_id=record.job_id, job_name=record.name)
            except SlurmCommandError as error:
                refused |= {record.job_id}
                _log.warning("Job %d cannot be cancelled: %s", record.job_id, error)
        self._refused[reference] = refused & {each.record.job_id for each in alive}

    def _deployments(self) -> frozenset[str]:
        return frozenset(
            names.deployment_hash(namespace=namespace(obj), name=name(obj), uid=uid(obj))
            for obj in self._store.list(MODEL_DEPLOYMENTS)
        )

    def _in_sight(self, record: JobRecord) -> bool:
        """A job says its namespace in its comment; one that does not may be of any."""
        if not self._watched:
            return True
        parts = record.comment.split(":")
        return len(parts) > 3 and parts[3].partition("/")[0] in self._watched


def shown(orphans: Sequence[Orphan]) -> tuple[OrphanModel, ...]:
    """The first of them, for the status."""
    return tuple(
        OrphanModel(
            job_id=orphan.record.job_id, job_name=orphan.record.name[:128], reason=orphan.reason
        )
        for orphan in orphans[:SHOWN]
    )
