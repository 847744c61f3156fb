"""No request fails while we change, restart or lose something: a load client asks all the time.

Two clients at once: one on kept connections through the address that users have, one on a new
connection for each request through the bare Service. Both read every answer to its end.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from playground.operator_process import Operator
from tests.real.test_crash import kill_and_start
from tests.real.test_lifecycle import changed_args
from tests.real.world import Not, World, deployment, kubernetes_pool, slurm_pool, until
from tests.traffic.client import Traffic

NAME = "path"
PODS, JOBS = 2, 2
POOLS = [kubernetes_pool(priority=10, maxReplicas=PODS), slurm_pool()]
BEFORE = 30
"""Requests answered before something happens, and after it."""
PROXIES = 5
"""Seconds within which every kube-proxy has followed the slices, on a machine that is busy."""


@dataclass(frozen=True, slots=True)
class Served:
    """A deployment under load."""

    world: World
    operator: Operator

    def load(self) -> tuple[Traffic, ...]:
        """The clients: kept connections and new ones."""
        world = self.world
        return (Traffic(world.service_url(NAME), connections="new", key=world.key(NAME)),)


@pytest.fixture(scope="module")
def deployed(installed_world: World) -> Iterator[World]:
    """One deployment on both schedulers for all tests of this module."""
    world = installed_world
    operator = world.operators[0]
    if not operator.running:
        operator.start()
    restore(world)
    yield world
    world.delete(NAME, wait=False)
    until(lambda: not world.leftovers(NAME), "the deployment is gone", timeout=120)


@pytest.fixture
def served(deployed: World, operator: Operator) -> Iterator[Served]:
    yield Served(deployed, operator)
    restore(deployed)


def restore(world: World) -> None:
    """As every test finds it."""
    world.apply(deployment(NAME, *POOLS, replicas=PODS + JOBS))
    world.wait_agree(NAME, kubernetes=PODS, slurm=JOBS, timeout=120)


@contextlib.contextmanager
def nothing_fails(served: Served) -> Iterator[None]:
    """Load before, during and after the block, and not one failed request."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client) for client in served.load()]
        for client in clients:
            client.wait_answered(BEFORE)
        yield
        for client in clients:
            client.wait_answered(BEFORE)
    for client in clients:
        client.assert_no_failure(at_least=2 * BEFORE)


# ---- what happens


def scale_up(served: Served) -> None:
    served.world.scale(NAME, PODS + JOBS + 2)
    served.world.wait_agree(NAME, kubernetes=PODS, slurm=JOBS + 2)


def scale_down(served: Served) -> None:
    """Jobs first, then pods: the pool of the lower priority is emptied first."""
    served.world.scale(NAME, 1)
    served.world.wait_agree(NAME, kubernetes=1, slurm=0, timeout=120)


def update(served: Served) -> None:
    world = served.world
    old = {worker["name"] for worker in world.status(NAME)["workers"]}
    world.apply(deployment(NAME, *changed_args(POOLS), replicas=PODS + JOBS))
    until(
        lambda: not old & {worker["name"] for worker in world.status(NAME)["workers"]},
        "every old worker is replaced",
        timeout=150,
    )
    world.wait_agree(NAME, kubernetes=PODS, slurm=JOBS, timeout=120)


def node_drained(served: Served) -> None:
    """`kubectl drain` of the node that has the most workers."""
    world = served.world
    nodes = [pod["spec"]["nodeName"] for pod in world.objects("pods", NAME)]
    node = max(sorted(set(nodes)), key=nodes.count)
    try:
        world.kubectl(
            "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=100s",
            timeout=120,
        )  # fmt: skip
        world.wait_agree(NAME, kubernetes=PODS, slurm=JOBS, timeout=120)
    finally:
        world.kubectl("uncordon", node)


def slurm_job_deleted(served: Served) -> None:
    world = served.world
    victim = world.objects("sj", NAME)[0]["metadata"]
    world.kubectl("delete", "sj", victim["name"], timeout=100)
    world.wait_agree(NAME, kubernetes=PODS, slurm=JOBS, timeout=120)


def operator_restarted(served: Served) -> None:
    served.operator.restart()
    served.world.wait_agree(NAME, kubernetes=PODS, slurm=JOBS)


def operator_killed(served: Served) -> None:
    kill_and_start(served.operator)
    served.world.wait_agree(NAME, kubernetes=PODS, slurm=JOBS)


def controller_down(served: Served, *, seconds: float = 20) -> None:
    slurm = served.world.playground.slurm
    slurm.stop_controller()
    try:
        served.world.wait_condition(NAME, "SlurmReachable", status="False")
        time.sleep(seconds)
    finally:
        slurm.start_controller()
    served.world.wait_agree(NAME, kubernetes=PODS, slurm=JOBS, timeout=90)


def api_server_restarted(served: Served) -> None:
    kubernetes = served.world.playground.kubernetes
    kubernetes.kill_apiserver()
    time.sleep(5)
    kubernetes.start_apiserver()
    # It may end by itself within seconds, for its supervisor to start it again: be that now.
    served.operator.restart()
    served.world.wait_agree(NAME, kubernetes=PODS, slurm=JOBS, timeout=90)


HAPPENINGS: dict[str, Callable[[Served], None]] = {
    each.__name__: each
    for each in (
        scale_up,
        scale_down,
        update,
        node_drained,
        slurm_job_deleted,
        operator_restarted,
        operator_killed,
        controller_down,
        api_server_restarted,
    )
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", HAPPENINGS)
def test_no_request_fails(served: Served, what: str) -> None:
    with nothing_fails(served):
        HAPPENINGS[what](served)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_no_request_fails_while_the_controller_is_down_for_two_minutes(served: Served) -> None:
    with nothing_fails(served):
        controller_down(served, seconds=120)


@pytest.mark.timeout(300)
def test_a_killed_worker_fails_only_what_had_begun_on_it(served: Served) -> None:
    """KILL to an engine on a SLURM node: out of the membership within the probes' budget."""
    world = served.world
    (victim, *_) = [w for w in world.status(NAME)["workers"] if w["backend"] == "slurm"]
    member = victim["url"].removeprefix("http://")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client) for client in served.load()]
        for client in clients:
            client.wait_answered(BEFORE)
        killed_at = time.time()
        os.kill(engine_pid(world, victim["jobId"]), signal.SIGKILL)
        until(
            lambda: member not in (found := world.members(NAME)) or Not(f"{member} in {found}"),
            "out of the membership",
            timeout=20,
        )
        out_after = time.time() - killed_at
        world.wait_agree(NAME, kubernetes=PODS, slurm=JOBS, timeout=120)
        for client in clients:
            client.wait_answered(BEFORE)
    failures = [f for client in clients for f in client.report["failures"]]
    print(f"out of the membership {out_after:.1f} s after KILL; {len(failures)} requests failed")
    late = [f for f in failures if f["started"] > killed_at + out_after + PROXIES]
    assert not late, [f["started"] - killed_at for f in late]


def engine_pid(world: World, job_id: int) -> int:
    """The main process of the engine of a job, as the machine numbers it."""
    configuration = f"SLURM_CONF={world.playground.slurm.configuration}".encode()
    wanted = {f"SLURM_JOB_ID={job_id}".encode(), configuration}
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes().split(b"\0")
            environment = set((folder / "environ").read_bytes().split(b"\0"))
            if wanted <= environment and b"serve" in command:
                found.append(int(folder.name))
    return min(found)
