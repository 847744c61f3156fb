"""A → B, by whatever way, ends as a fresh B does; and what a state is when names do not count.

A state is what the API server, SLURM and the nodes hold once nothing is written any more. What
differs between two lives of one spec (names that are drawn, times, ids, addresses, keys) is left
out or replaced; what is a mere memory (events, ended attempts, revisions that nothing runs) too.
"""

import asyncio
import functools
import json
import logging
import re
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from isthmus.api import names
from isthmus.api.conditions import Phase
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
from isthmus.slurmjob.attempt_keys import key_source
from tests import observable
from tests.simulation.apiserver import Json, given_up, joined
from tests.simulation.clock import SimulationLoop
from tests.simulation.drawn import NAME, drawn_deployment
from tests.simulation.faults.clusters import ensure_cluster
from tests.simulation.faults.deployments import edit
from tests.simulation.faults.register import later
from tests.simulation.operators import seed_everything, simulated_edges
from tests.simulation.promises.ending import unsettled
from tests.simulation.shape import tunnelled, usual
from tests.simulation.slurm_jobs import LIVE
from tests.simulation.supervisors import simulated_tunnel_edges
from tests.simulation.world import NAMESPACE, World

QUIET_SECONDS = 150.0
LONGEST_SECONDS = 5400.0


class NotSettledError(AssertionError):
    """A run did not come to rest, or broke a promise on its way."""


# ---- one world


def in_a_world(
    seed: str, *, replicas: int, live: Callable[[World], Any], through_tunnels: bool = False
) -> Any:
    """Run `live` in a world of its own, with an operator and a SlurmCluster; returns its result.

    Args:
        seed: of the world.
        replicas: of the operator.
        live: a coroutine function.
        through_tunnels: whether pods cannot reach the nodes, so that supervisors run.
    """
    seed_everything(f"{seed}/global")
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            simulated_edges(),
            simulated_tunnel_edges(),
            asyncio.Runner(loop_factory=SimulationLoop) as runner,
        ):
            runner.get_loop().set_exception_handler(lambda loop, context: None)
            return runner.run(_alive(_world_seed(seed, through_tunnels), replicas, live))
    finally:
        logging.disable(before)


async def _alive(seed: str, replicas: int, live: Callable[[World], Any]) -> Any:
    world = World(seed, usual(seed, operators=replicas))
    world.keys_apart = True
    world.slurm.site.gpus = world.controllers.nodes.gpus = 40
    ensure_cluster(world, Random(f"{seed}/cluster"))
    for operator in world.operators:
        operator.start()
    if world.tunnels is not None:
        world.tunnels.start()
    try:
        return await live(world)
    finally:
        for one in (world, *world.neighbours):
            one.over = one.oracle.off = True
        for each in (*world.operators, *world.hosts()):
            for process in each.lives:
                if process.stopped:
                    process.resume()  # to be cancelled properly


def _world_seed(seed: str, through_tunnels: bool) -> str:
    """A seed of a world whose nodes pods can reach, or cannot."""
    drawn = (f"{seed}/{number}" for number in range(1000))
    return next(one for one in drawn if tunnelled(one) is through_tunnels)


def wish(world: World, deployment: Json) -> None:
    """Have exactly this spec stored, as `kubectl replace` does."""
    for name, data in observable.named_secrets(deployment):
        if world.api.get(SECRETS, NAMESPACE, name) is None:
            secret = {"metadata": {"namespace": NAMESPACE, "name": name}, "data": data}
            world.api.create(SECRETS, secret, by="user")
    found = world.api.get(MODEL_DEPLOYMENTS, NAMESPACE, NAME)
    if found is None:
        world.api.create(MODEL_DEPLOYMENTS, deployment, by="user")
        return
    old, new = {"spec": found["spec"]}, {"spec": deployment["spec"]}
    edit(world, found, joined(given_up(old, new), new))


async def at_rest(world: World, *, least: float = 0.0) -> None:
    """Wait until nothing is written any more, and all that is wanted serves.

    Args:
        world: the world.
        least: seconds to wait in any case.

    Raises:
        NotSettledError: it does not come to that, or a promise was broken.
    """
    began = world.now
    while world.now - began < LONGEST_SECONDS:
        writes = world.api.writes
        await asyncio.sleep(QUIET_SECONDS)
        if world.oracle.violations:
            raise NotSettledError("\n".join(world.oracle.violations[:3]))
        quiet = writes == world.api.writes and world.now - began >= least
        if quiet and not unsettled(world):
            return
    raise NotSettledError("\n".join(["not settled:", *unsettled(world), *world.trace[-20:]]))


# ---- a state


_DRAWN = frozenset(
    (
        *("name", "uid", "jobId", "jobName", "attempt", "slot", "pod", "url", "host", "port"),
        *("node", "nodes", "nodeName", "podIP", "addresses", "targetRef", "ownerReferences"),
        *("startedAt", "endsAt", "since", "startTime", "endTime", "submitTime", "finishedAt"),
        *("submitStartedAt", "submissions", "gateClaimedAt", "creationTimestamp", "healthy"),
        *("lastTransitionTime", "observedGeneration", "resourceVersion", "generation"),
        *("workDirectory", "rollout"),
    )
)
"""Keys whose values are drawn, or are times, ids and places."""
_NAMED = frozenset({"pools", "containers", "volumes", "volumeMounts", "env", "ports"})
"""Lists whose entries have names that mean something."""


def state(world: World) -> Json:
    """What there is, without what differs between two lives of one spec."""
    found: dict[str, list[str]] = {}
    for title, value in _parts(world):
        found.setdefault(title, []).append(_text(world, value))
    return {title: sorted(values) for title, values in sorted(found.items())}


def _parts(world: World) -> Iterator[tuple[str, Any]]:
    running = {
        k8s.labels(obj).get(names.LABEL_REVISION, "-")
        for resource in (SLURM_JOBS, DEPLOYMENTS)
        for obj in world.api.all(resource)
    }
    for obj in world.deployments():
        yield "status", obj.get("status", {})
        yield "finalizers", k8s.finalizers(obj)
    for resource in (SLURM_JOBS, DEPLOYMENTS, PODS, SERVICES, ENDPOINT_SLICES):
        for obj in world.api.all(resource):
            if not (resource is SLURM_JOBS and _over(obj)):
                yield resource.kind, obj
    for obj in world.api.all(CONTROLLER_REVISIONS):
        if any(k8s.name(obj).endswith(revision) for revision in running):
            yield "ControllerRevision", obj.get("data")
    for obj in world.api.all(SECRETS):
        if k8s.name(obj) == names.worker_keys_secret(NAME) and obj.get("data"):
            yield "keys of workers", len(obj["data"])
    for job in world.slurm.jobs.values():
        if job.state in LIVE and job.request is not None:
            yield "job", [job.state, job.request.options, job.request.script]
    for engine in world.machines.ledger:
        if engine.alive:
            yield "engine", [engine.model, engine.arguments, bool(engine.api_key)]


def _over(obj: Json) -> bool:
    phase = k8s.dig(obj, "status", "phase")
    return phase is not None and Phase(str(phase)).terminal


def _revisions(world: World) -> dict[str, str]:
    """Current revision to what stands for it: it holds the digest of a key, which is drawn."""
    found = {}
    for obj in world.deployments():
        for pool in k8s.dig(obj, "status", "pools", default=[]):  # type: ignore[attr-defined]
            if pool.get("revision"):
                found[str(pool["revision"])] = f"REVISION-{pool['name']}"
    return found


def _digests(world: World) -> set[str]:
    """Of keys, which are drawn."""
    found = set()
    for resource in (SLURM_JOBS, PODS, DEPLOYMENTS):
        for obj in world.api.all(resource):
            found |= {k8s.labels(obj).get(names.LABEL_KEY), key_source(obj)}
    for obj in world.api.all(SECRETS):
        if k8s.name(obj) == names.worker_keys_secret(NAME):
            found |= set(obj.get("data") or {})
    return {str(digest) for digest in found if digest}


def _text(world: World, value: Any) -> str:
    text = json.dumps(_plain(value), sort_keys=True)
    for digest in _digests(world):
        text = text.replace(digest, "DIGEST")
    for revision, instead in _revisions(world).items():
        text = text.replace(revision, instead)
    for job in world.api.all(SLURM_JOBS):
        for drawn in (job["spec"]["jobName"], k8s.name(job), job["spec"]["attempt"]):
            text = text.replace(str(drawn), "ATTEMPT")
    text = re.sub(r'(t\d+: )?through [^" ]*', "THROUGH", text)  # whichever supervisor is meant
    text = re.sub(r"(isthmus:v1:[^:]*:[^:]*:[^:]*):\d+:", r"\1:SLOT:", text)
    return re.sub(rf'("{names.LABEL_SLOT}": )"[^"]*"', r'\1"SLOT"', text)


def _plain(value: Any, *, named: bool = False) -> Any:
    """Without what is drawn; lists of objects, whose order means nothing, in a fixed order."""
    if isinstance(value, dict):
        return {
            key: _plain(item, named=key in _NAMED)
            for key, item in value.items()
            if (key not in _DRAWN or (named and key == "name"))
            and (key, item) != ("annotations", {})
        }
    if not isinstance(value, list | tuple):
        return value
    items = [_plain(item, named=named) for item in value]
    if all(isinstance(item, dict) for item in items):
        items.sort(key=lambda item: json.dumps(item, sort_keys=True))
    return items


def difference(one: Json, other: Json) -> list[str]:
    """What stands in only one of two states."""
    found = []
    for title in sorted(one.keys() | other.keys()):
        left, right = list(one.get(title, [])), list(other.get(title, []))
        for text in list(left):
            if text in right:
                left.remove(text)
                right.remove(text)
        for mark, texts in (("-", left), ("+", right)):
            found += [f"{mark} {title} {text}" for text in texts]
    return found


# ---- the oracle


def ways(seed: int) -> tuple[list[Json], list[float]]:
    """The specs that one object has in turn, and the pauses after each but the last."""
    random = Random(f"differential/{seed}")
    specs = [drawn_deployment(random) for _ in range(random.choice([2, 2, 3]))]
    return specs, [random.choice([0.0, 0.3, 2.0, 15.0, 60.0, 200.0, 700.0]) for _ in specs[1:]]


def differs(seed: int) -> list[str]:
    """How the end of A → … → B differs from that of a fresh B; nothing if all is well."""
    specs, pauses = ways(seed)
    after = in_a_world(
        f"changed/{seed}", replicas=1 + seed % 2, live=_changing(specs, pauses, f"turns/{seed}")
    )
    fresh = in_a_world(f"fresh/{seed}", replicas=1, live=_changing(specs[-1:], [], ""))
    return difference(fresh, after)


def turns_matter(seed: int) -> list[str]:
    """How two runs of one story end differently, in which all take other turns; nothing if not.

    The reconcilers, the watches, the workers' own parts and in most seeds the tunnel supervisors.
    """
    specs, pauses = ways(seed)
    one, other = (
        in_a_world(
            f"turns/{seed}",
            replicas=replicas,
            live=_changing(specs, pauses, f"turns/{seed}/{replicas}"),
            through_tunnels=seed % 3 > 0,
        )
        for replicas in (1, 2)
    )
    return difference(one, other)


def _changing(specs: list[Json], pauses: list[float], turns: str) -> Callable[[World], Any]:
    async def live(world: World) -> Json:
        if turns:
            _take_turns(world, Random(turns))
        for spec, pause in zip(specs, [*pauses, 0.0], strict=True):
            wish(world, spec)
            await asyncio.sleep(pause)
        await at_rest(world)
        return state(world)

    return live


def _take_turns(world: World, random: Random) -> None:
    """Drawn turns: how late what was written is seen, and when an operator ends and begins."""
    world.watch_delay = random.choice([0.0, 0.3, 3.0, 20.0])
    if world.watch_delay > 1.0:
        world.caches_late(2 * LONGEST_SECONDS)
    for _ in range(random.choice([0, 0, 1, 2])):
        operator = random.choice(world.operators)
        kill = functools.partial(operator.kill, restart_after=2.0)
        later(world, random.random() * 300, kill)
