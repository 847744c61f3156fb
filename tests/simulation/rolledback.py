"""An operator that was rolled back: what is stored is of a newer release. No other faults."""

import asyncio
from random import Random
from typing import Any
from unittest import mock

from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import (
    MODEL_DEPLOYMENTS,
    PODS,
    SLURM_CLUSTERS,
    SLURM_JOBS,
    Resource,
)
from tests.simulation import apiserver, manifests
from tests.simulation.clock import SimulationLoop
from tests.simulation.faults.clusters import ensure_cluster
from tests.simulation.faults.deployments import edit
from tests.simulation.operators import seed_everything, simulated_edges
from tests.simulation.slurm_jobs import LIVE
from tests.simulation.world import NAMESPACE, SYSTEM, World

Change = tuple[Resource, dict[str, Any], str]
"""Of which kind, the merge patch, and the field that has to be named."""

NEWER: dict[str, Change] = {
    "a field of a deployment": (MODEL_DEPLOYMENTS, {"spec": {"sleep": {"after": "1h"}}}, "sleep"),
    "another type in a deployment": (MODEL_DEPLOYMENTS, {"spec": {"drain": "fast"}}, "drain"),
    "a word in a deployment's status": (
        MODEL_DEPLOYMENTS,
        {"status": {"pools": [{"name": "hpc", "pending": {"class": "Asleep"}}]}},
        "",
    ),
    "a field of a job": (SLURM_JOBS, {"spec": {"nodesPerWorker": 2}}, "nodesPerWorker"),
    "another type in a job": (SLURM_JOBS, {"spec": {"work_directory": {"path": "/x"}}}, "work"),
    "a phase of a job": (SLURM_JOBS, {"status": {"phase": "Asleep"}}, ""),
    "another type in a job's status": (SLURM_JOBS, {"status": {"jobId": {"id": "x"}}}, ""),
    "a field of a cluster": (SLURM_CLUSTERS, {"spec": {"network": {"mesh": "a"}}}, "mesh"),
    "a word in a cluster": (SLURM_CLUSTERS, {"spec": {"orphanPolicy": "Adopt"}}, "orphanPolicy"),
    "a way to log in": (SLURM_CLUSTERS, {"spec": {"login": "rest"}}, "login"),
}


def rolled_back(change: Change) -> list[str]:
    """Run a deployment, change what is stored, delete it; returns what was not as it should be."""
    seed_everything("rolled back")
    with simulated_edges(), asyncio.Runner(loop_factory=SimulationLoop) as runner:
        return runner.run(_live(*change))


async def _live(resource: Resource, patch: dict[str, Any], field: str) -> list[str]:
    world = World("rolled back")
    ensure_cluster(world, Random("x"))
    world.operators[0].start()
    wanted = manifests.model_deployment(namespace=NAMESPACE, name="llama", random=Random(4))
    wanted["spec"]["pools"] = [manifests.slurm_pool(minReplicas=1), manifests.kubernetes_pool()]
    wanted["spec"]["replicas"] = 2
    world.api.create(MODEL_DEPLOYMENTS, wanted, by="user")
    other = manifests.model_deployment(namespace=NAMESPACE, name="qwen", random=Random(4))
    other["spec"]["pools"], other["spec"]["replicas"] = [manifests.kubernetes_pool()], 1
    world.api.create(MODEL_DEPLOYMENTS, other, by="user")
    await asyncio.sleep(400)
    before = _serving(world)
    for obj in list(world.api.all(resource)):
        if k8s.name(obj) != "qwen":
            place = k8s.namespace(obj), k8s.name(obj)
            part = "status" if "status" in patch else ""
            with mock.patch.object(apiserver, "refusal", return_value=None):  # of the newer CRDs
                world.api.patch(resource, *place, patch=patch, subresource=part, by="newer")
    world.operators[0].kill(restart_after=5.0)
    await asyncio.sleep(900)
    wrong = [] if before and _serving(world) == before else [f"{before} → {_serving(world)}"]
    if field and not any(field in str(obj.get("status")) for obj in world.api.all(resource)):
        wrong.append(f"{field} is named nowhere")
    edit(world, world.api.get(MODEL_DEPLOYMENTS, NAMESPACE, "qwen"), {"spec": {"replicas": 2}})
    world.api.delete(MODEL_DEPLOYMENTS, NAMESPACE, "llama", by="user")
    await asyncio.sleep(1500)
    left = [
        k8s.name(obj) for kind in (MODEL_DEPLOYMENTS, SLURM_JOBS) for obj in world.api.all(kind)
    ]
    live = [job.name for job in world.slurm.jobs.values() if job.state in LIVE]
    if field != "login" and (left != ["qwen"] or live):
        wrong.append(f"left are {left} {live}")
    pods = [pod for pod in world.api.all(PODS) if k8s.name(pod).startswith("qwen")]
    if len(pods) != 2:
        wrong.append(f"the other deployment has {len(pods)} pods")
    if resource is SLURM_CLUSTERS and field != "login":
        world.api.delete(SLURM_CLUSTERS, SYSTEM, manifests.CLUSTER, by="user")
        await asyncio.sleep(60)
        wrong += [f"{k8s.name(obj)} stays" for obj in world.api.all(SLURM_CLUSTERS)]
    world.over = world.oracle.off = True
    for process in world.operators[0].lives:
        if process.stopped:
            process.resume()  # to be cancelled properly
    return wrong + world.oracle.violations


def _serving(world: World) -> list[str]:
    """Engines that were started and live, as their jobs and addresses."""
    alive = [engine for engine in world.machines.ledger if engine.alive]
    return sorted(f"{engine.job_name} {engine.address}:{engine.port}" for engine in alive)
