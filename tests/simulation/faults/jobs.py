"""What becomes of single jobs: they end, wait, are put back, get another comment."""

from random import Random

from tests.simulation.engines import Engine
from tests.simulation.faults.register import happens, later, some_job
from tests.simulation.slurm import Slurm
from tests.simulation.slurm_jobs import Job
from tests.simulation.world import World


@happens(3.0)
def job_ends(world: World, random: Random) -> None:
    job = some_job(world, random, "RUNNING", "PENDING")
    if job is None:
        return
    if job.state == "PENDING":
        world.slurm.end(job, "CANCELLED")
        return
    state, code = random.choice(
        [
            ("CANCELLED", 15),
            ("FAILED", 1 << 8),
            ("COMPLETED", 0),
            ("TIMEOUT", 0),
            ("PREEMPTED", 0),
            ("NODE_FAIL", 0),
            ("OUT_OF_MEMORY", 9),
        ]
    )
    if state == "NODE_FAIL" and job.engine is not None and random.random() < 0.5:
        cut_off(world, job.engine, random)
        job.engine = None
    world.slurm.end(job, state, exit_code=code)


def cut_off(world: World, engine: Engine, random: Random) -> None:
    """A node that lost its network: its engine runs on until it is back, and a while after."""
    seconds, longer = 30 + random.random() * 300, random.choice([1.0, 25.0, 60.0])
    engine.lost_by_slurm = True
    world.machines.unreachable_until[engine.address] = world.now + seconds
    later(world, seconds + longer, lambda: world.machines.end(engine))


@happens(1.5)
def purged_before_the_next_poll(world: World, random: Random) -> None:
    job = some_job(world, random, "RUNNING", "PENDING")
    if job is not None:
        world.slurm.end(job, random.choice(["COMPLETED", "FAILED", "CANCELLED"]))
        world.slurm.purge(job)


@happens(1.5)
def requeued(world: World, random: Random) -> None:
    job = some_job(world, random, "RUNNING")
    if job is not None:
        world.slurm.requeue(job)


@happens(1.0)
def end_time_moved(world: World, random: Random) -> None:
    """The granted end moves, both ways: the site makes room, or gives more time."""
    job = some_job(world, random, "RUNNING")
    if job is not None:
        seconds = random.choice([5.0, 60.0, 300.0, 24 * 3600.0])
        world.tell(f"fault: job {job.id} ends in {seconds:.0f} s")
        world.slurm.grant(job, seconds)


@happens(1.0)
def held(world: World, random: Random) -> None:
    job = some_job(world, random, "PENDING")
    if job is not None:
        job.held, job.reason = True, random.choice(["JobHeldUser", "JobHeldAdmin"])
        slurm = world.slurm
        later(world, random.random() * 200, lambda: release(slurm, job))


def release(slurm: Slurm, job: Job) -> None:
    job.held = False
    if job.state == "PENDING":
        job.reason = "Priority"
    slurm.schedule()


@happens(0.7)
def suspended(world: World, random: Random) -> None:
    job = some_job(world, random, "RUNNING")
    if job is not None:
        job.state, slurm = "SUSPENDED", world.slurm
        later(world, random.random() * 100, lambda: woken(slurm, job))


def woken(slurm: Slurm, job: Job) -> None:
    if job.state == "SUSPENDED":
        job.state, job.woken_at = "RUNNING", slurm.now


@happens(1.0)
def comment_rewritten(world: World, random: Random) -> None:
    """By the site, or forged: the port of somebody else, one outside of the range."""
    job = some_job(world, random, "RUNNING")
    if job is None:
        return
    identity = job.comment.partition(":port=")[0]
    other = some_job(world, random)
    job.comment = random.choice(
        [
            "account=proj",
            f"{identity}:port=22",
            f"{identity}:port={random.randrange(41000, 41999)}",
            other.comment if other is not None else "",
        ]
    )
    world.tell(f"fault: comment of job {job.id} is now {job.comment}")
