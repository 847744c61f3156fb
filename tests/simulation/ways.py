"""The ways to workers that pods cannot reach: login hosts, ssh masters, the ports they listen on.

Takes the place of `isthmus.ssh.master.Master` under the project's own links. What listens on a
tunnel host is a `Door` of the machines; probes, checks and traffic all go through it.
"""

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from isthmus.api.conditions import Reason
from isthmus.errors import SshError
from isthmus.ssh.options import Forward, Target
from tests.simulation.engines import Address, Door

if TYPE_CHECKING:
    from tests.simulation.world import World

LOGIN_HOSTS = ("login1", "login2")
ALIVE_SECONDS = 15.0
"""Until ssh gives up a connection on which nothing comes back."""


@dataclass(slots=True)
class Ways:
    """The network between tunnel hosts and the cluster.

    Attributes:
        away: login host → (until, whether it refuses, else it is silent), loop time.
        masters: connections that are open.
    """

    world: "World"
    random: Random
    away: dict[str, tuple[float, bool]] = field(default_factory=dict)
    masters: list["Master"] = field(default_factory=list)

    def lose(self, host: str, *, seconds: float, refuses: bool) -> None:
        """A login host cannot be reached for a while."""
        self.away[host] = self.world.now + seconds, refuses
        for master in [m for m in self.masters if m.target.host == host]:
            if refuses:
                master.end("connection reset")
            else:
                master.silent = True
                self.world.slurm.later(ALIVE_SECONDS, master.end, "no answer to keepalives")

    def heal(self) -> None:
        self.away.clear()
        for master in self.masters:
            master.silent = False


class Master:
    """One ssh connection with its forwards; `isthmus.tunnels.link.Connection`."""

    def __init__(self, ways: Ways, *, owner: str, target: Target, through_login: bool) -> None:
        self._ways, self.owner, self.target = ways, owner, target
        self._through_login = through_login
        self._jump: Master | None = None
        self.alive, self.silent = False, False
        self.forbidden = 0
        self.doors: dict[Address, Door] = {}
        self.cancelled: list[tuple[Address, Door]] = []  # what ran through them goes on
        self._ended: asyncio.Future[SshError] = asyncio.get_running_loop().create_future()

    async def start(self, *, timeout: float) -> None:
        """Connect and log in."""
        ways = self._ways
        await asyncio.sleep(0.05 + ways.random.random() * 0.5)
        until, refuses = ways.away.get(self.target.host, (0.0, False))
        if self._through_login:
            self._jump = next(
                (m for m in ways.masters if m.owner == self.owner and not m._through_login), None
            )
            if self._jump is None:
                raise self._error("the login host is not connected")
            node_away = ways.world.machines.unreachable_until.get(self.target.host, 0.0)
            until, refuses = (node_away, False) if not self._jump.silent else (1e9, False)
        if ways.world.now < until:
            if not refuses:
                await asyncio.sleep(timeout)
            raise self._error("connection refused" if refuses else "timed out")
        self.alive = True
        ways.masters.append(self)

    async def forward(self, forward: Forward) -> None:
        """Listen."""
        await asyncio.sleep(0.01)
        place = forward.address, forward.port
        machines = self._ways.world.machines
        if not self.alive:
            raise self._error("the control socket is gone")
        if place in machines.doors or place in machines.taken:
            raise self._error(f"cannot listen to port {forward.port}")
        host = self.target.host if self._through_login else forward.host
        door = Door(target=(host, forward.host_port), opened_at=self._ways.world.now, way=self)
        self.doors[place] = machines.doors[place] = door

    async def cancel(self, forward: Forward) -> None:
        """Listen no more; what runs through it goes on."""
        await asyncio.sleep(0.01)
        place = forward.address, forward.port
        door = self.doors.pop(place, None)
        if door is None:
            raise self._error("no such forward")
        self.cancelled.append((place, door))
        world = self._ways.world
        world.tunnel_oracle.closed[place] = world.now, door.answered_at is not None
        del world.machines.doors[place]

    def held(self, now: float, place: Address) -> int:
        """Requests under way through a port, as the kernel counts connections."""
        doors = [door for where, door in (*self.doors.items(), *self.cancelled) if where == place]
        return sum(door.held(now) for door in doors)

    async def wait(self) -> SshError:
        """Wait for the end."""
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
        """End it in good order."""
        if self.alive:
            self._ways.world.tunnel_oracle.closes(self)
        self.end("closed")

    def end(self, why: str) -> None:
        """Nothing listens any more, and what ran through it is cut."""
        if not self.alive:
            return
        self.alive = False
        self._ways.masters.remove(self)
        now, machines = self._ways.world.now, self._ways.world.machines
        for place, door in self.doors.items():
            door.cut(now)
            self._ways.world.tunnel_oracle.closed[place] = now, door.answered_at is not None
            del machines.doors[place]
        for _, door in self.cancelled:
            door.cut(now)
        self.doors.clear()
        if not self._ended.done():
            self._ended.set_result(self._error(why))
        for master in [m for m in self._ways.masters if m._jump is self]:
            master.end("its login host's connection ended")

    def _error(self, why: str) -> SshError:
        return SshError(f"{self.target}: {why}", reason=Reason.SSH_UNREACHABLE)
