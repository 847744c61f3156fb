"""One connection to a login host, kept open, with the forwards that run through it.

A link owns its master: it opens it at the first of its hosts that lets it in, adds and cancels
forwards live, and opens it again when it ends. The first attempt after a loss is immediate; after
one that failed each host is tried at most once per pause.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from isthmus.errors import IsthmusError, SshError
from isthmus.ssh.failures import permanent
from isthmus.ssh.options import Forward, Identity, Target
from isthmus.ssh.reconnect import Reconnects

_log = logging.getLogger(__name__)

_RETRY_FORWARD_SECONDS = 2.0


class Connection(Protocol):
    """What a link needs of `isthmus.ssh.master.Master`."""

    @property
    def forbidden(self) -> int:
        """How many connections through its forwards the server's rules have refused."""
        ...

    async def start(self, *, timeout: float) -> None:
        """Connect and log in."""
        ...

    async def forward(self, forward: Forward) -> None:
        """Add a forward."""
        ...

    async def cancel(self, forward: Forward) -> None:
        """Take a forward away."""
        ...

    async def wait(self) -> SshError:
        """Wait for the end, and return why."""
        ...

    async def close(self) -> None:
        """End it."""
        ...


@dataclass(frozen=True, slots=True)
class Way:
    """How a target is reached.

    Attributes:
        identity: key and host keys, in files that are up to date.
        changed: they differ from those of the last attempt.
        proxy_command: through another master, "" for directly.
    """

    identity: Identity
    changed: bool = False
    proxy_command: str = ""


Connect = Callable[[Target, Way, Path], Connection]
Prepare = Callable[[], Awaitable[Way]]


@dataclass(slots=True)
class _Host:
    target: Target
    reconnects: Reconnects


@dataclass(slots=True)
class Link:
    """One connection and its forwards, by key.

    Attributes:
        name: for messages.
        hosts: that lead to the same place; the first that works is kept until it fails.
        prepare: makes keys and way ready; raises IsthmusError where it cannot.
        connect: makes a connection that is not started.
        control_path: socket of the master.
        on_change: told when the connection or a forward changed.
        clock: seconds, monotonic.
        connect_timeout: seconds for one attempt.
        pause: seconds between attempts after one that failed.
    """

    name: str
    hosts: Sequence[Target]
    prepare: Prepare
    connect: Connect
    control_path: Path
    on_change: Callable[[], None]
    clock: Callable[[], float]
    connect_timeout: float = 10.0
    pause: float = 30.0
    established: dict[str, Forward] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    problem: str = "connecting"
    through: Target | None = None
    connections: int = 0
    connected_at: float = 0.0
    _connection: Connection | None = None
    _wanted: Mapping[str, Forward] = field(default_factory=dict)
    _poke: asyncio.Event = field(default_factory=asyncio.Event)
    _restart: asyncio.Event = field(default_factory=asyncio.Event)
    _task: "asyncio.Task[None] | None" = None
    _known: list[_Host] = field(default_factory=list)

    def start(self) -> None:
        """Begin to connect."""
        self._known = [
            _Host(target, Reconnects(pause=self.pause, refused_pause=self.pause * 4))
            for target in self.hosts
        ]
        self._task = asyncio.create_task(self._run(), name=f"link {self.name}")

    def want(self, forwards: Mapping[str, Forward]) -> None:
        """Have exactly these forwards from now on."""
        if dict(self._wanted) != dict(forwards):
            self._wanted = dict(forwards)
            self._poke.set()

    def restart(self) -> None:
        """Give the connection up and open another one: it looks alive and is not."""
        self._restart.set()

    @property
    def connected(self) -> bool:
        """Whether the connection is open."""
        return self.through is not None

    @property
    def forbids(self) -> bool:
        """Whether the server's rules have refused a connection through a forward of this one."""
        return self._connection is not None and self._connection.forbidden > 0

    async def close(self) -> None:
        """End the connection and everything that runs through it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._once()
            except asyncio.CancelledError:
                raise
            except Exception as error:  # a bug in here must not end the other links
                _log.exception("Link %s failed unexpectedly; it is opened again", self.name)
                self._lost(f"unexpected {type(error).__name__}: {error}")
                await asyncio.sleep(self.pause)

    async def _once(self) -> None:
        host = min(self._known, key=lambda one: one.reconnects.wait(now=self.clock()))
        wait = host.reconnects.wait(now=self.clock())
        if wait > 0:
            await asyncio.sleep(wait)
        try:
            way = await self.prepare()
        except IsthmusError as error:
            self._lost(str(error))
            await asyncio.sleep(min(1.0, self.pause))
            return
        if way.changed:
            for each in self._known:
                each.reconnects.changed()
        connection = self.connect(host.target, way, self.control_path)
        try:
            await connection.start(timeout=self.connect_timeout)
        except SshError as error:
            host.reconnects.failed(now=self.clock(), permanent=permanent(error))
            self._lost(str(error))
            _log.warning("Link %s: %s", self.name, error)
            return
        host.reconnects.connected(now=self.clock())
        # The next time begin with this one: hosts of equal wait are tried in their order.
        self._known.sort(key=lambda one: one is not host)
        try:
            await self._hold(connection, host)
        finally:
            host.reconnects.lost(now=self.clock())
            self.through = self._connection = None
            self.established.clear()
            # A cancelled task must not leave its master behind, which still listens.
            await asyncio.shield(connection.close())

    async def _hold(self, connection: Connection, host: _Host) -> None:
        """Keep the forwards as wanted until the connection ends or is given up."""
        self.connections += 1
        self._restart.clear()
        self.through, self.problem = host.target, ""
        self._connection, self.connected_at = connection, self.clock()
        _log.info("Link %s: connected to %s", self.name, host.target)
        self.on_change()
        ended = asyncio.create_task(connection.wait(), name=f"end of {self.name}")
        restart = asyncio.create_task(self._restart.wait(), name=f"restart of {self.name}")
        try:
            while not ended.done() and not restart.done():
                self._poke.clear()
                complete = await self._apply(connection)
                poke = asyncio.create_task(self._poke.wait(), name=f"poke of {self.name}")
                try:
                    await asyncio.wait(
                        {ended, restart, poke},
                        timeout=None if complete else _RETRY_FORWARD_SECONDS,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                finally:
                    poke.cancel()
            why = str(ended.result()) if ended.done() else "nothing came through it"
            _log.warning("Link %s lost its connection: %s", self.name, why)
            self.established.clear()
            self._lost(why)
        finally:
            for task in (ended, restart):
                task.cancel()
            await asyncio.gather(ended, restart, return_exceptions=True)

    async def _apply(self, connection: Connection) -> bool:
        """Add what is missing, cancel what is not wanted; whether all is as wanted."""
        before = dict(self.established), dict(self.problems)
        for key, forward in list(self.established.items()):
            if self._wanted.get(key) != forward:
                with contextlib.suppress(SshError):  # then it was not there
                    await connection.cancel(forward)
                del self.established[key]
        self.problems = {k: text for k, text in self.problems.items() if k in self._wanted}
        for key, forward in list(self._wanted.items()):
            if key in self.established:
                continue
            try:
                await connection.forward(forward)
            except SshError as error:
                self.problems[key] = str(error)
                continue
            self.problems.pop(key, None)
            self.established[key] = forward
        if before != (self.established, self.problems):
            self.on_change()
        return not self.problems

    def _lost(self, why: str) -> None:
        self.through = None
        self.problem = why
        self.on_change()
