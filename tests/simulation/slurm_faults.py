"""What goes wrong in SLURM: submissions, snapshots, single jobs."""

from random import Random

from tests.simulation.engines import Engine
from tests.simulation.events import happens, later, some_job
from tests.simulation.slurm import Job
from tests.simulation.world import World

# ---- SLURM: submissions and snapshots


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


# ---- SLURM: single jobs


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
        later(world, random.random() * 200, lambda: release(world, job))


def release(world: World, job: Job) -> None:
    job.held = False
    if job.state == "PENDING":
        job.reason = "Priority"
    world.slurm.schedule()


@happens(0.7)
def suspended(world: World, random: Random) -> None:
    job = some_job(world, random, "RUNNING")
    if job is not None:
        job.state = "SUSPENDED"
        later(world, random.random() * 100, lambda: woken(world, job))


def woken(world: World, job: Job) -> None:
    if job.state == "SUSPENDED":
        job.state, job.woken_at = "RUNNING", world.now


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


@happens(1.0)
def site_changes(world: World, random: Random) -> None:
    """For some minutes the site is slow, full, or strange."""
    site = world.slurm.site
    name, value = random.choice(
        [
            ("gpus", random.randrange(0, 3)),
            ("quota", random.randrange(0, 3)),
            ("folder_broken", True),
            ("queue_seconds", 300.0),
            ("load_seconds", 400.0),
            ("drain_seconds", 120.0),
            ("kill_wait", 60.0),
            ("min_job_age", 2.0),
            ("publish_delay", 200.0),
            ("forged_port", random.choice([22, 41500])),
            ("rewrite_comments", True),
            ("crash_chance", 0.7),
            ("clock_skew", random.choice([-600.0, 600.0])),
        ]
    )
    before = getattr(type(site)(), name)
    world.tell(f"fault: site.{name} = {value}")
    setattr(site, name, value)

    def back() -> None:
        setattr(site, name, before)
        world.slurm.schedule()

    later(world, random.random() * 500, back)
