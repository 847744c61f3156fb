"""TERM and scancel are refused for a while, although SLURM answers every question (finding B8).

What is to end goes on meanwhile, and each try is in vain.
"""

from random import Random

from isthmus.api.conditions import Phase
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import SLURM_JOBS
from tests.simulation.draws import one_in
from tests.simulation.faults.register import Register, later
from tests.simulation.world import NAMESPACE, World

FAILING_COMMANDS = Register(
    stream="failing commands plan",
    counts=(1, 2, 3),
    within=one_in(8, stream="failing commands1540"),
)


@FAILING_COMMANDS.happens()
def commands_fail(world: World, random: Random) -> None:
    """One of them or both, and somebody takes a worker away meanwhile."""
    chosen = random.choice([("terminate",), ("cancel",), ("terminate", "cancel")])
    until = world.now + random.choice([20.0, 100.0, 300.0])
    world.tell(f"fault: {' and '.join(chosen)} fail until {until:.0f}")
    for command in chosen:
        world.slurm.failing[command] = max(until, world.slurm.failing.get(command, 0.0))
    later(world, random.random() * 5, lambda: _take_away(world, random))


def _take_away(world: World, random: Random) -> None:
    if world.traffic.stopped:
        return  # the faults are over
    serving = [
        k8s.name(job)
        for job in world.api.all(SLURM_JOBS)
        if k8s.namespace(job) == NAMESPACE and k8s.dig(job, "status", "phase") == Phase.READY
    ]
    if serving:
        name = random.choice(sorted(serving))
        world.tell(f"user: deletes {name}")
        world.api.delete(SLURM_JOBS, NAMESPACE, name, by="user")
