"""What users and administrators of the simulated world write."""

from collections.abc import Sequence
from random import Random
from typing import Any, Final

from isthmus.api import names
from tests.simulation.apiserver import Json
from tests.simulation.promises.ledger import INTRUDERS
from tests.simulation.shape import FIRST

CLUSTER: Final = FIRST
OTHERS_JOB = "llama-isthmus9-0123456789-0-abcdef"
"""A job of another installation under the same account."""


def slurm_cluster(*, namespace: str, teams: list[str], random: Random, name: str = CLUSTER) -> Json:
    """Its commands lie in a folder of its own, by which the simulated login host knows it."""
    found: Json = {
        "apiVersion": names.API_VERSION,
        "kind": "SlurmCluster",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "login": {"local": {}},
            "commands": {"pollInterval": random.choice(["15s", "30s", "30s", "60s"])},
            "files": {"workDirectory": "/scratch/isthmus"},
            "network": {"ports": {"from": 41000, "to": 41999}},
            "access": {"allowedNamespaces": {"names": [*teams, INTRUDERS]}},
        },
    }
    if name != CLUSTER:
        found["spec"]["commands"]["binDir"] = commands_of(name)
    return found


def commands_of(cluster: str) -> str:
    """Where the commands of a further cluster lie."""
    return f"/opt/{cluster}/bin"


def slurm_pool(**changes: Any) -> Json:
    return {"name": "hpc", "slurm": {"clusterRef": {"name": CLUSTER}}, **changes}


def spread(wanted: Json, clusters: Sequence[str], *, random: Random) -> Json:
    """The same deployment with each of its pools on SLURM on further clusters too."""
    pools: list[Json] = []
    for pool in wanted["spec"]["pools"]:
        pools.append(pool)
        for name in clusters if "slurm" in pool else ():
            placed = {"slurm": {"clusterRef": {"name": name}}, "priority": random.choice([0, 0, 5])}
            room = {"maxReplicas": random.choice([1, 2, 3])}
            other = {**pool, "name": f"{pool['name']}-{name}", **placed, **room}
            pools.append({key: value for key, value in other.items() if key != "minReplicas"})
    return {**wanted, "spec": {**wanted["spec"], "pools": pools}}


def kubernetes_pool(**changes: Any) -> Json:
    return {"name": "k8s", "kubernetes": {}, **changes}


def model_deployment(*, namespace: str, name: str, random: Random) -> Json:
    """A deployment of one to three workers on SLURM, on Kubernetes or on both."""
    kind = random.random()
    if kind < 0.55:
        pools = [slurm_pool()]
    elif kind < 0.65:
        pools = [kubernetes_pool()]
    elif kind < 0.85:
        pools = [slurm_pool(), kubernetes_pool(priority=10, maxReplicas=random.choice([1, 2]))]
    else:
        pools = [slurm_pool(minReplicas=1, maxReplicas=2), kubernetes_pool(priority=5)]
    return {
        "apiVersion": names.API_VERSION,
        "kind": "ModelDeployment",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "model": {"source": f"hf://org/{name}", "servedNames": [name]},
            "replicas": random.choice([1, 1, 2, 2, 3]),
            "pools": pools,
            "endpoint": {"type": "Service"},
            "health": {
                "startupTimeout": random.choice(["3m", "10m"]),
                "interval": random.choice(["10s", "15s", "30s"]),
            },
        },
    }


def with_arguments(obj: Json, *, length: int) -> list[Json]:
    """The pools with another engine argument: a new revision of each."""
    pools: list[Json] = []
    for pool in obj["spec"]["pools"]:
        flag = "--context-length" if "slurm" in pool else "--max-model-len"
        engine = {**pool.get("engine", {}), "args": [f"{flag}={length}"]}
        pools.append({**pool, "engine": engine})
    return pools
