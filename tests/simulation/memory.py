"""What a process remembers: the size of every container that our own parts hold.

A run without faults: deployments come and go, and what stays of them is counted.
"""

import asyncio
import itertools
from collections.abc import Iterator, Mapping, Sized
from random import Random
from typing import Any
from unittest.mock import patch

from isthmus import application
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import MODEL_DEPLOYMENTS, SLURM_JOBS
from tests.simulation import manifests
from tests.simulation.clock import SimulationLoop
from tests.simulation.faults.clusters import ensure_cluster
from tests.simulation.operators import seed_everything, simulated_edges
from tests.simulation.world import NAMESPACE, World

BOUNDED = {
    "Store._tombstones[]": "the last 10 000 of each resource: late words about what has ended",
    "ForwardPorts._holders": "the ports of a range",
    "ForwardPorts._released": "ports that cool; looked through when one is wanted",
}
"""Containers that grow up to a bound, and why they do."""


def sizes(*parts: object) -> dict[str, int]:
    """Size of each container by `Class.attribute`, `[]` for one inside of it; the sum of all."""
    found: dict[str, int] = {}
    seen: set[int] = set()
    todo: list[object] = list(parts)
    while todo:
        part = todo.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        for name, value in _attributes(part):
            for place, inside in _containers(f"{type(part).__name__}.{name}", value):
                found[place] = found.get(place, 0) + len(inside)
                values = inside.values() if isinstance(inside, Mapping) else inside
                todo += [one for one in values if _ours(one)]
            if _ours(value):
                todo.append(value)
            todo += [one.__self__ for one in _callables(value) if _ours(one.__self__)]
    return found


def _containers(place: str, value: object) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Sized) or isinstance(value, str | bytes) or _ours(value):
        return
    if not hasattr(value, "__iter__"):
        return
    yield place, value
    for one in value.values() if isinstance(value, Mapping) else value:
        if isinstance(one, dict | set | list):
            yield f"{place}[]", one


def _callables(value: object) -> list[Any]:
    every = value if isinstance(value, list | tuple) else [value]
    return [one for one in every if getattr(one, "__self__", None) is not None]


def _attributes(part: object) -> list[tuple[str, object]]:
    names = list(getattr(part, "__dict__", ()))
    for kind in type(part).__mro__:
        slots = getattr(kind, "__slots__", ())
        names += [slots] if isinstance(slots, str) else list(slots)
    return [(name, getattr(part, name)) for name in dict.fromkeys(names) if hasattr(part, name)]


def _ours(value: object) -> bool:
    kind = type(value)
    return kind.__module__.startswith("isthmus.") and ".api." not in kind.__module__


def remembered(*, rounds: int) -> dict[str, list[int]]:
    """Containers that are larger after each of the later rounds, with their sizes."""
    made: list[object] = []
    assemble = application.assemble

    def noted(*args: Any, **kwargs: Any) -> Any:
        made.append(assemble(*args, **kwargs))
        return made[-1]

    seed_everything("memory")
    with (
        simulated_edges(),
        patch.object(application, "assemble", noted),
        asyncio.Runner(loop_factory=SimulationLoop) as runner,
    ):
        found = runner.run(_rounds(rounds, made))
    later = found[len(found) // 2 :]
    every = {place for one in later for place in one} - BOUNDED.keys()
    grown = {place: [one.get(place, 0) for one in later] for place in sorted(every)}
    return {
        place: sizes
        for place, sizes in grown.items()
        if all(first < second for first, second in itertools.pairwise(sizes))
    }


async def _rounds(rounds: int, made: list[object]) -> list[dict[str, int]]:
    world = World("memory")
    ensure_cluster(world, Random("memory"))
    world.slurm.site.quota = 2  # some wait, with their keys staged
    world.operators[0].start()
    found: list[dict[str, int]] = []
    for number in range(rounds):
        await _come_and_go(world, number)
        found.append(sizes(*made))
    world.over = world.oracle.off = True
    return found


async def _come_and_go(world: World, number: int) -> None:
    names = [f"m{number}-{kind}" for kind in ("ends", "torn")]
    for name in names:
        wanted = manifests.model_deployment(namespace=NAMESPACE, name=name, random=Random(4))
        wanted["spec"]["pools"] = [manifests.slurm_pool(minReplicas=2), manifests.kubernetes_pool()]
        wanted["spec"]["replicas"] = 3
        world.api.create(MODEL_DEPLOYMENTS, wanted, by="user")
    await asyncio.sleep(400)
    for job in [job for job in world.slurm.jobs.values() if job.name.startswith(f"m{number}-")]:
        if job.state == "RUNNING":
            world.slurm.end(job, "FAILED")
            world.slurm.purge(job)
    await asyncio.sleep(120)  # SLURM is asked about them, by their ids
    for name in names:
        jobs = [
            k8s.name(job)
            for job in world.api.all(SLURM_JOBS)
            if k8s.dig(job, "spec", "deployment") == name
        ]
        parts = [(MODEL_DEPLOYMENTS, name), *((SLURM_JOBS, job) for job in jobs)]
        world.api.delete(MODEL_DEPLOYMENTS, NAMESPACE, name, by="user")
        bare: dict[str, Any] = {"metadata": {"finalizers": []}}
        for resource, part in parts if name.endswith("torn") else ():
            world.api.patch(resource, NAMESPACE, part, patch=bare, subresource="", by="user")
    await asyncio.sleep(2000)  # more than any patience
    assert not world.deployments()
