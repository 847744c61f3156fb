"""SLURM through its text commands: the one `SlurmClient` for all releases from 22.05 on.

One bash call per question, framed by marks (`parsing.framed`); complete means: end marks seen,
return code 0, every record whole. Anything else raises `SlurmUnavailableError` and says nothing
about jobs. Text, because JSON costs 16 to 40 times more at 10 000 jobs and changes per release.
"""

from __future__ import annotations

import os.path
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence

from isthmus.api.reasons import Reason
from isthmus.api.texts import one_line
from isthmus.backends.slurm import parsing, reasons, sbatch_answers, snapshots
from isthmus.backends.slurm.addresses import AddressBook, Lookup, system_lookup
from isthmus.backends.slurm.executor import CommandExecutor
from isthmus.backends.slurm.options import key_path, tunnel_key_path
from isthmus.backends.slurm.parsing import FormatError, OutputError, Section
from isthmus.backends.slurm.records import (
    JobRecord,
    NotSent,
    Refused,
    Snapshot,
    SubmitOutcome,
    SubmitRequest,
    Unclear,
)
from isthmus.backends.slurm.request import request_problem, sbatch_arguments
from isthmus.errors import SlurmCommandError, SlurmNotAskedError, SlurmUnavailableError
from isthmus.processes import TIMED_OUT_CODE, CommandResult, NotStartedError

KILL_AFTER = 5.0
"""Seconds between TERM and KILL of a command at its limit, as in `parsing.framed`."""

_JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_CLOSED = "closed"

_CLOSE_GATE = """
if ln -sT "$1" "$2" 2>/dev/null; then echo free
elif [ -L "$2" ]; then readlink "$2"
else echo "cannot write $2" >&2; exit 1; fi
"""
_PLACE_SECRET = """
umask 077
[ ! -L "$2" ] || exit 0
new="$1.$$.$RANDOM"
IFS= read -r -d '' text || :
set -o noclobber  # a new file of ours, or none
if printf '%s' "$text" >"$new" && [ -O "$new" ] && [ "$(stat -c '%a %s' -- "$new")" = "600 $3" ] &&
  mv -fT -- "$new" "$1"; then exit 0; fi
echo "cannot write $1 so that its owner alone can read it" >&2
rm -f -- "$new"
exit 1
"""
_PLACED_SECRETS = """
find "$1" -maxdepth 1 -type f -uid "$(id -u)" -perm 600 -size +0c -name '*.key' -printf '%f\\n'
"""
_REMOVE_SECRETS = 'rm -f -- "$@"'
_READ_PORTS = """
cd -- "$1" || exit 1
shift
for job; do
  for file in "$job".*/port; do
    [ -f "$file" ] && IFS= read -r -n 6 port <"$file" && printf '%s %s\\n' "$job" "$port"
  done
done
exit 0
"""
_OLD_FILES = r"""
find "$1" -mindepth 1 -maxdepth 1 -name "*-$2-*" \
  \( -mmin +"$3" -o \( -name '*.key*' -o -name '*.tunnel*' \) -mmin +"$4" \) -printf '%f\n' |
  head -n 500
"""
_REMOVE_FILES = """
cd -- "$1" && shift && rm -rf -- "$@"
"""
_PREPARE = """
umask 077
mkdir -p -- "$1" && probe=$(mktemp "$1/.probe.XXXXXX") && rm -f -- "$probe"
"""


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
        marker: Callable[[], str] = lambda: secrets.token_hex(8),
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
        self._bin_directory = bin_directory
        self._timeout = timeout
        self._submit_timeout = submit_timeout
        self._clock = clock
        self._marker = marker
        self._addresses = AddressBook(clock=clock, lookup=lookup)

    @property
    def warning(self) -> str:
        """What should be corrected although commands work."""
        return self._executor.warning

    async def close(self) -> None:
        """Let go of the way to the cluster."""
        await self._executor.close()

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
        (jobs, nodes), result = await self._ask(questions, check=False, marker=mark)
        if jobs.returncode != 0:
            raise _failed(jobs, result)
        hidden = snapshots.nodes_hidden(nodes, result.stderr)
        if nodes.returncode != 0 and not hidden:
            raise _failed(nodes, result)
        try:
            found, listed = snapshots.read(jobs=jobs, nodes=nodes, hidden=hidden, mark=mark)
        except FormatError as error:
            raise await self._unknown_format(error) from error
        except OutputError as error:
            raise _unavailable(Reason.INCOMPLETE_OUTPUT, str(error)) from error
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
        return _unavailable(Reason.UNKNOWN_FORMAT, f"SLURM {release}: {error}")

    async def ping(self) -> bool:
        """Whether a slurmctld answers `scontrol ping`; never raises."""
        try:
            (section,), _ = await self._ask(
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
        (section,), _ = await self._ask(((self._path("sinfo"), "--version"),))
        match = re.search(r"\d+\.\d+(\.\d+)?\S*", section.output)
        if match is None:
            raise _unavailable(Reason.INCOMPLETE_OUTPUT, f"no release in {section.output[:60]!r}")
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
        if not _JOB_NAME.fullmatch(job_name):
            raise SlurmCommandError(f"{job_name!r} is not the name of a job of ours")
        command = (self._path("scancel"), *options, f"--name={job_name}", str(job_id))
        (section,), result = await self._ask((command,), check=False)
        text = one_line(result.stderr)
        harmless = (
            "Invalid job id specified",
            "already completing or completed",
            "No active jobs match ALL job filters",
        )
        if any(part in text for part in harmless):
            return
        if "denied" in text:
            raise SlurmCommandError(text)
        if section.returncode != 0:
            raise _failed(section, result)

    async def show_job(self, job_id: int) -> JobRecord | None:
        """`scontrol show job`: None only where slurmctld says that it has no such job.

        Raises:
            SlurmUnavailableError: no answer.
        """
        command = (self._path("scontrol"), "-o", "show", "job", str(job_id))
        (section,), result = await self._ask((command,), check=False)
        if section.returncode != 0:
            if "Invalid job id specified" in result.stderr:
                return None
            raise _failed(section, result)
        try:
            return parsing.parse_shown_job(section.output, job_id=job_id)
        except FormatError as error:
            raise await self._unknown_format(error) from error
        except OutputError as error:
            raise _unavailable(Reason.INCOMPLETE_OUTPUT, str(error)) from error

    async def close_gate(self, *, work_directory: str, job_name: str) -> bool:
        """Claim an attempt for nobody, by the same atomic step as the batch script.

        Returns:
            Whether no job holds the attempt.

        Raises:
            SlurmUnavailableError: the work directory cannot be reached or written.
        """
        claim = claim_path(work_directory=work_directory, job_name=job_name)
        output = await self._shell(_CLOSE_GATE, _CLOSED, claim)
        return output.strip() in {"free", _CLOSED}

    async def place_tunnel_key(self, *, work_directory: str, job_name: str, content: str) -> None:
        """Put the key of mode Reverse into place, as `place_secret` does.

        Raises:
            SlurmUnavailableError: it is not surely there.
        """
        place = tunnel_key_path(work_directory=work_directory, job_name=job_name)
        await self._place(place, work_directory, job_name, content)

    async def place_secret(self, *, work_directory: str, job_name: str, content: str) -> None:
        """Write it to a new file, check owner, mode and length, and rename it into place.

        Raises:
            SlurmUnavailableError: it is not surely there.
        """
        place = key_path(work_directory=work_directory, job_name=job_name)
        await self._place(place, work_directory, job_name, content)

    async def placed_secrets(self, *, work_directory: str) -> frozenset[str]:
        """One listing of the folder, which holds a few files for each job of a cluster.

        Raises:
            SlurmUnavailableError: the work directory cannot be reached.
        """
        output = await self._shell(_PLACED_SECRETS, work_directory)
        return frozenset(line.removesuffix(".key") for line in output.splitlines())

    async def remove_secrets(self, *, work_directory: str, job_name: str) -> None:
        """Delete the files of `place_secret` and `place_tunnel_key`.

        Raises:
            SlurmUnavailableError: the work directory cannot be reached.
        """
        key = key_path(work_directory=work_directory, job_name=job_name)
        tunnel = tunnel_key_path(work_directory=work_directory, job_name=job_name)
        await self._shell(_REMOVE_SECRETS, key, tunnel)

    async def published_ports(
        self, *, work_directory: str, jobs: Sequence[tuple[str, int]]
    ) -> Mapping[str, int]:
        """Read `port` in the run folder of each job; what is no port is left out.

        Raises:
            SlurmUnavailableError: the work directory cannot be reached.
        """
        places = {f"{name}/{job_id}": name for name, job_id in jobs if _JOB_NAME.fullmatch(name)}
        found: dict[str, int] = {}
        for line in (await self._shell(_READ_PORTS, work_directory, *places)).splitlines():
            place, _, port = line.partition(" ")
            if place in places and _PORT.fullmatch(port):
                found[places[place]] = int(port)
        return found

    async def _place(self, place: str, work_directory: str, job_name: str, content: str) -> None:
        claim = claim_path(work_directory=work_directory, job_name=job_name)
        size = str(len(content.encode()))  # what broke off on its way is not put into place
        await self._shell(_PLACE_SECRET, place, claim, size, stdin=content)

    async def old_files(
        self, *, work_directory: str, installation_id: str, seconds: float, key_seconds: float
    ) -> tuple[str, ...]:
        """See `SlurmClient`: what has the installation's id in its name."""
        ages = [str(int(age // 60)) for age in (seconds, key_seconds)]
        found = await self._shell(_OLD_FILES, work_directory, installation_id, *ages)
        return tuple(found.splitlines())

    async def remove_files(self, *, work_directory: str, files: tuple[str, ...]) -> None:
        """See `SlurmClient`: by names without a slash."""
        paths = [f"./{file}" for file in files if "/" not in file and file not in {"", ".", ".."}]
        await self._shell(_REMOVE_FILES, work_directory, *paths)

    async def prepare_work_directory(self, work_directory: str) -> None:
        """Make the work directory if it is missing and check that it can be written.

        Raises:
            SlurmUnavailableError: it cannot.
        """
        await self._shell(_PREPARE, work_directory)

    async def _shell(self, script: str, *arguments: str, stdin: str = "") -> str:
        command = ("/bin/bash", "--noprofile", "--norc", "-c", script, "isthmus", *arguments)
        (section,), result = await self._ask((command,), check=False, stdin=stdin)
        if section.returncode != 0:
            text = one_line(result.stderr)
            raise _unavailable(Reason.WORK_DIRECTORY_UNAVAILABLE, text or "no answer in time")
        return section.output

    def _path(self, command: str) -> str:
        return os.path.join(self._bin_directory, command) if self._bin_directory else command

    async def _ask(
        self,
        commands: Sequence[Sequence[str]],
        *,
        check: bool = True,
        limit: float | None = None,
        stdin: str = "",
        marker: str = "",
    ) -> tuple[tuple[Section, ...], CommandResult]:
        """Run commands that only look, or that may be repeated.

        Raises:
            SlurmUnavailableError: an end mark is missing, or (with `check`) a return code is not 0.
        """
        marker = marker or self._marker()
        seconds = self._timeout if limit is None else limit
        try:
            result = await self._executor.run(
                parsing.framed(commands, marker=marker, limit=seconds),
                stdin=stdin,
                timeout=len(commands) * (seconds + KILL_AFTER) + KILL_AFTER,
            )
        except OSError as error:
            raise _unavailable(Reason.COMMAND_NOT_FOUND, str(error)) from error
        if result.timed_out or result.returncode == TIMED_OUT_CODE:
            raise _unavailable(Reason.COMMAND_TIMEOUT, "the commands were ended from outside")
        try:
            found = parsing.sections(result.stdout, marker=marker, count=len(commands))
        except OutputError as error:
            word = reasons.outage(result.stderr) or Reason.INCOMPLETE_OUTPUT
            text = f"{error} {one_line(result.stderr)}".strip()
            raise _unavailable(word, text) from error
        for section in found:
            if check and section.returncode != 0:
                raise _failed(section, result)
        return found, result


def claim_path(*, work_directory: str, job_name: str) -> str:
    """The symbolic link whose making is the claim of an attempt.

    Named after the whole job, not the attempt alone: several installations may share a folder.
    """
    return f"{work_directory.rstrip('/')}/{job_name}.claim"


_NO_WORDS = {124: "no answer in time", 137: "no answer in time"}


def _failed(section: Section, result: CommandResult) -> SlurmUnavailableError:
    text = one_line(result.stderr) or _NO_WORDS.get(
        section.returncode, f"return code {section.returncode}"
    )
    word = reasons.outage(result.stderr)
    if word is None:
        codes = {124: Reason.COMMAND_TIMEOUT, 137: Reason.COMMAND_TIMEOUT}
        codes |= {126: Reason.COMMAND_NOT_FOUND, 127: Reason.COMMAND_NOT_FOUND}
        word = codes.get(section.returncode, Reason.COMMAND_FAILED)
    return _unavailable(word, text)


def _unavailable(reason: Reason, text: str) -> SlurmUnavailableError:
    return SlurmUnavailableError(f"{text} ({reasons.OUTAGE_ADVICE[reason]})", reason=reason)
