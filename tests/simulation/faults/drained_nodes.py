"""An administrator drains a node: nothing new starts there, and what runs there is waited for."""

from random import Random

from tests.simulation.draws import one_in
from tests.simulation.faults.register import Register, later
from tests.simulation.world import World

DRAINS = Register(stream="drain plan", counts=(1, 2, 3), within=one_in(8, stream="drains"))

REASON = "new firmware"


@DRAINS.happens()
def node_is_drained(world: World, random: Random) -> None:
    """Until it is resumed after some minutes; at most two at a time."""
    site, node = world.slurm.site, random.choice(sorted(world.slurm.nodes))
    if len(site.drained) > 1 or node in site.drained:
        return
    world.tell(f"fault: {node} is drained")
    site.drained[node] = REASON

    def resumed() -> None:
        world.tell(f"fault: {node} is resumed")
        site.drained.pop(node, None)

    later(world, random.choice([30, 200, 400, 900]), resumed)
