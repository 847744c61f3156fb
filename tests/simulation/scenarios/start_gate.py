"""An attempt whose start gate cannot be closed at once, and nothing else goes wrong.

Its sbatch gave no clear answer, no job turns up, and its SlurmJob is deleted. Either its folder is
read-only, or its gate is claimed by a job that no snapshot shows.
"""

import asyncio
from random import Random

from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import MODEL_DEPLOYMENTS, SLURM_CLUSTERS, SLURM_JOBS
from tests.simulation import manifests
from tests.simulation.apiserver import Json
from tests.simulation.clock import SimulationLoop
from tests.simulation.faults.clusters import ensure_cluster
from tests.simulation.operators import seed_everything, simulated_edges
from tests.simulation.world import NAMESPACE, SYSTEM, World

LONGEST_SECONDS = 3600


def held_back(*, folder_broken: bool) -> Json:
    """Delete such an attempt.

    Args:
        folder_broken: whether its folder is read-only; else its gate is claimed.

    Returns:
        What its status said last before it was let go.
    """
    seed_everything("start gate")
    with simulated_edges(), asyncio.Runner(loop_factory=SimulationLoop) as runner:
        return runner.run(_live(folder_broken))


async def _live(folder_broken: bool) -> Json:
    world = World("start gate")
    ensure_cluster(world, Random("x"))
    world.slurm.submission_faults.append(("unclear", 0.0))
    wanted = manifests.model_deployment(namespace=NAMESPACE, name="llama", random=Random(4))
    wanted["spec"]["pools"], wanted["spec"]["replicas"] = [manifests.slurm_pool()], 1
    world.api.create(MODEL_DEPLOYMENTS, wanted, by="user")
    world.operators[0].start()
    await asyncio.sleep(10)
    (attempt,) = world.api.all(SLURM_JOBS)
    if folder_broken:
        world.slurm.site.folder_broken = True
    else:
        cluster = world.api.get(SLURM_CLUSTERS, SYSTEM, manifests.CLUSTER)
        folder = k8s.dig(cluster, "spec", "files", "workDirectory")
        world.slurm.claims[folder, attempt["spec"]["jobName"]] = "1.0"
    world.api.delete(SLURM_JOBS, NAMESPACE, k8s.name(attempt), by="user")
    status: Json = {}
    for _ in range(LONGEST_SECONDS):
        found = world.api.get(SLURM_JOBS, NAMESPACE, k8s.name(attempt))
        if found is None:
            break
        status = found["status"]
        await asyncio.sleep(1)
    world.over = world.oracle.off = True
    assert found is None, f"{k8s.name(attempt)} is held for ever: {status}"
    return status
