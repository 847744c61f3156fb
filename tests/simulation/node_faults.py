"""A node on which every engine fails, as with a broken driver.

In a register of its own, drawn by a stream of its own and only in some seeds, so that all others
stay what they were. Such a node is always idle, so SLURM likes it best: without anybody who
remembers, attempt after attempt goes there.
"""

from random import Random

from tests.simulation.events import Happening, later
from tests.simulation.world import World

NODE_HAPPENINGS: dict[str, tuple[float, Happening]] = {}
"""Name to (weight, what it does)."""


def node_happens(weight: float = 1.0):  # type: ignore[no-untyped-def]
    def register(do: Happening) -> Happening:
        NODE_HAPPENINGS[do.__name__] = weight, do
        return do

    return register


def goes_bad(seed: str) -> bool:
    """Whether a node does in this seed."""
    return Random(f"{seed}/nodes").random() < 1 / 8


@node_happens()
def node_goes_bad(world: World, random: Random) -> None:
    """Engines that start on it end after two seconds, for some minutes."""
    site, node = world.slurm.site, random.choice(sorted(world.slurm.nodes))
    world.tell(f"fault: engines fail on {node}")
    site.bad_node = node

    def mended() -> None:
        if site.bad_node == node:
            site.bad_node = ""

    later(world, random.choice([200, 400, 900]), mended)
