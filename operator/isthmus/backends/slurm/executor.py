"""Where SLURM's commands run: the executor protocol, and the executor for this machine.

Commands are argument vectors plus text for standard input, so that an executor over SSH
(`ssh.py`) is one more class and nothing else.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping, Sequence
from typing import Protocol

from isthmus.processes import MAX_OUTPUT_BYTES, CommandResult, run_process


class CommandExecutor(Protocol):
    """A place where commands run: this machine, or a login node."""

    @property
    def warning(self) -> str:
        """What a person should correct although commands work; "" if nothing."""
        ...

    async def run(self, argv: Sequence[str], *, stdin: str = "", timeout: float) -> CommandResult:
        """Run `argv` to its end, at most `timeout` seconds.

        Raises:
            NotStartedError: the command could not be started at all.
            SlurmNotAskedError: the place could not be reached; its reason says why. Nothing ran.
            SlurmUnavailableError: the place was lost meanwhile. The command may have run.
        """
        ...

    async def close(self) -> None:
        """Let go of what leads to the place; nothing runs afterwards."""
        ...


def clean_environment(
    *, bin_directory: str = "", user: str | None = None, source: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The whole environment of SLURM commands, and through `--export=ALL` of jobs.

    Nothing of ours goes along: users' `SQUEUE_FORMAT`, tokens and Kubernetes' variables neither
    change the output nor end up in the controller's state directory.

    Args:
        bin_directory: where SLURM's commands are, if not on the usual path.
        user: whose HOME, USER and LOGNAME; None for the user of this process.
        source: where SLURM_CONF is taken from, if it is set there.
    """
    entry = pwd.getpwnam(user) if user else _own_entry()
    name, home = (entry.pw_name, entry.pw_dir) if entry else ("", source.get("HOME", "/"))
    environment = command_environment(bin_directory=bin_directory) | {"HOME": home}
    if name:
        environment |= {"USER": name, "LOGNAME": name}
    if source.get("SLURM_CONF"):
        environment["SLURM_CONF"] = source["SLURM_CONF"]
    return environment


def command_environment(*, bin_directory: str = "") -> dict[str, str]:
    """The part of the environment that is the same wherever SLURM's commands run."""
    path = "/usr/local/bin:/usr/bin:/bin"
    return {
        "PATH": f"{bin_directory}:{path}" if bin_directory else path,
        "LC_ALL": "C",
        "SLURM_TIME_FORMAT": "%s",
    }


def _own_entry() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(os.getuid())
    except KeyError:  # a container that runs under a number without a name
        return None


class LocalExecutor:
    """Runs commands on this machine, in a clean environment and a process group of their own."""

    def __init__(
        self,
        *,
        bin_directory: str = "",
        user: str | None = None,
        source: Mapping[str, str] = os.environ,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> None:
        """Prepare the environment.

        Args:
            bin_directory: where SLURM's commands are, if not on the usual path.
            user: run as this user (needs root); None runs as this process does.
            source: the operator's own environment, read for SLURM_CONF only.
            max_output_bytes: of each of standard output and standard error.
        """
        self._environment = clean_environment(bin_directory=bin_directory, user=user, source=source)
        self._user = user
        self._max_output_bytes = max_output_bytes

    async def run(self, argv: Sequence[str], *, stdin: str = "", timeout: float) -> CommandResult:
        """Run `argv` to its end; at `timeout` seconds kill its whole process group.

        Raises:
            NotStartedError: the command could not be started at all.
        """
        return await run_process(
            argv,
            environment=self._environment,
            timeout=timeout,
            stdin=stdin,
            user=self._user,
            max_output_bytes=self._max_output_bytes,
        )

    @property
    def warning(self) -> str:
        """Nothing ever."""
        return ""

    async def close(self) -> None:
        """Do nothing: this machine is always there."""
