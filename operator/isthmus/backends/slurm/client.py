"""What the rest of the operator may ask of a SLURM cluster, whatever the way to reach it.

The protocol is apart from its implementation by text commands (`commands.py`), so that reconcilers
are written and simulated against this page only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from isthmus.backends.slurm.records import JobRecord, Snapshot, SubmitOutcome, SubmitRequest


class SlurmClient(Protocol):
    """One SLURM cluster as one user of it. Every call has a time limit of its own."""

    @property
    def warning(self) -> str:
        """What a person should correct although all goes well; "" if nothing."""
        ...

    async def close(self) -> None:
        """Let go of the way to the cluster, when it is asked nothing more."""
        ...

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

    async def close_gate(self, *, work_directory: str, job_name: str) -> bool:
        """Claim an attempt for nobody: a job of it that starts later exits at its gate.

        Returns:
            Whether no job holds the attempt (free until now, or closed by an earlier call). False
            if a job went through the gate.

        Raises:
            SlurmUnavailableError: the work directory cannot be reached or written.
        """
        ...

    async def place_tunnel_key(self, *, work_directory: str, job_name: str, content: str) -> None:
        """Put the key with which an attempt calls its bastion where its script takes it from.

        The content goes by standard input, into a file that its owner alone can read.

        Raises:
            SlurmUnavailableError: it is not surely there.
        """
        ...

    async def place_secret(self, *, work_directory: str, job_name: str, content: str) -> None:
        """Put a secret where the batch script of an attempt takes it, readable by its owner alone.

        The content goes by standard input. Nothing is done once a job holds the attempt: it has
        taken the secret, and a copy would stay.

        Raises:
            SlurmUnavailableError: it is not surely there, or others could read it.
        """
        ...

    async def placed_secrets(self, *, work_directory: str) -> frozenset[str]:
        """Names of the jobs whose `place_secret` is still there, for its owner alone.

        Raises:
            SlurmUnavailableError: the work directory cannot be reached.
        """
        ...

    async def remove_secrets(self, *, work_directory: str, job_name: str) -> None:
        """Delete what `place_secret` and `place_tunnel_key` put there, if no job took it.

        Raises:
            SlurmUnavailableError: it is not surely gone.
        """
        ...

    async def published_ports(
        self, *, work_directory: str, jobs: Sequence[tuple[str, int]]
    ) -> Mapping[str, int]:
        """The ports that jobs have written into their run folders, by job name.

        The second way beside the comment, which some sites let nobody change. As little to be
        trusted: the caller checks each against the cluster's range.

        Args:
            work_directory: where the jobs run.
            jobs: name and job id of each.

        Raises:
            SlurmUnavailableError: the work directory cannot be reached.
        """
        ...

    async def old_files(
        self, *, work_directory: str, installation_id: str, seconds: float, key_seconds: float
    ) -> tuple[str, ...]:
        """Names of old files in the work directory that have the installation's id in their name.

        Older than so many seconds (key files: than `key_seconds`); a few hundred at most.

        Raises:
            SlurmUnavailableError: the work directory cannot be reached.
        """
        ...

    async def remove_files(self, *, work_directory: str, files: tuple[str, ...]) -> None:
        """Remove files and folders of these names from the work directory.

        Raises:
            SlurmUnavailableError: they are not surely gone.
        """
        ...

    async def prepare_work_directory(self, work_directory: str) -> None:
        """Make the work directory if it is missing and check that it can be written.

        Raises:
            SlurmUnavailableError: reason `WorkDirectoryUnavailable`.
        """
        ...
