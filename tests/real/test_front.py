"""The default front: pods of Envoy with our sidecar, before pods and SLURM jobs, under load."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from playground.cluster import Playground
from playground.front_image import import_front_image
from playground.operator_process import Operator
from tests.real.conftest import arguments
from tests.real.test_crash import kill_and_start
from tests.real.test_lifecycle import changed_args
from tests.real.world import Json, Not, World, deployment, kubernetes_pool, slurm_pool, until
from tests.traffic.client import Traffic

NAME = "fronted"
PODS, JOBS = 2, 2
POOLS = [kubernetes_pool(priority=10, maxReplicas=PODS), slurm_pool()]
pytestmark = pytest.mark.timeout(300)
BEFORE = 60
"""Requests answered before something happens, and after it."""


@pytest.fixture(scope="module")
def front_image(playground: Playground) -> str:
    return import_front_image(playground)


@pytest.fixture(scope="module")
def fronted(installed_world: World, front_image: str) -> Iterator[World]:
    """One deployment with a front on both schedulers for all tests of this module."""
    world = installed_world
    before = world.operators[0]
    before.stop()
    operator = Operator(
        world.playground,
        arguments=arguments(
            front_image=front_image,
            front_drain="60s",
            generate_api_keys="true",
            lease_duration="15s",
            renew_interval="2s",
        ),
        installation_id="testtest",
    )
    world.operators[0] = operator
    operator.start()
    try:
        world.apply(managed())
        wait_served(world)
        yield world
        world.delete(NAME, wait=False)
        until(lambda: not world.leftovers(NAME), "the deployment is gone", timeout=150)
    finally:
        operator.stop()
        world.operators[0] = before


def managed(*pools: Json) -> Json:
    wanted = deployment(NAME, *(pools or POOLS), replicas=PODS + JOBS)
    wanted["spec"]["endpoint"] = {"type": "Managed"}
    return wanted


def fronts(world: World) -> list[Json]:
    """The front's pods that are not on their way out."""
    selector = f"isthmus.dev/modeldeployment={NAME},isthmus.dev/component=front"
    return [pod for pod in world.pods(selector) if not pod["metadata"].get("deletionTimestamp")]


def wait_served(world: World) -> None:
    """All workers are members, and both front pods are behind the users' Service."""
    until(
        lambda: (
            world.status(NAME).get("ready") == f"{PODS + JOBS}/{PODS + JOBS}"
            or Not(world.status(NAME).get("ready"))
        ),
        "every worker is ready",
        timeout=180,
    )
    wait_fronts(world)


def wait_fronts(world: World) -> None:
    def ready() -> Any:
        wanted = {f"{pod['status'].get('podIP')}:8080" for pod in fronts(world)}
        members = world.members(NAME)
        return (len(members) == 2 and members == wanted) or Not(f"{members} of {wanted}")

    until(ready, "two front pods are ready", timeout=150)


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
    for pod in fronts(world):
        world.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
        wait_fronts(world)


def restart_api_server(world: World) -> None:
    kubernetes = world.playground.kubernetes
    kubernetes.kill_apiserver()
    time.sleep(5)
    kubernetes.start_apiserver()
    # It may end by itself within seconds, for its supervisor to start it again: be that now.
    world.operators[0].restart()
    wait_served(world)


def scale(world: World) -> None:
    world.scale(NAME, PODS + JOBS + 1)
    until(lambda: len(world.members(f"{NAME}-workers")) == PODS + JOBS + 1, "one more", timeout=120)
    world.scale(NAME, PODS)
    until(lambda: len(world.members(f"{NAME}-workers")) == PODS, "only pods are left", timeout=120)
    world.scale(NAME, PODS + JOBS)
    wait_served(world)


def update(world: World) -> None:
    old = {worker["name"] for worker in world.status(NAME)["workers"]}
    world.apply(managed(*changed_args(POOLS)))
    until(
        lambda: not old & {worker["name"] for worker in world.status(NAME)["workers"]},
        "every old worker is replaced",
        timeout=200,
    )
    wait_served(world)


def drain_node(world: World) -> None:
    """Workers and one front pod leave it together."""
    node = fronts(world)[0]["spec"]["nodeName"]
    try:
        world.kubectl(
            "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=150s",
            timeout=170,
        )  # fmt: skip
        wait_served(world)
    finally:
        world.kubectl("uncordon", node)


def delete_slurm_job(world: World) -> None:
    victim = world.objects("sj", NAME)[0]["metadata"]["name"]
    world.kubectl("delete", "sj", victim, timeout=120)
    wait_served(world)


def kill_operator(world: World) -> None:
    kill_and_start(world.operators[0])
    wait_served(world)


EVENTS = [
    restart_fronts,
    restart_api_server,
    scale,
    update,
    drain_node,
    delete_slurm_job,
    kill_operator,
]


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
