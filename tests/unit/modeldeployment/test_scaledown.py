"""How a Deployment comes to fewer pods without cutting a request."""

from dataclasses import replace
from typing import Any

import pytest

from isthmus.backends.base import Draining, Load, Worker, WorkerGroup
from isthmus.modeldeployment.actions import (
    DeploymentAction,
    DrainPods,
    ReleasePod,
    ReturnPod,
    ScaleDeployment,
    ShortenPod,
)
from isthmus.modeldeployment.policy.scaledown import Steps, steps
from isthmus.rules.drain import DrainTimes
from tests.unit.builders import NOW, group

TIMES = DrainTimes(floor=5.0, budget=300.0)
KEY: Any = {"pool": "k8s", "revision": "new"}


def plan(found: WorkerGroup, *, count: int, times: DrainTimes = TIMES, now: float = NOW) -> Steps:
    return steps(
        found, count=count, order=lambda one: (one.name,), times=times, shutdown=60.0, now=now
    )


def actions(found: WorkerGroup, *, count: int, **changes: Any) -> list[DeploymentAction]:
    return list(plan(found, count=count, **changes).actions)


def names(found: WorkerGroup) -> tuple[str, ...]:
    return tuple(one.name for one in found.workers)


def release(index: int, **changes: Any) -> ReleasePod:
    name = f"k8s-new-{index}"
    made = ReleasePod(name=name, uid=f"uid-{name}", at=NOW, cut=None, budget=300.0)
    return replace(made, **changes)


def returned(index: int) -> ReturnPod:
    return ReturnPod(name=f"k8s-new-{index}", uid=f"uid-k8s-new-{index}")


def test_a_serving_pod_is_taken_out_of_rotation_and_nothing_is_scaled_yet() -> None:
    found = group("ready", "ready", "ready")
    assert actions(found, count=2) == [
        DrainPods(**KEY, count=1, candidates=names(found), since=NOW)
    ]


@pytest.mark.parametrize("late", [Draining(since=NOW + 7200), Draining(NOW - 9, NOW + 7200)])
def test_a_mark_of_the_future_is_made_anew(late: Draining) -> None:
    """The clock was set back: seed 1803."""
    ready, marked = group("ready", "draining", wanted=1).workers
    found = replace(
        group("ready", "draining", wanted=1), workers=(ready, replace(marked, draining=late))
    )
    assert actions(found, count=1) == [returned(1)]


def test_a_pod_that_returns_is_not_scaled_away_in_the_same_step() -> None:
    """The scaling after its release was refused for long: seed 514."""
    (marked,) = group("draining", wanted=1).workers
    released = replace(marked, draining=Draining(since=NOW - 400, released_at=NOW - 300))
    found = replace(group("draining", wanted=1), workers=(released,))
    assert actions(found, count=0) == [returned(0)]


def test_a_marked_pod_is_waited_for() -> None:
    found = group("ready", "draining", wanted=1)
    assert actions(found, count=1) == []
    again = plan(found, count=1).again
    assert again is not None
    assert 0 < again <= 5


def test_a_busy_pod_is_waited_for() -> None:
    assert actions(group("ready", "busy", wanted=1), count=1) == []


def test_an_idle_pod_goes_with_the_scale() -> None:
    found = group("ready", "drained", wanted=1)
    assert actions(found, count=1) == [release(1), ScaleDeployment(**KEY, replicas=1)]


def test_the_budget_ends_the_wait_and_the_cut_is_noted() -> None:
    found = group("ready", "busy", wanted=1)
    short = DrainTimes(floor=5.0, budget=50.0)
    assert actions(found, count=1, times=short) == [
        release(1, cut=3, budget=50.0),
        ScaleDeployment(**KEY, replicas=1),
    ]


def test_a_pod_that_cannot_be_asked_is_left_to_its_own_hook() -> None:
    found = group("ready", "busy", wanted=1)
    dumb = replace(found.workers[1], load=Load(requests=None, silent_for=30.0))
    found = replace(found, workers=(found.workers[0], dumb))
    assert actions(found, count=1) == [release(1), ScaleDeployment(**KEY, replicas=1)]


def test_what_serves_nobody_goes_at_once() -> None:
    found = group("ready", "starting", "crashing")
    assert actions(found, count=1) == [ScaleDeployment(**KEY, replicas=1)]
    assert actions(group("ready", wanted=3), count=1) == [ScaleDeployment(**KEY, replicas=1)]


def test_a_pod_that_is_wanted_again_comes_back_before_new_ones_are_made() -> None:
    found = group("ready", "busy", wanted=1)
    assert actions(found, count=2) == [returned(1)]
    assert actions(found, count=3) == [returned(1), ScaleDeployment(**KEY, replicas=3)]


def test_released_pods_are_neither_counted_nor_asked_back() -> None:
    found = group("ready", "released", wanted=1)
    assert actions(found, count=1) == []
    assert actions(found, count=2) == [ScaleDeployment(**KEY, replicas=2)]


def test_a_released_pod_that_was_not_taken_gets_its_place_back() -> None:
    """The ReplicaSet took one that was not ready instead."""
    found = group("ready", "released", wanted=2)
    assert actions(found, count=2, now=NOW + 20) == [returned(1)]


def leaving(cut: int | None, grace: float) -> WorkerGroup:
    found = group("ready", "released", wanted=1)
    state = Draining(since=NOW - 400, released_at=NOW - 1, cut=cut, grace=grace)
    return replace(found, workers=(found.workers[0], replace(found.workers[1], draining=state)))


def test_a_budget_is_not_given_twice() -> None:
    """The pod's own hook would wait as long again."""
    assert actions(leaving(3, 365.0), count=1) == [
        ShortenPod(name="k8s-new-1", uid="uid-k8s-new-1", seconds=60)
    ]
    assert actions(leaving(3, 60.0), count=1) == []
    assert actions(leaving(None, 365.0), count=1) == []


@pytest.mark.parametrize("state", ["draining", "busy", "drained", "released"])
def test_a_pod_on_its_way_out_is_no_replica(state: str) -> None:
    found = group("ready", state, wanted=1)
    (worker,) = [one for one in found.workers if one.draining is not None]
    assert not worker.live
    assert not worker.available
    assert len(found.live_workers) == 1


def test_failed_pods_are_not_waited_for() -> None:
    found = group("ready", wanted=1)
    failed: Worker = replace(
        found.workers[0], name="gone", failed=True, stopping=True, draining=Draining(since=NOW)
    )
    found = replace(found, workers=(*found.workers, failed))
    assert found.waiting == ()
    assert actions(found, count=1) == []
