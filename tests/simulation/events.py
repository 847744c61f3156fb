"""What can happen in the simulated world: the register, and what all that registers needs.

Each happening is a function of the world and of its own randomness; they are in `users`,
`slurm_faults`, `faults`.
"""

from collections.abc import Callable
from random import Random
from typing import TypeAlias

from isthmus.apiserver import objects as k8s
from tests.simulation.apiserver import Json
from tests.simulation.slurm import Job
from tests.simulation.world import NAMESPACE, World

Happening: TypeAlias = Callable[[World, Random], None]

HAPPENINGS: dict[str, tuple[float, Happening]] = {}
"""Name to (weight, what it does)."""


def happens(weight: float = 1.0) -> Callable[[Happening], Happening]:
    def register(do: Happening) -> Happening:
        HAPPENINGS[do.__name__] = weight, do
        return do

    return register


def later(world: World, seconds: float, do: Callable[[], None]) -> None:
    world.slurm.later(seconds, do)


def some_deployment(world: World, random: Random) -> Json | None:
    found = [obj for obj in world.deployments() if k8s.namespace(obj) == NAMESPACE]
    return random.choice(found) if found else None


def some_job(world: World, random: Random, *states: str) -> Job | None:
    found = [
        job
        for job in world.slurm.jobs.values()
        if job.request is not None and (not states or job.state in states)
    ]
    return random.choice(found) if found else None
