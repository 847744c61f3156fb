"""A deployment's only worker, at whose port nobody listens any more while its job goes on."""

import asyncio
from random import Random

from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import MODEL_DEPLOYMENTS
from tests.simulation import manifests
from tests.simulation.clock import SimulationLoop
from tests.simulation.faults.clusters import ensure_cluster
from tests.simulation.operators import seed_everything, simulated_edges
from tests.simulation.shape import Shape
from tests.simulation.world import NAMESPACE, World

PATIENCE = 3600.0
"""Seconds, several times the `startupTimeout` after which a worker is given up."""


def ready_again(*, replicas: int) -> int:
    """End the engine of one worker and leave its job; returns how many workers are ready then."""
    seed_everything("lone")
    with simulated_edges(), asyncio.Runner(loop_factory=SimulationLoop) as runner:
        return runner.run(_live(replicas))


async def _live(replicas: int) -> int:
    world = World("lone", Shape())
    ensure_cluster(world, Random("x"))
    world.operators[0].start()
    wanted = manifests.model_deployment(namespace=NAMESPACE, name="llama", random=Random(4))
    wanted["spec"]["pools"], wanted["spec"]["replicas"] = [manifests.slurm_pool()], replicas
    world.api.create(MODEL_DEPLOYMENTS, wanted, by="user")
    await asyncio.sleep(400)
    job = next(job for job in world.slurm.jobs.values() if job.engine is not None)
    assert job.engine is not None
    world.machines.end(job.engine)
    job.engine = None
    await asyncio.sleep(PATIENCE)
    status = world.api.get(MODEL_DEPLOYMENTS, NAMESPACE, "llama")
    world.over = world.oracle.off = True
    return int(k8s.dig(status, "status", "readyReplicas", default=0))
