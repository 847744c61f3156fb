"""SlurmJobs that the operator did not make, under the name of somebody's job (finding H4).

In a register of its own, drawn by a stream of its own and only in some seeds, so that all others
stay what they were. They stand in a namespace of their own, which the judge of attempts passes
over: what they must not do, it sees by what happens to the jobs whose names they have.
"""

from collections.abc import Callable
from random import Random

from isthmus.api import names
from isthmus.apiserver.resources import SLURM_JOBS
from tests.simulation import manifests
from tests.simulation.events import Happening, later
from tests.simulation.ledger import INTRUDERS
from tests.simulation.world import SYSTEM, World

INTRUDER_HAPPENINGS: dict[str, tuple[float, Happening]] = {}
"""Name to (weight, what it does)."""


def intruder_happens(weight: float = 1.0) -> Callable[[Happening], Happening]:
    def register(do: Happening) -> Happening:
        INTRUDER_HAPPENINGS[do.__name__] = weight, do
        return do

    return register


def intruded(seed: str) -> bool:
    """Whether somebody writes SlurmJobs in this seed."""
    return Random(f"{seed}/intruders").random() < 1 / 8


@intruder_happens()
def slurm_job_of_a_stranger(world: World, random: Random) -> None:
    """A SlurmJob with the name of a job that is there, for a while, then it is deleted."""
    victims = [
        obj for obj in world.api.all(SLURM_JOBS) if obj["metadata"]["namespace"] != INTRUDERS
    ]
    if not victims:
        return
    spec = dict(random.choice(victims)["spec"])
    name = f"intruder-{random.randrange(1 << 30)}"
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": "ModelDeployment",
        "name": spec["deployment"],
        "uid": f"nobody-{name}",
        "controller": True,
    }
    world.tell(f"fault: {name} is written for job {spec['jobName']}")
    meta = {
        "namespace": INTRUDERS,
        "name": name,
        "ownerReferences": random.choice([[], [owner]]),
        "finalizers": random.choice([[], [names.FINALIZER_SLURM_JOB]]),
    }
    reference = {"namespace": SYSTEM, "name": manifests.CLUSTER}
    obj = {"metadata": meta, "spec": {**spec, "clusterRef": reference}}
    world.api.create(SLURM_JOBS, obj, by="intruder")
    later(world, random.choice([20, 60, 200]), lambda: _delete(world, name))


def _delete(world: World, name: str) -> None:
    if world.api.get(SLURM_JOBS, INTRUDERS, name) is not None:
        with world.may_fail():
            world.api.delete(SLURM_JOBS, INTRUDERS, name, by="intruder")
