"""What goes wrong in slurmctld: submissions, snapshots, its state."""

from random import Random

from tests.simulation.faults.register import happens, later
from tests.simulation.world import World


@happens(5.0)
def submission_fault(world: World, random: Random) -> None:
    kind = random.choice(
        [
            "no-reply",
            "ghost",
            "ghost",
            "unclear",
            "lost",
            "lost",
            "refused",
            "bad-constraints",
            "hang",
        ]
    )
    seconds = {"ghost": random.choice([20.0, 100.0, 300.0, 650.0]), "lost": random.random() * 3}
    for _ in range(random.choice([1, 1, 2])):
        world.slurm.submission_faults.append((kind, seconds.get(kind, 0.0)))


@happens(3.0)
def snapshot_fault(world: World, random: Random) -> None:
    kind = random.choice(["failed", "truncated", "empty", "empty", "old", "reordered", "hang"])
    world.slurm.snapshot_faults.extend([kind] * random.choice([1, 2, 3, 6]))


@happens(2.0)
def controller_stops(world: World, random: Random) -> None:
    world.slurm.mode = random.choice(["down", "hung"])
    world.tell(f"fault: slurmctld {world.slurm.mode}")
    later(world, random.choice([5, 30, 120, 400]) * random.random(), world.slurm.resume)


@happens(1.5)
def controller_rolled_back(world: World, random: Random) -> None:
    world.slurm.rollback(random.choice([1.0, 10.0, 60.0]))


@happens(0.5)
def everything_gone(world: World, random: Random) -> None:
    """An administrator cancels all jobs, and slurmctld forgets them at once."""
    world.tell("fault: all jobs are gone")
    for job in list(world.slurm.jobs.values()):
        if job.request is not None:
            world.slurm.end(job, "CANCELLED")
            if random.random() < 0.7:
                world.slurm.purge(job)
