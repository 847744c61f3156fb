"""Nodes go down, fall silent and are maintained while jobs run on them.

Words and reasons are those of real answers (`tests/contract/samples`), and of sinfo's manual where
no recorded one has them. Drawn in worlds that ask for it (`Shape.node_states`).
"""

from random import Random

from tests.simulation.faults.jobs import cut_off
from tests.simulation.faults.register import Register, later
from tests.simulation.slurm import Slurm
from tests.simulation.slurm_jobs import LIVE, Job
from tests.simulation.world import World

NODE_STATES = Register(stream="node states plan", counts=(2, 4, 8))

SECONDS = (30.0, 200.0, 400.0, 900.0)
AT_A_TIME = 2


@NODE_STATES.happens(2.0)
def node_is_lost(world: World, random: Random) -> None:
    """It loses its power or its network: slurmctld sets it DOWN and its jobs fail."""
    found = _some_node(world, random)
    if found is None:
        return
    slurm, node = found
    _close(world, slurm, node, "DOWN", "NOT_RESPONDING", reason="Not responding", random=random)
    _fail_jobs(world, slurm, node, random=random, engines_go_on=random.random() < 0.5)


@NODE_STATES.happens()
def node_is_set_down(world: World, random: Random) -> None:
    """An administrator does: its jobs are ended at once."""
    found = _some_node(world, random)
    if found is not None:
        slurm, node = found
        _close(world, slurm, node, "DOWN", reason="dead PSU, rack 4", random=random)
        _fail_jobs(world, slurm, node, random=random, engines_go_on=False)


@NODE_STATES.happens(2.0)
def node_does_not_respond(world: World, random: Random) -> None:
    """Its slurmd is silent, its jobs go on; sometimes nobody can reach their engines either."""
    found = _some_node(world, random)
    if found is None:
        return
    slurm, node = found
    seconds = _close(world, slurm, node, "NOT_RESPONDING", reason="", random=random)
    if random.random() < 0.5:
        world.machines.unreachable_until[slurm.nodes[node]] = world.now + seconds


@NODE_STATES.happens(2.0)
def node_is_maintained(world: World, random: Random) -> None:
    """A reservation of maintenance covers it: what runs goes on, nothing new starts."""
    found = _some_node(world, random)
    if found is not None:
        _close(world, *found, "MAINTENANCE", reason="", random=random)


def _some_node(world: World, random: Random) -> tuple[Slurm, str] | None:
    slurm = random.choice(list(world.clusters.values()))
    free = sorted(slurm.nodes.keys() - slurm.site.states.keys())
    enough = len(free) > 1 and len(slurm.site.states) < AT_A_TIME
    # Rather one where something runs: on others nobody would notice.
    used = sorted({job.node for job in _running(slurm)} & set(free))
    return (slurm, random.choice(used or free)) if enough else None


def _running(slurm: Slurm) -> list[Job]:
    return [job for job in slurm.jobs.values() if job.state in LIVE and job.node]


def _close(
    world: World, slurm: Slurm, node: str, *words: str, reason: str, random: Random
) -> float:
    """Show the node so for some time; returns how many seconds."""
    site, seconds = slurm.site, random.choice(SECONDS)
    site.states[node] = frozenset(words)
    site.reasons[node] = reason
    slurm.tell(f"fault: {node} is {'+'.join(words)} for {seconds:.0f} s")

    def back() -> None:
        slurm.tell(f"fault: {node} is back")
        site.states.pop(node, None)
        site.reasons.pop(node, None)
        slurm.schedule()

    later(world, seconds, back)
    return seconds


def _fail_jobs(
    world: World, slurm: Slurm, node: str, *, random: Random, engines_go_on: bool
) -> None:
    for job in _running(slurm):
        if node not in (job.nodes or (job.node,)):
            continue
        if engines_go_on and job.engine is not None and job.engine.alive:
            cut_off(world, job.engine, random)
            job.engine = None
        slurm.end(job, "NODE_FAIL", reason="NodeDown")
