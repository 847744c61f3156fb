"""The files of jobs in a cluster's work directory, which its nodes share: gates, keys, ports.

Apart from the scheduler (`client.py`): a cluster may be asked in one way, and its files be reached
in another. `WorkFolder` is what the rest of the operator knows; `ShellWorkFolder` runs small shell
programs where the folder is, here or over ssh.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from isthmus.api.reasons import Reason
from isthmus.api.texts import one_line
from isthmus.backends.slurm.executor import CommandExecutor
from isthmus.backends.slurm.framed_commands import FramedCommands, new_marker, unavailable
from isthmus.backends.slurm.records import JOB_NAME
from isthmus.backends.slurm.work_paths import claim_path, key_path, tunnel_key_path


class WorkFolder(Protocol):
    """The work directories of one cluster, as one user of it.

    Every call has a time limit of its own and names its directory, for an attempt keeps the one
    in which it began.
    """

    async def prepare(self, *, work_directory: str) -> None:
        """Make the work directory if it is missing and check that it can be written.

        Raises:
            SlurmUnavailableError: reason `WorkDirectoryUnavailable`.
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


class ShellWorkFolder:
    """One bash call for each question, by what every login node has."""

    def __init__(
        self,
        executor: CommandExecutor,
        *,
        timeout: float = 25.0,
        marker: Callable[[], str] = new_marker,
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            executor: where the folder is.
            timeout: seconds for each call.
            marker: makes the unguessable word of the marks around an output.
        """
        self._commands = FramedCommands(executor, timeout=timeout, marker=marker)

    async def prepare(self, *, work_directory: str) -> None:
        """Make the work directory if it is missing and check that it can be written.

        Raises:
            SlurmUnavailableError: it cannot.
        """
        await self._shell(_PREPARE, work_directory)

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
        places = {f"{name}/{job_id}": name for name, job_id in jobs if JOB_NAME.fullmatch(name)}
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
        """See `WorkFolder`: what has the installation's id in its name."""
        ages = [str(int(age // 60)) for age in (seconds, key_seconds)]
        found = await self._shell(_OLD_FILES, work_directory, installation_id, *ages)
        return tuple(found.splitlines())

    async def remove_files(self, *, work_directory: str, files: tuple[str, ...]) -> None:
        """See `WorkFolder`: by names without a slash."""
        paths = [f"./{file}" for file in files if "/" not in file and file not in {"", ".", ".."}]
        await self._shell(_REMOVE_FILES, work_directory, *paths)

    async def _shell(self, script: str, *arguments: str, stdin: str = "") -> str:
        command = ("/bin/bash", "--noprofile", "--norc", "-c", script, "isthmus", *arguments)
        (section,), result = await self._commands.run((command,), check=False, stdin=stdin)
        if section.returncode != 0:
            text = one_line(result.stderr)
            raise unavailable(Reason.WORK_DIRECTORY_UNAVAILABLE, text or "no answer in time")
        return section.output
