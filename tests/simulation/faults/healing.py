"""The end of all faults: a run has to come to rest after it."""

from random import Random

from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import PODS
from tests.simulation.faults import tenants
from tests.simulation.faults.api_server import mend_watches
from tests.simulation.faults.clusters import ensure_cluster
from tests.simulation.faults.jobs import release, woken
from tests.simulation.faults.pods import recovered, refit
from tests.simulation.shape import DAY
from tests.simulation.slurm import Slurm
from tests.simulation.world import World


def heal(world: World, random: Random) -> None:
    """All faults stop, and so do the clients; what users did stays."""
    world.traffic.stopped = True
    tenants.leave(world)
    world.api.refused.clear()
    for slurm in world.clusters.values():
        _heal_cluster(slurm)
    # Over now, and not forgotten: the oracle asks since when an engine has answered well.
    away, now = world.machines.unreachable_until, world.now
    away.update({address: min(until, now) for address, until in away.items()})
    for engine in world.machines.ledger:
        engine.broken_until = min(engine.broken_until, now)
        engine.slow_until = min(engine.slow_until, now)
    world.weather = type(world.weather)()
    world.watch_delay = 0.3
    if world.tunnels is not None:
        world.tunnels.heal()
    mend_watches(world)
    for replica in world.operators:
        process = replica.process
        if process is not None:
            process.dies_after = None
            process.cut_off_until = 0.0
            if process.stopped:
                process.resume()
    for pod in world.api.all(PODS):
        if not k8s.deletion_timestamp(pod) and k8s.dig(pod, "status", "podIP"):
            recovered(world, k8s.name(pod))
    refit(world)
    for name in world.clusters:
        ensure_cluster(world, random, name)
    world.tell("---- faults stop here ----")


def _heal_cluster(slurm: Slurm) -> None:
    slurm.submission_faults.clear()
    slurm.failing.clear()
    slurm.snapshot_faults.clear()
    slurm.strange.clear()
    slurm.site = type(slurm.site)(gpus=40)
    slurm.resume()
    for job in list(slurm.jobs.values()):
        woken(slurm, job)
        release(slurm, job)
        if job.ends_at is not None:
            slurm.grant(job, DAY)
