"""An administrator drains a node: nothing new starts there, and what runs there is waited for.

In a register of its own, drawn by a stream of its own and only in some seeds, so that all others
stay what they were.
"""

import asyncio
from random import Random
from typing import Any

from isthmus.api import names
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import EVENTS, MODEL_DEPLOYMENTS, SLURM_JOBS
from tests.simulation import manifests, users
from tests.simulation.clock import SimulationLoop
from tests.simulation.events import Happening, later
from tests.simulation.operators import seed_everything, simulated_edges
from tests.simulation.slurm import Job
from tests.simulation.world import NAMESPACE, World

DRAIN_HAPPENINGS: dict[str, tuple[float, Happening]] = {}
"""Name to (weight, what it does)."""

REASON = "new firmware"


def drained(seed: str) -> bool:
    """Whether nodes are in this seed."""
    return Random(f"{seed}/drains").random() < 1 / 8


def node_is_drained(world: World, random: Random) -> None:
    """Until it is resumed after some minutes; at most two at a time."""
    site, node = world.slurm.site, random.choice(sorted(world.slurm.nodes))
    if len(site.drained) > 1 or node in site.drained:
        return
    world.tell(f"fault: {node} is drained")
    site.drained[node] = REASON

    def resumed() -> None:
        world.tell(f"fault: {node} is resumed")
        site.drained.pop(node, None)

    later(world, random.choice([30, 200, 400, 900]), resumed)


DRAIN_HAPPENINGS["node_is_drained"] = 1.0, node_is_drained


def emptied(*, replicas: int) -> dict[str, Any]:
    """Drain a node on which workers serve, and nothing else; returns what came of it."""
    seed_everything("drained")
    with simulated_edges(), asyncio.Runner(loop_factory=SimulationLoop) as runner:
        return runner.run(_live(replicas))


async def _live(replicas: int) -> dict[str, Any]:
    world = World("drained", replicas=1)
    users.ensure_cluster(world, Random("x"))
    world.operators[0].start()
    wanted = manifests.model_deployment(namespace=NAMESPACE, name="llama", random=Random(4))
    wanted["spec"]["pools"], wanted["spec"]["replicas"] = [manifests.slurm_pool()], replicas
    world.api.create(MODEL_DEPLOYMENTS, wanted, by="user")
    await asyncio.sleep(400)
    before = _running(world)
    node = before[0].node
    left = [k8s.name(o) for o in world.api.all(SLURM_JOBS) if k8s.dig(o, "status", "nodes") == node]
    world.slurm.site.drained[node] = REASON
    least, told = replicas, set()
    for _ in range(900):
        await asyncio.sleep(1)
        status = world.api.get(MODEL_DEPLOYMENTS, NAMESPACE, "llama")
        least = min(least, int(k8s.dig(status, "status", "readyReplicas", default=0)))
        told |= {
            (worker["name"], worker["displaced"]["reason"], worker["displaced"]["message"])
            for worker in k8s.dig(status, "status", "workers", default=[])
            if "displaced" in worker
        }
    found = {
        "left": left,
        "least": least,
        "told": told,
        "nodes": {job.node for job in _running(world)} & {node},
        "running": len(_running(world)),
        "replaces": [
            k8s.annotations(obj).get(names.ANNOTATION_REPLACES)
            for obj in world.api.all(SLURM_JOBS)
            if k8s.annotations(obj).get(names.ANNOTATION_REPLACES)
        ],
        "events": [k8s.dig(one, "reason") for one in world.api.all(EVENTS)],
    }
    world.over = world.oracle.off = True
    return found


def _running(world: World) -> list[Job]:
    return [job for job in world.slurm.jobs.values() if job.state == "RUNNING"]
