"""Old copies of the queue, in which jobs that serve still wait, while users take workers away.

A slurmctld that came up with an older state, or a proxy that keeps answers, shows them. Drawn in
worlds that ask for it (`Shape.old_queues`): seeds of every day hardly ever have both at once.
"""

from dataclasses import replace
from random import Random

from isthmus.backends.slurm.records import JobRecord
from tests.simulation.faults.deployments import delete_slurm_job, scale
from tests.simulation.faults.register import Register, later
from tests.simulation.world import World

OLD_QUEUES = Register(stream="old queue plan", counts=(3, 6, 10))


@OLD_QUEUES.happens()
def queue_from_before_the_start(world: World, random: Random) -> None:
    """Some polls show each job as it was when it was submitted; somebody takes a worker away."""
    slurm = world.slurm
    slurm.history.clear()
    slurm.history.append(tuple(map(_waiting, slurm.job_records())))
    slurm.snapshot_faults.extend(["old"] * random.choice([2, 4, 8]))
    do = random.choice([delete_slurm_job, scale])
    later(world, random.random() * 15, lambda: do(world, random))


def _waiting(record: JobRecord) -> JobRecord:
    return replace(
        record,
        state="PENDING",
        batch_host="",
        nodes="",
        start_time=None,
        end_time=None,
        reason="Resources",
    )
