"""Ports of forwards: one each, kept, and left to cool."""

from __future__ import annotations

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


class TestTwoThatClaimOne:
    """A status was restored, or somebody wrote it: the one that is reached by the port keeps it."""

    def seen(self, store: Store, ports: ForwardPorts, name: str) -> Network:
        raw = store.get(SLURM_JOBS, "team-a", name)
        assert raw is not None
        job = SlurmJob.model_validate(raw)
        return observe_network(
            raw, job=job, cluster=None, service="llama", store=store, ports=ports
        )

    def test_the_other_gets_another(self) -> None:
        store = Store(watched=[SLURM_JOBS, ENDPOINT_SLICES])
        ports = ForwardPorts(store=store, first=20000, last=20001, hold=60.0, clock=Clock())
        for name in ("one", "two"):
            store.put(SLURM_JOBS, claiming(name))
        self.seen(store, ports, "one")
        assert self.seen(store, ports, "two").port_lost  # by its name
        assert self.seen(store, ports, "two").free_port == 20001
        assert not self.seen(store, ports, "one").port_lost
        held = Published(
            namespace="team-a",
            slurm_job="two",
            uid=uid(store.get(SLURM_JOBS, "team-a", "two") or {}),
            deployment="llama",
            service="llama",
            tunnel=TunnelSlice(host="a", address="10.9.0.1", port=20000, ready=True, up=True),
        )
        published: dict[str, Any] = {**tunnel_slice(held)}
        published["metadata"] |= {"uid": "slice", "resourceVersion": "7"}
        store.put(ENDPOINT_SLICES, published)
        ports = ForwardPorts(store=store, first=20000, last=20001, hold=60.0, clock=Clock())
        self.seen(store, ports, "two")
        assert self.seen(store, ports, "one").port_lost  # whatever its name
        assert not self.seen(store, ports, "two").port_lost

    def test_a_job_that_calls_keeps_what_it_was_told(self) -> None:
        store = Store(watched=[SLURM_JOBS, ENDPOINT_SLICES])
        ports = ForwardPorts(store=store, first=20000, last=20001, hold=60.0, clock=Clock())
        for name in ("one", "two"):
            store.put(SLURM_JOBS, claiming(name, mode="Reverse"))
            assert not self.seen(store, ports, name).port_lost
