"""Draws what happens in a seed: from every register, each by its own stream."""

from collections import ChainMap
from collections.abc import Iterator, Mapping
from random import Random

from tests.simulation.faults import (
    api_keys,
    api_server,
    backups,
    clusters,
    deployments,
    engines,
    jobs,
    pods,
    processes,
    site,
    slurmctld,
)
from tests.simulation.faults.bad_nodes import BAD_NODES
from tests.simulation.faults.drained_nodes import DRAINS
from tests.simulation.faults.elsewhere import ELSEWHERE
from tests.simulation.faults.failing_commands import FAILING_COMMANDS
from tests.simulation.faults.intruders import INTRUSIONS
from tests.simulation.faults.long_names import LONG_NAMES
from tests.simulation.faults.node_states import NODE_STATES
from tests.simulation.faults.old_queues import OLD_QUEUES
from tests.simulation.faults.reading import READING
from tests.simulation.faults.refusals import REFUSALS
from tests.simulation.faults.register import COMMON, Happening, Planned, Register
from tests.simulation.faults.tenants import PEACEFUL, SECONDS, TENANTS, hostile, peaceful
from tests.simulation.faults.tunnels import TUNNELS
from tests.simulation.shape import Shape, drawn

_COMMON = (
    api_keys,
    api_server,
    backups,
    clusters,
    deployments,
    engines,
    jobs,
    pods,
    processes,
    site,
    slurmctld,
)
"""Each takes its happenings into the register that all seeds draw from."""

_REGISTERS: tuple[Register, ...] = (
    COMMON,
    READING,
    REFUSALS,
    INTRUSIONS,
    BAD_NODES,
    DRAINS,
    FAILING_COMMANDS,
    LONG_NAMES,
)
"""All but the one of tenants, which begins with one of its own, and those of some shapes."""

HAPPENINGS: Mapping[str, tuple[float, Happening]] = ChainMap(
    *(
        register.happenings
        for register in (*_REGISTERS, TUNNELS, ELSEWHERE, NODE_STATES, OLD_QUEUES, TENANTS)
    )
)
"""Everything that can happen, by its name."""


def plan(seed: int, shape: Shape | None = None) -> tuple[Planned, ...]:
    """What happens in a run of this seed, in a world of this shape."""
    found = _of_tenants(str(seed))
    if not peaceful(str(seed)):
        registers = (*_REGISTERS, *_of_shape(shape or drawn(str(seed), operators=1)))
        found += [one for register in registers for one in register.drawn(str(seed))]
    return tuple(sorted(found, key=lambda planned: planned.at))


def _of_shape(shape: Shape) -> Iterator[Register]:
    if shape.tunnels:
        yield TUNNELS
    if shape.others:
        yield ELSEWHERE
    if shape.node_states:
        yield NODE_STATES
    if shape.old_queues:
        yield OLD_QUEUES


def _of_tenants(seed: str) -> list[Planned]:
    """What another namespace does, and where nothing else goes wrong, what users do beside it."""
    if not hostile(seed):
        return []
    random = Random(f"{seed}/{TENANTS.stream}")
    begin = Planned(
        at=round(random.random() * 60, 3), name="hostile_deployment", salt=random.randrange(1 << 30)
    )
    found = [begin, *TENANTS.draw(random)]
    if peaceful(seed):
        found += [
            Planned(
                at=round(random.random() * SECONDS, 3),
                name=random.choice(PEACEFUL),
                salt=random.randrange(1 << 30),
            )
            for _ in range(random.choice([5, 10, 20]))
        ]
    return found
