"""Ports of forwards: one each, kept, and left to cool."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.apiserver.resources import SLURM_JOBS
from isthmus.reconcile.forward_ports import ForwardPorts
from isthmus.reconcile.queue import Key
from isthmus.reconcile.store import Store

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
