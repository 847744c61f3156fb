"""What a world is made of: drawn from a seed, or given by hand. Frozen, and without any I/O.

Every part is drawn by a stream of its own, so that another part changes no seed. A scenario gives
its own: `World("drained", Shape(cluster=ClusterShape(nodes=2)))`.
"""

from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from tests.simulation.draws import one_in

FIRST: Final = "hpc"
"""Name of the cluster of SLURM that every world has."""

DAY: Final = 8 * 3600.0
"""Seconds that a site grants a job where nothing else is said."""

unusual = one_in(8, stream="shape32702")
"""Whether a seed's cluster and deployments are of other sizes than most."""

tunnelled = one_in(3, stream="tunnels")
"""Whether pods cannot reach the compute nodes of a seed."""


@dataclass(frozen=True, slots=True)
class ClusterShape:
    """One cluster of SLURM.

    Attributes:
        name: of its SlurmCluster.
        nodes: how many there are; they have the same names in every cluster.
        gpus_per_node: more than these no job can have.
        places: jobs that run at a time until the faults stop.
        walltime: seconds that a job is granted until the faults stop.
        drained: how many nodes are drained from the beginning until the faults stop.
    """

    name: str = FIRST
    nodes: int = 4
    gpus_per_node: int = 8
    places: int = 6
    walltime: float = DAY
    drained: int = 0


@dataclass(frozen=True, slots=True)
class Shape:
    """One world.

    Attributes:
        operators: replicas of the operator.
        cluster: the cluster of SLURM.
        others: further clusters; each deployment has its pools on SLURM on all of them.
        node_states: whether nodes go down, fall silent and are maintained.
        old_queues: whether slurmctld shows old copies of the queue time and again.
        pods: places for pods on the nodes of Kubernetes.
        tunnels: whether pods cannot reach the compute nodes.
        keys_apart: whether who sends requests to workers can give each its own key, as a front can.
        front: whether a front of ours stands before the workers of the first deployments.
        surge: workers beyond the wanted number in a rollout.
        termination_grace: the setting of that name, seconds between TERM and scancel.
        drain: `drain.timeout` of the first deployments, None where they leave it out.
    """

    operators: int = 1
    cluster: ClusterShape = field(default_factory=ClusterShape)
    others: tuple[ClusterShape, ...] = ()
    node_states: bool = False
    old_queues: bool = False
    pods: int = 8
    tunnels: bool = False
    keys_apart: bool = True
    front: bool = False
    surge: int = 1
    termination_grace: float = 60.0
    drain: str | None = None


def usual(seed: str, *, operators: int = 1) -> Shape:
    """A world of the common size, whose ways and keys are the seed's."""
    return Shape(
        operators=operators,
        tunnels=tunnelled(seed),
        keys_apart=Random(f"{seed}/keys").random() < 0.8,
    )


def drawn(seed: str, *, operators: int) -> Shape:
    """The shape of a seed's world."""
    found = usual(seed, operators=operators)
    return _other(found, Random(f"{seed}/shape")) if unusual(seed) else found


def _other(found: Shape, random: Random) -> Shape:
    cluster = ClusterShape(
        nodes=random.choice([3, 6, 8]),
        places=random.choice([3, 6, 12]),
        walltime=random.choice([DAY, 900.0, 1800.0]),
        drained=random.choice([0, 0, 1]),
    )
    return replace(
        found,
        cluster=cluster,
        surge=random.choice([1, 1, 2]),
        drain=random.choice([None, "30s", "2m"]),
        front=random.choice([False, False, True]),
    )
