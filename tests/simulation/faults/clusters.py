"""A SlurmCluster is edited, or deleted and made again."""

from random import Random

from isthmus.apiserver.resources import (
    SLURM_CLUSTERS,
)
from tests.simulation import manifests
from tests.simulation.apiserver import merged
from tests.simulation.faults.register import happens, later
from tests.simulation.world import HOSTILE, NAMESPACE, SYSTEM, World


@happens(0.6)
def edit_cluster(world: World, random: Random) -> None:
    found = world.api.get(SLURM_CLUSTERS, SYSTEM, manifests.CLUSTER)
    if found is not None:
        first = random.choice([41000, 42000])
        spec = {
            "commands": {"pollInterval": random.choice(["15s", "30s", "60s"])},
            "network": {"ports": {"from": first, "to": first + 999}},
            "files": {"workDirectory": random.choice(["/scratch/isthmus", "/scratch/other"])},
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


def ensure_cluster(world: World, random: Random, name: str = manifests.CLUSTER) -> None:
    if world.api.get(SLURM_CLUSTERS, SYSTEM, name) is None:
        wanted = manifests.slurm_cluster(
            namespace=SYSTEM, teams=[NAMESPACE, HOSTILE], random=random, name=name
        )
        if world.tunnels is not None:
            wanted = merged(wanted, {"spec": world.tunnels.cluster_spec()})
        world.api.create(SLURM_CLUSTERS, wanted, by="user")
