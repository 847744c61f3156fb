"""Our own processes are killed, paused, cut off, and their clocks jump."""

from collections.abc import Callable
from random import Random

from isthmus.api.conditions import Phase
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import SLURM_JOBS, Resource
from tests.simulation.apiserver import Json
from tests.simulation.clock import Process
from tests.simulation.faults.register import happens, later
from tests.simulation.world import World


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
