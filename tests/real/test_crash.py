"""The operator dies at random moments, and SLURM does not answer: no engine starts twice."""

import random
import time

import pytest

from playground.operator_process import Operator
from tests.real.world import Not, World, deployment, kubernetes_pool, slurm_pool, until

KILLS = 5


def assert_one_engine_per_attempt(world: World, name: str) -> None:
    """Every attempt passed its gate at most once, and no live job is without its object."""
    known = {job["spec"]["jobName"] for job in world.objects("sj", name)}
    folder = world.playground.state / "jobs"
    attempts = [path.name for path in folder.iterdir() if path.is_dir()]
    started = {attempt: world.starts(attempt) for attempt in attempts if attempt.startswith(name)}
    assert all(len(starts) == 1 for starts in started.values()), started
    live = [job["name"] for job in world.all_jobs() if job["name"].startswith(f"{name}-")]
    assert len(live) == len(set(live)), live
    assert set(live) <= known


def kill_and_start(
    world: World, operator: Operator, *, lead: bool = True, expire: bool = False
) -> None:
    """KILL and start again; the new one leads when the dead one's Lease is over.

    Args:
        world: where it runs.
        operator: which one.
        lead: wait until it leads; killed before that it has done nothing.
        expire: let the Lease run out, as in life, instead of taking it away.
    """
    operator.kill()
    if not expire:
        world.end_lease(operator)
    before = operator.output().count("is ours")
    operator.start()
    if lead:
        until(lambda: operator.output().count("is ours") > before, "the operator leads")


@pytest.mark.timeout(300)
def test_killed_again_and_again_while_scaling_up(world: World, operator: Operator) -> None:
    choice = random.Random(20261121)
    world.apply(deployment("kills", kubernetes_pool(maxReplicas=2), slurm_pool(), replicas=1))
    for kill in range(KILLS):
        world.scale("kills", 2 + kill % 5)
        # The moments spread over the decision, the submissions and what follows from them.
        time.sleep(choice.uniform(0.0, 1.5))
        kill_and_start(world, operator, expire=kill == KILLS // 2)
    world.scale("kills", 6)
    world.wait_agree("kills", kubernetes=2, slurm=4, timeout=120)
    assert_one_engine_per_attempt(world, "kills")


@pytest.mark.timeout(240)
def test_controller_hangs_around_a_submission(world: World) -> None:
    slurm = world.playground.slurm
    slurm.pause_controller()
    try:
        # The intent is written and sbatch runs into the hung controller: it "fails", and the job
        # is accepted all the same once slurmctld goes on.
        world.apply(deployment("ghost", slurm_pool(), replicas=1))
        until(
            lambda: (
                world.condition("ghost", "SlurmReachable").get("status") == "False"
                or [sj for sj in world.objects("sj", "ghost") if sj.get("status", {}).get("phase")]
            ),
            "the operator has tried, or has seen that it cannot",
            timeout=90,
        )
        phases = {sj.get("status", {}).get("phase") for sj in world.objects("sj", "ghost")}
        if "Submitting" in phases:
            until(
                lambda: world.objects("sj", "ghost")[0]["status"]["phase"] == "SubmitUnknown",
                "the unclear answer is called unclear",
            )
    finally:
        slurm.continue_controller()
    world.wait_agree("ghost", slurm=1, timeout=120)
    assert_one_engine_per_attempt(world, "ghost")


@pytest.mark.timeout(240)
def test_controller_hangs_right_after_the_snapshot(world: World) -> None:
    """Paused between the last look and sbatch: the submission's outcome is unclear for sure."""
    slurm = world.playground.slurm
    world.apply(deployment("ghosts", slurm_pool(), replicas=1))
    world.wait_agree("ghosts", slurm=1)
    unknown: list[str] = []
    for replicas in (2, 3):
        world.scale("ghosts", replicas)
        # Caught at the moment the new intent appears: sbatch is about to run, or runs.
        until(lambda n=replicas: len(world.objects("sj", "ghosts")) == n, "the intent", every=0.01)
        slurm.pause_controller()
        try:
            until(
                lambda: world.condition("ghosts", "SlurmReachable").get("status") == "False",
                "the operator has seen the hang",
                timeout=60,
            )
            unknown += [
                str(sj.get("status", {}).get("phase")) for sj in world.objects("sj", "ghosts")
            ]
        finally:
            slurm.continue_controller()
        world.wait_agree("ghosts", slurm=replicas, timeout=120)
    print("phases while the controller hung:", unknown)
    assert_one_engine_per_attempt(world, "ghosts")


@pytest.mark.timeout(240)
def test_controller_down(world: World) -> None:
    """Short form of a minute."""
    controller_down(world, seconds=10)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_controller_down_for_a_minute(world: World) -> None:
    controller_down(world, seconds=60)


def controller_down(world: World, *, seconds: float) -> None:
    """For so long after the operator has noticed, which takes up to its `slurm-timeout`."""
    world.apply(
        deployment("outage", kubernetes_pool(priority=1, maxReplicas=1), slurm_pool(), replicas=3)
    )
    world.wait_agree("outage", kubernetes=1, slurm=2)
    members = world.members("outage")
    before = {sj["metadata"]["uid"] for sj in world.objects("sj", "outage")}
    slurm = world.playground.slurm
    slurm.stop_controller()
    try:
        said = world.wait_condition("outage", "SlurmReachable", status="False")
        assert said["reason"] in {"ControllerUnreachable", "CommandTimeout", "ControllerTimeout"}
        assert "slurmctld" in said["message"]
        url = world.service_url("outage")
        answers, told_at = set(), time.monotonic()
        # The Service draws one of three for each: both kinds answer, in their own time.
        while (passed := time.monotonic() - told_at) < seconds or len(answers) < 2:
            assert passed < seconds + 60, answers
            assert world.members("outage") == members
            answers.add(world.chat(url).split()[2])
            time.sleep(0.2)
        # Asked for now, made later: nothing is submitted into a cluster that cannot be seen.
        world.scale("outage", 4)
        until(
            lambda: world.status("outage").get("ready") == "3/4" or Not(world.status("outage")),
            "the wish is shown",
        )
    finally:
        slurm.start_controller()
    world.wait_agree("outage", kubernetes=1, slurm=3, timeout=90)
    assert before <= {sj["metadata"]["uid"] for sj in world.objects("sj", "outage")}
    assert members <= world.members("outage")


@pytest.mark.timeout(180)
def test_memory_and_status_lost(world: World, operator: Operator) -> None:
    """A restart without memory, with the statuses wiped: the running jobs are found by name."""
    world.apply(deployment("adopt", slurm_pool(), replicas=2))
    world.wait_agree("adopt", slurm=2)
    jobs = {job["id"] for job in world.jobs("adopt")}
    operator.kill()
    for sj in world.objects("sj", "adopt"):
        path = world.path("sj", sj["metadata"]["name"], subresource="status")
        world.api.patch(path, [{"op": "remove", "path": "/status"}], kind="json")
    world.end_lease(operator)
    operator.start()
    world.wait_agree("adopt", slurm=2)
    assert {job["id"] for job in world.jobs("adopt")} == jobs
    assert_one_engine_per_attempt(world, "adopt")


@pytest.mark.timeout(240)
def test_api_server_restarts(world: World, operator: Operator) -> None:
    """Kubernetes' own API server goes away and comes back: the data path does not notice."""
    world.apply(
        deployment("apidown", kubernetes_pool(priority=1, maxReplicas=1), slurm_pool(), replicas=2)
    )
    world.wait_agree("apidown", kubernetes=1, slurm=1)
    members, jobs = world.members("apidown"), {job["id"] for job in world.jobs("apidown")}
    url = world.service_url("apidown")
    assert world.chat(url)  # reads the key, which nobody can while the API server is away
    kubernetes = world.playground.kubernetes
    kubernetes.kill_apiserver()
    try:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            assert world.chat(url)
            time.sleep(0.5)
    finally:
        kubernetes.start_apiserver()
    # The operator either rode it out or ended non-zero, to be started again; then it goes on
    # without a new job.
    world.wait_agree("apidown", kubernetes=1, slurm=1)
    assert world.members("apidown") == members
    assert {job["id"] for job in world.jobs("apidown")} == jobs
    world.scale("apidown", 3)
    world.wait_agree("apidown", kubernetes=1, slurm=2)
