"""Another installation on the same SLURM account, with an API server and an operator of its own.

Its deployment has our namespace and name, so only the uid of the owner and the installation id in
the name of a job tell whose it is. A job of the other's is neither ended nor taken for an attempt
of ours (finding B9).

An orphan is a job that has our installation id and no SlurmJob. Of two installations with one id
each sees the other's jobs so, and nothing that SLURM shows of a job says more. So with the policy
`Cancel` each ends what the other runs: `isthmus run` has no default id, and it is promised that ids
of their own keep them apart. With `Report` nothing is ended, whatever the ids.
"""

from dataclasses import replace
from random import Random

from isthmus.apiserver.resources import MODEL_DEPLOYMENTS, SLURM_CLUSTERS
from tests.simulation import manifests
from tests.simulation.drawn import NAME
from tests.simulation.faults.clusters import ensure_cluster
from tests.simulation.promises.ending import unsettled
from tests.simulation.world import NAMESPACE, SYSTEM, World

STAYS_SECONDS = 1500.0
"""More than the ten minutes after which an orphan is ended."""

SECONDS = STAYS_SECONDS + 900.0


def moves_in(world: World, *, installation: str, orphan_policy: str) -> World:
    """Have another installation serve two workers for a while; then its deployment is deleted.

    Each judge passes over starts of jobs that the other knows (`Ledger.is_anothers`): it reads one
    API server, and to it such a job is one without a SlurmJob. What is done to a job is judged as
    ever, by the judge of whoever does it, so an end of a job that is the other's is told.
    """
    other = World(
        f"{world.seed}/{installation}",
        replace(world.shape, operators=1, tunnels=False),
        installation=installation,
        beside=world,
    )
    world.neighbours.append(other)
    other.keys_apart = world.keys_apart
    other.oracle.violations = world.oracle.violations
    other.oracle.others, world.oracle.others = [world.oracle], [other.oracle]
    ensure_cluster(other, Random(f"{other.seed}/cluster"))
    for one in (world, other):
        patch = {"spec": {"orphanPolicy": orphan_policy}}
        place = SYSTEM, manifests.CLUSTER
        one.api.patch(SLURM_CLUSTERS, *place, patch=patch, subresource="", by="user")
    wanted = manifests.model_deployment(namespace=NAMESPACE, name=NAME, random=Random(other.seed))
    wanted["spec"] |= {"pools": [manifests.slurm_pool()], "replicas": 2}
    other.api.create(MODEL_DEPLOYMENTS, wanted, by="user")
    other.operators[0].start()
    world.slurm.later(STAYS_SECONDS, _moves_out, other)
    return other


def _moves_out(other: World) -> None:
    missing = unsettled(other)
    other.oracle.require(not missing, f"the other installation is disturbed: {missing}")
    other.api.delete(MODEL_DEPLOYMENTS, NAMESPACE, NAME, by="user")
