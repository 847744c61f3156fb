"""What the API server refuses for a while, lasting bad input."""

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
from tests.simulation.draws import one_in
from tests.simulation.faults.register import Register, later
from tests.simulation.world import World

REFUSALS = Register(stream="refusal plan", counts=(1, 2, 4), within=one_in(8, stream="refusals573"))

_ANSWERS: dict[str, Callable[[], ApiError]] = {
    "invalid": lambda: ApiInvalidError("422 Invalid: " + "spec.x: Invalid value " * 80, status=422),
    "quota": lambda: ApiForbiddenError("403 Forbidden: exceeded quota: jobs", status=403),
    "rights": lambda: ApiForbiddenError('is forbidden: User "op" cannot create', status=403),
}


@REFUSALS.happens(3.0)
def objects_refused(world: World, random: Random) -> None:
    """New objects of one kind, of all pools or of one, are refused."""
    kind: Resource = random.choice([SLURM_JOBS, SLURM_JOBS, DEPLOYMENTS, CONTROLLER_REVISIONS])
    _refuse(world, random, kind, "create", part=random.choice(["", "-hpc-", "-k8s-"]))


@REFUSALS.happens(1.0)
def services_refused(world: World, random: Random) -> None:
    """What no worker waits for."""
    _refuse(world, random, SERVICES, "create", part="")


@REFUSALS.happens(2.0)
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
