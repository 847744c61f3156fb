"""Deployments drawn from the CRD's schema, as far as the simulated cluster can serve them.

What is given is what a worker needs to become ready there: few workers, a cluster that exists, time
to start. All else is drawn, so a new field is drawn from its first day.
"""

from random import Random

from isthmus.api import names
from tests.drawn_specs import enriched
from tests.simulation import manifests
from tests.simulation.apiserver import Json
from tests.simulation.world import NAMESPACE

NAME = "llama"
PARTS = 12
_GIVEN = frozenset({"replicas", "minReplicas", "maxReplicas", "clusterRef", "endpoint", "pools"})
_TIMES = frozenset({"startupTimeout", "interval", "successThreshold", "timeout"})
_NEVER_READY = frozenset({"gpuType", "gpusPerNode", "type", "partitions"})
"""The simulated site has one partition and no types of GPUs, its nodes have eight, and its jobs run
SGLang."""


def drawn_deployment(random: Random) -> Json:
    """One to two pools on either scheduler or on both, with whatever else the schema allows."""
    chosen = random.choice([("hpc",), ("k8s",), ("hpc", "k8s"), ("k8s", "hpc"), ("hpc", "other")])
    pools = [_pool(name, random) for name in chosen]
    room = sum(pool["maxReplicas"] for pool in pools)
    obj: Json = {
        "apiVersion": names.API_VERSION,
        "kind": "ModelDeployment",
        "metadata": {"namespace": NAMESPACE, "name": NAME},
        "spec": {
            "model": {"source": random.choice(["hf://org/llama", "/models/llama"])},
            # No more than have room: what no pool takes is another promise's matter.
            "replicas": min(room, random.choice([0, 1, 2, 2, 3])),
            "pools": pools,
            "endpoint": {"type": "Service"},
            "health": {"startupTimeout": random.choice(["10m", "20m"]), "interval": "10s"},
            "drain": {"timeout": random.choice(["0s", "30s", "2m"])},
        },
    }
    parts = random.randrange(PARTS)
    return enriched(obj, random, count=parts, absent=_GIVEN - {"pools"} | _TIMES | _NEVER_READY)


def _pool(name: str, random: Random) -> Json:
    pool = manifests.kubernetes_pool() if name == "k8s" else manifests.slurm_pool()
    return {
        **pool,
        "name": name,
        "priority": random.choice([0, 0, 5]),
        "minReplicas": random.choice([0, 0, 1]),
        "maxReplicas": random.choice([1, 2, 3]),
        "worker": {"gpusPerNode": random.choice([0, 1, 2])},
    }
