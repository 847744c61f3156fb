"""One kept connection to whichever of several hosts lets us in, as a master that is made again.

Made on demand and checked before each use; what to do about a loss, and how soon, is decided here
and in `reconnect.py`. New credentials make a new master before the old one is let go.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from isthmus.api.conditions import Reason
from isthmus.api.texts import one_line
from isthmus.errors import SshError
from isthmus.ssh.credentials import CredentialSource
from isthmus.ssh.failures import permanent
from isthmus.ssh.files import PrivateFolder
from isthmus.ssh.master import Master
from isthmus.ssh.options import Target
from isthmus.ssh.reconnect import Reconnects

_log = logging.getLogger(__name__)

_HANDED_OUT_SECONDS = 1.0
"""A master that was checked for somebody may not be in use by them yet."""

START_TIMEOUT = 15.0
"""Seconds for one host to let us in."""

_HOSTS_TOLD = 3
"""Of more hosts that let nobody in not all the sentences find room in a message."""


class Connection:
    """A master to one of `targets`, in the order in which they are given."""

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        credentials: CredentialSource,
        reconnects: Reconnects | None = None,
        start_timeout: float = START_TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
        parent: Path | None = None,
    ) -> None:
        """Prepare; nothing is connected or written yet.

        Args:
            targets: at least one; all of them lead to the same place.
            credentials: key and host keys for all of them.
            reconnects: how soon a lost connection may be made again.
            start_timeout: seconds for one host to let us in.
            clock: monotonic seconds.
            parent: where the private folder is made; None for the folder of temporary files.
        """
        self._targets = tuple(targets)
        self._credentials = credentials
        self._history = reconnects or Reconnects()
        self._start_timeout = start_timeout
        self._clock = clock
        self._parent = parent
        self._folder: PrivateFolder | None = None
        self._making: asyncio.Task[Master] | None = None
        self._current: Master | None = None
        self._outdated = False
        self._error: SshError | None = None
        self.warning = ""
        """What a person should correct although commands work; "" if nothing."""
        self._numbers = itertools.count(1)
        self._users: Counter[Master] = Counter()
        self._retired: dict[Master, asyncio.Event] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Of the present master, None if there is none."""
        return None if self._current is None else self._current.pid

    @contextlib.asynccontextmanager
    async def use(self, *, seconds: float = 60.0) -> AsyncIterator[Master]:
        """A master that answered just now; it is not ended by us while it is in use.

        Args:
            seconds: to wait at most; what is under way then goes on for the next user.

        Raises:
            SshError: there is none and none can be made, or not so soon.
        """
        master = await self._joined(seconds)
        self._users[master] += 1
        try:
            yield master
        finally:
            self._users[master] -= 1
            if not self._users[master]:
                del self._users[master]
                if master in self._retired:
                    self._retired[master].set()

    async def close(self) -> None:
        """End every master and remove key and host keys."""
        self._closed = True
        if self._making is not None:
            self._making.cancel()
            await asyncio.gather(self._making, return_exceptions=True)
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        masters = [*self._retired, *([self._current] if self._current else [])]
        await asyncio.gather(*(master.close() for master in masters))
        self._retired.clear()
        self._current = None
        if self._folder is not None:
            self._folder.close()
            self._folder = None

    async def _joined(self, seconds: float) -> Master:
        """The outcome of one check or attempt, which all that ask meanwhile share."""
        if self._closed:
            raise _closed_error()
        if self._making is None or self._making.done():
            self._making = asyncio.create_task(self._ready(), name="ssh connection")
            self._making.add_done_callback(_look_at)
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                return await asyncio.shield(self._making)
        except TimeoutError:
            hosts = ", ".join(str(target) for target in self._targets)
            raise SshError(
                f"{hosts}: connecting takes longer than the command may.",
                reason=Reason.SSH_UNREACHABLE,
            ) from None
        except asyncio.CancelledError:
            if self._making.cancelled():  # by `close`, and not the caller
                raise _closed_error() from None
            raise

    async def _ready(self) -> Master:
        await self._refresh()
        if self._current is not None and not await self._current.check():
            await self._lose(self._current)
        if self._current is None:
            self._current = await self._connect()
        elif self._outdated:
            await self._replace(self._current)
        return self._current

    async def _refresh(self) -> None:
        """Bring the files up to what the Secrets say."""
        credentials = await self._credentials.read()
        try:
            if self._folder is None:
                self._folder = PrivateFolder(parent=self._parent)
            changed = self._folder.write(key=credentials.key, known_hosts=credentials.known_hosts)
        except OSError as error:
            text = f"the key cannot be written for ssh: {error}"
            raise SshError(text, reason=Reason.SSH_UNREACHABLE) from error
        if changed:
            self._history.changed()
            self._outdated = self._current is not None

    async def _lose(self, master: Master) -> None:
        _log.warning("The ssh connection to %s is lost", master.target)
        self._history.lost(now=self._clock())
        self._error = SshError(
            f"{master.target}: the connection was lost and is made again soon.",
            reason=Reason.SSH_UNREACHABLE,
        )
        self._current = None
        await master.close()

    async def _replace(self, old: Master) -> None:
        """Log in with new credentials; if they do not work, what works goes on."""
        if self._history.wait(now=self._clock()) > 0:
            return
        try:
            new = await self._connect()
        except SshError as error:
            self.warning = (
                "login with the changed Secret failed; still connected with the previous key: "
                f"{error}"
            )
            _log.warning("%s", self.warning)
            return
        self._current = new
        idle = self._retired[old] = asyncio.Event()
        task = asyncio.create_task(self._retire(old, idle), name=f"retire {old.target}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _retire(self, master: Master, idle: asyncio.Event) -> None:
        await asyncio.sleep(_HANDED_OUT_SECONDS)
        while self._users[master]:
            idle.clear()
            await idle.wait()
        await master.close()
        del self._retired[master]

    async def _connect(self) -> Master:
        """Try each host once, in order.

        Raises:
            SshError: none let us in, or it is too soon after the last time that none did.
        """
        if self._history.wait(now=self._clock()) > 0 and self._error is not None:
            raise self._error
        errors: list[SshError] = []
        for target in self._targets:
            try:
                master = await self._start(target)
            except SshError as error:
                errors.append(error)
                continue
            self._history.connected(now=self._clock())
            self._outdated, self._error, self.warning = False, None, ""
            for other in errors:
                _log.warning("Using %s, since a host before it fails: %s", target, other)
            _log.info("Connected to %s over ssh", target)
            return master
        self._history.failed(now=self._clock(), permanent=all(permanent(error) for error in errors))
        self._error = together(errors)
        raise self._error

    async def _start(self, target: Target) -> Master:
        assert self._folder is not None
        try:
            control_path = self._folder.socket(f"m{next(self._numbers)}")
        except OSError as error:
            raise SshError(str(error), reason=Reason.SSH_UNREACHABLE) from error
        master = Master(target, identity=self._folder.identity, control_path=control_path)
        await master.start(timeout=self._start_timeout)
        return master


def _closed_error() -> SshError:
    return SshError("the connection is closed", reason=Reason.SSH_UNREACHABLE)


def _look_at(task: asyncio.Task[Master]) -> None:
    """Take notice of an error that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


def together(errors: Sequence[SshError]) -> SshError:
    """One error for all hosts, with the reason that a person can do most about."""
    first = next((error for error in errors if permanent(error)), errors[0])
    texts = [str(first), *(str(error) for error in errors if error is not first)]
    return SshError(" ".join(one_line(text) for text in texts[:_HOSTS_TOLD]), reason=first.reason)
