"""What the API server refuses for a while, and what engines call themselves: lasting bad input.

In a register of its own, drawn by a stream of its own and only in some seeds, so that all others
stay what they were.
"""

from collections.abc import Callable
from random import Random

from isthmus.apiserver.resources import (
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    SERVICES,
    SLURM_JOBS,
    Resource,
)
from isthmus.errors import ApiError, ApiForbiddenError, ApiInvalidError
from tests.simulation.apiserver import Refused
from tests.simulation.events import Happening, later
from tests.simulation.world import World

REFUSAL_HAPPENINGS: dict[str, tuple[float, Happening]] = {}
"""Name to (weight, what it does)."""

_ANSWERS: dict[str, Callable[[], ApiError]] = {
    "invalid": lambda: ApiInvalidError("422 Invalid: " + "spec.x: Invalid value " * 80, status=422),
    "quota": lambda: ApiForbiddenError("403 Forbidden: exceeded quota: jobs", status=403),
    "rights": lambda: ApiForbiddenError('is forbidden: User "op" cannot create', status=403),
}


def refusal_happens(weight: float = 1.0) -> Callable[[Happening], Happening]:
    def register(do: Happening) -> Happening:
        REFUSAL_HAPPENINGS[do.__name__] = weight, do
        return do

    return register


def refuses(seed: str) -> bool:
    """Whether the API server refuses something in this seed.

    The number in the stream's name is one by which none of the seeds is drawn that are known for
    what they once found.
    """
    return Random(f"{seed}/refusals573").random() < 1 / 8


@refusal_happens(3.0)
def objects_refused(world: World, random: Random) -> None:
    """New objects of one kind, of all pools or of one, are refused."""
    kind: Resource = random.choice([SLURM_JOBS, SLURM_JOBS, DEPLOYMENTS, CONTROLLER_REVISIONS])
    _refuse(world, random, kind, "create", part=random.choice(["", "-hpc-", "-k8s-"]))


@refusal_happens(1.0)
def services_refused(world: World, random: Random) -> None:
    """What no worker waits for."""
    _refuse(world, random, SERVICES, "create", part="")


@refusal_happens(2.0)
def changes_refused(world: World, random: Random) -> None:
    """Nothing of a kind can be scaled, marked or deleted: what is to go cannot go."""
    kind: Resource = random.choice([SLURM_JOBS, DEPLOYMENTS])
    _refuse(world, random, kind, random.choice(["patch", "delete"]), part="")


def _refuse(world: World, random: Random, kind: Resource, verb: str, *, part: str) -> None:
    word = random.choice(sorted(_ANSWERS))
    world.tell(f"fault: {verb} of {kind.plural} {part!r} is refused: {word}")
    rule = Refused(resource=kind, verb=verb, part=part, error=_ANSWERS[word])
    world.api.refused.append(rule)
    later(world, random.choice([20, 60, 200, 500]), lambda: _end(world, rule))


def _end(world: World, rule: Refused) -> None:
    if rule in world.api.refused:
        world.api.refused.remove(rule)
