"""Runs a seed: makes the world, lets things happen, stops the faults, waits, judges; and shrinks.

A seed decides the first objects and what happens when. Each happening has randomness of its own,
so that leaving some out keeps the others what they were.
"""

import asyncio
import contextlib
import gc
import hashlib
import logging
import re
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import MODEL_DEPLOYMENTS, SLURM_CLUSTERS
from tests.simulation import events, faults, manifests, slurm_faults, users
from tests.simulation.clock import SimulationLoop
from tests.simulation.drained_nodes import DRAIN_HAPPENINGS, drained
from tests.simulation.ending import unsettled
from tests.simulation.intruders import INTRUDER_HAPPENINGS, intruded
from tests.simulation.node_faults import NODE_HAPPENINGS, goes_bad
from tests.simulation.operators import seed_everything, simulated_edges
from tests.simulation.reading_faults import READING_HAPPENINGS, unread
from tests.simulation.refusals import REFUSAL_HAPPENINGS, refuses
from tests.simulation.slurm import Job
from tests.simulation.supervisors import simulated_tunnel_edges
from tests.simulation.tenants import (
    PEACEFUL,
    SECONDS,
    TENANT_HAPPENINGS,
    hostile,
    peaceful,
)
from tests.simulation.tunnel_faults import TUNNEL_HAPPENINGS
from tests.simulation.world import NAMESPACE, SYSTEM, World, tunnelled

_REGISTERED = (users, slurm_faults, faults)  # each registers what can happen

_ALL = ChainMap(
    events.HAPPENINGS,
    TUNNEL_HAPPENINGS,
    READING_HAPPENINGS,
    REFUSAL_HAPPENINGS,
    INTRUDER_HAPPENINGS,
    TENANT_HAPPENINGS,
    NODE_HAPPENINGS,
    DRAIN_HAPPENINGS,
)

FAULT_SECONDS = 600.0
SETTLING_SECONDS = 3600.0
QUIET_SECONDS = 200.0
"""More than a relist and several resyncs."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that is going to happen."""

    at: float
    name: str
    salt: int


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended; `failure` is "" if all was well."""

    seed: int
    failure: str
    happenings: tuple[Happening, ...]
    trace: tuple[str, ...]
    settled_after: float = 0.0

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()[:16]


def plan(seed: int) -> tuple[Happening, ...]:
    """What happens in a run of this seed."""
    if peaceful(str(seed)):
        found = _of_tenants(seed)
        return tuple(sorted(found, key=lambda happening: happening.at))
    random = Random(f"{seed}/plan")
    names = sorted(events.HAPPENINGS)
    weights = [events.HAPPENINGS[name][0] for name in names]
    # Not everything in every run: faults that meet again and again find more than a mixture.
    chosen = [w if random.random() < 0.5 else 0.0 for w in weights]
    if not any(chosen):
        chosen = weights
    count = random.choice([2, 5, 10, 15, 25])
    found = [
        Happening(
            at=round(random.random() * FAULT_SECONDS, 3),
            name=random.choices(names, chosen)[0],
            salt=random.randrange(1 << 30),
        )
        for _ in range(count)
    ]
    found += _of_tunnels(seed) + _of_reading(seed) + _of_refusals(seed)
    found += _of_intruders(seed) + _of_tenants(seed) + _of_nodes(seed) + _of_drains(seed)
    return tuple(sorted(found, key=lambda happening: happening.at))


def _of_tunnels(seed: int) -> list[Happening]:
    """What happens to tunnels, drawn apart: seeds without them stay what they were."""
    if not tunnelled(str(seed)):
        return []
    random = Random(f"{seed}/tunnel plan")
    return _drawn(TUNNEL_HAPPENINGS, random, counts=(1, 3, 6, 10))


def _of_reading(seed: int) -> list[Happening]:
    """What of SLURM's answers cannot be read, drawn apart too."""
    if not unread(str(seed)):
        return []
    return _drawn(READING_HAPPENINGS, Random(f"{seed}/reading plan"), counts=(1, 2, 4, 6))


def _of_refusals(seed: int) -> list[Happening]:
    """What the API server refuses, drawn apart too."""
    if not refuses(str(seed)):
        return []
    return _drawn(REFUSAL_HAPPENINGS, Random(f"{seed}/refusal plan"), counts=(1, 2, 4))


def _of_intruders(seed: int) -> list[Happening]:
    """What somebody writes who may write SlurmJobs, drawn apart too."""
    if not intruded(str(seed)):
        return []
    return _drawn(INTRUDER_HAPPENINGS, Random(f"{seed}/intruder plan"), counts=(1, 2, 4))


def _of_tenants(seed: int) -> list[Happening]:
    """What another namespace does, and where nothing else goes wrong, what users do beside it."""
    if not hostile(str(seed)):
        return []
    random = Random(f"{seed}/tenants plan")
    begin = Happening(
        at=round(random.random() * 60, 3), name="hostile_deployment", salt=random.randrange(1 << 30)
    )
    found = [begin, *_drawn(TENANT_HAPPENINGS, random, counts=(0, 1, 3))]
    if peaceful(str(seed)):
        found += [
            Happening(
                at=round(random.random() * SECONDS, 3),
                name=random.choice(PEACEFUL),
                salt=random.randrange(1 << 30),
            )
            for _ in range(random.choice([5, 10, 20]))
        ]
    return found


def _of_nodes(seed: int) -> list[Happening]:
    """What happens to nodes, drawn apart too."""
    if not goes_bad(str(seed)):
        return []
    return _drawn(NODE_HAPPENINGS, Random(f"{seed}/node plan"), counts=(1, 2))


def _of_drains(seed: int) -> list[Happening]:
    """Which nodes are drained, drawn apart too."""
    if not drained(str(seed)):
        return []
    return _drawn(DRAIN_HAPPENINGS, Random(f"{seed}/drain plan"), counts=(1, 2, 3))


def _drawn(
    register: Mapping[str, tuple[float, events.Happening]],
    random: Random,
    *,
    counts: tuple[int, ...],
) -> list[Happening]:
    names = sorted(register)
    weights = [register[name][0] for name in names]
    chosen = [w if random.random() < 0.5 else 0.0 for w in weights]
    return [
        Happening(
            at=round(random.random() * FAULT_SECONDS, 3),
            name=random.choices(names, chosen if any(chosen) else weights)[0],
            salt=random.randrange(1 << 30),
        )
        for _ in range(random.choice(counts))
    ]


def run(seed: int, happenings: Sequence[Happening] | None = None) -> Result:
    """Run one seed, with all that happens in it or with a part of that."""
    chosen = plan(seed) if happenings is None else tuple(happenings)
    seed_everything(f"{seed}/global")
    with (
        simulated_edges(),
        simulated_tunnel_edges(),
        _quiet_logs(),
        _rare_collections(),
        asyncio.Runner(loop_factory=SimulationLoop) as runner,
    ):
        runner.get_loop().set_exception_handler(lambda loop, context: None)
        return runner.run(_live(seed, chosen))


async def _live(seed: int, happenings: tuple[Happening, ...]) -> Result:
    random = Random(f"{seed}/start")
    world = World(str(seed), replicas=random.choice([1, 1, 2]))
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
            _ALL[happening.name][1](world, Random(happening.salt))
        await _until(world, SECONDS if world.peaceful else FAULT_SECONDS)
        world.peaceful = False
        faults.heal(world, Random(f"{seed}/heal"))
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
        users.edit(world, obj, {"spec": {"replicas": 0}})
    begin = world.now
    while k8s.deletion_timestamp(world.api.get(SLURM_CLUSTERS, SYSTEM, manifests.CLUSTER) or {}):
        if world.now - begin > SETTLING_SECONDS:
            raise _Failed("a SlurmCluster that nothing needs is still being deleted")
        await _until(world, world.now + 10)
    users.ensure_cluster(world, Random(f"{world.seed}/cluster"))
    for obj in world.deployments():
        users.edit(world, obj, {"spec": {"replicas": wanted[k8s.name(obj)]}})


async def _settle(world: World) -> float:
    begin = world.now
    while world.slurm.ghosts or world.now < world.keys_noticed_at or unsettled(world):
        if world.now - begin > SETTLING_SECONDS:
            raise _Failed("\n".join(["not settled:", *unsettled(world)]))
        await _until(world, world.now + 10)
    return world.now - begin


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
    users.ensure_cluster(world, random)
    for name in random.choice([["llama"], ["llama"], ["llama", "qwen"]]):
        wanted = manifests.model_deployment(namespace=NAMESPACE, name=name, random=random)
        world.api.create(MODEL_DEPLOYMENTS, wanted, by="user")
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
            tried = run(best.seed, fewer)
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
