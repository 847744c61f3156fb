"""An honest tenant beside a hostile one, who ends no operator and keeps nobody else waiting.

Not a happening of the seeds: here nothing is judged by the promises, for a tenant may break his own
deployments as he likes. Judged is what must hold whatever he does: the operator's process lives on,
each change of the honest deployment is done within a bound, and no canary of a Secret shows.
"""

import asyncio
import base64
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from isthmus.api import names
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import (
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    MODEL_DEPLOYMENTS,
    PODS,
    SECRETS,
    SERVICES,
    SLURM_CLUSTERS,
    SLURM_JOBS,
    Resource,
)
from tests.hostile_values import CANARY, TEXTS, secret_bytes, spoiled
from tests.simulation import manifests
from tests.simulation.apiserver import Json
from tests.simulation.clock import SimulationLoop
from tests.simulation.hostile_edges import hostile_edges, hostile_job
from tests.simulation.operators import seed_everything, simulated_edges
from tests.simulation.slurm_jobs import Job
from tests.simulation.world import NAMESPACE, SYSTEM, World

HOSTILE = "team-b"
HONEST = "honest"
CASES_OF_A_ROUND = 50
MOST_OBJECTS = 25
"""Deployments of the hostile tenant at a time; the oldest go, as a quota would have it."""
BOUND = 300.0
"""Seconds until a change of the honest deployment is done; a queue, a load and drain are in it."""
_OURS: tuple[Resource, ...] = (MODEL_DEPLOYMENTS, SLURM_JOBS, SLURM_CLUSTERS)
_OTHERS: tuple[Resource, ...] = (
    ENDPOINT_SLICES,
    DEPLOYMENTS,
    PODS,
    SERVICES,
    CONTROLLER_REVISIONS,
    SECRETS,
)


@dataclass(frozen=True, slots=True)
class Survival:
    """How a run ended.

    Attributes:
        cases: that were drawn.
        slowest: seconds of virtual time until a change of the honest deployment was done.
        problems: what did not hold; empty if all did.
    """

    cases: int
    slowest: float
    problems: tuple[str, ...]


def survive(seed: int, *, cases: int) -> Survival:
    """Draw so many cases, let them meet in one process, and judge."""
    seed_everything(f"{seed}/survival")
    with (
        simulated_edges(),
        hostile_edges(),
        _read_logs() as log,
        asyncio.Runner(loop_factory=SimulationLoop) as runner,
    ):
        # What the simulated controllers make of odd objects is not what is tested.
        runner.get_loop().set_exception_handler(lambda loop, context: None)
        return runner.run(_live(seed, cases, log))


async def _live(seed: int, cases: int, log: "_Log") -> Survival:
    world = World(f"survival{seed}")
    world.oracle.off = True
    world.api.listeners[:] = [world.controllers._changed]  # the judge of the seeds goes
    world.slurm.site.gpus = world.controllers.nodes.gpus = 100_000
    tenant = HostileTenant(world, Random(f"{seed}/hostile"))
    _first_objects(world)
    (operator,) = world.operators
    operator.start()
    slowest, done, problems = await _honest_change(world, replicas=1), 0, list[str]()
    while done < cases and not problems:
        for _ in range(min(CASES_OF_A_ROUND, cases - done)):
            problems += tenant.case()
            done += 1
            await asyncio.sleep(0.5)
        slowest = max(slowest, await _honest_change(world, replicas=1 + done // 50 % 3))
        if slowest > BOUND:
            problems.append(f"a change of the honest deployment took more than {slowest:.0f} s")
        problems += [f"the operator ended: {error!r}" for error in operator.ended_by]
        problems += _shown(world) + log.problems()
    world.over = True
    last = [f"last cases: {tenant.told[-CASES_OF_A_ROUND:]}"] if problems else []
    return Survival(done, slowest, (*problems, *last))


def _first_objects(world: World) -> None:
    random = Random("first")
    cluster = manifests.slurm_cluster(namespace=SYSTEM, teams=[NAMESPACE], random=random)
    cluster["spec"]["access"] = {"allowedNamespaces": {"names": [NAMESPACE, HOSTILE]}}
    cluster["spec"]["commands"]["pollInterval"] = "30s"
    world.api.create(SLURM_CLUSTERS, cluster, by="admin")
    honest = manifests.model_deployment(namespace=NAMESPACE, name=HONEST, random=random)
    honest["spec"] |= {
        "replicas": 1,
        "pools": [manifests.slurm_pool(), manifests.kubernetes_pool(minReplicas=1)],
    }
    world.api.create(MODEL_DEPLOYMENTS, honest, by="user")


async def _honest_change(world: World, *, replicas: int) -> float:
    """Ask for so many workers of the honest deployment; seconds until they are there."""
    place = NAMESPACE, HONEST
    wanted = {"spec": {"replicas": replicas}}
    world.api.patch(MODEL_DEPLOYMENTS, *place, patch=wanted, subresource="", by="user")
    began = world.now
    while world.now - began <= BOUND:
        await asyncio.sleep(2.0)
        found = world.api.get(MODEL_DEPLOYMENTS, *place) or {}
        if (
            k8s.dig(found, "status", "observedGeneration") == found["metadata"]["generation"]
            and k8s.dig(found, "status", "ready") == f"{replicas}/{replicas}"
        ):
            break
    return world.now - began


def _shown(world: World) -> list[str]:
    """Where the canary of a Secret shows."""
    encoded = base64.b64encode(CANARY.encode()).decode()[:12]
    return [
        f"a Secret shows in {resource.kind} {k8s.name(obj)}"
        for resource, obj in world.api.everything()
        if resource.kind != "Secret" and (CANARY in (text := repr(obj)) or encoded in text)
    ]


class HostileTenant:
    """Draws one case after the other, each of them something of namespace `HOSTILE`."""

    def __init__(self, world: World, random: Random) -> None:
        self._world, self._random = world, random
        self._number = 0
        self.told: list[str] = []
        self._cases: tuple[tuple[float, Callable[[], str]], ...] = (
            (4.0, self._deployment),
            (3.0, self._stored),
            (2.0, self._status),
            (2.0, self._metadata),
            (2.0, self._others),
            (2.0, self._secret),
            (2.0, self._record),
            (1.0, self._foreign_job),
            (1.0, self._cluster),
            (1.0, self._made_up_job),
            (1.0, self._delete),
        )

    def case(self) -> list[str]:
        """Let one happen; nothing is told back but what is wrong with this test."""
        do = self._random.choices([c[1] for c in self._cases], [c[0] for c in self._cases])[0]
        self.told.append(f"{do.__name__.strip('_')}: {do()}")
        return []

    # ---- what is stored

    def _deployment(self) -> str:
        """A new deployment: as it should be, or with odd values; of a schema that is not ours."""
        random = self._random
        self._number += 1
        name = f"bad{self._number}"
        obj = manifests.model_deployment(namespace=HOSTILE, name=name, random=random)
        if random.random() < 0.5:
            obj["spec"]["endpoint"] = _external(random)
        if random.random() < 0.7:
            obj["spec"] = spoiled(obj["spec"], random, typed=False)
        self._world.api.create(MODEL_DEPLOYMENTS, obj, by="tenant")
        self._keep_few()
        return str(obj["spec"])[:300]

    def _keep_few(self) -> None:
        found = self._objects(MODEL_DEPLOYMENTS)
        for old in found[: max(0, len(found) - MOST_OBJECTS)]:
            self._remove(MODEL_DEPLOYMENTS, old)

    def _remove(self, resource: Resource, obj: Json) -> None:
        """Deleted, or gone from one moment to the next; an hour of waiting is not looked at."""
        if self._random.random() < 0.5 and k8s.deletion_timestamp(obj) is None:
            self._world.api.delete(resource, HOSTILE, k8s.name(obj), by="tenant")
        else:
            self._world.api.vanish(resource, obj)

    def _objects(self, resource: Resource) -> list[Json]:
        return [o for o in self._world.api.all(resource) if k8s.namespace(o) == HOSTILE]

    def _some(self, *kinds: Resource) -> tuple[Resource, Json] | None:
        found = [(kind, obj) for kind in kinds for obj in self._objects(kind)]
        return self._random.choice(found) if found else None

    def _put(self, resource: Resource, old: Json, **parts: Any) -> str:
        """Store it as if it had been there for long: nothing checks it."""
        new = {**old, **parts, "metadata": dict(parts.get("metadata", old["metadata"]))}
        self._world.api._store(resource, "MODIFIED", new, by="tenant")
        return f"{resource.kind} {k8s.name(old)} {str(parts)[:300]}"

    def _stored(self) -> str:
        found = self._some(*_OURS)
        if found is None:
            return "nothing"
        resource, obj = found
        return self._put(
            resource, obj, spec=spoiled(obj.get("spec", {}), self._random, typed=False)
        )

    def _status(self) -> str:
        found = self._some(*_OURS)
        if found is None:
            return "nothing"
        resource, obj = found
        status = spoiled(obj.get("status") or {"phase": "Ready"}, self._random, typed=False)
        return self._put(resource, obj, status=status)

    def _metadata(self) -> str:
        """Annotations, labels and owners are texts, as Kubernetes sees to; finalizers are names."""
        found = self._some(*_OURS, *_OTHERS)
        if found is None:
            return "nothing"
        resource, obj = found
        random, meta = self._random, dict(obj["metadata"])
        for field in ("annotations", "labels"):
            texts = dict(meta.get(field) or {})
            for key in random.sample(sorted(texts), min(len(texts), 2)):
                texts[key] = random.choice(TEXTS)
            texts[f"{names.GROUP}/x"] = random.choice(TEXTS)
            meta[field] = texts
        owners = [dict(owner) for owner in meta.get("ownerReferences", ())]
        for owner in owners:
            owner[random.choice(("kind", "name", "uid"))] = random.choice(TEXTS)
        if owners and random.random() < 0.3:
            meta["ownerReferences"] = owners
        return self._put(resource, obj, metadata=meta)

    def _others(self) -> str:
        """What Kubernetes checks keeps its kinds, and may miss whatever is optional."""
        found = self._some(*_OTHERS)
        if found is None:
            return "nothing"
        resource, obj = found
        apart = ("metadata", "kind", "apiVersion")
        parts = {key: value for key, value in obj.items() if key not in apart}
        return self._put(resource, obj, **spoiled(parts, self._random, typed=True))

    def _secret(self) -> str:
        """A router's token, an engine's key, or the keys of workers."""
        random = self._random
        found = self._some(SECRETS)
        name = "token" if found is None or random.random() < 0.4 else k8s.name(found[1])
        data = {
            key: base64.b64encode(secret_bytes(random)).decode()
            for key in random.sample(["token", "api-key", "key", "x"], 3)
        }
        old = self._world.api.get(SECRETS, HOSTILE, name)
        if old is None:
            obj = {"metadata": {"namespace": HOSTILE, "name": name}, "data": data}
            self._world.api.create(SECRETS, obj, by="tenant")
        else:
            self._put(SECRETS, old, data={**(old.get("data") or {}), **data})
        return name

    def _cluster(self) -> str:
        random = self._random
        self._number += 1
        obj = manifests.slurm_cluster(namespace=HOSTILE, teams=[HOSTILE], random=random)
        obj["metadata"]["name"] = f"cluster{self._number}"
        obj["spec"] = spoiled(obj["spec"], random, typed=False)
        self._world.api.create(SLURM_CLUSTERS, obj, by="tenant")
        for old in self._objects(SLURM_CLUSTERS)[:-5]:
            self._remove(SLURM_CLUSTERS, old)
        return str(obj["spec"])[:300]

    def _made_up_job(self) -> str:
        """A SlurmJob that no deployment made: of another's job, or of nothing."""
        random = self._random
        found = self._some(SLURM_JOBS)
        if found is None:
            return "nothing"
        self._number += 1
        spec = dict(found[1]["spec"])
        if random.random() < 0.5:
            spec["jobName"] = random.choice([job.name for job in self._world.slurm.jobs.values()])
        meta = {"namespace": HOSTILE, "name": f"job{self._number}"}
        self._world.api.create(SLURM_JOBS, {"metadata": meta, "spec": spec}, by="tenant")
        for old in [o for o in self._objects(SLURM_JOBS) if k8s.name(o).startswith("job")][:-5]:
            self._remove(SLURM_JOBS, old)
        return f"{meta['name']} {spec.get('jobName')}"

    def _delete(self) -> str:
        found = self._some(*_OURS, *_OTHERS)
        if found is None:
            return "nothing"
        resource, obj = found
        self._world.api.delete(resource, HOSTILE, k8s.name(obj), by="tenant")
        return f"{resource.kind} {k8s.name(obj)}"

    # ---- what SLURM prints

    def _record(self) -> str:
        """A text in a field of squeue that only the job's own account can choose."""
        theirs = [job for job in self._world.slurm.jobs.values() if hostile_job(job.name)]
        if not theirs:
            return "nothing"
        job = self._random.choice(theirs)
        field = self._random.choice(("Comment", "Reason", "exit_code", "EndTime", "NodeList"))
        text = self._random.choice([text for text in TEXTS if text != "\ud800"])
        self._world.slurm.strange.clear()  # a tenth of all records is the format's fault
        self._world.slurm.strange.put(job.id, field, text)
        return f"{job.name} {field}"

    def _foreign_job(self) -> str:
        """A job of the same account with a name of its user's."""
        slurm = self._world.slurm
        name = self._random.choice([text for text in TEXTS if text and text != "\ud800"])[:900]
        job = Job(
            id=next(slurm._ids),
            name=name,
            comment=self._random.choice(TEXTS),
            request=None,
            submitted_at=slurm.now,
            eligible_at=slurm.now,
            state="RUNNING",
            started_at=slurm.now,
            node="gpu01",
        )
        slurm.jobs[job.id] = job
        slurm.later(120.0, slurm.jobs.pop, job.id, None)
        return repr(name[:40])


def _external(random: Random) -> Json:
    odd = [text for text in TEXTS if text.startswith("http")]
    url = random.choice(odd) if random.random() < 0.3 else f"http://router{random.random()}.test:80"
    external: Json = {"kind": random.choice(["smg", "sglang-router"]), "url": url}
    if random.random() < 0.4:
        key = random.choice(["token", "api-key", "none"])
        external["authSecretRef"] = {"name": "token", "key": key}
    return {"type": "External", "external": external}


# ---- what is logged


class _Log(logging.Handler):
    """Looks at all that the operator logs."""

    def __init__(self) -> None:
        super().__init__(level=logging.DEBUG)
        self._found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if CANARY in text:
            self._found.append(f"a Secret is logged: {text[:300]}")

    def problems(self) -> list[str]:
        """What was wrong with it since the last time."""
        found, self._found = self._found, []
        return found


@contextlib.contextmanager
def _read_logs() -> Iterator[_Log]:
    handler, logger = _Log(), logging.getLogger("isthmus")
    kept: Mapping[str, Any] = {"propagate": logger.propagate, "level": logger.level}
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.propagate = kept["propagate"]
        logger.setLevel(kept["level"])
