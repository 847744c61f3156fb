"""The way to the API server is bad: lost requests and replies, late and broken watches."""

from random import Random

from tests.simulation.faults.register import happens, later
from tests.simulation.world import World


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
