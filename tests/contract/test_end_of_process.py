"""How both processes end: as soon as their own work is done, and with nothing of theirs left.

The project's applications and the real kopf, above an API server in memory, on the virtual clock:
what is waited for is seen to the second, and nothing else.
"""

import asyncio
import contextlib
import functools
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from random import Random
from types import MappingProxyType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import httpx
import pytest

from isthmus import application, assembly
from isthmus.api.desired import ClusterReference
from isthmus.apiserver.election import LeaderElector
from isthmus.apiserver.key import Key
from isthmus.apiserver.objects import Object, dig
from isthmus.apiserver.resources import (
    ENDPOINT_SLICES,
    LEASES,
    MODEL_DEPLOYMENTS,
    SLURM_CLUSTERS,
    SLURM_JOBS,
)
from isthmus.assembly import Parts
from isthmus.backends.slurm.login import ClusterHandle
from isthmus.backends.slurm.records import Snapshot
from isthmus.errors import ApiUnavailableError, SshError
from isthmus.probing.client import EngineAnswer
from isthmus.probing.prober import Prober
from isthmus.probing.verdict import ProbeTarget
from isthmus.settings import Settings
from isthmus.signals import EndLimit
from isthmus.ssh.options import Forward, Identity, Target
from isthmus.tunnels import application as tunnels
from isthmus.tunnels.links import Links
from isthmus.tunnels.settings import TunnelSettings
from isthmus.tunnels.supervisor import Supervisor
from tests.memoryapi import MemorySession, connection_info
from tests.simulation import manifests
from tests.simulation.apiedge import ApiEdge, Weather
from tests.simulation.apiserver import ApiSimulator, Json
from tests.unit.tunnels.test_tunnel_rules import slurm_job
from tests.virtualtime import run_virtual

SYSTEM = "isthmus-system"
CLUSTER = ClusterReference(namespace=SYSTEM, name="hpc")
WORKER = ProbeTarget(
    url_base="http://10.0.0.1:41000",
    model="llama",
    attempt="x7k2qp",
    engine="vllm",
    interval=5.0,
    timeout=3.0,
    success_threshold=1,
    failure_threshold=3,
)
TUNNELS = TunnelSettings(address="10.20.0.1", host_id="a", status_port=None)


class Lab:
    """What both processes reach outside with; seconds are those of the loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.api = ApiSimulator(clock=self.loop.time)
        self.session = MemorySession(self.api)
        self.answer_seconds = 0.0  # of the API server, but for the Lease
        self.lists = True
        self.writes: list[tuple[float, str]] = []
        self.api.listeners.append(self._changed)
        self.kills: list[float] = []

    def _changed(self, resource: Any, event: str, obj: Json, by: str) -> None:
        if by != "user":
            holder = dig(obj, "spec", "holderIdentity") if resource is LEASES else ""
            self.writes.append((self.loop.time(), f"{resource.kind} {holder}".strip()))

    def wrote(self, what: str) -> list[float]:
        return [at for at, text in self.writes if text == what]

    async def connect(self, connection: object, *, timeout: float) -> ApiEdge:
        return Edge(self, elects=timeout < 5)

    @contextlib.contextmanager
    def edges(self) -> Iterator[None]:
        """What both have in common; a KILL is noted and not sent."""
        monotonic = SimpleNamespace(monotonic=self.loop.time)
        ours = self.api_client()

        async def load(connection: object) -> None:
            """There is no file to read."""

        async def login(connection: object) -> object:
            return connection_info(self.session)

        with contextlib.ExitStack() as stack:
            for where, value in {
                "isthmus.application.KubernetesApiServer": ours,
                "isthmus.tunnels.application.KubernetesApiServer": ours,
                "isthmus.tunnels.application.time": monotonic,
                "isthmus.apiserver.connection.Connection.load": load,
                "isthmus.watch.operator.credentials": login,
                "signal.pthread_kill": lambda *_: self.kills.append(self.loop.time()),
            }.items():
                stack.enter_context(patch(where, value))
            yield

    def api_client(self) -> Any:
        return SimpleNamespace(connect=self.connect)


class Edge(ApiEdge):
    """The way to the API server, which takes as long as the test says."""

    def __init__(self, lab: Lab, *, elects: bool) -> None:
        super().__init__(lab.api, weather=Weather, timeout=60, random=Random(1), by="us")
        self._lab, self._elects = lab, elects

    async def _call(self, do: Callable[[], Any], *, writes: bool) -> Any:
        await asyncio.sleep(0 if self._elects else self._lab.answer_seconds)
        if not self._lab.lists and not writes and not self._elects:
            raise ApiUnavailableError("as the test says")
        return do()


def told_to_end(task: "asyncio.Task[None]") -> float:
    """As the kubelet does it; returns when."""
    assert not task.done(), task
    os.kill(os.getpid(), signal.SIGTERM)
    return asyncio.get_running_loop().time()


def nothing_left() -> bool:
    return asyncio.all_tasks() == {asyncio.current_task()}


# ---- the operator


class Engines:
    """In place of `HttpProbeClient`."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    async def __aenter__(self) -> "Engines":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def get(self, url: str, *, headers: object) -> EngineAnswer:
        self.asked.append(asyncio.get_running_loop().time())
        return EngineAnswer(200, b'{"data": [{"id": "llama"}, {"id": "isthmus-attempt-x7k2qp"}]}')


class Slurm:
    """One cluster in which nothing happens."""

    def __init__(self) -> None:
        self.looks: list[float] = []

    def handle(self) -> ClusterHandle:
        there: Any = self
        return ClusterHandle(there, there, warning=lambda: "", close=self.close)

    async def snapshot(self) -> Snapshot:
        now = asyncio.get_running_loop().time()
        self.looks.append(now)
        return Snapshot((), MappingProxyType({}), now, now, 0)

    async def version(self) -> str:
        return "24.11.5"

    async def prepare(self, *, work_directory: str) -> None:
        pass

    async def close(self) -> None:
        pass


class OperatorLab(Lab):
    """`isthmus run` with a SLURM cluster that is polled and a worker that is probed."""

    def __init__(self) -> None:
        super().__init__()
        self.engines, self.slurm = Engines(), Slurm()
        self.task: asyncio.Task[None]

    def start(self, **settings: Any) -> "asyncio.Task[None]":
        settings = {"identity": "one", "liveness_port": None, "local_login": True} | settings
        self.task = asyncio.create_task(application.run(Settings(**settings)))
        return self.task

    def add_cluster(self) -> None:
        wanted = manifests.slurm_cluster(namespace=SYSTEM, teams=["team-a"], random=Random(1))
        self.api.create(SLURM_CLUSTERS, wanted, by="user")

    def assemble(self, settings: Settings, **arguments: Any) -> Parts:
        parts = assembly.assemble(settings, **arguments)
        watch: Callable[..., None] = Prober.watch
        # As by a pass: begun when kopf already runs.
        self.loop.call_later(1, watch, parts.prober, Key("ModelDeployment", "team-a", "j"), WORKER)
        return parts

    @contextlib.contextmanager
    def edges(self) -> Iterator[None]:
        elector = functools.partial(LeaderElector, clock=self.loop.time, random=Random(1))
        with (
            super().edges(),
            patch.object(application, "assemble", self.assemble),
            patch.object(application, "LeaderElector", elector),
            patch.object(application, "HttpProbeClient", lambda: self.engines),
            patch.object(assembly, "reach", lambda access, secrets: self.slurm.handle()),
        ):
            yield


@contextlib.asynccontextmanager
async def operator() -> AsyncIterator[OperatorLab]:
    lab = OperatorLab()
    with lab.edges():
        yield lab
        assert nothing_left(), asyncio.all_tasks()
        assert not lab.kills


class TestOperator:
    def test_with_a_prober_and_a_poller_it_ends_at_once(self) -> None:
        async def main() -> None:
            async with operator() as lab:
                lab.add_cluster()
                task = lab.start()
                await asyncio.sleep(200)
                assert len(lab.slurm.looks) > 3
                assert len(lab.engines.asked) > 20
                told = told_to_end(task)
                await task
                assert lab.loop.time() - told == 0
                assert lab.wrote("Lease")[-1:] == [told], "the Lease was given back"

        run_virtual(main)

    def test_a_pass_under_way_ends_first_and_then_the_lease_is_given_back(self) -> None:
        async def main() -> None:
            async with operator() as lab:
                task = lab.start(api_timeout=60.0)
                await asyncio.sleep(100)
                lab.answer_seconds = 7.0
                lab.add_cluster()
                await asyncio.sleep(1)
                assert lab.writes[-1][1] == "Lease one", "its pass is under way"
                told_to_end(task)
                await task
                *_, before, last = [entry for entry in lab.writes if entry[1] != "Lease one"]
                assert before[1] == "SlurmCluster", "the pass was not cut"
                assert last == (before[0], "Lease")
                assert lab.loop.time() == before[0]

        run_virtual(main)

    def test_no_pass_begins_after_it(self) -> None:
        async def main() -> None:
            async with operator() as lab:
                task = lab.start(api_timeout=60.0)
                await asyncio.sleep(100)
                lab.answer_seconds = 7.0
                lab.add_cluster()
                await asyncio.sleep(1)
                told_to_end(task)
                await asyncio.sleep(1)
                late = manifests.slurm_cluster(namespace=SYSTEM, teams=["t"], random=Random(1))
                late["metadata"]["name"] = "late"
                lab.api.create(SLURM_CLUSTERS, late, by="user")
                await task
                found = lab.api.get(SLURM_CLUSTERS, SYSTEM, "late")
                assert found is not None
                assert "status" not in found

        run_virtual(main)

    def test_a_standby_ends_at_once_and_leaves_the_lease_alone(self) -> None:
        async def main() -> None:
            async with operator() as lab:
                spec = {"holderIdentity": "other", "leaseDurationSeconds": 3600}
                lease = {"metadata": {"namespace": SYSTEM, "name": "isthmus"}, "spec": spec}
                lab.api.create(LEASES, lease, by="user")
                task = lab.start()
                await asyncio.sleep(60)
                told = told_to_end(task)
                await task
                assert lab.loop.time() - told == 0
                assert not lab.writes

        run_virtual(main)

    def test_one_that_waits_for_its_first_list_gives_the_lease_back(self) -> None:
        async def main() -> None:
            async with operator() as lab:
                lab.lists = False
                task = lab.start()
                await asyncio.sleep(20)
                assert lab.wrote("Lease one")
                told = told_to_end(task)
                await task
                assert lab.loop.time() - told == 0
                assert lab.wrote("Lease") == [told]

        run_virtual(main)

    def test_a_watch_that_fails_for_good_ends_it_without_a_wait(self) -> None:
        async def main() -> None:
            async with operator() as lab:
                task = lab.start()
                await asyncio.sleep(100)
                failed = lab.loop.time()
                lab.session.refuse(404)
                with pytest.raises(Exception, match="as the test says"):
                    await task
                assert lab.loop.time() - failed < 1, "kopf tries a broken stream again after 0.1 s"
                assert lab.wrote("Lease")

        run_virtual(main)


# ---- the supervisor


class Master:
    """One ssh connection to a login host that is always there."""

    forbidden = 0

    def __init__(self) -> None:
        self.forwards: set[Forward] = set()
        self.ended: asyncio.Future[SshError] = asyncio.get_running_loop().create_future()
        self.closed = False

    async def start(self, *, timeout: float) -> None:
        pass

    async def forward(self, forward: Forward) -> None:
        self.forwards.add(forward)

    async def cancel(self, forward: Forward) -> None:
        self.forwards.remove(forward)

    async def wait(self) -> SshError:
        return await asyncio.shield(self.ended)

    async def close(self) -> None:
        self.closed = True


class Folder:
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


class Credentials:
    def __init__(self, *_: object, **__: object) -> None:
        pass

    async def read(self) -> SimpleNamespace:
        return SimpleNamespace(key=b"", known_hosts=b"")


class TunnelLab(Lab):
    """`isthmus tunnels` before a login host."""

    def __init__(self) -> None:
        super().__init__()
        self.masters: list[Master] = []
        self.asked: list[float] = []

    def start(self) -> "asyncio.Task[None]":
        return asyncio.create_task(tunnels.run(TUNNELS))

    def add_job(self) -> None:
        wanted = manifests.slurm_cluster(namespace=SYSTEM, teams=["team-a"], random=Random(1))
        ssh = {
            "hosts": ["login1"],
            "user": "svc",
            "keySecretRef": {"name": "ssh", "key": "ssh-privatekey"},
            "knownHostsRef": {"name": "ssh", "key": "known_hosts"},
        }
        wanted["spec"] |= {"login": {"ssh": ssh}, "network": {"mode": "Tunnel"}}
        self.api.create(SLURM_CLUSTERS, wanted, by="user")
        owner = {"metadata": {"namespace": "team-a", "name": "llama"}, "spec": {}}
        owner = self.api.create(MODEL_DEPLOYMENTS, owner, by="user")
        job: Object = slurm_job(owner_uid=owner["metadata"]["uid"])
        made = self.api.create(SLURM_JOBS, job, by="user")
        patch = {"status": job["status"], "metadata": {"uid": made["metadata"]["uid"]}}
        place = made["metadata"]["namespace"], made["metadata"]["name"]
        self.api.patch(SLURM_JOBS, *place, patch=patch, subresource="status", by="user")

    def slice(self) -> Json | None:
        return next(iter(self.api.all(ENDPOINT_SLICES)), None)

    def connect_ssh(self, target: Target, way: object, control_path: Path) -> Master:
        self.masters.append(Master())
        return self.masters[-1]

    @contextlib.asynccontextmanager
    async def stream(self, method: str, url: str, **_: object) -> AsyncIterator[None]:
        """In place of that of an `httpx.AsyncClient`."""
        self.asked.append(self.loop.time())
        if not any(master.forwards for master in self.masters if not master.closed):
            raise httpx.ConnectError("nobody listens")
        yield

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator["TunnelLab"]:
        yield self

    @contextlib.contextmanager
    def edges(self) -> Iterator[None]:
        with (
            super().edges(),
            patch.object(tunnels, "check_client", self.client),
            patch.object(tunnels, "Links", functools.partial(Links, connect=self.connect_ssh)),
            patch.object(
                tunnels, "Supervisor", functools.partial(Supervisor, connections=lambda *_: 0)
            ),
            patch("isthmus.tunnels.links.PrivateFolder", Folder),
            patch("isthmus.tunnels.links.SecretCredentials", Credentials),
        ):
            yield


@contextlib.asynccontextmanager
async def supervisor() -> AsyncIterator[TunnelLab]:
    lab = TunnelLab()
    with lab.edges():
        yield lab
        assert nothing_left(), asyncio.all_tasks()
        assert not lab.kills


class TestSupervisor:
    def test_one_that_holds_nothing_ends_at_once(self) -> None:
        async def main() -> None:
            async with supervisor() as lab:
                task = lab.start()
                await asyncio.sleep(60)
                told = told_to_end(task)
                await task
                assert lab.loop.time() - told == 0
                assert not lab.api.all(LEASES), "its heartbeat is gone"

        run_virtual(main)

    def test_one_that_waits_for_its_first_list_ends_at_once(self) -> None:
        async def main() -> None:
            async with supervisor() as lab:
                lab.lists = False
                task = lab.start()
                await asyncio.sleep(20)
                told = told_to_end(task)
                await task
                assert lab.loop.time() - told == 0

        run_virtual(main)

    def test_with_forwards_only_its_own_times_are_waited_for(self) -> None:
        async def main() -> None:
            async with supervisor() as lab:
                lab.add_job()
                task = lab.start()
                await asyncio.sleep(60)
                assert dig(lab.slice(), "endpoints", 0, "conditions", "ready") is True
                assert len(lab.asked) > 5
                told = told_to_end(task)
                await task
                times = TUNNELS.successor_wait + TUNNELS.leave_floor
                assert times <= lab.loop.time() - told < times + 1, "it looks now and then"
                assert lab.slice() is None
                assert [master.closed for master in lab.masters] == [True]

        run_virtual(main)

    def test_it_outlives_its_watch_and_cuts_nothing(self) -> None:
        """An outage of the API server that is longer than kopf has patience."""

        async def main() -> None:
            async with supervisor() as lab:
                lab.add_job()
                task = lab.start()
                await asyncio.sleep(60)
                (master,) = lab.masters
                # Of requests that fail together kopf looks at one, and asyncio tells of the others.
                lab.loop.set_exception_handler(lambda *_: None)
                lab.session.refuse(500)
                await asyncio.sleep(600)
                assert not task.done()
                assert not master.closed, "a stream through it was cut"
                assert lab.loop.time() - lab.asked[-1] < 60, "it still looks at its forward"
                lab.session.status = 200
                await asyncio.sleep(120)
                assert lab.session.streams, "it watches again"
                lab.api.delete(SLURM_JOBS, "team-a", "j", by="user")
                await asyncio.sleep(60)
                assert lab.slice() is None, "what it is told then is heard"
                told = told_to_end(task)
                await task
                assert lab.loop.time() == told

        run_virtual(main)


class TestEndThatHangs:
    def test_it_is_killed_and_says_before_what_it_waits_for(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def main() -> None:
            kills: list[tuple[int, int]] = []
            with patch("os.kill", lambda *what: kills.append(what)):
                limit = EndLimit(30)
                limit.begin()
                task = asyncio.create_task(asyncio.Event().wait(), name="a pass that never ends")
                await asyncio.sleep(29)
                assert not kills
                assert "a pass that never ends" in caplog.text
                await asyncio.sleep(2)
                assert kills == [(os.getpid(), signal.SIGKILL)]
                task.cancel()

        run_virtual(main)

    def test_one_that_ends_is_left_alone(self) -> None:
        async def main() -> None:
            with patch("os.kill", lambda *what: pytest.fail("it had ended")):
                limit = EndLimit(30)
                limit.begin()
                limit.over()
                await asyncio.sleep(100)

        run_virtual(main)
