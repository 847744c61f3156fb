"""Deployments and pools whose names are as long as the schema allows (finding B3).

Kubernetes cuts the name of a pod, and a front finds a pod's key by it.
"""

from random import Random

from isthmus.api.names import MAX_DEPLOYMENT_NAME, MAX_POOL_NAME
from isthmus.apiserver.resources import MODEL_DEPLOYMENTS
from tests.simulation import manifests
from tests.simulation.draws import one_in
from tests.simulation.faults.register import Register
from tests.simulation.world import NAMESPACE, World

LONG_NAMES = Register(
    stream="long names plan", counts=(1, 2, 3), within=one_in(8, stream="long names2670")
)

_LAST = ("a", "b")
"""Names differ at their very end alone, where they are cut first."""


@LONG_NAMES.happens()
def long_named_deployment(world: World, random: Random) -> None:
    """Of one worker in each pool, beside whatever else there is."""
    name = _long("mixture-of-experts-instruct-2026-11-fp8", MAX_DEPLOYMENT_NAME, random)
    wanted = manifests.model_deployment(namespace=NAMESPACE, name=name, random=random)
    pods = [
        manifests.kubernetes_pool(name=_long("kubernetes-h100", MAX_POOL_NAME, random)),
        *random.choice([[], [manifests.slurm_pool(name=_long("slurm-gpu-large", 15, random))]]),
    ]
    wanted["spec"] |= {"replicas": len(pods), "pools": [pool | {"maxReplicas": 1} for pool in pods]}
    world.tell(f"user: creates {name} with {', '.join(pool['name'] for pool in pods)}")
    with world.may_fail():
        world.api.create(MODEL_DEPLOYMENTS, wanted, by="user")
        world.controllers.nodes.room += 2  # its worker, and the successor of that


def _long(text: str, length: int, random: Random) -> str:
    return f"{text:x<{length}}"[: length - 1] + random.choice(_LAST)
