"""Actions on jobs that fail for a while, and what is told of it. No other faults."""

import asyncio
from random import Random
from typing import Any
from unittest import mock

from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import EVENTS, MODEL_DEPLOYMENTS, SLURM_JOBS
from isthmus.errors import SlurmUnavailableError
from tests.simulation import manifests
from tests.simulation.clock import SimulationLoop
from tests.simulation.faults.clusters import ensure_cluster
from tests.simulation.operators import seed_everything, simulated_edges
from tests.simulation.slurmclient import SimulatedSlurmClient
from tests.simulation.world import NAMESPACE, World

WORDS = "scancel: error: Kill job error on job id"


def told_of(command: str) -> dict[str, Any]:
    """Have one of two workers replaced while `command` fails; returns what was told, then."""
    seed_everything("failing")
    with simulated_edges(), asyncio.Runner(loop_factory=SimulationLoop) as runner:
        return runner.run(_live(command))


async def _live(command: str) -> dict[str, Any]:
    world = World("failures")
    ensure_cluster(world, Random("x"))
    world.operators[0].start()
    wanted = manifests.model_deployment(namespace=NAMESPACE, name="llama", random=Random(4))
    wanted["spec"]["pools"], wanted["spec"]["replicas"] = [manifests.slurm_pool()], 2
    world.api.create(MODEL_DEPLOYMENTS, wanted, by="user")
    if command == "cancel":
        world.slurm.site.quota = 0  # the second one waits, and is cancelled at once
    await asyncio.sleep(400)
    victim = k8s.name(max(world.api.all(SLURM_JOBS), key=_waits))
    failing = SlurmUnavailableError(f"{WORDS} 1: try again", reason="CommandFailed")
    with mock.patch.object(SimulatedSlurmClient, command, side_effect=failing):
        world.api.delete(SLURM_JOBS, NAMESPACE, victim, by="user")
        await asyncio.sleep(900)
        writes = world.api.writes
        await asyncio.sleep(100)
        job = world.api.get(SLURM_JOBS, NAMESPACE, victim)
        deployment = world.api.get(MODEL_DEPLOYMENTS, NAMESPACE, "llama")
        found = {
            "job": _condition(job),
            "pools": k8s.dig(deployment, "status", "pools", default=[]),
            "events": [k8s.dig(one, "reason") for one in world.api.all(EVENTS)],
            "writes": world.api.writes - writes,
        }
    await asyncio.sleep(600)
    found["left"] = world.api.get(SLURM_JOBS, NAMESPACE, victim) is not None
    world.over = world.oracle.off = True
    return found


def _waits(obj: Any) -> bool:
    return bool(k8s.dig(obj, "status", "phase") == "Pending")


def _condition(obj: Any) -> Any:
    found = k8s.dig(obj, "status", "conditions", default=[])
    return next((one for one in found if one["type"] == "ActionsSucceed"), None)
