"""SLURM's commands on a login node, over one kept ssh connection.

The remote command is a constant; what is to be run goes over standard input, behind a first line
that it must find, as one compound command of bash: so a stream that lacks its beginning or its end
runs nothing. The login shell's noise is harmless: `parsing.framed` marks what counts. A return code
of 255 can only be ssh's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from isthmus.api.conditions import Reason
from isthmus.api.texts import one_line
from isthmus.backends.slurm.executor import command_environment
from isthmus.errors import SlurmNotAskedError, SlurmUnavailableError, SshError
from isthmus.processes import MAX_OUTPUT_BYTES, CommandResult, run_process
from isthmus.ssh.connection import Connection
from isthmus.ssh.failures import MASTER_GONE, SESSION_REFUSED
from isthmus.ssh.master import Master
from isthmus.ssh.options import ENVIRONMENT, session_argv

COMMANDS_AT_ONCE: Final = 6
"""Sessions on one connection: sshd's own limit (MaxSessions) is 10."""

FIRST_LINE: Final = "isthmus-begins-here"
"""The first line of the input. A startup file of the account may read from it before us: without
this line nothing is run, for the rest may be the middle of a batch script."""

_BASH: Final = "/bin/bash --noprofile --norc -p"
_LOST: Final = (
    "isthmus: the beginning of the input is lost: "
    "a startup file of this account reads standard input"
)
REMOTE_SHELL: Final = (
    f"exec {_BASH} -c '"
    f'IFS= read -r line && [ "$line" = {FIRST_LINE} ] && exec {_BASH} -s; '
    f'echo "{_LOST}" >&2; exit 254\''
)
"""What the account's login shell is asked to run; -p ignores BASH_ENV and exported functions."""

KILL_AFTER: Final = 5.0
"""Seconds between TERM and KILL on the login node."""

_SSH_FAILED: Final = 255
_RETRY_SECONDS: Final = 0.2
_CLOSE_SECONDS: Final = 10.0
_REFUSED: Final = (
    "The login host ran no command over the connection in time (its MaxSessions is too small, or "
    "sessions of the account hang there)."
)


def remote_script(
    argv: Sequence[str], *, stdin: str, seconds: float, environment: Sequence[str]
) -> str:
    """The bash text that runs `argv` at the other end in a clean environment.

    Of the login's environment HOME and SLURM_CONF stay. The payload stands in the text: bash runs
    a compound command only when it has read all of it. `FIRST_LINE` stands before it.

    Args:
        argv: the command.
        stdin: its standard input.
        seconds: after which it is ended there.
        environment: further variables as `NAME=value`.
    """
    limited = shlex.join(["timeout", "-k", f"{KILL_AFTER:g}", f"{seconds:.3f}", *argv])
    kept = 'HOME="$HOME" ${SLURM_CONF:+SLURM_CONF="$SLURM_CONF"}'
    return (
        f"{FIRST_LINE}\n"
        f"{{ printf %s {shlex.quote(stdin)} | env -i {kept} {shlex.join(environment)} {limited}; "
        f"s=$?; [ $s -ne {_SSH_FAILED} ] || s={_SSH_FAILED - 1}; exit $s; }}\n"
    )


class OpenSshExecutor:
    """Runs commands on a login node through the OpenSSH client."""

    def __init__(
        self,
        connection: Connection,
        *,
        user: str,
        bin_directory: str = "",
        clock: Callable[[], float] = time.monotonic,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> None:
        """Prepare; nothing connects before the first command.

        Args:
            connection: to the login node; closed with this executor.
            user: the account there.
            bin_directory: where SLURM's commands are there, if not on the usual path.
            clock: monotonic seconds.
            max_output_bytes: of each of standard output and standard error.
        """
        self._connection = connection
        environment = command_environment(bin_directory=bin_directory)
        environment |= {"USER": user, "LOGNAME": user}
        self._environment = tuple(f"{name}={value}" for name, value in environment.items())
        self._clock = clock
        self._max_output_bytes = max_output_bytes
        self._places = Places(COMMANDS_AT_ONCE)

    @property
    def warning(self) -> str:
        """What should be corrected although commands work."""
        return self._connection.warning

    async def run(self, argv: Sequence[str], *, stdin: str = "", timeout: float) -> CommandResult:
        """Run `argv` on the login node, all waiting included within `timeout` seconds.

        Raises:
            SlurmNotAskedError: not connected. Reasons `SshUnreachable`, `SshLoginRequired`,
                `HostKeyMismatch`, `SshSessionsRefused`, `SecretMissing`.
            SlurmUnavailableError: the connection broke; the command may have run.
        """
        try:
            return await self._run(argv, stdin=stdin, deadline=self._clock() + timeout)
        except _NothingRanError as error:
            raise SlurmNotAskedError(str(error), reason=error.reason) from error
        except SshError as error:
            raise SlurmUnavailableError(str(error), reason=error.reason) from error

    async def close(self) -> None:
        """Let commands under way end, for a few seconds, and disconnect."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._places.empty()
        await self._connection.close()

    async def _run(self, argv: Sequence[str], *, stdin: str, deadline: float) -> CommandResult:
        refused = False
        while True:
            try:
                result = await self._once(argv, stdin=stdin, deadline=deadline)
            except SshError as error:
                if not refused or self._clock() < deadline:
                    raise
                # The last try ran out of time because of the refusals before it.
                raise type(error)(_REFUSED, reason=Reason.SSH_SESSIONS_REFUSED) from error
            if result is not None:
                return result
            refused = True
            if self._clock() + _RETRY_SECONDS > deadline:
                raise _NothingRanError(_REFUSED, reason=Reason.SSH_SESSIONS_REFUSED)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _once(
        self, argv: Sequence[str], *, stdin: str, deadline: float
    ) -> CommandResult | None:
        """One attempt; None where the server refused one more session, so that nothing ran."""
        async with contextlib.AsyncExitStack() as stack:
            place, master = await self._enter(stack, deadline=deadline)
            result = await self._send(argv, stdin=stdin, deadline=deadline, master=master)
            if _ran_nothing(result, SESSION_REFUSED):
                place.refused()
                return None
            place.worked()
            await self._check(result, master=master)
            return result

    async def _enter(
        self, stack: contextlib.AsyncExitStack, *, deadline: float
    ) -> tuple[Place, Master]:
        """Wait for a session and a connection.

        Raises:
            _NothingRanError: there is none in time.
        """
        try:
            take = self._places.take(seconds=deadline - self._clock())
            place = await stack.enter_async_context(take)
            use = self._connection.use(seconds=deadline - self._clock())
            return place, await stack.enter_async_context(use)
        except SshError as error:
            raise _NothingRanError(str(error), reason=error.reason) from error

    async def _send(
        self, argv: Sequence[str], *, stdin: str, deadline: float, master: Master
    ) -> CommandResult:
        left = deadline - self._clock()
        if left <= 0:
            raise _NothingRanError(
                f"{master.target}: connecting took all of the time limit.",
                reason=Reason.SSH_UNREACHABLE,
            )
        return await run_process(
            session_argv(master.target, control_path=master.control_path, command=REMOTE_SHELL),
            environment=ENVIRONMENT,
            timeout=left + 2 * KILL_AFTER,
            stdin=remote_script(argv, stdin=stdin, seconds=left, environment=self._environment),
            max_output_bytes=self._max_output_bytes,
        )

    async def _check(self, result: CommandResult, *, master: Master) -> None:
        """Tell ssh's own failures from what the command said.

        Raises:
            SshError: the connection is gone, or silent beyond every limit at the other end.
        """
        if result.timed_out:
            raise SshError(
                f"{master.target}: no answer over the connection within the time limit.",
                reason=Reason.SSH_UNREACHABLE,
            )
        if result.returncode != _SSH_FAILED:
            return
        nothing_ran = _ran_nothing(result, MASTER_GONE)
        text = "" if nothing_ran else one_line(result.stderr)
        error = SshError(
            f"{master.target}: {text or 'the command broke off with its connection.'}",
            reason=Reason.SSH_UNREACHABLE,
        )
        if not await master.check() and not master.running:
            error = await master.wait()
        raise _NothingRanError(str(error), reason=error.reason) if nothing_ran else error


class _NothingRanError(SshError):
    """No session was opened on the login host: nothing was sent, and nothing ran."""


def _ran_nothing(result: CommandResult, word: str) -> bool:
    """Whether ssh itself says so; what has run has printed something (`parsing.framed`)."""
    return result.returncode == _SSH_FAILED and word in result.stderr and not result.stdout


class Place:
    """One of the sessions that may be open at a time."""

    def __init__(self, places: Places) -> None:
        """Belong to `places`."""
        self._places = places

    def refused(self) -> None:
        """Note that the server did not give a session."""
        self._places.lower()

    def worked(self) -> None:
        """Note that it did."""
        self._places.count()


class Places:
    """How many commands run at a time: learns the server's limit from its refusals."""

    def __init__(self, most: int) -> None:
        """Begin with `most`."""
        self._most = most
        self._limit = most
        self._taken = 0
        self._good = 0
        self._changed = asyncio.Condition()

    @property
    def limit(self) -> int:
        """At most so many at a time, for now."""
        return self._limit

    @contextlib.asynccontextmanager
    async def take(self, *, seconds: float) -> AsyncIterator[Place]:
        """Wait for a place.

        Raises:
            SshError: none within `seconds`.
        """
        try:
            async with asyncio.timeout(max(0.0, seconds)), self._changed:
                await self._changed.wait_for(lambda: self._taken < self._limit)
                self._taken += 1
        except TimeoutError:
            raise SshError(
                f"{self._taken} commands on the login host left no room for one more within the "
                "time limit.",
                reason=Reason.SSH_SESSIONS_REFUSED,
            ) from None
        try:
            yield Place(self)
        finally:
            self._taken -= 1
            await self._tell()

    def lower(self) -> None:
        """The server refused a session: those that it runs beside are its limit."""
        self._limit = max(1, min(self._limit, self._taken) - 1)
        self._good = 0

    def count(self) -> None:
        """Now and then try one more, since sessions of others come and go."""
        self._good += 1
        if self._good >= 20 and self._limit < self._most:
            self._limit += 1
            self._good = 0

    async def empty(self) -> None:
        """Wait until no command runs."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._taken == 0)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
