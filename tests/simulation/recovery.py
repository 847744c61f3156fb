"""A → bad B → A ends as A did, with no engine lost that was well; a bad B that is deleted is gone.

Bad is what the schema takes and the world does not: a user's slip, which the user takes back.
"""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, TypeAlias

from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import (
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    MODEL_DEPLOYMENTS,
    PODS,
    SECRETS,
    SERVICES,
    SLURM_JOBS,
)
from isthmus.backends.slurm.records import SubmitRequest
from tests.drawn_specs import problems
from tests.observable import ABSENT
from tests.simulation.apiserver import Json, copied
from tests.simulation.differential import (
    LONGEST_SECONDS,
    NotSettledError,
    at_rest,
    difference,
    in_a_world,
    state,
    wish,
)
from tests.simulation.drawn import NAME, drawn_deployment
from tests.simulation.engines import Engine
from tests.simulation.slurm_jobs import LIVE
from tests.simulation.world import INSTALLATION, NAMESPACE, World

Spoil: TypeAlias = Callable[[Json], None]
"""Makes a pool one that no worker can run in."""

NOWHERE = "nowhere"
BAD_SECONDS = (0.0, 3.0, 40.0, 400.0, 1500.0)


def _image(pool: Json) -> None:
    # On SLURM the engine comes from the site: there it is an engine that ends at once.
    part = pool.setdefault("engine", {})
    if "kubernetes" in pool:
        part["image"] = f"registry.example/{NOWHERE}:1"
    else:
        part["args"] = [f"--{NOWHERE}"]


def _gpus(pool: Json) -> None:
    pool["worker"] = {**pool.get("worker", {}), "gpusPerNode": 16}
    if "kubernetes" in pool:
        pool["kubernetes"] = {**pool["kubernetes"], "gpuResource": f"{NOWHERE}.example/gpu"}


def _partition(pool: Json) -> None:
    if "slurm" in pool:
        pool["slurm"] = {**pool["slurm"], "partitions": [NOWHERE]}
    else:
        pool["kubernetes"] = {**pool["kubernetes"], "nodeSelector": {"zone": NOWHERE}}


def _cluster(pool: Json) -> None:
    if "slurm" in pool:
        pool["slurm"] = {**pool["slurm"], "clusterRef": {"name": NOWHERE}}


SLIPS: dict[str, Spoil] = {
    "image": _image,
    "gpus": _gpus,
    "partition": _partition,
    "cluster": _cluster,
    "key": lambda pool: None,
}


def spoiled(good: Json, slip: str) -> Json:
    """The same deployment with one slip in each of its pools, or in its key."""
    bad: Json = copied(good)
    for pool in bad["spec"]["pools"]:
        SLIPS[slip](pool)
    if slip == "key":
        bad["spec"]["endpoint"]["apiKeySecretRef"] = {"name": ABSENT}
    assert problems(bad) == [], problems(bad)
    return bad


def _harden(world: World) -> None:
    """Have the simulated world refuse what a real one refuses of a slip."""
    slurm, controllers = world.slurm, world.controllers
    impossible, loaded, scheduled = slurm.impossible, controllers._loaded, controllers._schedule

    def refuses(request: SubmitRequest) -> bool:
        return impossible(request) or any(NOWHERE in option for option in request.options)

    def spoils(namespace: str, name: str) -> bool:
        pod = world.api.get(PODS, namespace, name) or {}
        return NOWHERE in str(pod.get("spec", {}))

    def load(namespace: str, name: str) -> None:
        if not spoils(namespace, name):
            loaded(namespace, name)

    def schedule(namespace: str, name: str) -> None:
        if not spoils(namespace, name):
            scheduled(namespace, name)

    slurm.impossible = refuses  # type: ignore[method-assign]
    controllers._loaded = load  # type: ignore[method-assign]
    controllers._schedule = schedule  # type: ignore[method-assign]

    def claimed(job: Any) -> None:
        if f"--{NOWHERE}" in job.request.script:
            world.slurm.later(3.0, _crash, world, job)

    slurm.on_claim.append(claimed)


def _crash(world: World, job: Any) -> None:
    if job.engine is not None:
        world.slurm._crash(job, job.engine)


# ---- the oracles


def recovers(seed: int, slip: str) -> list[str]:
    """What is not as it was after a slip was made and taken back."""
    random = Random(f"recovery/{seed}")
    good = drawn_deployment(random)
    bad = spoiled(good, slip)
    if bad == good:
        return []

    async def live(world: World) -> list[str]:
        _harden(world)
        wish(world, good)
        await at_rest(world)
        before, engines = state(world), well(world)
        wish(world, bad)
        await asyncio.sleep(random.choice(BAD_SECONDS))
        if random.random() < 0.3:
            world.operators[0].kill(restart_after=2.0)
        wish(world, good)
        await at_rest(world)
        lost = [engine for engine in engines if not engine.alive]
        told = [f"lost: {one.job_name or 'a pod'} {one.address}:{one.port}" for one in lost]
        return told + difference(before, state(world))

    found: list[str] = in_a_world(f"recovery/{seed}/{slip}", replicas=1, live=live)
    return found


def well(world: World) -> list[Engine]:
    """Engines that serve."""
    return [one for one in world.machines.ledger if world.machines.serves(one, now=world.now)]


def leaves(seed: int, slip: str) -> list[str]:
    """What is left of a deployment with a slip once it was deleted."""
    random = Random(f"deleted/{seed}")
    good = drawn_deployment(random)

    async def live(world: World) -> list[str]:
        _harden(world)
        if random.random() < 0.5:
            wish(world, good)
            await asyncio.sleep(random.choice(BAD_SECONDS))
        wish(world, spoiled(good, slip))
        await asyncio.sleep(random.choice(BAD_SECONDS))
        world.api.delete(MODEL_DEPLOYMENTS, NAMESPACE, NAME, by="user")
        began = world.now
        while left := _left(world):
            if world.now - began > LONGEST_SECONDS:
                return left
            if world.oracle.violations:
                raise NotSettledError("\n".join(world.oracle.violations[:3]))
            await asyncio.sleep(30)
        return []

    found: list[str] = in_a_world(f"deleted/{seed}/{slip}", replicas=1, live=live)
    return found


def _left(world: World) -> list[str]:
    kinds = (
        MODEL_DEPLOYMENTS,
        SLURM_JOBS,
        DEPLOYMENTS,
        PODS,
        SERVICES,
        ENDPOINT_SLICES,
        CONTROLLER_REVISIONS,
        SECRETS,
    )
    named = [
        f"{kind.kind} {k8s.name(obj)}"
        for kind in kinds
        for obj in world.api.all(kind)
        if k8s.name(obj).startswith(NAME)
    ]
    jobs = [
        f"job {job.name}"
        for job in world.slurm.jobs.values()
        if job.state in LIVE and f"-{INSTALLATION}-" in job.name
    ]
    files = [f"the key of {job_name}" for _, job_name in world.slurm.secrets]
    engines = [f"engine {one.address}:{one.port}" for one in world.machines.ledger if one.alive]
    return named + jobs + files + engines
