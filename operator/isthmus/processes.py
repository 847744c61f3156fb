"""Runs one child process to its end, under a time limit, with bounded output.

Apart from its callers, which differ only in the command: SLURM's commands on this machine, and the
OpenSSH client.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MAX_OUTPUT_BYTES = 64 * 1024 * 1024
"""More than squeue prints for 100 000 jobs; what is beyond is dropped, and so is the end mark."""

TIMED_OUT_CODE = 124
"""Return code of a command that was ended at its time limit, as of coreutils' `timeout`."""


class NotStartedError(OSError):
    """A command could not be started at all: none of it ran."""


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


async def run_process(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    timeout: float,
    stdin: str = "",
    user: str | None = None,
    max_output_bytes: int = MAX_OUTPUT_BYTES,
) -> CommandResult:
    """Run `argv` to its end; at `timeout` seconds, or when cancelled, kill its process group.

    Args:
        argv: the command.
        environment: its whole environment.
        timeout: seconds.
        stdin: its standard input.
        user: run as this user (needs root); None runs as this process does.
        max_output_bytes: of each of standard output and standard error.

    Raises:
        NotStartedError: it could not be started at all.
    """
    process = await _started(argv, environment=environment, user=user)
    out, err = bytearray(), bytearray()
    timed_out = False
    try:
        async with asyncio.timeout(timeout):
            await asyncio.gather(
                _feed(process.stdin, stdin.encode()),
                collect(process.stdout, out, limit=max_output_bytes),
                collect(process.stderr, err, limit=max_output_bytes),
                process.wait(),
            )
    except TimeoutError:
        timed_out = True
    finally:
        await end(process)
    code = process.returncode
    return CommandResult(
        returncode=TIMED_OUT_CODE if timed_out or code is None else code,
        stdout=out.decode(errors="replace"),
        stderr=err.decode(errors="replace"),
        timed_out=timed_out,
    )


async def _started(
    argv: Sequence[str], *, environment: Mapping[str, str], user: str | None
) -> asyncio.subprocess.Process:
    uid, gid, groups = _identity(user)
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(environment),
            cwd="/",
            process_group=0,
            user=uid,
            group=gid,
            extra_groups=groups,
        )
    except OSError as error:
        raise NotStartedError(error.errno, error.strerror, error.filename) from error


def _identity(user: str | None) -> tuple[int | None, int | None, list[int] | None]:
    if user is None:
        return None, None, None
    entry = pwd.getpwnam(user)
    return entry.pw_uid, entry.pw_gid, os.getgrouplist(user, entry.pw_gid)


async def _feed(stream: asyncio.StreamWriter | None, data: bytes) -> None:
    assert stream is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.write(data)
        await stream.drain()
        stream.close()
        await stream.wait_closed()


async def collect(stream: asyncio.StreamReader | None, into: bytearray, *, limit: int) -> None:
    """Read a stream to its end and keep its first `limit` bytes."""
    assert stream is not None
    while chunk := await stream.read(65536):
        into.extend(chunk[: max(0, limit - len(into))])


async def end(process: asyncio.subprocess.Process, *, grace: float = 0.0) -> None:
    """End what is left of a process group and collect the process itself.

    Args:
        process: the first of a process group or session of its own.
        grace: seconds between TERM and KILL; 0 kills at once.
    """
    if process.returncode is None and grace > 0:
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await process.wait()
    if process.returncode is None:
        _signal(process, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await process.wait()
    transport = getattr(process, "_transport", None)
    if transport is not None:  # closes the pipes that a grandchild may still hold open
        transport.close()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
