"""Pods fail or are not ready for a while, and nodes are full."""

from random import Random

from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import PODS
from tests.simulation.faults.register import happens, later
from tests.simulation.world import NAMESPACE, World


@happens(1.0)
def pod_trouble(world: World, random: Random) -> None:
    pods = [
        pod
        for pod in sorted(world.api.all(PODS), key=k8s.name)
        if not k8s.deletion_timestamp(pod) and k8s.dig(pod, "status", "phase") == "Running"
    ]
    if not pods:
        return
    pod = random.choice(pods)
    if random.random() < 0.5:
        world.controllers.fail(pod)
        return
    world.controllers.set_ready(pod, False)
    later(world, random.random() * 100, lambda: recovered(world, k8s.name(pod)))


def recovered(world: World, name: str) -> None:
    pod = world.api.get(PODS, NAMESPACE, name)
    if pod is not None and k8s.dig(pod, "status", "phase") == "Running":
        world.controllers.set_ready(pod, True)


@happens(0.7)
def nodes_full(world: World, random: Random) -> None:
    world.controllers.nodes.gpus = random.randrange(0, 2)
    later(world, random.random() * 400, lambda: refit(world))


def refit(world: World) -> None:
    world.controllers.nodes.gpus = world.controllers.nodes.room
    world.controllers.reschedule()
