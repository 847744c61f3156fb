"""What goes wrong at one of several clusters of SLURM, while the others go on.

Drawn in worlds that have several, beside what happens to the first one.
"""

from random import Random

from isthmus.apiserver import objects as k8s
from tests.simulation.faults import drained_nodes, engines, failing_commands, jobs, slurmctld
from tests.simulation.faults.deployments import edit
from tests.simulation.faults.register import Register, later, some_deployment
from tests.simulation.world import World

ELSEWHERE = Register(stream="elsewhere plan", counts=(2, 5, 10))

_AS_AT_THE_FIRST = (
    drained_nodes.node_is_drained,
    engines.network_to_the_nodes_is_down,
    failing_commands.commands_fail,
    jobs.end_time_moved,
    jobs.job_ends,
    jobs.purged_before_the_next_poll,
    jobs.requeued,
    slurmctld.controller_rolled_back,
    slurmctld.everything_gone,
    slurmctld.snapshot_fault,
    slurmctld.submission_fault,
)


@ELSEWHERE.happens(3.0)
def something_happens_elsewhere(world: World, random: Random) -> None:
    """To another cluster than the first one, which has its own happenings."""
    cluster = random.choice(list(world.clusters.values())[1:])
    do = random.choice(_AS_AT_THE_FIRST)
    cluster.tell(f"* {do.__name__}")
    with world.at(cluster):
        do(world, random)


@ELSEWHERE.happens()
def pool_moves_to_another_cluster(world: World, random: Random) -> None:
    """A user writes another `clusterRef`: its workers move, and the old ones end where they are."""
    found = some_deployment(world, random)
    pools = [] if found is None else [dict(pool) for pool in found["spec"]["pools"]]
    on_slurm = [pool for pool in pools if "slurm" in pool]
    if found is None or not on_slurm:
        return
    moved, name = random.choice(on_slurm), random.choice(list(world.clusters))
    moved["slurm"] = {**moved["slurm"], "clusterRef": {"name": name}}
    world.tell(f"user: pool {moved['name']} of {k8s.name(found)} moves to {name}")
    edit(world, found, {"spec": {"pools": pools}})


@ELSEWHERE.happens(2.0)
def cluster_is_away(world: World, random: Random) -> None:
    """One of them, for longer than a look may be old: its controller, its network, or both."""
    cluster = random.choice(list(world.clusters.values()))
    seconds = random.choice([150.0, 300.0, 600.0])
    what = random.choice(["controller", "network", "both"])
    cluster.tell(f"fault: its {what} is away for {seconds:.0f} s")
    if what != "network":
        cluster.mode = random.choice(["down", "hung"])
        later(world, seconds, cluster.resume)
    if what != "controller":
        until = world.now + seconds
        world.machines.unreachable_until.update(dict.fromkeys(cluster.nodes.values(), until))
