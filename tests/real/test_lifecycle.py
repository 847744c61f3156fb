"""Create, scale, update and delete, on each scheduler and on both, as a user does it.

Here with the real kubectl, which the other tests leave out for the time that it takes.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.real.api import Json
from tests.real.world import World, deployment, kubernetes_pool, slurm_pool, until

LAYOUTS = {
    "kubernetes": [kubernetes_pool()],
    "slurm": [slurm_pool()],
    "both": [kubernetes_pool(priority=10, maxReplicas=2), slurm_pool()],
}


def split(layout: str, replicas: int) -> dict[str, int]:
    """How many workers of each scheduler a layout gives."""
    pods = {"kubernetes": replicas, "slurm": 0, "both": min(2, replicas)}[layout]
    return {"kubernetes": pods, "slurm": replicas - pods}


@contextmanager
def never_below(world: World, name: str, members: int) -> Iterator[None]:
    """Look twenty times a second: the Service never has fewer members than that."""
    seen: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            seen.append(len(world.members(name)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    assert len(seen) > 3
    assert min(seen) >= members, f"members over time: {seen}"


def changed_args(pools: list[Json]) -> list[Json]:
    """The pools with other engine arguments."""
    changed = []
    for pool in pools:
        args = ["--max-model-len=4096"] if "kubernetes" in pool else ["--mem-fraction-static=0.8"]
        changed.append({**pool, "engine": {**pool["engine"], "args": args}})
    return changed


def kubectl_apply(world: World, obj: Json) -> None:
    world.kubectl("apply", "-f", "-", stdin=json.dumps(obj))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.timeout(240)
def test_create_scale_update_delete(world: World, layout: str) -> None:
    name, pools = f"life-{layout}", LAYOUTS[layout]
    kubectl_apply(world, deployment(name, *pools, replicas=1))
    world.wait_agree(name, **split(layout, 1))
    for replicas in (4, 2):
        world.kubectl("scale", f"mdep/{name}", f"--replicas={replicas}")
        world.wait_agree(name, **split(layout, replicas))

    if layout == "both":
        world.scale(name, 3)
        world.wait_agree(name, **split(layout, 3))
    replicas = 3 if layout == "both" else 2
    old = {worker["name"] for worker in world.status(name)["workers"]}
    with never_below(world, name, replicas):
        kubectl_apply(world, deployment(name, *changed_args(pools), replicas=replicas))
        until(
            lambda: not old & {worker["name"] for worker in world.status(name)["workers"]},
            "every old worker is replaced",
            timeout=90,
        )
        world.wait_agree(name, **split(layout, replicas))
    for pod in world.objects("pods", name):
        if pod["metadata"].get("deletionTimestamp"):
            continue  # an old one, on its way out
        assert "--max-model-len=4096" in pod["spec"]["containers"][0]["args"]
    for job in world.jobs(name):
        script = world.playground.slurm.command(
            "scontrol", "write", "batch_script", job["id"], "-", user="svc"
        )
        assert "--mem-fraction-static=0.8" in script

    world.kubectl("delete", "mdep", name, timeout=120)
    until(lambda: not world.leftovers(name), "nothing is left after the delete")
    assert [job for job in world.all_jobs() if job["name"].startswith(f"{name}-")] == []


def test_both_schedulers_answer_behind_one_address(world: World) -> None:
    world.apply(deployment("one", *LAYOUTS["both"], replicas=3))
    world.wait_agree("one", kubernetes=2, slurm=1)
    url = world.service_url("one")
    answers: set[str] = set()

    def both() -> bool:
        text = world.chat(url)
        answers.add("SGLang" if "SGLang" in text else "vLLM" if "vLLM" in text else text)
        return {"SGLang", "vLLM"} <= answers

    until(both, "a pod and a job have answered", every=0.02)
    assert answers == {"SGLang", "vLLM"}


def test_nothing_is_written_when_nothing_changed(world: World) -> None:
    world.apply(deployment("calm", *LAYOUTS["both"], replicas=3))
    world.wait_agree("calm", kubernetes=2, slurm=1)

    def versions() -> list[str]:
        found = [world.get("mdep", "calm"), *world.objects("sj", "calm")]
        found.append(world.get("slc", "hpc", "isthmus-system"))
        return [obj["metadata"]["resourceVersion"] for obj in found]

    # The last writes after READY (a start time, a first probe) settle within a few polls.
    until(lambda: versions() == _after_polls(world, versions), "the statuses settle", timeout=30)
    before = versions()
    polls = _poll_count(world)
    until(lambda: _poll_count(world) >= polls + 10, "ten more polls")
    assert versions() == before


def _poll_count(world: World) -> int:
    """RPCs of squeue that slurmctld has answered: the operator's looks at the cluster."""
    said = world.playground.slurm.command("sdiag")
    lines = [line for line in said.splitlines() if "REQUEST_JOB_USER_INFO" in line]
    return int(lines[0].split("count:")[1].split()[0]) if lines else 0


def _after_polls(world: World, versions: object) -> object:
    assert callable(versions)
    polls = _poll_count(world)
    until(lambda: _poll_count(world) >= polls + 4, "four more polls")
    return versions()
