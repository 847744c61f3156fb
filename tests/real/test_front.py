"""The default front: pods of Envoy with our sidecar, before pods and SLURM jobs, under load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.real.fronts import fronts, managed, operator_with_fronts, wait_fronts
from tests.real.test_keys import held
from tests.real.world import World, kubernetes_pool, slurm_pool, until
from tests.traffic.client import Traffic

NAME = "fronted"
PODS, JOBS = 2, 2
POOLS = [kubernetes_pool(priority=10, maxReplicas=PODS), slurm_pool()]
pytestmark = pytest.mark.timeout(300)
BEFORE = 60
"""Requests answered before something happens, and after it."""


@pytest.fixture(scope="module")
def fronted(installed_world: World) -> Iterator[World]:
    """One deployment with a front on both schedulers for all tests of this module."""
    world = installed_world
    with operator_with_fronts(world):
        world.apply(managed(NAME, *POOLS, replicas=PODS + JOBS))
        wait_served(world)
        yield world
        world.delete(NAME, wait=False)
        until(lambda: not world.leftovers(NAME), "the deployment is gone", timeout=150)


def wait_served(world: World) -> None:
    """All workers are members, and both front pods are behind the users' Service."""
    world.wait_agree(NAME, kubernetes=PODS, slurm=JOBS, timeout=180)
    wait_fronts(world, NAME)


def load(world: World, **options: object) -> Traffic:
    return Traffic(world.service_url(NAME), **options)


def test_requests_reach_pods_and_jobs_evenly_on_kept_connections(fronted: World) -> None:
    with load(fronted) as traffic:
        traffic.wait_answered(400, timeout=120)
    traffic.assert_no_failure(at_least=400)
    counts = traffic.report["workers"]
    # An answer names its pod or its node, and a node may have several jobs.
    names = Counter(w.get("pod") or w["node"] for w in fronted.status(NAME)["workers"])
    assert set(counts) == set(names), (counts, names)
    shares = [counts[name] / number for name, number in names.items()]
    assert min(shares) > 0.5 * sum(counts.values()) / (PODS + JOBS), (counts, names)


def test_the_status_names_the_address_of_the_front(fronted: World) -> None:
    assert fronted.status(NAME)["url"] == f"http://{NAME}.default.svc/v1"
    assert len(fronted.members(f"{NAME}-workers")) == PODS + JOBS


def restart_fronts(world: World) -> None:
    """One by one, as a rollout of them does."""
    for pod in fronts(world, NAME):
        world.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
        wait_fronts(world, NAME)


def change_the_key(world: World) -> None:
    """Another key, a worker at a time: each request gets the key of the worker that it meets."""
    before, old = world.key(NAME), {worker["name"] for worker in world.status(NAME)["workers"]}
    world.kubectl("delete", "secret", f"{NAME}-api-key")
    until(lambda: len(held(world, NAME)) == 2, "both keys are held", timeout=90)
    until(
        lambda: not old & {worker["name"] for worker in world.status(NAME)["workers"]},
        "every old worker is replaced",
        timeout=200,
    )
    wait_served(world)
    assert world.key(NAME) != before


EVENTS = [restart_fronts, change_the_key]


@pytest.mark.parametrize("event", EVENTS)
def test_no_request_fails(fronted: World, event: Callable[[World], None]) -> None:
    with load(fronted) as traffic:
        traffic.wait_answered(BEFORE)
        event(fronted)
        traffic.wait_answered(BEFORE)
    traffic.assert_no_failure(at_least=2 * BEFORE)


def test_a_pod_that_is_replaced_while_the_operator_is_down_gets_requests(fronted: World) -> None:
    world = fronted
    operator = world.operators[0]
    operator.stop()
    try:
        old = world.pods(f"isthmus.dev/modeldeployment={NAME},isthmus.dev/pool")
        gone = old[0]["metadata"]["name"]
        known = {pod["metadata"]["name"] for pod in old}
        with load(world) as traffic:
            world.kubectl("delete", "pod", gone, "--wait=false")
            until(
                lambda: len(world.members(f"{NAME}-workers")) == PODS + JOBS,
                "the new pod is a member",
                timeout=120,
            )
            traffic.wait_answered(200, timeout=120)
        traffic.assert_no_failure()
        assert set(traffic.report["workers"]) - known - {gone}, traffic.report
        new = {p["metadata"]["name"] for p in world.objects("pods", NAME)} - known
        assert new & set(traffic.report["workers"]), traffic.report["workers"]
    finally:
        operator.start()
        wait_served(world)
