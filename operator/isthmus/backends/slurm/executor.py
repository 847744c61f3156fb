"""Runs one command to its end, under a time limit, with bounded output.

The only place that starts processes for the SLURM backend. Commands are argument vectors plus text
for standard input, so that an executor over SSH is one more class and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

MAX_OUTPUT_BYTES = 64 * 1024 * 1024
"""More than squeue prints for 100 000 jobs; what is beyond is dropped, and so is the end mark."""

TIMED_OUT_CODE = 124
"""Return code of a command that was ended at its time limit, as of coreutils' `timeout`."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended.

    Attributes:
        returncode: negative for a signal, `TIMED_OUT_CODE` at the time limit.
        stdout: decoded as UTF-8, undecodable bytes replaced.
        stderr: the same.
        timed_out: whether the time limit ended it.
    """

    returncode: int
    stdout: str
    stderr: str
    timed_out: bool = False


class CommandExecutor(Protocol):
    """A place where commands run: this machine, or a login node."""

    async def run(self, argv: Sequence[str], *, stdin: str = "", timeout: float) -> CommandResult:
        """Run `argv` to its end, at most `timeout` seconds.

        Raises:
            OSError: the command could not be started at all.
        """
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
    path = "/usr/local/bin:/usr/bin:/bin"
    environment = {
        "PATH": f"{bin_directory}:{path}" if bin_directory else path,
        "HOME": home,
        "LC_ALL": "C",
        "SLURM_TIME_FORMAT": "%s",
    }
    if name:
        environment |= {"USER": name, "LOGNAME": name}
    if source.get("SLURM_CONF"):
        environment["SLURM_CONF"] = source["SLURM_CONF"]
    return environment


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
            OSError: the command could not be started at all.
        """
        uid, gid, groups = self._identity()
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
            cwd="/",
            start_new_session=True,
            user=uid,
            group=gid,
            extra_groups=groups,
        )
        out, err = bytearray(), bytearray()
        timed_out = False
        try:
            async with asyncio.timeout(timeout):
                await asyncio.gather(
                    _feed(process.stdin, stdin.encode()),
                    _collect(process.stdout, out, self._max_output_bytes),
                    _collect(process.stderr, err, self._max_output_bytes),
                    process.wait(),
                )
        except TimeoutError:
            timed_out = True
        finally:
            await _end(process)
        code = process.returncode
        return CommandResult(
            returncode=TIMED_OUT_CODE if timed_out or code is None else code,
            stdout=out.decode(errors="replace"),
            stderr=err.decode(errors="replace"),
            timed_out=timed_out,
        )

    def _identity(self) -> tuple[int | None, int | None, list[int] | None]:
        if self._user is None:
            return None, None, None
        entry = pwd.getpwnam(self._user)
        return entry.pw_uid, entry.pw_gid, os.getgrouplist(self._user, entry.pw_gid)


async def _feed(stream: asyncio.StreamWriter | None, data: bytes) -> None:
    assert stream is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.write(data)
        await stream.drain()
        stream.close()
        await stream.wait_closed()


async def _collect(stream: asyncio.StreamReader | None, into: bytearray, limit: int) -> None:
    assert stream is not None
    while chunk := await stream.read(65536):
        into.extend(chunk[: max(0, limit - len(into))])


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what is left of the process group and collect the process itself."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await process.wait()
    transport = getattr(process, "_transport", None)
    if transport is not None:  # closes the pipes that a grandchild may still hold open
        transport.close()
