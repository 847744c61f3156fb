"""What the rest of the operator may ask of the scheduler of a cluster, however it is reached.

The protocol is apart from its implementation by text commands (`commands.py`), so that reconcilers
are written and simulated against this page only. The files of jobs are `work_folder.py`.
"""

from __future__ import annotations

from typing import Protocol

from isthmus.backends.slurm.records import JobRecord, Snapshot, SubmitOutcome, SubmitRequest


class SlurmClient(Protocol):
    """One SLURM cluster as one user of it. Every call has a time limit of its own."""

    async def snapshot(self) -> Snapshot:
        """All jobs of our user and all nodes.

        Raises:
            SlurmUnavailableError: no complete answer; says nothing about any job or node.
        """
        ...

    async def ping(self) -> bool:
        """Whether a slurmctld answers; costs milliseconds, never raises."""
        ...

    async def version(self) -> str:
        """The release of the commands, e.g. `22.05.8`.

        Raises:
            SlurmUnavailableError: the command did not run.
        """
        ...

    async def submit(self, request: SubmitRequest) -> SubmitOutcome:
        """Submit a job once. Never raises: what is not sure is `Unclear` (see `sbatch_answers`)."""
        ...

    async def terminate(self, *, job_id: int, job_name: str) -> None:
        """Send TERM to the batch script alone, which passes it to the engine's main process.

        A job that is gone, that does not run or that has another name is left alone without an
        error.

        Raises:
            SlurmUnavailableError: it is not known whether the signal was sent.
            SlurmCommandError: SLURM refused.
        """
        ...

    async def cancel(self, *, job_id: int, job_name: str) -> None:
        """End a job: TERM to all of its processes, KILL after the site's KillWait.

        A job that is gone, or that has another name, is left alone without an error.

        Raises:
            SlurmUnavailableError: it is not known whether the job was cancelled.
            SlurmCommandError: SLURM refused.
        """
        ...

    async def show_job(self, job_id: int) -> JobRecord | None:
        """One job from the second source; None only if slurmctld says that it has no such job.

        Raises:
            SlurmUnavailableError: no answer; says nothing about the job.
        """
        ...
