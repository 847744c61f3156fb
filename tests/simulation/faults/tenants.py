"""Another namespace, from which SLURM or its site takes no submission, and what it must not do.

In half of the seeds that have one nothing else goes wrong: there the time is judged within which a
good deployment is submitted.
"""

from random import Random

from isthmus.apiserver.resources import MODEL_DEPLOYMENTS
from tests.simulation import manifests
from tests.simulation.draws import one_in
from tests.simulation.faults.register import Register
from tests.simulation.site_answers import ANSWERS
from tests.simulation.world import HOSTILE, World

PEACEFUL = ("scale", "scale", "update", "create_deployment", "delete_slurm_job")
"""What users of the good namespace do where nothing else goes wrong."""

SECONDS = 1000.0
"""Of such a peaceful run: long enough for three answers, each with its pause."""


hostile = one_in(10, stream="tenants92")
"""Whether there is another namespace in a seed."""


def peaceful(seed: str) -> bool:
    """Whether nothing goes wrong there but what the other namespace does."""
    return hostile(seed) and Random(f"{seed}/peaceful").random() < 1 / 2


TENANTS = Register(stream="tenants plan", counts=(0, 1, 3), within=hostile)


@TENANTS.happens(0.0)
def hostile_deployment(world: World, random: Random) -> None:
    """More workers than all places together, and none of them is ever taken."""
    kind = random.choice(sorted(ANSWERS))
    world.slurm.answers[HOSTILE] = kind
    world.tell(f"fault: {HOSTILE} is answered: {kind}")
    wanted = manifests.model_deployment(namespace=HOSTILE, name="greedy", random=random)
    wanted["spec"] |= {"replicas": 60 if kind == "slow" else 36, "pools": [manifests.slurm_pool()]}
    with world.may_fail():
        world.api.create(MODEL_DEPLOYMENTS, wanted, by="user")


@TENANTS.happens(2.0)
def hostile_update(world: World, random: Random) -> None:
    """All of its attempts are made anew."""
    found = world.api.get(MODEL_DEPLOYMENTS, HOSTILE, "greedy")
    if found is not None:
        pools = manifests.with_arguments(found, length=random.randrange(1000, 9000))
        _edit(world, {"spec": {"pools": pools}})


@TENANTS.happens(1.0)
def hostile_answer_changes(world: World, random: Random) -> None:
    kind = random.choice(sorted(ANSWERS))
    world.slurm.answers[HOSTILE] = kind
    world.tell(f"fault: {HOSTILE} is answered: {kind}")


@TENANTS.happens(1.0)
def nothing_can_be_sent(world: World, random: Random) -> None:
    """For a while no connection can be made for an sbatch, whosever it is."""
    world.slurm.unsent_until = world.now + random.choice([5.0, 30.0, 100.0])
    world.tell(f"fault: nothing is sent until {world.slurm.unsent_until:.0f}")


def _edit(world: World, patch: dict[str, object]) -> None:
    with world.may_fail():
        world.api.patch(
            MODEL_DEPLOYMENTS, HOSTILE, "greedy", patch=patch, subresource="", by="user"
        )


def leave(world: World) -> None:
    """The other namespace goes, with the end of all faults."""
    if world.api.get(MODEL_DEPLOYMENTS, HOSTILE, "greedy") is not None:
        world.api.delete(MODEL_DEPLOYMENTS, HOSTILE, "greedy", by="user")
    world.slurm.answers.clear()
    world.slurm.unsent_until = 0.0
