"""A node on which all workers serve is drained, and nothing else happens."""

import asyncio
from random import Random
from typing import Any

from isthmus.api import names
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import EVENTS, MODEL_DEPLOYMENTS, SLURM_JOBS
from tests.simulation import manifests
from tests.simulation.clock import SimulationLoop
from tests.simulation.faults.clusters import ensure_cluster
from tests.simulation.faults.drained_nodes import REASON
from tests.simulation.operators import seed_everything, simulated_edges
from tests.simulation.slurm_jobs import Job
from tests.simulation.world import NAMESPACE, World


def emptied(*, replicas: int) -> dict[str, Any]:
    """Drain a node on which workers serve, and nothing else; returns what came of it."""
    seed_everything("drained")
    with simulated_edges(), asyncio.Runner(loop_factory=SimulationLoop) as runner:
        return runner.run(_live(replicas))


async def _live(replicas: int) -> dict[str, Any]:
    world = World("drained")
    ensure_cluster(world, Random("x"))
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
