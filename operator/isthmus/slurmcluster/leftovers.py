"""Takes away what attempts that are over have left in the work directories, now and then.

Apart from the reconciler of SlurmClusters, whose passes it must neither fail nor hold up.
"""

import logging
from collections.abc import Callable

from isthmus.api.desired import ClusterReference
from isthmus.apiserver.gate import Gate
from isthmus.apiserver.objects import dig
from isthmus.apiserver.resources import SLURM_JOBS
from isthmus.apiserver.store import Store
from isthmus.backends.slurm.records import Snapshot
from isthmus.backends.slurm.work_folder import WorkFolder
from isthmus.errors import SlurmError
from isthmus.slurmcluster.policy.leftovers import KEY_SECONDS, may_go

_log = logging.getLogger(__name__)

EVERY = 3600.0
"""Seconds between two looks at a work directory."""


class Leftovers:
    """The files of all clusters."""

    def __init__(
        self,
        *,
        store: Store,
        gate: Gate,
        installation_id: str,
        keep: float,
        clock: Callable[[], float],
    ) -> None:
        """Prepare.

        Args:
            store: what the API server said.
            gate: checked before anything is removed.
            installation_id: whose files are ours.
            keep: seconds for which logs and claims are kept.
            clock: epoch seconds.
        """
        self._store, self._gate = store, gate
        self._installation_id, self._keep, self._clock = installation_id, keep, clock
        self._looked: dict[ClusterReference, float] = {}

    async def look(
        self,
        reference: ClusterReference,
        snapshot: Snapshot,
        *,
        work_folder: WorkFolder,
        folder: str,
    ) -> None:
        """Look once an hour, by a fresh snapshot that shows all jobs; what fails can wait."""
        now = self._clock()
        if not snapshot.shows_all or 0 <= now - self._looked.get(reference, 0.0) < EVERY:
            return
        self._looked[reference] = now
        known = {str(dig(obj, "spec", "jobName")) for obj in self._store.list(SLURM_JOBS)}
        known |= {job.name for job in snapshot.jobs}
        known |= {job.name for job in snapshot.unreadable}
        try:
            old = await work_folder.old_files(
                work_directory=folder,
                installation_id=self._installation_id,
                seconds=self._keep,
                key_seconds=KEY_SECONDS,
            )
            gone = may_go(old, installation_id=self._installation_id, known=known)
            if gone:
                self._gate.check()
                await work_folder.remove_files(work_directory=folder, files=gone)
        except SlurmError as error:
            _log.warning("Old files in %s of %s are left: %s", folder, reference.name, error)

    def forget(self, reference: ClusterReference) -> None:
        """A cluster is not polled any more."""
        self._looked.pop(reference, None)
