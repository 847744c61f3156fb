"""Engines fail, cannot be reached, or somebody else has their port."""

from random import Random

from tests.simulation.engines import Engine
from tests.simulation.faults.register import happens, later, some_job
from tests.simulation.slurm_jobs import Job
from tests.simulation.world import World


@happens(1.5)
def engine_trouble(world: World, random: Random) -> None:
    alive = [engine for engine in world.machines.ledger if engine.alive and engine.job_name]
    if not alive:
        return
    engine = random.choice(alive)
    until = world.now + random.choice([5, 60, 300, 900])
    kind = random.choice(["503", "slow", "unreachable"])
    world.tell(f"fault: engine of {engine.job_name} {kind} until {until:.0f}")
    if world.machines.serves(engine, now=world.now):
        engine.bad_since = world.now
    if kind == "503":
        engine.broken_until = until
    elif kind == "slow":
        engine.slow_until = until
    else:
        world.machines.unreachable_until[engine.address] = until


@happens(0.7)
def network_to_the_nodes_is_down(world: World, random: Random) -> None:
    """Our view fails, not the engines."""
    until = world.now + random.choice([20, 100, 400])
    world.tell(f"fault: no node can be reached until {until:.0f}")
    for address in world.slurm.nodes.values():
        world.machines.unreachable_until[address] = until


@happens(1.0)
def foreign_endpoint(world: World, random: Random) -> None:
    """An engine dies and somebody else takes its port, before SLURM notices."""
    job = some_job(world, random, "RUNNING")
    if job is None or job.engine is None:
        return
    old, job.engine = job.engine, None
    world.machines.end(old)
    other = random.choice([old.model, "somebody-else"])
    foreign = Engine(
        job_name="",
        job_id=0,
        attempt="foreign",
        model=other,
        address=old.address,
        port=old.port,
        started_at=world.now,
        ready_at=world.now,
    )
    world.machines.start(foreign)
    world.tell(f"fault: a foreign server of {other} at {old.address}:{old.port}")
    later(world, random.random() * 200, lambda: over(world, job))
    later(world, 100 + random.random() * 600, lambda: world.machines.end(foreign))


def over(world: World, job: Job) -> None:
    if job.state == "RUNNING":
        world.slurm.end(job, "FAILED", exit_code=1 << 8)
