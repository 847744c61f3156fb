"""SLURM through its text commands: the one `SlurmClient` for all releases from 22.05 on.

One bash call per question, framed by marks (`parsing.framed`); complete means: end marks seen,
return code 0, every record whole. Anything else raises `SlurmUnavailableError` and says nothing
about jobs. Text, because JSON costs 16 to 40 times more at 10 000 jobs and changes per release.
"""

from __future__ import annotations

import os.path
import re
import time
from collections.abc import Callable

from isthmus.api.reasons import Reason
from isthmus.api.texts import one_line
from isthmus.backends.slurm import parsing, sbatch_answers, snapshots
from isthmus.backends.slurm.addresses import AddressBook, Lookup, system_lookup
from isthmus.backends.slurm.executor import CommandExecutor
from isthmus.backends.slurm.framed_commands import (
    KILL_AFTER,
    FramedCommands,
    command_failed,
    new_marker,
    unavailable,
)
from isthmus.backends.slurm.parsing import FormatError, OutputError
from isthmus.backends.slurm.records import (
    JOB_NAME,
    JobRecord,
    NotSent,
    Refused,
    Snapshot,
    SubmitOutcome,
    SubmitRequest,
    Unclear,
)
from isthmus.backends.slurm.request import request_problem, sbatch_arguments
from isthmus.errors import (
    RefusalCode,
    SlurmCommandError,
    SlurmNotAskedError,
    SlurmUnavailableError,
)
from isthmus.processes import NotStartedError

_REFUSALS = (
    ("Invalid job id specified", RefusalCode.NO_SUCH_JOB),
    ("already completing or completed", RefusalCode.JOB_IS_OVER),
    ("No active jobs match ALL job filters", RefusalCode.NO_MATCHING_JOB),
    ("denied", RefusalCode.PERMISSION_DENIED),
)
"""What scancel and scontrol say where slurmctld refused, and what it means."""
_NOTHING_TO_DO = frozenset(
    {RefusalCode.NO_SUCH_JOB, RefusalCode.JOB_IS_OVER, RefusalCode.NO_MATCHING_JOB}
)


class CommandClient:
    """One cluster, by squeue, sinfo, sbatch, scancel and scontrol."""

    def __init__(
        self,
        executor: CommandExecutor,
        *,
        bin_directory: str = "",
        timeout: float = 25.0,
        submit_timeout: float = 60.0,
        clock: Callable[[], float] = time.time,
        marker: Callable[[], str] = new_marker,
        lookup: Lookup = system_lookup,
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            executor: where the commands run.
            bin_directory: where SLURM's commands are there; "" finds them on the PATH.
            timeout: seconds for each command but sbatch.
            submit_timeout: seconds for sbatch.
            clock: wall clock, epoch seconds.
            marker: makes the unguessable word of the marks in and around an output.
            lookup: finds the addresses of nodes that slurm.conf gives by name.
        """
        self._executor = executor
        self._commands = FramedCommands(executor, timeout=timeout, marker=marker)
        self._bin_directory = bin_directory
        self._timeout = timeout
        self._submit_timeout = submit_timeout
        self._clock = clock
        self._marker = marker
        self._addresses = AddressBook(clock=clock, lookup=lookup)

    @property
    def longest_submission(self) -> float:
        """Seconds after which a submission that got no answer cannot reach slurmctld any more."""
        return self._submit_timeout + 2 * KILL_AFTER

    async def snapshot(self) -> Snapshot:
        """All jobs of our user and all nodes, in one call (5 requests to slurmctld).

        Raises:
            SlurmUnavailableError: no complete answer, or one in a form that is not known.
        """
        started_at = self._clock()
        mark = self._marker()
        questions = snapshots.questions(self._path, mark=mark)
        (jobs, nodes), result = await self._commands.run(questions, check=False, marker=mark)
        if jobs.returncode != 0:
            raise command_failed(jobs, result)
        hidden = snapshots.nodes_hidden(nodes, result.stderr)
        if nodes.returncode != 0 and not hidden:
            raise command_failed(nodes, result)
        try:
            found, listed = snapshots.read(jobs=jobs, nodes=nodes, hidden=hidden, mark=mark)
        except FormatError as error:
            raise await self._unknown_format(error) from error
        except OutputError as error:
            raise unavailable(Reason.INCOMPLETE_OUTPUT, str(error)) from error
        hosts = snapshots.unlisted_hosts(found.jobs, nodes=listed)
        return Snapshot(
            jobs=found.jobs,
            nodes=await self._addresses.resolved(listed),
            started_at=started_at,
            taken_at=self._clock(),
            cluster_time=nodes.clock,
            unreadable=found.unreadable,
            nameless=found.nameless,
            hosts=await self._addresses.by_name(hosts),
        )

    async def _unknown_format(self, error: FormatError) -> SlurmUnavailableError:
        """What is said of an answer in an unknown form: with the release, for people to act on."""
        try:
            release = await self.version()
        except SlurmUnavailableError:
            release = "of an unknown release"
        return unavailable(Reason.UNKNOWN_FORMAT, f"SLURM {release}: {error}")

    async def ping(self) -> bool:
        """Whether a slurmctld answers `scontrol ping`; never raises."""
        try:
            (section,), _ = await self._commands.run(
                ((self._path("scontrol"), "ping"),), limit=min(15.0, self._timeout)
            )
        except SlurmUnavailableError:
            return False
        return " UP" in section.output

    async def version(self) -> str:
        """The release that `sinfo --version` prints, e.g. `22.05.8`; asks no slurmctld.

        Raises:
            SlurmUnavailableError: the command did not run.
        """
        (section,), _ = await self._commands.run(((self._path("sinfo"), "--version"),))
        match = re.search(r"\d+\.\d+(\.\d+)?\S*", section.output)
        if match is None:
            raise unavailable(Reason.INCOMPLETE_OUTPUT, f"no release in {section.output[:60]!r}")
        return match[0]

    async def submit(self, request: SubmitRequest) -> SubmitOutcome:
        """Submit once; `Unclear` unless an id or a refusal was read, or surely nothing was sent."""
        wrong = request_problem(request)
        if wrong is not None:
            return Refused(reason="InvalidRequest", message=wrong)
        command = (self._path("sbatch"), *sbatch_arguments(request))
        marker = self._marker()
        try:
            result = await self._executor.run(
                parsing.framed((command,), marker=marker, limit=self._submit_timeout),
                stdin=request.script,
                timeout=self._submit_timeout + 2 * KILL_AFTER,
            )
            (section,) = parsing.sections(result.stdout, marker=marker, count=1)
        except (NotStartedError, SlurmNotAskedError) as error:
            return NotSent(str(error))
        except (OSError, OutputError, SlurmUnavailableError) as error:
            return Unclear(f"sbatch gave no complete answer: {error}")
        return sbatch_answers.outcome(section, result.stderr)

    async def terminate(self, *, job_id: int, job_name: str) -> None:
        """`scancel --batch --signal=TERM`: to the batch shell, which passes it on.

        Only if the job is RUNNING: scancel retries a signal to a pending job for minutes.

        Raises:
            SlurmUnavailableError: it is not known whether the signal was sent.
            SlurmCommandError: SLURM refused.
        """
        await self._scancel(job_id, job_name, "--state=RUNNING", "--batch", "--signal=TERM")

    async def cancel(self, *, job_id: int, job_name: str) -> None:
        """`scancel` by id and exact name.

        Raises:
            SlurmUnavailableError: it is not known whether the job was cancelled.
            SlurmCommandError: SLURM refused.
        """
        await self._scancel(job_id, job_name)

    async def _scancel(self, job_id: int, job_name: str, *options: str) -> None:
        if not JOB_NAME.fullmatch(job_name):
            text = f"{job_name!r} is not the name of a job of ours"
            raise SlurmCommandError(text, code=RefusalCode.NOT_A_JOB_NAME)
        command = (self._path("scancel"), *options, f"--name={job_name}", str(job_id))
        (section,), result = await self._commands.run((command,), check=False)
        text = one_line(result.stderr)
        code = refusal_code(text)
        if code in _NOTHING_TO_DO:
            return
        if code is not None:
            raise SlurmCommandError(text, code=code)
        if section.returncode != 0:
            raise command_failed(section, result)

    async def show_job(self, job_id: int) -> JobRecord | None:
        """`scontrol show job`: None only where slurmctld says that it has no such job.

        Raises:
            SlurmUnavailableError: no answer.
        """
        command = (self._path("scontrol"), "-o", "show", "job", str(job_id))
        (section,), result = await self._commands.run((command,), check=False)
        if section.returncode != 0:
            if refusal_code(result.stderr) is RefusalCode.NO_SUCH_JOB:
                return None
            raise command_failed(section, result)
        try:
            return parsing.parse_shown_job(section.output, job_id=job_id)
        except FormatError as error:
            raise await self._unknown_format(error) from error
        except OutputError as error:
            raise unavailable(Reason.INCOMPLETE_OUTPUT, str(error)) from error

    def _path(self, command: str) -> str:
        return os.path.join(self._bin_directory, command) if self._bin_directory else command


def refusal_code(text: str) -> RefusalCode | None:
    """What a refusal in SLURM's words means, None for one that is not known, or none."""
    return next((code for part, code in _REFUSALS if part in text), None)
