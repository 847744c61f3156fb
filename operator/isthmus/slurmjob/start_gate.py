"""Closing the start gate of an attempt: it is claimed for nobody, so that no job passes any more.

Apart from the reconciler, which only has to know whether it may let the attempt go.
"""

from dataclasses import replace
from enum import Enum

from isthmus.api.slurmcluster import SlurmCluster
from isthmus.api.slurmjob import SlurmJob
from isthmus.apiserver.gate import Gate
from isthmus.errors import SlurmUnavailableError
from isthmus.slurmcluster.running import Clusters
from isthmus.slurmjob.actions import CloseGate
from isthmus.slurmjob.record import AttemptStatus


class Closing(Enum):
    """What became of the gate."""

    CLOSED = "closed"
    """No job holds the attempt, now and from now on."""
    CLAIMED = "claimed"
    """A job went through it."""
    FAILED = "failed"
    """Its folder cannot be reached or written."""


class StartGate:
    """The gates of all attempts."""

    def __init__(self, *, clusters: Clusters, gate: Gate) -> None:
        """Prepare; `gate` is the lease's."""
        self._clusters, self._gate = clusters, gate

    async def close(
        self, job: SlurmJob, cluster: SlurmCluster | None, *, unread: str = ""
    ) -> Closing:
        """Close the gate of an attempt.

        Args:
            job: the attempt.
            cluster: its SlurmCluster, None where there is none that can be read.
            unread: why that cannot be read: it is there, so a submission may be on its way.
        """
        if cluster is None:
            return Closing.FAILED if unread else Closing.CLOSED
        self._gate.check()
        try:
            closed = await self._clusters.work_folder(job.spec.cluster).close_gate(
                work_directory=job.work_directory or cluster.spec.files.work_directory,
                job_name=job.spec.job_name,
            )
        except SlurmUnavailableError:
            return Closing.FAILED
        return Closing.CLOSED if closed else Closing.CLAIMED


def waits_for(
    found: Closing, action: CloseGate, status: AttemptStatus, *, now: float
) -> AttemptStatus | None:
    """The status to write where the attempt cannot be let go yet, None where it can."""
    gate = status.gate
    if found is Closing.CLAIMED and not action.sure:
        # It went through after the last snapshot: wait until one shows it.
        return replace(status, gate=replace(gate, claimed_at=gate.claimed_at or now))
    if found is Closing.FAILED and not action.may_fail:
        folder = status.submission.work_directory or "files.workDirectory"
        return replace(
            status,
            gate=replace(gate, failed_at=gate.failed_at or now),
            message=f"the start gate of this attempt cannot be closed: make {folder} writable "
            "again, or wait until no submission can still arrive",
        )
    return None
