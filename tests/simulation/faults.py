"""What goes wrong elsewhere: engines, Kubernetes, our own processes; and the end of it all."""

from collections.abc import Callable
from random import Random

from isthmus.api.conditions import Phase
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import PODS, SLURM_JOBS, Resource
from tests.simulation import tenants
from tests.simulation.apiserver import Json
from tests.simulation.clock import Process
from tests.simulation.engines import Engine
from tests.simulation.events import happens, later, some_job
from tests.simulation.slurm import Job
from tests.simulation.slurm_faults import release, woken
from tests.simulation.users import ensure_cluster
from tests.simulation.world import NAMESPACE, World

# ---- engines


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
    seconds = random.choice([5, 20, 120])
    world.caches_late(seconds + 40)
    later(world, seconds, lambda: setattr(world.weather, name, before))


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
    world.oracle.deletions_untold_until = world.now + seconds + 200
    later(world, seconds, lambda: mend_watches(world))


def mend_watches(world: World) -> None:
    world.watches_broken = False
    for each in (*world.operators, *world.hosts()):
        if each.process is not None and each.process.watch is not None:
            each.process.watch.mend()


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
def crash_at_an_await(world: World, random: Random) -> None:
    """SIGKILL after so many steps of its tasks, each of which ends at an await."""
    replica = random.choice(world.operators)
    process = replica.process
    if process is None:
        return
    restart = random.choice([0.5, 3.0, 20.0])
    world.caches_late(60)
    process.on_death = lambda: replica.kill(restart_after=restart)
    process.dies_after = process.steps + random.choice([1, 10, 50, 200]) * random.randrange(1, 5)


@happens(1.0)
def cut_off_from_the_api_server(world: World, random: Random) -> None:
    """One replica alone: it must stop before another one leads, whatever it has under way."""
    process = random.choice(world.operators).process
    if process is not None:
        seconds = random.choice([5.0, 12.0, 60.0])
        world.tell(f"fault: {process.name} cannot reach the API server for {seconds:.0f} s")
        process.cut_off_until = world.now + seconds
        world.caches_late(seconds + 60)


@happens(2.0)
def pause(world: World, random: Random) -> None:
    """SIGSTOP, some of them past the lease, and SIGCONT; at once, or right before an sbatch."""
    process = random.choice(world.operators).process
    if process is None or process.stopped:
        return
    seconds = random.choice([2.0, 9.0, 14.0, 40.0, 200.0])
    if random.random() < 0.4:
        before_an_sbatch(world, process, lambda: hold_still(world, process, seconds))
    else:
        hold_still(world, process, seconds)


def hold_still(world: World, process: Process, seconds: float) -> None:
    world.tell(f"fault: {process.name} is paused for {seconds:.0f} s")
    process.pause()
    world.caches_late(seconds + 30)

    def go_on() -> None:
        if process.stopped and any(replica.process is process for replica in world.operators):
            world.tell(f"{process.name}: goes on")
            process.resume()

    later(world, seconds, go_on)


def before_an_sbatch(world: World, process: Process, do: Callable[[], None]) -> None:
    """Once the API server has taken the next intent of a process, which has not heard of it yet."""

    def told(resource: Resource, event: str, obj: Json, by: str) -> None:
        announced = resource is SLURM_JOBS and k8s.dig(obj, "status", "phase") == Phase.SUBMITTING
        if world.traffic.stopped or (by == process.name and announced):
            world.api.listeners.remove(told)
            if not world.traffic.stopped and not process.stopped:
                do()

    world.api.listeners.append(told)


@happens(0.7)
def clock_jumps(world: World, random: Random) -> None:
    """The wall clock of one operator's machine jumps."""
    process = random.choice(world.operators).process
    if process is not None:
        process.clock_skew += random.choice([-7200.0, -600.0, -60.0, 60.0, 600.0])
        world.oracle.clocks_jumped = True
        world.tell(f"fault: the clock of {process.name} is off by {process.clock_skew:.0f} s")


# ---- healing


def heal(world: World, random: Random) -> None:
    """All faults stop, and so do the clients; what users did stays."""
    world.traffic.stopped = True
    slurm = world.slurm
    slurm.submission_faults.clear()
    tenants.leave(world)
    slurm.snapshot_faults.clear()
    slurm.strange.clear()
    world.api.refused.clear()
    slurm.site = type(slurm.site)(gpus=40)
    slurm.resume()
    for job in list(slurm.jobs.values()):
        woken(world, job)
        release(world, job)
        if job.ends_at is not None:
            slurm.grant(job, 8 * 3600.0)
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
    ensure_cluster(world, random)
    world.tell("---- faults stop here ----")
