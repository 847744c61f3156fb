"""Worlds of shapes that no seed draws, by name: run as a test of their own, and by `--shape`.

What all seeds have in common would change them all; here it changes none.
"""

from collections.abc import Mapping
from typing import Final

from tests.simulation.shape import ClusterShape, Shape

_SECOND = ClusterShape(name="hpc2", nodes=3, places=4)
_THIRD = ClusterShape(name="hpc3", nodes=2, places=3, walltime=1800.0)

SHAPES: Final[Mapping[str, Shape]] = {
    "one node, short time limits": Shape(cluster=ClusterShape(nodes=1, places=4, walltime=600.0)),
    "many nodes, three drained": Shape(cluster=ClusterShape(nodes=12, places=12, drained=3)),
    "a surge of two, hasty drains": Shape(surge=2, drain="30s", operators=2),
    "a front of ours": Shape(front=True),
    "shared keys behind tunnels": Shape(tunnels=True, keys_apart=False),
    "two clusters": Shape(others=(_SECOND,), operators=2),
    "three clusters behind tunnels": Shape(others=(_SECOND, _THIRD), tunnels=True),
    "nodes in trouble": Shape(node_states=True),
    "old copies of the queue": Shape(old_queues=True),
    "nodes in trouble on two clusters": Shape(others=(_SECOND,), node_states=True),
}
