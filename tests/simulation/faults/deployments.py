"""What users do with deployments, and by hand with what was made for them."""

from random import Random

from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import (
    MODEL_DEPLOYMENTS,
    PODS,
    SLURM_JOBS,
)
from tests.simulation import manifests
from tests.simulation.apiserver import Json
from tests.simulation.faults.register import happens, later, some_deployment
from tests.simulation.world import NAMESPACE, World


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
        other = world.spread(
            manifests.model_deployment(namespace=NAMESPACE, name=k8s.name(found), random=random)
        )
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
    wanted = world.spread(manifests.model_deployment(namespace=NAMESPACE, name=name, random=random))
    with world.may_fail():
        world.api.create(MODEL_DEPLOYMENTS, wanted, by="user")


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
