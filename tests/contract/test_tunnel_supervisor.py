"""The supervisor over a fake API server and fake links: what it publishes, and how it ends."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from isthmus.api.slurmjob import ForwardStatus
from isthmus.apiserver.objects import Object, ObjectList, dig, labels, name, namespace
from isthmus.apiserver.resources import (
    ENDPOINT_SLICES,
    LEASES,
    MODEL_DEPLOYMENTS,
    SLURM_CLUSTERS,
    SLURM_JOBS,
)
from isthmus.apiserver.store import Store
from isthmus.errors import ApiNotFoundError, ApiUnavailableError
from isthmus.routing.tunnel_slices import tunnel_of
from isthmus.ssh.options import Forward, Target
from isthmus.tunnels.admission import Admission
from isthmus.tunnels.heartbeat import Heartbeat
from isthmus.tunnels.publisher import Publisher
from isthmus.tunnels.rules import Outcome
from isthmus.tunnels.supervisor import Identity, Parts, Supervisor, Times
from tests.unit.tunnels.test_tunnel_rules import slurm_job
from tests.wrong_inputs import SSH_LOGIN

A, C, S = Outcome.ANSWERED, Outcome.CLOSED, Outcome.SILENT


class FakeApi:
    """Objects by place; every answer goes into the store."""

    def __init__(self, store: Store) -> None:
        self.store, self.down = store, False
        self.objects: dict[Any, dict[str, Any]] = {}
        self.versions = itertools.count(10)
        self.writes = 0

    async def apply(self, resource: Any, obj: Object, *, dry_run: bool = False) -> Object:
        self._require()
        made: dict[str, Any] = copy.deepcopy(dict(obj))
        version = next(self.versions)
        made["metadata"] |= {"resourceVersion": str(version), "uid": f"uid-{name(obj)}"}
        self.objects[resource, namespace(obj), name(obj)] = made
        self.writes += resource is ENDPOINT_SLICES
        if resource is ENDPOINT_SLICES:
            self.store.put(resource, made)
        return made

    async def delete(
        self, resource: Any, *, namespace: str, name: str, uid: str, **_: object
    ) -> Object | None:
        self._require()
        if self.objects.pop((resource, namespace, name), None) is None:
            raise ApiNotFoundError("gone")
        self.writes += resource is ENDPOINT_SLICES
        self.store.remove(resource, namespace, name, uid)
        return None

    async def list(self, resource: Any, **_: object) -> ObjectList:
        self._require()
        found = [obj for (kind, *_), obj in self.objects.items() if kind is resource]
        return ObjectList(items=tuple(found), resource_version=1)

    def _require(self) -> None:
        if self.down:
            raise ApiUnavailableError("down")


class FakeLink:
    """A link whose connection is as the test says."""

    def __init__(self) -> None:
        self.established: dict[str, Forward] = {}
        self.problems: dict[str, str] = {}
        self.problem = "connecting"
        self.through: Target | None = None
        self.connections = 1
        self.connected_at = 0.0
        self.forbids = False
        self.restarts = 0

    def restart(self) -> None:
        self.restarts += 1


class FakeLinks:
    def __init__(self) -> None:
        self.link = FakeLink()
        self.wanted: dict[str, Forward] = {}
        self.up = True

    def set(self, wanted: Mapping[Any, Mapping[str, Forward]], *, clusters: object) -> None:
        self.wanted = {k: f for some in wanted.values() for k, f in some.items()}
        self.link.established = dict(self.wanted) if self.up else {}
        self.link.through = Target(host="login1", port=22, user="svc") if self.up else None

    def get(self, key: object) -> FakeLink:
        return self.link

    def problem(self, key: object) -> str:
        return "none"

    def connected(self) -> int:
        return int(self.up)

    async def close(self) -> None:
        self.up = False


class FakeChecks:
    def __init__(self, tell: Callable[[str, Outcome], None]) -> None:
        self.tell, self.urls = tell, dict[str, str]()

    def watch(self, urls: dict[str, str]) -> None:
        self.urls = dict(urls)

    async def close(self) -> None:
        self.urls = {}


DEPLOYMENT = {
    "metadata": {"name": "llama", "namespace": "team-a", "uid": "uid-llama", "resourceVersion": "1"}
}
CLUSTER: dict[str, Any] = {
    "metadata": {
        "name": "hpc",
        "namespace": "isthmus-system",
        "uid": "uid-hpc",
        "resourceVersion": "1",
    },
    "spec": {
        "login": {"ssh": SSH_LOGIN},
        "files": {"workDirectory": "/scratch"},
        "access": {"allowedNamespaces": {"names": ["team-a"]}},
    },
}


def _store() -> Store:
    store = Store(watched=[MODEL_DEPLOYMENTS, SLURM_JOBS, SLURM_CLUSTERS])
    store.put(MODEL_DEPLOYMENTS, DEPLOYMENT)
    store.put(SLURM_CLUSTERS, CLUSTER)
    return store


class Lab:
    """One supervisor and all that it touches."""

    def __init__(self, host: str = "a", *, shared: Lab | None = None) -> None:
        self.store = shared.store if shared else _store()
        self.api = shared.api if shared else FakeApi(self.store)
        self.links, self.now, self.connections = FakeLinks(), 0.0, 0
        self.checks: list[FakeChecks] = []
        api: Any = self.api
        self.heartbeat = Heartbeat(
            api=api,
            namespace="isthmus-system",
            host=host,
            duration=15.0,
            clock=lambda: self.now,
        )
        links: Any = self.links
        self.publisher = Publisher(api=api, store=self.store, host=host)
        self.supervisor = Supervisor(
            store=self.store,
            parts=Parts(
                publisher=self.publisher,
                heartbeat=self.heartbeat,
                links=links,
                checks=self._checks,
                bastion=None,
                admission=Admission(store=self.store, first=20000, last=24999),
            ),
            identity=Identity(host=host, address="10.9.0.1"),
            times=Times(successor_wait=60.0, leave_floor=3.0, drain_budget=600.0),
            clock=lambda: self.now,
            connections=lambda address, ports: self.connections,
            sleep=self._sleep,
        )

    def _checks(self, tell: Callable[[str, Outcome], None]) -> Any:
        self.checks.append(FakeChecks(tell))
        return self.checks[-1]

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    def job(self, job: str = "j", *, port: int = 20001, **status: Any) -> str:
        forward = ForwardStatus(
            mode="Tunnel",
            port=port,
            in_traffic=status.pop("in_traffic", True),
            service=status.pop("service", "llama"),
        )
        made = slurm_job(job, forward=forward, **status)
        made["metadata"]["resourceVersion"] = str(next(self.api.versions))
        self.store.put(SLURM_JOBS, made)
        return f"uid-{job}"

    async def told(self, *outcomes: Outcome, key: str = "uid-j") -> None:
        """A round, then outcomes of requests through a forward, then a round."""
        await self.supervisor.round()
        for outcome in outcomes:
            self.checks[-1].tell(key, outcome)
        await self.supervisor.round()

    def slice(self, job: str = "j", host: str = "a") -> Any:
        obj = self.store.get(ENDPOINT_SLICES, "team-a", f"{job}-{host}")
        return None if obj is None else tunnel_of(obj)


@pytest.fixture
async def lab() -> Lab:
    return Lab()


async def test_ready_only_once_it_answers(lab: Lab) -> None:
    lab.job()
    await lab.supervisor.round()
    assert lab.checks[-1].urls == {"uid-j": "http://10.9.0.1:20001"}
    assert (lab.slice().ready, lab.slice().up) == (False, False)
    await lab.told(A)
    assert (lab.slice().ready, lab.slice().up) == (True, True)
    assert "svc@login1" in lab.slice().message


async def test_it_belongs_to_its_job_and_service(lab: Lab) -> None:
    lab.job(service="llama-workers")
    await lab.told(A)
    obj = lab.store.get(ENDPOINT_SLICES, "team-a", "j-a")
    assert obj is not None
    assert labels(obj)["kubernetes.io/service-name"] == "llama-workers"
    assert labels(obj)["isthmus.dev/tunnel-host"] == "a"
    assert dig(obj, "metadata", "ownerReferences", 0, "uid") == "uid-j"


async def test_a_second_round_writes_nothing(lab: Lab) -> None:
    lab.job()
    await lab.told(A)
    before = lab.api.writes
    await lab.told(A)
    assert lab.api.writes == before


async def test_out_of_traffic_at_once_and_held_until_the_end(lab: Lab) -> None:
    lab.job()
    await lab.told(A)
    lab.job(in_traffic=False)
    await lab.supervisor.round()
    assert not lab.slice().ready
    assert "uid-j" in lab.links.wanted
    lab.job(phase="Finished")
    await lab.supervisor.round()
    assert lab.slice() is None
    assert not lab.links.wanted


async def test_a_lost_connection_is_said_and_empties_no_service(lab: Lab) -> None:
    lab.job()
    await lab.told(A)
    lab.links.up, lab.links.link.problem = False, "login1 refuses"
    await lab.supervisor.round()
    assert (lab.slice().up, lab.slice().ready) == (False, True)
    assert lab.slice().message == "login1 refuses"


async def test_it_leaves_a_service_that_others_serve(lab: Lab) -> None:
    pod = {
        "metadata": {
            "name": "pods",
            "namespace": "team-a",
            "resourceVersion": "5",
            "uid": "p",
            "labels": {"kubernetes.io/service-name": "llama"},
        },
        "endpoints": [{"addresses": ["10.42.0.7"], "conditions": {"ready": True}}],
    }
    lab.store.put(ENDPOINT_SLICES, pod)
    lab.job()
    await lab.told(A)
    lab.links.up = False
    await lab.supervisor.round()
    assert not lab.slice().ready


async def test_a_half_dead_connection_is_replaced_once(lab: Lab) -> None:
    lab.job()
    await lab.told(A, S, S)
    assert lab.links.link.restarts == 1
    await lab.told(S, S)
    assert lab.links.link.restarts == 1  # nothing has answered through the new one yet


async def test_f8_forwarding_that_is_forbidden_is_no_way_that_works(lab: Lab) -> None:
    lab.job(in_traffic=False)
    lab.links.link.forbids = True
    await lab.told(C)
    assert not lab.slice().up
    assert "network.mode: Reverse" in lab.slice().message
    assert lab.links.link.restarts == 0
    lab.now += 61.0
    await lab.supervisor.round()
    assert lab.links.link.restarts == 1, "it would never notice that it is allowed"
    await lab.told(A)
    assert lab.slice().up
    await lab.told(C)
    assert lab.slice().up, "an engine that has answered and ends is no matter of the way"


async def test_f8_an_engine_that_does_not_listen_is_no_matter_of_the_way(lab: Lab) -> None:
    lab.job(in_traffic=False)
    await lab.told(C)
    assert lab.slice().up
    assert "does not listen" in lab.slice().message


async def test_while_the_api_server_is_away_everything_is_held(lab: Lab) -> None:
    lab.job()
    await lab.told(A)
    lab.api.down = True
    lab.job("k", port=20002)
    with pytest.raises(ApiUnavailableError):
        await lab.supervisor.round()
    assert set(lab.links.wanted) == {"uid-j", "uid-k"}
    lab.api.down = False
    await lab.supervisor.round()
    assert lab.slice("k") is not None


async def test_a_changed_port_is_ready_only_once_it_answers(lab: Lab) -> None:
    """The forward of the old one is still there for a moment, and says nothing of the new one."""
    lab.job()
    await lab.told(A)
    before = lab.links.link.established
    lab.links.set = lambda wanted, **_: None  # type: ignore[method-assign]  # a slow link
    lab.job(port=20002)
    await lab.supervisor.round()
    assert lab.links.link.established == before
    assert (lab.slice().port, lab.slice().ready) == (20002, False)


class TestEnd:
    async def test_not_before_a_successor_holds_the_same(self) -> None:
        old = Lab("a")
        old.job()
        await old.told(A)
        leaving = asyncio.create_task(old.supervisor.leave())
        while old.now < 10.0:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert not leaving.done()
        new = Lab("b", shared=old)
        await new.told(A)
        await leaving
        assert old.now < 60.0
        await old.supervisor.round()
        assert not old.slice(host="a").ready
        assert old.slice(host="b").ready
        await old.supervisor.close()
        assert old.slice(host="a") is None

    async def test_open_connections_are_waited_for(self, lab: Lab) -> None:
        lab.job()
        await lab.told(A)
        lab.connections = 3
        leaving = asyncio.create_task(lab.supervisor.leave())
        while lab.now < 100.0:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert not leaving.done()
        assert lab.links.up
        lab.connections = 0
        await leaving

    async def test_new_forwards_are_not_taken_on(self, lab: Lab) -> None:
        lab.job()
        await lab.told(A)
        leaving = asyncio.create_task(lab.supervisor.leave())
        await asyncio.sleep(0)
        lab.job("k", port=20002)
        await lab.supervisor.round()
        assert lab.slice("k") is None
        await leaving


class TestDeadSupervisor:
    async def test_its_slices_go_once_we_hold_the_same(self) -> None:
        dead = Lab("a")
        dead.job()
        await dead.heartbeat.beat()
        await dead.told(A)
        new = Lab("b", shared=dead)
        for _ in range(4):
            await new.heartbeat.beat()
            new.now += 6.0
            await new.supervisor.round()
        assert new.slice(host="a").ready  # we do not hold it ourselves yet
        await new.told(A)
        assert new.slice(host="a") is None
        assert new.slice(host="b").ready
        await new.supervisor.round()
        assert (LEASES, "isthmus-system", "isthmus-tunnels-a") not in new.api.objects

    async def test_one_that_beats_is_left_alone(self) -> None:
        old = Lab("a")
        old.job()
        await old.told(A)
        new = Lab("b", shared=old)
        for _ in range(6):
            await old.heartbeat.beat()
            await new.heartbeat.beat()
            new.now += 6.0
        await new.told(A)
        assert new.slice(host="a") is not None

    async def test_nobody_is_found_dead_over_a_gap_of_ours(self) -> None:
        old = Lab("a")
        old.job()
        await old.heartbeat.beat()
        await old.told(A)
        new = Lab("b", shared=old)
        await new.heartbeat.beat()
        new.now += 1000.0
        await new.heartbeat.beat()
        await new.told(A)
        assert new.slice(host="a") is not None

    async def test_its_slices_of_ended_attempts_go_too(self) -> None:
        """Nobody holds a forward of those, so nobody would ever have taken them away."""
        dead = Lab("a")
        dead.job()
        await dead.heartbeat.beat()
        await dead.told(A)
        dead.job(phase="Failed")
        new = Lab("b", shared=dead)
        for _ in range(4):
            await new.heartbeat.beat()
            new.now += 6.0
            await new.supervisor.round()
        assert new.slice(host="a") is None

    async def test_one_that_leaves_takes_no_successors_slices_away(self) -> None:
        """Its successor has died, and what it holds itself is out of rotation already."""
        old = Lab("a")
        successor = Lab("b", shared=old)
        old.job()
        await successor.heartbeat.beat()
        await old.told(A)
        await successor.told(A)
        leaving = asyncio.create_task(old.supervisor.leave())
        while old.now < 3.0:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await leaving
        for _ in range(4):
            await old.heartbeat.beat()
            old.now += 6.0
            await old.supervisor.round()
        assert not old.slice(host="a").ready
        assert old.slice(host="b").ready

    async def test_one_that_has_just_come_back_is_left_alone(self) -> None:
        """It writes slices before we have read its Lease again."""
        dead = Lab("a")
        dead.job()
        await dead.heartbeat.beat()
        await dead.told(A)
        new = Lab("b", shared=dead)
        for _ in range(4):
            await new.heartbeat.beat()
            new.now += 6.0
            await new.supervisor.round()
        back = Lab("a", shared=dead)
        back.job()
        await back.supervisor.round()
        await back.told(A)
        await new.told(A)
        assert new.slice(host="a") is not None


async def test_two_that_lose_the_same_login_host_do_not_rely_on_each_other() -> None:
    one = Lab("a")
    one.job()
    await one.told(A)
    other = Lab("b", shared=one)
    await other.told(A)
    one.links.up = other.links.up = False
    for lab in (one, other, one, other):
        await lab.supervisor.round()
    assert not one.slice(host="a").up
    assert not one.slice(host="b").up
    assert one.slice(host="a").ready or one.slice(host="b").ready
    other.links.up = True
    await other.told(A)
    await one.supervisor.round()
    assert one.slice(host="b").ready
    assert not one.slice(host="a").ready


async def test_a_restart_takes_nobody_away_whose_status_was_wiped(lab: Lab) -> None:
    lab.job()
    await lab.told(A)
    again = Lab("a", shared=lab)
    wiped = slurm_job()
    del wiped["status"]
    wiped["metadata"]["resourceVersion"] = str(next(lab.api.versions))
    lab.store.put(SLURM_JOBS, wiped)
    await again.told(A)
    assert lab.slice().ready
    (forward,) = again.links.wanted.values()
    assert (forward.port, forward.host, forward.host_port) == (20001, "10.10.0.1", 41000)
