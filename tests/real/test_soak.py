"""The long forms: `make soak`. Many more kills than `make test` has, and jobs that reach their end.

The seed of the random choices is printed; SOAK_SEED repeats it, SOAK_KILLS shortens it.
"""

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import pytest

from playground.errors import PlaygroundError
from playground.operator_process import Operator
from tests.real.api import Json
from tests.real.test_crash import assert_one_engine_per_attempt, kill_and_start
from tests.real.world import World, deployment, kubernetes_pool, slurm_pool, until

pytestmark = pytest.mark.soak

KILLS = int(os.environ.get("SOAK_KILLS", "60"))
SEED = int(os.environ.get("SOAK_SEED", "20261121"))
VARIANTS = 3


@contextmanager
def always_served(world: World, name: str) -> Iterator[list[int]]:
    """Look five times a second: the Service is never without a member."""
    seen: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            seen.append(len(world.members(name)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()
    assert len(seen) > 3
    assert min(seen) > 0, f"members over time: {seen}"


def starts(world: World) -> list[str]:
    """Every attempt of this run whose engine was started."""
    return [path.name for path in (world.playground.state / "jobs").glob("soak-*") if path.is_dir()]


def soaked(replicas: int, *, vllm: int, sglang: int) -> Json:
    """The deployment with one of the variants of the engines' arguments."""
    pods = {"args": [f"--max-model-len={4096 + vllm}"]}
    jobs = {"args": [f"--mem-fraction-static=0.8{sglang}"]}
    pools = kubernetes_pool(maxReplicas=2, engine=pods), slurm_pool(engine=jobs)
    return deployment("soak", *pools, replicas=replicas)


@pytest.mark.timeout(1800)
def test_killed_while_everything_changes(world: World, operator: Operator) -> None:
    print(f"SOAK_SEED={SEED} SOAK_KILLS={KILLS}")
    choice = random.Random(SEED)
    wish = {"replicas": 3, "vllm": 0, "sglang": 0}
    world.apply(soaked(**wish))
    world.wait_agree("soak", kubernetes=2, slurm=1)
    with always_served(world, "soak") as members:
        for _ in range(KILLS):
            what = choice.choice(("replicas", "replicas", "vllm", "sglang"))
            wish[what] = choice.randint(2, 7) if what == "replicas" else choice.randrange(VARIANTS)
            world.apply(soaked(**wish))
            # The moments spread over the decision, the submissions and what follows from them;
            # now and then over the start, when the next one does not lead yet.
            time.sleep(choice.choice((0.0, 0.5, 2.0)) + choice.uniform(0.0, 0.5))
            kill_and_start(world, operator, lead=choice.random() > 0.1)
        print(f"{len(world.all_jobs('all'))} jobs known to SLURM, {len(starts(world))} engines")
        wish |= {"replicas": 6}
        world.apply(soaked(**wish))
        world.wait_agree("soak", kubernetes=2, slurm=4, timeout=300)
    assert_one_engine_per_attempt(world, "soak")
    assert len(starts(world)) > KILLS / 4, "the operator has had the time to do something"
    print(f"members: {min(members)} to {max(members)} in {len(members)} looks")
    for pod in world.objects("pods", "soak"):
        assert f"--max-model-len={4096 + wish['vllm']}" in pod["spec"]["containers"][0]["args"]
    for job in world.jobs("soak"):
        script = world.playground.slurm.command(
            "scontrol", "write", "batch_script", job["id"], "-", user="svc"
        )
        assert f"--mem-fraction-static=0.8{wish['sglang']}" in script
    world.delete("soak")
    until(lambda: not world.leftovers("soak"), "nothing is left after the delete")
    assert [job for job in world.all_jobs() if job["name"].startswith("soak-")] == []


class Untouched:
    """All workers but one: their objects, jobs and addresses must stay as they are."""

    def __init__(self, world: World, name: str, *, but: str) -> None:
        self.world, self.name, self.but = world, name, but
        self.before = self.look()

    def look(self) -> set[str]:
        sjs = self.world.objects("sj", self.name)
        return {
            *(p["metadata"]["uid"] for p in self.world.objects("pods", self.name)),
            *(sj["metadata"]["uid"] for sj in sjs if sj["spec"]["jobName"] != self.but),
            *(j["id"] for j in self.world.jobs(self.name) if j["name"] != self.but),
        }

    def check(self) -> None:
        missing = self.before - self.look()
        assert not missing, missing


def phases(world: World, name: str, seen: dict[str, list[str]]) -> None:
    """Note each new phase and reason of each attempt, in order."""
    for sj in world.objects("sj", name):
        status = sj.get("status", {})
        words = f"{status.get('phase')}/{status.get('reason')}"
        told = seen.setdefault(sj["spec"]["jobName"], [])
        if not told or told[-1] != words:
            told.append(words)


@pytest.mark.timeout(300)
def test_end_moved_closer(world: World) -> None:
    """An administrator gives one of three jobs 20 s to live."""
    world.apply(
        deployment("closer", kubernetes_pool(priority=1, maxReplicas=1), slurm_pool(), replicas=4)
    )
    world.wait_agree("closer", kubernetes=1, slurm=3)
    victim = world.jobs("closer")[0]
    others = Untouched(world, "closer", but=victim["name"])
    seen: dict[str, list[str]] = {}
    end = datetime.now() + timedelta(seconds=20)
    world.playground.slurm.command(
        "scontrol", "update", f"jobid={victim['id']}", f"EndTime={end:%Y-%m-%dT%H:%M:%S}"
    )

    def gone() -> bool:
        phases(world, "closer", seen)
        return victim["id"] not in {job["id"] for job in world.jobs("closer")}

    with always_served(world, "closer"):
        until(gone, "the job has ended", timeout=150)
        world.wait_agree("closer", kubernetes=1, slurm=3)
    phases(world, "closer", seen)
    print(seen, world.playground.slurm.command("scontrol", "show", "job", victim["id"]))
    others.check()
    assert_one_engine_per_attempt(world, "closer")


@pytest.mark.timeout(400)
def test_two_minutes_to_live(world: World) -> None:
    """A time limit of 2 minutes: the worker ends as Expired and is replaced; the rest stays."""
    short = slurm_pool(slurm={"timeLimit": "2m"})
    world.apply(deployment("short", kubernetes_pool(priority=1, maxReplicas=1), short, replicas=2))
    world.wait_agree("short", kubernetes=1, slurm=1)
    first = world.jobs("short")[0]
    others = Untouched(world, "short", but=first["name"])
    seen: dict[str, list[str]] = {}

    def replaced() -> bool:
        phases(world, "short", seen)
        return bool({job["name"] for job in world.jobs("short")} - {first["name"]})

    with always_served(world, "short"):
        until(replaced, "the worker is replaced", timeout=200)
        world.wait_agree("short", kubernetes=1, slurm=1)
    phases(world, "short", seen)
    print(seen)
    try:
        print(world.playground.slurm.command("scontrol", "show", "job", first["id"]))
    except PlaygroundError as error:
        print(error)
    others.check()
    assert any(words.startswith("Expired/") for words in seen[first["name"]]), seen
    assert_one_engine_per_attempt(world, "short")
