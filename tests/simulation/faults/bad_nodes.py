"""A node on which every engine fails, as with a broken driver.

Such a node is always idle, so SLURM likes it best: without anybody who
remembers, attempt after attempt goes there.
"""

from random import Random

from tests.simulation.draws import one_in
from tests.simulation.faults.register import Register, later
from tests.simulation.world import World

BAD_NODES = Register(stream="node plan", counts=(1, 2), within=one_in(8, stream="nodes"))


@BAD_NODES.happens()
def node_goes_bad(world: World, random: Random) -> None:
    """Engines that start on it end after two seconds, for some minutes."""
    site, node = world.slurm.site, random.choice(sorted(world.slurm.nodes))
    world.tell(f"fault: engines fail on {node}")
    site.bad_node = node

    def mended() -> None:
        if site.bad_node == node:
            site.bad_node = ""

    later(world, random.choice([200, 400, 900]), mended)
