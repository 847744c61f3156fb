"""How happenings are drawn: in registers, each by a stream of its own; and what they all need.

A register of its own keeps all seeds what they were in which none of it happens.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TypeAlias

from isthmus.apiserver import objects as k8s
from tests.simulation.apiserver import Json
from tests.simulation.slurm_jobs import Job
from tests.simulation.world import NAMESPACE, World

Happening: TypeAlias = Callable[[World, Random], None]

FAULT_SECONDS = 600.0
"""In which happenings begin."""


@dataclass(frozen=True, slots=True)
class Planned:
    """Something that is going to happen.

    Attributes:
        at: seconds from the beginning.
        name: of the happening.
        salt: of its own randomness, so that leaving others out keeps it what it was.
    """

    at: float
    name: str
    salt: int


@dataclass(frozen=True, slots=True)
class Register:
    """Happenings that are drawn together.

    Attributes:
        stream: name of the stream of random numbers, after the seed.
        counts: how many there may be in one run.
        within: whether any of them happens in a seed.
        happenings: name to (weight, what it does).
    """

    stream: str
    counts: tuple[int, ...]
    within: Callable[[str], bool] = lambda seed: True
    happenings: dict[str, tuple[float, Happening]] = field(default_factory=dict)

    def happens(self, weight: float = 1.0) -> Callable[[Happening], Happening]:
        """Take a function into the register, under its own name."""

        def register(do: Happening) -> Happening:
            self.happenings[do.__name__] = weight, do
            return do

        return register

    def drawn(self, seed: str) -> list[Planned]:
        """What of it happens in a seed."""
        return self.draw(Random(f"{seed}/{self.stream}")) if self.within(seed) else []

    def draw(self, random: Random) -> list[Planned]:
        """Some of it, and when."""
        names = sorted(self.happenings)
        weights = [self.happenings[name][0] for name in names]
        # Not everything in every run: faults that meet again and again find more than a mixture.
        chosen = [w if random.random() < 0.5 else 0.0 for w in weights]
        return [
            Planned(
                at=round(random.random() * FAULT_SECONDS, 3),
                name=random.choices(names, chosen if any(chosen) else weights)[0],
                salt=random.randrange(1 << 30),
            )
            for _ in range(random.choice(self.counts))
        ]


COMMON = Register(stream="plan", counts=(2, 5, 10, 15, 25))
"""What may happen in every seed."""

happens = COMMON.happens


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
