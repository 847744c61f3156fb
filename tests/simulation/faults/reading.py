"""What of SLURM's answers cannot be read, or is kept from us: strange fields, hidden nodes."""

from random import Random

from isthmus.backends.slurm.parsing import JOB_FIELDS
from tests.simulation.draws import one_in
from tests.simulation.faults.register import Register, later, some_job
from tests.simulation.strange import TEXTS
from tests.simulation.world import World

READING = Register(
    stream="reading plan", counts=(1, 2, 4, 6), within=one_in(8, stream="reading17335")
)

_FREE_TEXT = frozenset({"Partition", "QOS", "Name", "Reason", "Comment"})
_FIELDS = tuple(field for field in JOB_FIELDS if field not in _FREE_TEXT)


@READING.happens(3.0)
def record_unreadable(world: World, random: Random) -> None:
    """One field of one job of ours is strange for a while; now and then it is the id."""
    job = some_job(world, random, "RUNNING", "PENDING", "COMPLETING")
    field, text = random.choice(_FIELDS), random.choice(TEXTS)
    if job is None:
        return
    world.tell(f"fault: {field} of job {job.id} is {text!r}")
    strange, job_id = world.slurm.strange, job.id
    strange.put(job_id, field, text)
    later(world, random.choice([20, 60, 200, 500]), lambda: strange.take(job_id))


@READING.happens(2.0)
def new_records_unreadable(world: World, random: Random) -> None:
    """Whatever is accepted from now on has a strange field, for as long as it is known."""
    field, text = random.choice(_FIELDS), random.choice(TEXTS)
    world.tell(f"fault: {field} of new jobs is {text!r}")
    strange = world.slurm.strange
    strange.of_new = field, text
    later(world, random.choice([60, 300]), lambda: setattr(strange, "of_new", None))


@READING.happens(1.0)
def nodes_hidden(world: World, random: Random) -> None:
    """The site begins to hide its nodes (PrivateData=nodes), for some minutes."""
    world.tell("fault: nodes are hidden")
    world.slurm.site.nodes_hidden = True
    later(world, random.random() * 500, lambda: setattr(world.slurm.site, "nodes_hidden", False))
