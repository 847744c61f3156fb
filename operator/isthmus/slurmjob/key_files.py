"""Brings the API key of an attempt to where its job takes it, and takes its keys away again.

A job gets its key by a file in the shared work directory, staged right before the submission. While
it waits it is looked now and then whether the file is still there, for a site may clean up between:
one listing of the folder for all jobs, also after a restart, and only what is missing is staged
again. The job deletes the file when it starts, and so it does with the key with which it calls a
bastion (`submissions.announced`); a job that never started leaves both to us.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from isthmus.api.conditions import UNCLEAR, Phase
from isthmus.api.desired import ClusterReference
from isthmus.api.slurmcluster import SlurmCluster
from isthmus.api.slurmjob import SlurmJob, SlurmJobStatus
from isthmus.backends.slurm.frozen import FrozenJob
from isthmus.errors import ApiError, SecretMissingError, SlurmError
from isthmus.slurmcluster.running import Clusters
from isthmus.slurmjob.attempt_keys import AttemptKeys
from isthmus.slurmjob.record import AttemptStatus

_log = logging.getLogger(__name__)

STAGED_AGAIN_AFTER = 900.0
"""Seconds after which the file of a job that still waits is looked for."""
_LISTING_COUNTS = 60.0
"""Seconds for which a listing of a folder, or that there was none, counts for other jobs."""


@dataclass(frozen=True, slots=True)
class _Listing:
    """The jobs whose file was in a folder, None while that was not known, and when."""

    at: float
    jobs: frozenset[str] | None


class KeyStaging:
    """The key files of all attempts."""

    def __init__(
        self,
        *,
        keys: AttemptKeys,
        clusters: Clusters,
        check: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        """Prepare.

        Args:
            keys: of the attempts; written down before one is staged.
            clusters: in whose folders the files are.
            check: raises where this process may not change anything.
            clock: epoch seconds.
        """
        self._keys = keys
        self._clusters = clusters
        self._check = check
        self._clock = clock
        self._staged: dict[str, float] = {}  # job name → when it was staged or seen there
        self._listed: dict[tuple[ClusterReference, str], _Listing] = {}
        self._listing = asyncio.Lock()
        self._touched: set[str] = set()  # job names of which a file may lie somewhere

    async def stage(self, *, job: SlurmJob, frozen: FrozenJob, folder: str) -> None:
        """Put the key of an attempt into its work directory; nothing for one without a key.

        Raises:
            SecretMissingError: there is no such key.
            ApiError: the API server did not answer.
            SlurmError: it is not surely in its place.
        """
        self._touched.add(job.spec.job_name)  # whatever fails from here on may have left a file
        key = await self._keys.key(job, frozen)
        if key is None:
            return
        files = self._clusters.work_folder(job.spec.cluster)
        self._check()
        await files.place_secret(
            work_directory=folder,
            job_name=job.spec.job_name,
            content=key,
        )
        self._staged[job.spec.job_name] = self._clock()

    async def keep(
        self,
        *,
        job: SlurmJob,
        frozen: FrozenJob | None,
        cluster: SlurmCluster | None,
        status: AttemptStatus,
    ) -> None:
        """See to the file of a job that waits, where that was long ago; a failure can wait."""
        if status.phase != Phase.PENDING or job.metadata.deleting:
            if status.phase not in UNCLEAR:
                self._staged.pop(job.spec.job_name, None)
            if status.job.start_time is not None:
                self._touched.discard(job.spec.job_name)
            return
        age = self._clock() - self._staged.get(job.spec.job_name, 0.0)
        if frozen is None or cluster is None or age < STAGED_AGAIN_AFTER:
            return
        if frozen.template.key is None:
            return
        try:
            folder = job.work_directory or status.submission.work_directory
            folder = folder or cluster.spec.files.work_directory
            placed = await self._placed(job.spec.cluster, folder)
            if placed is None:
                return
            if job.spec.job_name in placed:
                self._staged[job.spec.job_name] = self._clock()
                return
            await self.stage(job=job, frozen=frozen, folder=folder)
        except (SecretMissingError, ApiError, SlurmError) as error:
            _log.warning("Staging the API key of %s again: %s", job.spec.job_name, error)

    async def _placed(self, reference: ClusterReference, folder: str) -> frozenset[str] | None:
        """The jobs whose file is there, None while that is not known.

        Many that ask at the same time ask the cluster once.

        Raises:
            SlurmError: the folder cannot be listed.
        """
        async with self._listing:
            known = self._listed.get((reference, folder))
            if known is not None and 0 <= self._clock() - known.at < _LISTING_COUNTS:
                return known.jobs
            self._listed[(reference, folder)] = _Listing(at=self._clock(), jobs=None)
            files = self._clusters.work_folder(reference)
            jobs = await files.placed_secrets(work_directory=folder)
            self._listed[(reference, folder)] = _Listing(at=self._clock(), jobs=jobs)
            return jobs

    def forget(self, job_name: str) -> None:
        """Forget an attempt whose SlurmJob is gone."""
        self._staged.pop(job_name, None)
        self._touched.discard(job_name)

    async def remove(
        self, *, job: SlurmJob, frozen: FrozenJob | None, cluster: SlurmCluster | None
    ) -> None:
        """Delete the files of an attempt whose job never started, as far as they can be reached."""
        self._staged.pop(job.spec.job_name, None)
        status = job.status or SlurmJobStatus()
        touched = job.spec.job_name in self._touched or status.submit_started_at is not None
        self._touched.discard(job.spec.job_name)
        if cluster is None or frozen is None or not touched or status.start_time is not None:
            return
        if frozen.template.key is None and cluster.spec.network.bastion is None:
            return
        try:
            self._check()
            await self._clusters.work_folder(job.spec.cluster).remove_secrets(
                work_directory=job.work_directory or cluster.spec.files.work_directory,
                job_name=job.spec.job_name,
            )
        except SlurmError as error:
            _log.warning(
                "A file with a key of %s may be left in the work directory: %s",
                job.spec.job_name,
                error,
            )
