"""Runs a seed: makes the world, lets things happen, stops the faults, waits, judges; and shrinks.

A seed decides the first objects and what happens when (`faults.plan`).
"""

import asyncio
import contextlib
import gc
import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import MODEL_DEPLOYMENTS, SLURM_CLUSTERS
from tests.simulation import manifests
from tests.simulation.clock import SimulationLoop
from tests.simulation.faults.clusters import ensure_cluster
from tests.simulation.faults.deployments import edit
from tests.simulation.faults.healing import heal
from tests.simulation.faults.plan import HAPPENINGS, plan
from tests.simulation.faults.register import FAULT_SECONDS, Planned
from tests.simulation.faults.tenants import SECONDS, peaceful
from tests.simulation.operators import seed_everything, simulated_edges
from tests.simulation.promises.ending import unsettled
from tests.simulation.shape import Shape, drawn
from tests.simulation.slurm_jobs import Job
from tests.simulation.supervisors import simulated_tunnel_edges
from tests.simulation.world import NAMESPACE, SYSTEM, World

SETTLING_SECONDS = 3600.0
QUIET_SECONDS = 200.0
"""More than a relist and several resyncs."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended; `failure` is "" if all was well."""

    seed: int
    failure: str
    happenings: tuple[Planned, ...]
    trace: tuple[str, ...]
    settled_after: float = 0.0
    shape: Shape | None = None  # where it is another than the seed's own

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()[:16]


def run(
    seed: int, happenings: Sequence[Planned] | None = None, *, shape: Shape | None = None
) -> Result:
    """Run one seed, with all that happens in it or with a part of that, in its world or another."""
    random = Random(f"{seed}/start")
    own = drawn(str(seed), operators=random.choice([1, 1, 2]))
    made = own if shape is None else shape
    chosen = plan(seed, made) if happenings is None else tuple(happenings)
    seed_everything(f"{seed}/global")
    with (
        simulated_edges(surge=made.surge),
        simulated_tunnel_edges(),
        _quiet_logs(),
        _rare_collections(),
        asyncio.Runner(loop_factory=SimulationLoop) as runner,
    ):
        runner.get_loop().set_exception_handler(lambda loop, context: None)
        return replace(runner.run(_live(seed, chosen, made, random)), shape=shape)


async def _live(seed: int, happenings: tuple[Planned, ...], shape: Shape, random: Random) -> Result:
    world = World(str(seed), shape)
    world.peaceful = peaceful(str(seed))
    _first_objects(world, random)
    for operator in world.operators:
        operator.start()
    if world.tunnels is not None:
        world.tunnels.start()
    world.traffic.start()
    failure, settled = "", 0.0
    try:
        for happening in happenings:
            await _until(world, happening.at)
            world.tell(f"* {happening.name}")
            HAPPENINGS[happening.name][1](world, Random(happening.salt))
        await _until(world, SECONDS if world.peaceful else FAULT_SECONDS)
        world.peaceful = False
        heal(world, Random(f"{seed}/heal"))
        await _give_back_the_cluster(world)
        settled = await _settle(world)
        await _stay_quiet(world)
    except _Failed as error:
        failure = str(error)
    world.over = world.oracle.off = True
    for each in (*world.operators, *world.hosts()):
        for process in each.lives:
            process.dies_after = None
            if process.stopped:
                process.resume()  # to be cancelled properly
    return Result(seed, failure, happenings, tuple(world.trace), settled)


class _Failed(Exception):
    pass


async def _until(world: World, moment: float) -> None:
    while world.now < moment:
        await asyncio.sleep(min(5.0, moment - world.now))
        if world.peaceful:
            world.oracle.look_at_waits(NAMESPACE)
        if world.oracle.violations:
            raise _Failed("\n".join(world.oracle.violations[:3]))


async def _give_back_the_cluster(world: World) -> None:
    """A SlurmCluster that is being deleted waits for its workers: scale them away, make it anew."""
    found = world.api.get(SLURM_CLUSTERS, SYSTEM, manifests.CLUSTER)
    if found is None or not k8s.deletion_timestamp(found):
        return
    wanted = {k8s.name(obj): obj["spec"].get("replicas", 1) for obj in world.deployments()}
    for obj in world.deployments():
        edit(world, obj, {"spec": {"replicas": 0}})
    begin = world.now
    while k8s.deletion_timestamp(world.api.get(SLURM_CLUSTERS, SYSTEM, manifests.CLUSTER) or {}):
        if world.now - begin > SETTLING_SECONDS:
            raise _Failed("a SlurmCluster that nothing needs is still being deleted")
        await _until(world, world.now + 10)
    ensure_cluster(world, Random(f"{world.seed}/cluster"))
    for obj in world.deployments():
        edit(world, obj, {"spec": {"replicas": wanted[k8s.name(obj)]}})


async def _settle(world: World) -> float:
    begin = world.now
    while _ghosts(world) or world.now < world.keys_noticed_at or unsettled(world):
        if world.now - begin > SETTLING_SECONDS:
            raise _Failed("\n".join(["not settled:", *unsettled(world)]))
        await _until(world, world.now + 10)
    return world.now - begin


def _ghosts(world: World) -> int:
    return sum(slurm.ghosts for slurm in world.clusters.values())


async def _stay_quiet(world: World) -> None:
    """Settled is settled: nothing is written any more, and it stays as it is."""
    await _until(world, world.now + 130)  # two polls
    while any(h.process is not None and h.process.asked_at is not None for h in world.hosts()):
        await _until(world, world.now + 10)  # an upgrade that had begun with the faults
    writes, begin = world.api.writes, len(world.trace)
    await _until(world, world.now + QUIET_SECONDS)
    missing = unsettled(world)
    if missing:
        raise _Failed("settled, and not any more:\n" + "\n".join(missing))
    if world.api.writes != writes:
        said = [line for line in world.trace[begin:] if " op" in line]
        raise _Failed(f"{world.api.writes - writes} writes while idle:\n" + "\n".join(said[:5]))


def _first_objects(world: World, random: Random) -> None:
    for cluster in world.clusters:
        ensure_cluster(world, random, cluster)
    for name in random.choice([["llama"], ["llama"], ["llama", "qwen"]]):
        wanted = manifests.model_deployment(namespace=NAMESPACE, name=name, random=random)
        if world.shape.front:
            wanted["spec"]["endpoint"] = {"type": "Managed"}
        if world.shape.drain is not None:
            wanted["spec"]["drain"] = {"timeout": world.shape.drain}
        world.api.create(MODEL_DEPLOYMENTS, world.spread(wanted), by="user")
    others = Job(
        id=999,
        name=manifests.OTHERS_JOB,
        comment="isthmus:v1:isthmus9:team-a/llama:hpc:0:abcdef:port=41000",
        request=None,
        submitted_at=0.0,
        eligible_at=0.0,
        state="RUNNING",
        started_at=0.0,
        node="gpu01",
    )
    world.slurm.jobs[others.id] = others


@contextlib.contextmanager
def _quiet_logs() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """The garbage collector looks at what one run makes, and not at all modules each time."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(20_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def shrink(result: Result) -> Result:
    """Leave out what is not needed for a failure, halves first, then one by one."""
    best = result
    size = max(1, len(best.happenings) // 2)
    while size:
        index = 0
        while index < len(best.happenings):
            fewer = best.happenings[:index] + best.happenings[index + size :]
            tried = run(best.seed, fewer, shape=best.shape)
            if _kind(tried.failure) == _kind(best.failure):
                best = tried
            else:
                index += size
        size //= 2
    return best


def _kind(failure: str) -> str:
    """The words of a failure without what differs from run to run."""
    words = re.sub(r"[-\w']*\d[-\w.:']*", "#", failure.partition("\n")[0])
    return re.sub(r"llama|qwen", "#", words)


def report(result: Result, *, lines: int = 80) -> str:
    """What a person needs to replay and to understand a failure."""
    happened = [f"{h.at:9.2f}  {h.name}" for h in result.happenings]
    return "\n".join(
        [
            f"seed {result.seed} fails:",
            result.failure,
            "",
            "with",
            *happened,
            "",
            "trace, its end:",
            *result.trace[-lines:],
        ]
    )


def run_many(seeds: Iterable[int]) -> list[Result]:
    """Run seeds and return those that fail."""
    return [result for seed in seeds if (result := run(seed)).failure]
