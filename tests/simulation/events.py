"""What users do and what goes wrong: each a function of the world and of its own randomness."""

from collections.abc import Callable
from random import Random
from typing import TypeAlias

from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import (
    MODEL_DEPLOYMENTS,
    PODS,
    SLURM_CLUSTERS,
    SLURM_JOBS,
)
from tests.simulation import manifests
from tests.simulation.apiserver import Json
from tests.simulation.engines import Engine
from tests.simulation.slurm import Job
from tests.simulation.world import NAMESPACE, SYSTEM, World

Happening: TypeAlias = Callable[[World, Random], None]

HAPPENINGS: dict[str, tuple[float, Happening]] = {}
"""Name to (weight, what it does)."""


def happens(weight: float = 1.0) -> Callable[[Happening], Happening]:
    def register(do: Happening) -> Happening:
        HAPPENINGS[do.__name__] = weight, do
        return do

    return register


def later(world: World, seconds: float, do: Callable[[], None]) -> None:
    world.slurm.later(seconds, do)


def some_deployment(world: World, random: Random) -> Json | None:
    found = world.deployments()
    return random.choice(found) if found else None


def some_job(world: World, random: Random, *states: str) -> Job | None:
    found = [
        job
        for job in world.slurm.jobs.values()
        if job.request is not None and (not states or job.state in states)
    ]
    return random.choice(found) if found else None


# ---- users


@happens(3.0)
def scale(world: World, random: Random) -> None:
    found = some_deployment(world, random)
    if found is not None:
        patch = {"spec": {"replicas": random.choice([0, 1, 2, 3, 3, 4])}}
        edit(world, found, patch)


@happens(2.0)
def update(world: World, random: Random) -> None:
    found = some_deployment(world, random)
    if found is not None:
        pools = manifests.with_arguments(found, length=random.randrange(1000, 9000))
        edit(world, found, {"spec": {"pools": pools}})


@happens(1.0)
def change_pools(world: World, random: Random) -> None:
    found = some_deployment(world, random)
    if found is not None:
        other = manifests.model_deployment(namespace=NAMESPACE, name=k8s.name(found), random=random)
        edit(world, found, {"spec": {"pools": other["spec"]["pools"]}})


def edit(world: World, found: Json, patch: Json) -> None:
    with world.may_fail():
        world.api.patch(
            MODEL_DEPLOYMENTS,
            k8s.namespace(found),
            k8s.name(found),
            patch=patch,
            subresource="",
            by="user",
        )


@happens(0.7)
def delete_deployment(world: World, random: Random) -> None:
    found = some_deployment(world, random)
    if found is not None:
        with world.may_fail():
            world.api.delete(MODEL_DEPLOYMENTS, k8s.namespace(found), k8s.name(found), by="user")


@happens(1.0)
def create_deployment(world: World, random: Random) -> None:
    """Also again: as soon as the old object of the name is gone."""
    name = random.choice(["llama", "qwen"])
    wanted = manifests.model_deployment(namespace=NAMESPACE, name=name, random=random)
    with world.may_fail():
        world.api.create(MODEL_DEPLOYMENTS, wanted, by="user")


@happens(1.5)
def delete_slurm_job(world: World, random: Random) -> None:
    found = sorted(world.api.all(SLURM_JOBS), key=k8s.name)
    if found:
        victim = random.choice(found)
        world.api.delete(SLURM_JOBS, k8s.namespace(victim), k8s.name(victim), by="user")


@happens(0.5)
def delete_pod(world: World, random: Random) -> None:
    found = sorted(world.api.all(PODS), key=k8s.name)
    if found:
        world.api.delete(PODS, NAMESPACE, k8s.name(random.choice(found)), by="user")


@happens(0.6)
def edit_cluster(world: World, random: Random) -> None:
    found = world.api.get(SLURM_CLUSTERS, SYSTEM, manifests.CLUSTER)
    if found is not None:
        first = random.choice([41000, 42000])
        spec = {
            "commands": {"pollInterval": random.choice(["15s", "30s", "60s"])},
            "network": {"ports": {"from": first, "to": first + 999}},
        }
        with world.may_fail():
            world.api.patch(
                SLURM_CLUSTERS,
                SYSTEM,
                manifests.CLUSTER,
                patch={"spec": spec},
                subresource="",
                by="user",
            )


@happens(0.4)
def delete_cluster(world: World, random: Random) -> None:
    """And make it again some time later."""
    with world.may_fail():
        world.api.delete(SLURM_CLUSTERS, SYSTEM, manifests.CLUSTER, by="user")
    later(world, random.random() * 300, lambda: ensure_cluster(world, random))


def ensure_cluster(world: World, random: Random) -> None:
    if world.api.get(SLURM_CLUSTERS, SYSTEM, manifests.CLUSTER) is None:
        wanted = manifests.slurm_cluster(namespace=SYSTEM, team=NAMESPACE, random=random)
        world.api.create(SLURM_CLUSTERS, wanted, by="user")


@happens(0.8)
def wipe_status(world: World, random: Random) -> None:
    """A restore brings objects back without their status."""
    for resource in (SLURM_JOBS, MODEL_DEPLOYMENTS):
        for obj in world.api.all(resource):
            if random.random() < 0.5 and obj.get("status"):
                if resource is SLURM_JOBS:
                    world.oracle.attempts[str(obj["spec"]["jobName"])].wiped = True
                gone = dict.fromkeys(obj["status"])
                world.api.patch(
                    resource,
                    k8s.namespace(obj),
                    k8s.name(obj),
                    patch={"status": gone},
                    subresource="status",
                    by="user",
                )


# ---- SLURM: submissions and snapshots


@happens(5.0)
def submission_fault(world: World, random: Random) -> None:
    kind = random.choice(
        ["no-reply", "ghost", "ghost", "unclear", "lost", "lost", "refused", "bad-constraints"]
    )
    seconds = {"ghost": random.choice([20.0, 100.0, 300.0, 650.0]), "lost": random.random() * 3}
    for _ in range(random.choice([1, 1, 2])):
        world.slurm.submission_faults.append((kind, seconds.get(kind, 0.0)))


@happens(3.0)
def snapshot_fault(world: World, random: Random) -> None:
    kind = random.choice(["failed", "truncated", "empty", "empty", "old", "reordered"])
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
    """A node that lost its network: its engine runs on until it is back."""
    seconds = 30 + random.random() * 300
    engine.lost_by_slurm = True
    world.machines.unreachable_until[engine.address] = world.now + seconds
    later(world, seconds + 1, lambda: world.machines.end(engine))


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
        later(world, random.random() * 100, lambda: woken(job))


def woken(job: Job) -> None:
    if job.state == "SUSPENDED":
        job.state = "RUNNING"


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


# ---- engines


@happens(1.5)
def engine_trouble(world: World, random: Random) -> None:
    alive = [engine for engine in world.machines.ledger if engine.alive and engine.job_name]
    if not alive:
        return
    engine = random.choice(alive)
    until = world.now + random.choice([5, 60, 300])
    kind = random.choice(["503", "slow", "unreachable"])
    world.tell(f"fault: engine of {engine.job_name} {kind} until {until:.0f}")
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


# ---- Kubernetes


@happens(2.0)
def weather(world: World, random: Random) -> None:
    """The way to the API server is bad for a while."""
    name, value = random.choice(
        [
            ("down", True),
            ("lost_request", 0.3),
            ("lost_reply", 0.3),
            ("lost_reply", 0.8),
            ("conflict", 0.5),
            ("busy", 0.5),
            ("slowest", 1.5),
            ("slowest", 9.0),
        ]
    )
    world.tell(f"fault: weather.{name} = {value}")
    before = getattr(type(world.weather)(), name)
    setattr(world.weather, name, value)
    later(world, random.choice([5, 20, 120]), lambda: setattr(world.weather, name, before))


@happens(1.5)
def slow_watch(world: World, random: Random) -> None:
    seconds = random.choice([20, 60, 200])
    world.watch_delay = random.choice([5.0, 30.0])
    world.tell(f"fault: watch events come up to {world.watch_delay} s late")
    world.caches_late(seconds + world.watch_delay + 20)
    later(world, seconds, lambda: setattr(world, "watch_delay", 0.3))


@happens(1.5)
def watch_gap(world: World, random: Random) -> None:
    """Watches break, and the lists after it do not tell what was deleted."""
    seconds = random.choice([5, 30, 120])
    world.tell("fault: watches are broken")
    world.watches_broken = True
    world.caches_late(seconds + 40)
    later(world, seconds, lambda: mend_watches(world))


def mend_watches(world: World) -> None:
    world.watches_broken = False
    for replica in world.operators:
        if replica.process is not None and replica.process.watch is not None:
            replica.process.watch.mend()


@happens(1.0)
def pod_trouble(world: World, random: Random) -> None:
    pods = [
        pod
        for pod in sorted(world.api.all(PODS), key=k8s.name)
        if not k8s.deletion_timestamp(pod) and k8s.dig(pod, "status", "phase") == "Running"
    ]
    if not pods:
        return
    pod = random.choice(pods)
    if random.random() < 0.5:
        world.controllers.fail(pod)
        return
    world.controllers.set_ready(pod, False)
    later(world, random.random() * 100, lambda: recovered(world, k8s.name(pod)))


def recovered(world: World, name: str) -> None:
    pod = world.api.get(PODS, NAMESPACE, name)
    if pod is not None and k8s.dig(pod, "status", "phase") == "Running":
        world.controllers.set_ready(pod, True)


@happens(0.7)
def nodes_full(world: World, random: Random) -> None:
    world.controllers.nodes.gpus = random.randrange(0, 2)
    later(world, random.random() * 400, lambda: refit(world))


def refit(world: World) -> None:
    world.controllers.nodes.gpus = 8
    world.controllers.reschedule()


# ---- ours


@happens(3.0)
def crash(world: World, random: Random) -> None:
    """SIGKILL at some moment, memory lost; likeliest while something is under way."""
    replica = random.choice(world.operators)
    after = random.choice([0.0, random.random(), random.random() * 20])
    restart = random.choice([0.5, 3.0, 20.0])
    world.caches_late(30)
    later(world, after, lambda: replica.kill(restart_after=restart))


@happens(2.0)
def pause(world: World, random: Random) -> None:
    """SIGSTOP, some of them past the lease, and SIGCONT."""
    process = random.choice(world.operators).process
    if process is None or process.stopped:
        return
    seconds = random.choice([2.0, 9.0, 14.0, 40.0, 200.0])
    world.tell(f"fault: {process.name} is paused for {seconds:.0f} s")
    process.pause()
    world.caches_late(seconds + 30)

    def go_on() -> None:
        if process.stopped and any(replica.process is process for replica in world.operators):
            world.tell(f"{process.name}: goes on")
            process.resume()

    later(world, seconds, go_on)


@happens(0.7)
def clock_jumps(world: World, random: Random) -> None:
    """The wall clock of one operator's machine jumps."""
    process = random.choice(world.operators).process
    if process is not None:
        process.clock_skew += random.choice([-600.0, -60.0, 60.0, 600.0])
        world.oracle.clocks_jumped = True
        world.tell(f"fault: the clock of {process.name} is off by {process.clock_skew:.0f} s")


def heal(world: World, random: Random) -> None:
    """All faults stop; what users did stays."""
    slurm = world.slurm
    slurm.submission_faults.clear()
    slurm.snapshot_faults.clear()
    slurm.site = type(slurm.site)(gpus=40)
    slurm.resume()
    for job in list(slurm.jobs.values()):
        woken(job)
        release(world, job)
    world.machines.unreachable_until.clear()
    for engine in world.machines.ledger:
        engine.broken_until = engine.slow_until = 0.0
    world.weather = type(world.weather)()
    world.watch_delay = 0.3
    mend_watches(world)
    for replica in world.operators:
        process = replica.process
        if process is not None:
            process.clock_skew = 0.0
            if process.stopped:
                process.resume()
    for pod in world.api.all(PODS):
        if not k8s.deletion_timestamp(pod) and k8s.dig(pod, "status", "podIP"):
            recovered(world, k8s.name(pod))
    refit(world)
    ensure_cluster(world, random)
    world.tell("---- faults stop here ----")
