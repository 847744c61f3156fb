"""Jobs of one deployment that come to their time limit at the same moment. No other faults."""

import asyncio
from random import Random
from typing import Any

from isthmus.api import names
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import EVENTS, MODEL_DEPLOYMENTS, SLURM_JOBS
from tests.simulation import manifests
from tests.simulation.clock import SimulationLoop
from tests.simulation.faults.clusters import ensure_cluster
from tests.simulation.operators import seed_everything, simulated_edges
from tests.simulation.world import NAMESPACE, World

GRANTED = 1200.0
"""Seconds that the jobs have from the moment on at which all of them serve."""


def handed_over(*, replicas: int) -> dict[str, Any]:
    """Let all workers come to their time limit together; returns what came of it."""
    seed_everything("walltime")
    with simulated_edges(), asyncio.Runner(loop_factory=SimulationLoop) as runner:
        return runner.run(_live(replicas))


async def _live(replicas: int) -> dict[str, Any]:
    world = World("time limits")
    ensure_cluster(world, Random("x"))
    world.operators[0].start()
    wanted = manifests.model_deployment(namespace=NAMESPACE, name="llama", random=Random(4))
    wanted["spec"]["pools"], wanted["spec"]["replicas"] = [manifests.slurm_pool()], replicas
    world.api.create(MODEL_DEPLOYMENTS, wanted, by="user")
    await asyncio.sleep(400)
    for job in world.slurm.jobs.values():
        world.slurm.grant(job, GRANTED)
    before = [k8s.name(one) for one in world.api.all(SLURM_JOBS)]
    least = replicas
    told: set[tuple[str, str]] = set()
    for _ in range(int(GRANTED) + 200):
        await asyncio.sleep(1)
        status = world.api.get(MODEL_DEPLOYMENTS, NAMESPACE, "llama")
        least = min(least, int(k8s.dig(status, "status", "readyReplicas", default=0)))
        told |= {
            (worker["name"], worker["displaced"]["reason"])
            for worker in k8s.dig(status, "status", "workers", default=[])
            if "displaced" in worker
        }
    found = {
        "before": before,
        "least": least,
        "told": told,
        "replaces": [
            k8s.annotations(obj).get(names.ANNOTATION_REPLACES) for obj in world.api.all(SLURM_JOBS)
        ],
        "timeouts": sum(job.state == "TIMEOUT" for job in world.slurm.jobs.values()),
        "events": [k8s.dig(one, "reason") for one in world.api.all(EVENTS)],
    }
    world.over = world.oracle.off = True
    return found
