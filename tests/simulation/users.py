"""What users and administrators of the simulated Kubernetes do."""

import base64
from random import Random

from isthmus.api import names
from isthmus.api.keys import DEFAULT_SECRET_KEY
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import (
    MODEL_DEPLOYMENTS,
    PODS,
    SECRETS,
    SLURM_CLUSTERS,
    SLURM_JOBS,
)
from tests.canaries import CANARY, SHAPES
from tests.simulation import manifests
from tests.simulation.apiserver import Json, merged
from tests.simulation.events import happens, later, some_deployment
from tests.simulation.ledger import INTRUDERS
from tests.simulation.secrecy import SECRET_MARK
from tests.simulation.world import HOSTILE, NAMESPACE, SYSTEM, World


@happens(3.0)
def scale(world: World, random: Random) -> None:
    found = some_deployment(world, random)
    if found is not None:
        patch = {"spec": {"replicas": random.choice([0, 1, 2, 3, 3, 4])}}
        edit(world, found, patch)


@happens(2.0)
def update(world: World, random: Random) -> None:
    found = some_deployment(world, random)
    if found is not None:
        pools = manifests.with_arguments(found, length=random.randrange(1000, 9000))
        edit(world, found, {"spec": {"pools": pools}})


@happens(1.0)
def change_pools(world: World, random: Random) -> None:
    found = some_deployment(world, random)
    if found is not None:
        other = manifests.model_deployment(namespace=NAMESPACE, name=k8s.name(found), random=random)
        edit(world, found, {"spec": {"pools": other["spec"]["pools"]}})


def edit(world: World, found: Json, patch: Json) -> None:
    with world.may_fail():
        world.api.patch(
            MODEL_DEPLOYMENTS,
            k8s.namespace(found),
            k8s.name(found),
            patch=patch,
            subresource="",
            by="user",
        )


_UNUSABLE = (
    b"too short",
    *(
        value.replace(CANARY.encode(), SECRET_MARK.encode())
        for name, value in SHAPES.items()
        if name != "huge"
    ),
)
"""What is no key, with the mark in it by which it would be found wherever it shows."""

KEYS_NOTICED = 120.0
"""A resync and the memory of Secrets, with jitter."""


@happens(0.8)
def change_key(world: World, random: Random) -> None:
    """By deleting the generated Secret, by writing another key into it, or by another endpoint."""
    found = some_deployment(world, random)
    if found is None:
        return
    place = k8s.namespace(found), names.api_key_secret(k8s.name(found))
    if world.api.get(SECRETS, *place) is None:
        return
    if random.random() < 0.15:
        world.tell("user: another endpoint, with or without a key for each attempt")
        world.keys_apart = not world.keys_apart
        world.keys_noticed_at = world.now + KEYS_NOTICED
        return
    if random.random() < 0.4:
        world.api.delete(SECRETS, *place, by="user")
        world.keys_noticed_at = world.now + KEYS_NOTICED
        return
    if random.random() < 0.2:
        write_key(world, place, random.choice(_UNUSABLE))
        later(world, random.random() * 100, lambda: write_key(world, place, new_key(random)))
    else:
        write_key(world, place, new_key(random))


def new_key(random: Random) -> str:
    return f"{SECRET_MARK}{random.randrange(1 << 60)}"


def write_key(world: World, place: tuple[str, str], key: str | bytes) -> None:
    world.keys_noticed_at = world.now + KEYS_NOTICED
    value = key if isinstance(key, bytes) else key.encode()
    data = {DEFAULT_SECRET_KEY: base64.b64encode(value).decode()}
    with world.may_fail():
        world.api.patch(SECRETS, *place, patch={"data": data}, subresource="", by="user")


@happens(0.7)
def delete_deployment(world: World, random: Random) -> None:
    found = some_deployment(world, random)
    if found is not None:
        with world.may_fail():
            world.api.delete(MODEL_DEPLOYMENTS, k8s.namespace(found), k8s.name(found), by="user")


@happens(1.0)
def create_deployment(world: World, random: Random) -> None:
    """Also again: as soon as the old object of the name is gone."""
    name = random.choice(["llama", "qwen"])
    wanted = manifests.model_deployment(namespace=NAMESPACE, name=name, random=random)
    with world.may_fail():
        world.api.create(MODEL_DEPLOYMENTS, wanted, by="user")


@happens(1.5)
def delete_slurm_job(world: World, random: Random) -> None:
    found = sorted(world.api.all(SLURM_JOBS), key=k8s.name)
    if found:
        victim = random.choice(found)
        world.api.delete(SLURM_JOBS, k8s.namespace(victim), k8s.name(victim), by="user")


@happens(0.5)
def delete_pod(world: World, random: Random) -> None:
    found = sorted(world.api.all(PODS), key=k8s.name)
    if found:
        world.api.delete(PODS, NAMESPACE, k8s.name(random.choice(found)), by="user")


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


def ensure_cluster(world: World, random: Random) -> None:
    if world.api.get(SLURM_CLUSTERS, SYSTEM, manifests.CLUSTER) is None:
        wanted = manifests.slurm_cluster(
            namespace=SYSTEM, teams=[NAMESPACE, HOSTILE], random=random
        )
        if world.tunnels is not None:
            wanted = merged(wanted, {"spec": world.tunnels.cluster_spec()})
        world.api.create(SLURM_CLUSTERS, wanted, by="user")


@happens(0.7)
def recreate_deployment(world: World, random: Random) -> None:
    """Deleted, and made again as soon as the name is free: another object with another uid."""
    found = some_deployment(world, random)
    if found is None:
        return
    wanted = {
        "metadata": {"namespace": k8s.namespace(found), "name": k8s.name(found)},
        "spec": found["spec"],
    }
    with world.may_fail():
        world.api.delete(MODEL_DEPLOYMENTS, k8s.namespace(found), k8s.name(found), by="user")

    def again(tries: int) -> None:
        if world.api.get(MODEL_DEPLOYMENTS, NAMESPACE, k8s.name(found)) is None:
            world.api.create(MODEL_DEPLOYMENTS, wanted, by="user")
        elif tries:
            later(world, 2.0, lambda: again(tries - 1))

    later(world, 1.0, lambda: again(300))


@happens(0.7)
def restored_from_a_backup(world: World, random: Random) -> None:
    """The objects vanish and come back with new uids and without status, some not at all."""
    found = some_deployment(world, random)
    if found is None or k8s.deletion_timestamp(found):
        return
    owned = [job for job in world.api.all(SLURM_JOBS) if k8s.uid(found) in k8s.owner_uids(job)]
    owned.sort(key=k8s.name)
    world.tell(f"fault: {k8s.name(found)} is restored from a backup")
    world.caches_late(60)
    for job in owned:
        world.oracle.lost(str(job["spec"]["jobName"]))
        world.api.vanish(SLURM_JOBS, job)
    world.api.vanish(MODEL_DEPLOYMENTS, found)
    back = [job for job in owned if random.random() < 0.5]

    def restore() -> None:
        for resource, obj in ((MODEL_DEPLOYMENTS, found), *((SLURM_JOBS, job) for job in back)):
            meta = {key: obj["metadata"].get(key) for key in _RESTORED if key in obj["metadata"]}
            with world.may_fail():
                world.api.create(resource, {"metadata": meta, "spec": obj["spec"]}, by="user")

    later(world, random.choice([0.5, 5.0, 60.0]), restore)


_RESTORED = ("namespace", "name", "labels", "annotations", "finalizers", "ownerReferences")


@happens(0.8)
def wipe_status(world: World, random: Random) -> None:
    """A restore brings objects back without their status."""
    for resource in (SLURM_JOBS, MODEL_DEPLOYMENTS):
        for obj in world.api.all(resource):
            if random.random() < 0.5 and obj.get("status"):
                if resource is SLURM_JOBS and k8s.namespace(obj) != INTRUDERS:
                    world.oracle.attempts[str(obj["spec"]["jobName"])].wiped = True
                gone = dict.fromkeys(obj["status"])
                world.api.patch(
                    resource,
                    k8s.namespace(obj),
                    k8s.name(obj),
                    patch={"status": gone},
                    subresource="status",
                    by="user",
                )
