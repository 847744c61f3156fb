"""SlurmJobs that the operator did not make, under the name of somebody's job (finding H4).

They stand in a namespace of their own, which the judge of attempts passes
over: what they must not do, it sees by what happens to the jobs whose names they have.
"""

from random import Random

from isthmus.api import names
from isthmus.apiserver.resources import SLURM_JOBS
from tests.simulation import manifests
from tests.simulation.draws import one_in
from tests.simulation.faults.register import Register, later
from tests.simulation.promises.ledger import INTRUDERS
from tests.simulation.world import SYSTEM, World

INTRUSIONS = Register(
    stream="intruder plan", counts=(1, 2, 4), within=one_in(8, stream="intruders")
)


@INTRUSIONS.happens()
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
