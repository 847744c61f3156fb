"""Tunnel hosts: the project's own supervisor process, wired as it is, above simulated edges.

`isthmus.tunnels.application.run` is run unchanged; ssh, HTTP, kopf, the clock and the kernel's
table of connections are replaced by what belongs to the simulated world.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import httpx

from isthmus.apiserver.store import Store
from isthmus.errors import EngineAnswerError, EngineRefusedError
from isthmus.ssh.options import Identity, Target
from isthmus.tunnels import application
from isthmus.tunnels.heartbeat import Heartbeat
from isthmus.tunnels.link import Way
from isthmus.tunnels.links import Links
from isthmus.tunnels.settings import TunnelSettings
from isthmus.tunnels.supervisor import Supervisor
from isthmus.watch.operator import WatchSettings
from tests.simulation.apiedge import ApiEdge
from tests.simulation.apiserver import Json
from tests.simulation.clock import current_process, outside
from tests.simulation.engines import Machines, ProbeClient
from tests.simulation.operators import OperatorProcess, Watch
from tests.simulation.ways import LOGIN_HOSTS, Master, Ways

if TYPE_CHECKING:
    from tests.simulation.world import World

MARK = "tun-"
"""How the names of processes of supervisors begin."""

SUCCESSOR_WAIT, DRAIN_BUDGET = 60.0, 300.0


class SupervisorProcess(OperatorProcess):
    """One life of one supervisor."""

    def __init__(self, world: "World", name: str, seed: str, host: "TunnelHost") -> None:
        super().__init__(world, name, seed)
        self.host = host
        self.asked: asyncio.Event | None = None
        self.asked_at: float | None = None


class TunnelHost:
    """One pod of the supervisor's Deployment: its id, its address, its process and its ssh."""

    def __init__(self, world: "World", number: int) -> None:
        self.world, self._lives = world, 0
        self.id, self.address = f"t{number}", f"10.20.0.{number}"
        self.process: SupervisorProcess | None = None
        self.lives: list[SupervisorProcess] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.gone = False  # never comes back
        self.ended_by: list[BaseException] = []

    @property
    def masters(self) -> list[Master]:
        return [m for m in self.world.tunnels.ways.masters if m.owner == self.id]

    def start(self) -> None:
        if self.gone or self.process is not None or self.world.over:
            return
        self._lives += 1
        name = f"{MARK}{self.id}.{self._lives}"
        process = SupervisorProcess(self.world, name, f"{self.world.seed}/{name}", self)
        self.process = process
        self.lives.append(process)
        self.world.tell(f"{name}: starts")
        task = asyncio.get_running_loop().create_task(
            application.run(self._settings()), context=process.context
        )
        task.add_done_callback(lambda task: self._ended(process, task), context=outside())
        self.tasks.append(task)

    def kill(self, *, restart_after: float | None) -> None:
        """SIGKILL; its ssh goes with it. None: it does not come back."""
        self.gone = self.gone or restart_after is None
        if self.process is not None:
            self.world.tell(f"{self.process.name}: killed")
            self.process.stopped = True
            self._forget()
        for master in self.masters:
            master.end("killed")
        if restart_after is not None:
            self._again(restart_after)

    def leave(self) -> None:
        """TERM: an orderly end."""
        process = self.process
        if process is None or process.asked is None:
            self.kill(restart_after=None)
            return
        self.world.tell(f"{process.name}: is told to end")
        process.asked_at = process.asked_at or self.world.now
        process.asked.set()

    def _settings(self) -> TunnelSettings:
        return TunnelSettings(
            address=self.address,
            host_id=self.id,
            status_port=None,
            check_interval=10.0,
            successor_wait=SUCCESSOR_WAIT,
            drain_budget=DRAIN_BUDGET,
        )

    def _forget(self) -> None:
        if self.process is not None and self.process.watch is not None:
            self.process.watch.close()
        self.process = None

    def _again(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self.start, context=outside())

    def _ended(self, process: SupervisorProcess, task: "asyncio.Task[None]") -> None:
        if self.world.over:
            return
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.ended_by.append(error)
        self.world.tell(f"{process.name}: ends: {error!r}")
        if self.process is not process:
            return
        self._forget()
        for master in self.masters:
            master.end("its supervisor ended")
        if process.asked_at is None:
            self._again(2.0)
        else:
            self.gone = True


class TunnelHosts:
    """Every tunnel host there ever was, and the network behind them."""

    def __init__(self, world: "World", random: Random) -> None:
        self.world = world
        self.healed = False  # faults have stopped
        self.mode = random.choice(["Tunnel", "Tunnel", "Tunnel", "NodeSSH"])
        self.ways = Ways(world=world, random=Random(f"{world.seed}/ways"))
        self.hosts = [TunnelHost(world, n) for n in range(1, random.choice([1, 1, 2]) + 1)]

    def cluster_spec(self) -> Json:
        """What a SlurmCluster says whose nodes pods cannot reach."""
        ssh = {
            "hosts": list(LOGIN_HOSTS),
            "user": "svc",
            "keySecretRef": {"name": "ssh", "key": "ssh-privatekey"},
            "knownHostsRef": {"name": "ssh", "key": "known_hosts"},
        }
        return {"login": {"local": None, "ssh": ssh}, "network": {"mode": self.mode}}

    def add(self) -> TunnelHost:
        """A host with an id that nobody had before."""
        host = TunnelHost(self.world, len(self.hosts) + 1)
        self.hosts.append(host)
        host.start()
        return host

    def living(self) -> list[TunnelHost]:
        return [host for host in self.hosts if not host.gone]

    def start(self) -> None:
        for host in self.hosts:
            host.start()

    def replace(self) -> None:
        """The Deployment's controller makes a pod for one that is lost."""
        if not (self.world.over or self.healed):
            self.add()

    def heal(self) -> None:
        self.healed = True
        self.ways.heal()
        self.world.machines.taken.clear()
        for host in self.living():
            process = host.process
            if process is not None:
                process.cut_off_until = 0.0
                if process.stopped:
                    process.resume()
            host.start()
        staying = [h for h in self.living() if h.process is None or h.process.asked_at is None]
        if not staying:
            self.add()


# ---- the edges of the application


def _process() -> SupervisorProcess:
    process = current_process()
    assert isinstance(process, SupervisorProcess)
    return process


async def _connect(connection: object, *, timeout: float) -> ApiEdge:
    process = _process()
    return process.world.edge(process, timeout=timeout)


async def _run_watch(
    *,
    settings: WatchSettings,
    store: Store,
    on_listed: Callable[[], None],
    **_: Any,
) -> None:
    process = _process()
    process.watch = Watch(
        process, store=store, on_listed=on_listed, selectors=dict(settings.watched)
    )
    process.watch.open()
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        process.watch.close()


def _take_signals(asked: asyncio.Event) -> None:
    _process().asked = asked


def _heartbeat(**arguments: Any) -> Heartbeat:
    process = _process()
    wall_clock = lambda: datetime.fromtimestamp(process.wall_clock(), tz=UTC)  # noqa: E731
    return Heartbeat(**arguments, wall_clock=wall_clock)


def _supervisor(**arguments: Any) -> Supervisor:
    host = _process().host

    def connections(address: str, ports: Collection[int]) -> int:
        now = host.world.now
        return sum(m.held(now, (address, port)) for m in host.masters for port in ports)

    return Supervisor(**arguments, connections=connections)


def _links(**arguments: Any) -> Links:
    process = _process()
    ways, owner = process.world.tunnels.ways, process.host.id

    def connect(target: Target, way: Way, control_path: Path) -> Master:
        return Master(ways, owner=owner, target=target, through_login=bool(way.proxy_command))

    return Links(**arguments, connect=connect)


class _CheckClient:
    """Takes the place of `httpx.AsyncClient` in the supervisor's checks."""

    def __init__(self, machines: Machines) -> None:
        self._client = ProbeClient(machines)

    async def __aenter__(self) -> "_CheckClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    @contextlib.asynccontextmanager
    async def stream(self, method: str, url: str, **_: object) -> AsyncIterator[None]:
        assert method == "GET"
        try:
            await self._client.get(url, headers={})
        except EngineRefusedError as error:
            raise httpx.ConnectError(str(error)) from error
        except EngineAnswerError as error:
            raise httpx.RemoteProtocolError(str(error)) from error
        yield


class _Folder:
    """No key is written anywhere."""

    identity = Identity(key=Path("/k"), known_hosts=Path("/h"))

    def __init__(self, **_: object) -> None:
        pass

    def write(self, **_: object) -> bool:
        return False

    def socket(self, name: str) -> Path:
        return Path("/") / name

    def close(self) -> None:
        pass


class _Credentials:
    def __init__(self, *_: object, **__: object) -> None:
        pass

    async def read(self) -> SimpleNamespace:
        return SimpleNamespace(key=b"", known_hosts=b"")


class _NoBastion:
    def __init__(self, **_: object) -> None:
        pass

    async def admit(self, wanted: Mapping[str, object]) -> None:
        assert not wanted

    async def close(self) -> None:
        pass


class _NoStatus(_NoBastion):
    """Nobody asks for the metrics."""


@contextlib.contextmanager
def simulated_tunnel_edges() -> Iterator[None]:
    """Replace what a supervisor reaches outside with."""
    monotonic = SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time())
    with contextlib.ExitStack() as stack:
        for name, value in {
            "time": monotonic,
            "KubernetesApiServer": SimpleNamespace(connect=_connect),
            "run_watch": _run_watch,
            "check_client": lambda: _CheckClient(_process().world.machines),
            "take_signals": _take_signals,
            "Heartbeat": _heartbeat,
            "Supervisor": _supervisor,
            "Links": _links,
            "Bastions": _NoBastion,
            "StatusServer": _NoStatus,
        }.items():
            stack.enter_context(patch.object(application, name, value))
        stack.enter_context(patch("isthmus.tunnels.links.PrivateFolder", _Folder))
        stack.enter_context(patch("isthmus.tunnels.links.SecretCredentials", _Credentials))
        yield
