"""One ssh master: a connection that commands and forwards share, as a child process of ours.

It stays in the foreground, so that its end is seen at once, and ends with its owner. Who makes a
new one, and when, is the owner's affair (`reconnect.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from isthmus.api.texts import one_line
from isthmus.errors import SshError
from isthmus.processes import CommandResult, end, run_process
from isthmus.ssh.failures import FORWARDING_FORBIDDEN, OPEN_FAILED, ssh_error
from isthmus.ssh.options import (
    ENVIRONMENT,
    ControlCommand,
    Forward,
    Identity,
    Target,
    control_argv,
    master_argv,
)

CONTROL_TIMEOUT = 5.0
"""Seconds for an answer over the control socket, which takes milliseconds."""

_END_GRACE = 2.0
_KEPT_BYTES = 8192


class Master:
    """One connection to one sshd."""

    def __init__(
        self,
        target: Target,
        *,
        identity: Identity,
        control_path: Path,
        proxy_command: str = "",
        options: Sequence[str] = (),
    ) -> None:
        """Prepare; `start` connects.

        Args:
            target: where to.
            identity: key and host keys.
            control_path: a socket that no other living master uses.
            proxy_command: reaches the target through another master (`options.jump_command`).
            options: further options of ssh as `Name=value`, which come before ours.
        """
        self.target = target
        self.control_path = control_path
        self._identity = identity
        self._proxy_command = proxy_command
        self._options = tuple(options)
        self._process: asyncio.subprocess.Process | None = None
        self._said = bytearray()
        self._line = b""
        self.forbidden = 0
        """How many connections through its forwards the server's rules have refused."""
        self._reading: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, None before `start`."""
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives; `check` says whether it answers."""
        return self._process is not None and self._process.returncode is None

    async def start(self, *, timeout: float = 15.0) -> None:
        """Connect and log in, within `timeout` seconds.

        Raises:
            SshError: it did not; the reason says why. Nothing is left running.
        """
        with contextlib.suppress(FileNotFoundError):
            self.control_path.unlink()
        argv = master_argv(
            self.target,
            identity=self._identity,
            control_path=self.control_path,
            connect_timeout=timeout,
            proxy_command=self._proxy_command,
            options=self._options,
        )
        try:
            self._process = await asyncio.create_subprocess_exec(
                *_ends_with_us(),
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=dict(ENVIRONMENT),
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise ssh_error(self.target, f"ssh cannot be started: {error}.") from error
        self._reading = asyncio.create_task(self._read(self._process), name="ssh's messages")
        try:
            await self._until_ready(deadline=time.monotonic() + timeout)
        except BaseException:
            await self.close()
            raise

    async def _until_ready(self, *, deadline: float) -> None:
        # ssh puts its socket there once it is logged in
        while not self.control_path.exists():
            if not self.running:
                raise await self.wait()
            if time.monotonic() > deadline:
                raise ssh_error(self.target, "no login within the time limit.")
            await asyncio.sleep(0.02)
        if not await self.check():
            raise ssh_error(self.target, self.said() or "the new connection does not answer.")

    async def check(self) -> bool:
        """Whether the master lives and answers over its socket; never raises."""
        if not self.running or not self.control_path.exists():
            return False
        return (await self._control("check")).returncode == 0

    async def forward(self, forward: Forward) -> None:
        """Add a forward.

        That it was added does not mean that anything answers at its other end: ask by HTTP.

        Raises:
            SshError: it was refused (for example: the port is taken), or the master is gone.
        """
        await self._order("forward", forward)

    async def cancel(self, forward: Forward) -> None:
        """Take a forward away; connections through it go on.

        Raises:
            SshError: it was not there, or the master is gone.
        """
        await self._order("cancel", forward)

    async def wait(self) -> SshError:
        """Wait until the connection ends, and return why."""
        if self._process is not None:
            await self._process.wait()
        if self._reading is not None:
            # a grandchild may hold the pipe open
            await asyncio.wait({self._reading}, timeout=1.0)
        return ssh_error(self.target, self.said())

    def said(self) -> str:
        """The end of what ssh wrote to standard error."""
        return bytes(self._said + self._line).decode(errors="replace")

    async def close(self) -> None:
        """End the connection and everything that runs through it."""
        if self._process is not None:
            await end(self._process, grace=_END_GRACE)
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        with contextlib.suppress(FileNotFoundError):
            self.control_path.unlink()

    async def _order(self, command: ControlCommand, forward: Forward) -> None:
        result = await self._control(command, forward)
        if result.returncode != 0:
            text = one_line(result.stderr) or "no answer in time"
            what = f"{command} {forward.direction} {forward.argument}"
            raise ssh_error(self.target, f"{what}: {text}.")

    async def _control(
        self, command: ControlCommand, forward: Forward | None = None
    ) -> CommandResult:
        argv = control_argv(
            self.target, control_path=self.control_path, command=command, forward=forward
        )
        return await run_process(argv, environment=ENVIRONMENT, timeout=CONTROL_TIMEOUT)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while chunk := await process.stderr.read(4096):
            *lines, rest = (self._line + chunk).split(b"\n")
            self._line = rest[-_KEPT_BYTES:]
            for line in lines:
                self._hear(line)

    def _hear(self, line: bytes) -> None:
        """Keep what ssh says, but for refused connections, which end nothing and are many."""
        if OPEN_FAILED in line:
            self.forbidden += FORWARDING_FORBIDDEN in line
            return
        self._said.extend(line + b"\n")
        del self._said[:-_KEPT_BYTES]


def _ends_with_us() -> tuple[str, ...]:
    """Words before a command that end it when this process dies, even of KILL (Linux only)."""
    if sys.platform != "linux" or shutil.which("setpriv") is None:
        return ()
    return ("setpriv", "--pdeathsig", "TERM", "--")
