"""Ports of forwards: one each, kept, and left to cool."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import pytest

from isthmus.api.slurmjob import ForwardStatus, SlurmJob
from isthmus.apiserver.key import Key
from isthmus.apiserver.objects import uid
from isthmus.apiserver.resources import ENDPOINT_SLICES, SLURM_JOBS
from isthmus.apiserver.store import Store
from isthmus.routing.tunnel_slice import TunnelSlice
from isthmus.routing.tunnel_slices import Published, tunnel_slice
from isthmus.slurmjob.forward_ports import ForwardPorts, observe_network
from isthmus.slurmjob.observation import Network
from tests.unit.tunnels.test_tunnel_rules import slurm_job

A, B, C = (Key("SlurmJob", "team-a", name) for name in "abc")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store() -> Store:
    return Store(watched=[SLURM_JOBS])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ports(store: Store, clock: Clock) -> ForwardPorts:
    return ForwardPorts(store=store, first=20000, last=20001, hold=60.0, clock=clock)


def assigned(name: str, port: int) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "team-a", "uid": name, "resourceVersion": "1"},
        "status": {"forward": {"port": port}},
    }


def test_two_passes_side_by_side_get_two_ports(ports: ForwardPorts) -> None:
    """The first one's is not written yet when the second one asks."""
    assert {ports.offer(A, attempt="a"), ports.offer(B, attempt="a")} == {20000, 20001}
    assert ports.offer(C, attempt="c") is None


def test_the_same_is_offered_again(ports: ForwardPorts) -> None:
    assert ports.offer(A, attempt="a") == ports.offer(A, attempt="a")


def test_what_was_assigned_before_a_restart_is_taken(store: Store, ports: ForwardPorts) -> None:
    store.put(SLURM_JOBS, assigned("other", 20000))
    assert ports.offer(A, attempt="a") == 20001
    assert ports.offer(B, attempt="b") is None


def test_what_stands_in_slices_is_taken(ports: ForwardPorts) -> None:
    assert ports.offer(A, attempt="a", used=[20000]) == 20001


def test_a_port_cools_before_it_is_used_again(ports: ForwardPorts, clock: Clock) -> None:
    ports.keep(A, 20000)
    ports.keep(B, 20001)
    ports.release(A)
    clock.now = 59.0
    assert ports.offer(C, attempt="c") is None
    clock.now = 61.0
    assert ports.offer(C, attempt="c") == 20000


def claiming(name: str, *, mode: Literal["Tunnel", "Reverse"] = "Tunnel") -> dict[str, Any]:
    made = slurm_job(name, forward=ForwardStatus(mode=mode, port=20000, in_traffic=True))
    made["metadata"]["resourceVersion"] = "1"
    return made


def published(name: str, *, port: int, ready: bool = False, up: bool = False) -> dict[str, Any]:
    """The slice of a worker's forward."""
    held = Published(
        namespace="team-a",
        slurm_job=name,
        uid=uid(claiming(name)),
        deployment="llama",
        service="llama",
        tunnel=TunnelSlice(host="a", address="10.9.0.1", port=port, ready=ready, up=up),
    )
    made: dict[str, Any] = {**tunnel_slice(held)}
    made["metadata"] |= {"uid": f"slice of {name}", "resourceVersion": "7"}
    return made


class TestTwoThatClaimOne:
    """A status was restored, or somebody wrote it: the one that had the port keeps it."""

    def ports(self, *slices: dict[str, Any], calls: Collection[str] = ()) -> None:
        self.store = Store(watched=[SLURM_JOBS, ENDPOINT_SLICES])
        for name in ("one", "two"):
            mode: Literal["Tunnel", "Reverse"] = "Reverse" if name in calls else "Tunnel"
            self.store.put(SLURM_JOBS, claiming(name, mode=mode))
        for each in slices:
            self.store.put(ENDPOINT_SLICES, each)
        self.restarted()

    def restarted(self) -> None:
        """Nothing is remembered."""
        self.known = ForwardPorts(
            store=self.store, first=20000, last=20999, hold=60.0, clock=Clock()
        )

    def seen(self, name: str) -> Network:
        raw = self.store.get(SLURM_JOBS, "team-a", name)
        assert raw is not None
        job = SlurmJob.model_validate(raw)
        return observe_network(
            raw, job=job, cluster=None, service="llama", store=self.store, ports=self.known
        )

    def loses(self, name: str, *, to: int | None = None) -> None:
        """Whoever is looked at first, the other one keeps it, and so again after a restart.

        `to`: the port that it gets, which is the one that it had.
        """
        (other,) = {"one", "two"} - {name}
        for order in ((name, other), (other, name)):
            self.restarted()
            self.seen(order[0])
            self.seen(order[1])
            assert not self.seen(other).port_lost
            lost = self.seen(name)
            assert lost.port_lost
            assert lost.free_port not in (None, 20000)
            assert to is None or lost.free_port == to

    def test_without_any_slice_it_is_the_first_one_that_was_seen(self) -> None:
        self.ports()
        for first, other in (("one", "two"), ("two", "one")):
            self.restarted()
            assert not self.seen(first).port_lost
            assert self.seen(other).port_lost
            assert not self.seen(first).port_lost

    def test_the_one_that_is_reached_by_it_keeps_it_whatever_its_name(self) -> None:
        self.ports(published("two", port=20000, ready=True, up=True))
        self.loses("one")

    def test_seed_9919_the_one_that_had_it_keeps_it_while_no_way_works(self) -> None:
        """All login hosts are away: its slice stays in rotation as the last one of its Service.

        The claimant's name comes first, and its forward is no more up than the other one's.
        """
        self.ports(published("two", port=20000, ready=True), published("one", port=20001))
        self.loses("one", to=20001)

    def test_one_out_of_rotation_had_it_all_the_same(self) -> None:
        self.ports(published("two", port=20000), published("one", port=20001, ready=True, up=True))
        self.loses("one")

    def test_one_with_a_slice_at_another_port_came_later(self) -> None:
        self.ports(published("one", port=20001, ready=True, up=True))
        self.loses("one", to=20001)

    def test_a_job_that_calls_keeps_what_it_was_told(self) -> None:
        self.ports(calls=("one", "two"))
        for name in ("one", "two"):
            assert not self.seen(name).port_lost

    def test_for_a_job_that_calls_another_one_moves(self) -> None:
        """It could not, and two would stay at one port."""
        self.ports(published("one", port=20000, ready=True, up=True), calls=("two",))
        self.loses("one")
