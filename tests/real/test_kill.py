"""Parts are killed and paused while many deployments change: all converge, no engine starts twice.

Short forms; `test_kill_long.py` has the same with more deployments and more rounds. The seed of the
random choices is printed; KILL_SEED repeats it.
"""

import contextlib
import os
import random
import signal
import time

import pytest

from playground.errors import PlaygroundError
from playground.operator_process import Operator
from tests.real.conftest import arguments
from tests.real.fleet import Fleet, leading, lease, second_operator, start_again
from tests.real.world import World, until

SEED = int(os.environ.get("KILL_SEED", "20261125"))
SIZE, SETTLE = 4, 150.0
ORPHANED = 60.0
"""Seconds within which orphans are ended: three snapshots, and `orphan-after` of the tests."""


def fleet(world: World, operator: Operator, prefix: str, *, size: int) -> Fleet:
    print(f"KILL_SEED={SEED}")
    return Fleet(world, prefix, size, random.Random(SEED), [operator])


def finish(deployments: Fleet, *, timeout: float, patience: float = 0.0) -> None:
    deployments.settle(timeout=timeout)
    engines = deployments.check_engines(patience=patience)
    print(f"{engines} engines started, {deployments.restarts} operators started again")
    deployments.end(timeout=timeout)
    deployments.check_engines()


def operator_killed(world: World, operator: Operator, *, size: int, kills: int) -> None:
    deployments = fleet(world, operator, "killed", size=size)
    deployments.create()
    for _ in range(kills):
        # The moments spread over the decision, the submissions and what follows from them.
        time.sleep(deployments.choice.uniform(0.0, 1.5))
        deployments.churn(size // 2)
        operator.kill()
        world.end_lease(operator)
        led = operator.output().count("is ours")
        start_again(operator)
        if deployments.choice.random() > 0.2:
            # Killed before it leads it has done nothing.
            until(lambda n=led: operator.output().count("is ours") > n, "it leads")
    finish(deployments, timeout=SETTLE * size / SIZE)


def leader_paused(world: World, operator: Operator, *, size: int, rounds: int) -> None:
    """Stopped past its lease; when it goes on, another leads and has done things meanwhile."""
    with second_operator(world, arguments()) as other:
        deployments = fleet(world, operator, "paused", size=size)
        deployments.supervised.append(other)
        deployments.create()
        for _ in range(rounds):
            first, holder = leading(world, [operator, other])
            deployments.churn(size)
            time.sleep(deployments.choice.uniform(0.0, 0.5))
            pid = first.pid
            os.kill(pid, signal.SIGSTOP)
            try:
                deployments.churn(size)
                until(lambda h=holder: lease(world)[0] not in ("", h), "another leads", timeout=60)
                deployments.churn(size // 2)
                time.sleep(deployments.choice.uniform(0.0, 1.0))
            finally:
                os.kill(pid, signal.SIGCONT)
            until(lambda one=first, was=pid: not runs(one, was), "it ends by itself", timeout=60)
            deployments.supervise()
        finish(deployments, timeout=SETTLE * size / SIZE)


def runs(operator: Operator, pid: int) -> bool:
    return operator.running and operator.pid == pid


def api_server_restarted(world: World, operator: Operator, *, size: int, rounds: int) -> None:
    kubernetes = world.playground.kubernetes
    deployments = fleet(world, operator, "apirest", size=size)
    deployments.create()
    for number in range(rounds):
        deployments.churn(size)
        time.sleep(deployments.choice.uniform(0.0, 0.5))
        if number % 2:
            kubernetes.restart_apiserver()
        else:
            kubernetes.kill_apiserver()
            kubernetes.start_apiserver()
        deployments.churn(size // 2)
        deployments.supervise()
    finish(deployments, timeout=SETTLE * size / SIZE)


def etcd_paused(
    world: World, operator: Operator, *, size: int, rounds: int, seconds: float
) -> None:
    """The API server accepts and answers nothing; what was under way may be committed later."""
    components = world.playground.components
    deployments = fleet(world, operator, "etcd", size=size)
    deployments.create()
    for _ in range(rounds):
        deployments.churn(size)
        time.sleep(deployments.choice.uniform(0.0, 0.3))
        components.signal("etcd", signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            components.signal("etcd", signal.SIGCONT)
        until(world.playground.kubernetes.ready, "the API server answers again")
        deployments.churn(size // 2)
        deployments.supervise()
    finish(deployments, timeout=SETTLE * size / SIZE)


def controller_killed(world: World, operator: Operator, *, size: int, rounds: int) -> int:
    """slurmctld dies within a tenth of a second of a submission and has not saved it.

    Returns:
        How many acknowledged jobs it had forgotten.
    """
    slurm = world.playground.slurm
    deployments = fleet(world, operator, "ctld", size=size)
    deployments.create()
    lost = 0
    for _ in range(rounds):
        known = job_ids(world)
        deployments.churn(size)
        with contextlib.suppress(AssertionError):  # not each churn submits something
            until(lambda k=known: job_ids(world) - k, "a submission", timeout=10, every=0.01)
        slurm.kill_controller()
        acknowledged = job_ids(world)
        slurm.start_controller()
        there = {int(job["id"]) for job in world.all_jobs("all")}
        lost += len(acknowledged - there)
        deployments.supervise()
    # An older slurmctld also knows jobs again that had ended, and whose SlurmJob was let go.
    finish(deployments, timeout=SETTLE * size / SIZE, patience=ORPHANED)
    return lost


def job_ids(world: World) -> set[int]:
    """Job ids that the operator has written down."""
    with contextlib.suppress(PlaygroundError):
        items = world.objects("sj")
        return {i["status"]["jobId"] for i in items if i.get("status", {}).get("jobId")}
    return set()


@pytest.mark.timeout(480)
def test_operator_killed_under_churn(world: World, operator: Operator) -> None:
    operator_killed(world, operator, size=SIZE, kills=3)


@pytest.mark.timeout(480)
def test_leader_paused_past_its_lease(world: World, operator: Operator) -> None:
    leader_paused(world, operator, size=SIZE, rounds=1)


@pytest.mark.timeout(480)
def test_api_server_restarted_under_churn(world: World, operator: Operator) -> None:
    api_server_restarted(world, operator, size=SIZE, rounds=2)


@pytest.mark.timeout(480)
def test_etcd_paused_under_churn(world: World, operator: Operator) -> None:
    etcd_paused(world, operator, size=SIZE, rounds=1, seconds=20.0)


@pytest.mark.timeout(480 + ORPHANED)
def test_controller_killed_at_a_submission(world: World, operator: Operator) -> None:
    lost = controller_killed(world, operator, size=SIZE, rounds=3)
    print(f"{lost} acknowledged jobs were forgotten by slurmctld")
