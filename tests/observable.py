"""What can be seen of a ModelDeployment and its SlurmCluster, each view by the operator's own code.

A view shows what leaves the operator: objects, scripts, options of commands, requests, times. No
view shows a record between two parts of it, for such a record may have a field that nobody reads.
The revision is a constant: it is the hash of what was written, so it would differ in any case.
"""

import asyncio
import base64
import contextlib
import logging
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias
from unittest.mock import patch

import httpx

from isthmus.api import names
from isthmus.api.defaults import effective
from isthmus.api.desired import ClusterReference, Desired
from isthmus.api.modeldeployment import ModelDeployment
from isthmus.api.slurmcluster import SlurmCluster, network_mode
from isthmus.api.slurmjob import SlurmJob
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.clusters import cluster_of
from isthmus.apiserver.resources import MODEL_DEPLOYMENTS, SECRETS, SLURM_CLUSTERS, SLURM_JOBS
from isthmus.apiserver.secrets import Secrets
from isthmus.apiserver.store import Store
from isthmus.backends.kubernetes import front, render
from isthmus.backends.slurm import frozen as freezing
from isthmus.backends.slurm import login
from isthmus.backends.slurm import workers as slurm_workers
from isthmus.backends.slurm.records import SubmitRequest
from isthmus.backends.slurm.request import submit_request
from isthmus.errors import SlurmUnavailableError
from isthmus.front import routes
from isthmus.modeldeployment.plan import plan_model_deployment
from isthmus.modeldeployment.policy.placement import by_priority, place
from isthmus.probing.client import EngineAnswer
from isthmus.settings import Settings
from isthmus.slurmcluster.access import access
from isthmus.slurmcluster.reconciler import cluster_access
from isthmus.tunnels import bastion
from isthmus.tunnels.desired import Wanted
from isthmus.tunnels.links import LinkKey, Links
from tests.simulation import operators
from tests.simulation.clock import SimulationLoop
from tests.simulation.engines import ProbeClient
from tests.simulation.operators import seed_everything, simulated_edges
from tests.simulation.slurm_jobs import Job
from tests.simulation.world import INSTALLATION, SYSTEM, World
from tests.unit import builders
from tests.virtualtime import run_virtual

Json: TypeAlias = dict[str, Any]
View: TypeAlias = Callable[[Json, Json], object]
"""Of a ModelDeployment and a SlurmCluster, as they are written; raises nothing for valid ones."""

REVISION = "0123456789"
JOB_NAME = "llama-isthmus0-0123456789-0-abcdef"


class _Secrets:
    """An API server that has every Secret: the value of each key names itself."""

    async def get(self, resource: object, *, namespace: str, name: str) -> Json:
        return {"metadata": {"namespace": namespace, "name": name}, "data": _Data(namespace, name)}


class _Data(dict[str, str]):
    def __init__(self, *place: str) -> None:
        super().__init__()
        self._place = "/".join(place)

    def __contains__(self, key: object) -> bool:
        return True

    def get(self, key: str, default: object = None) -> Any:
        return base64.b64encode(f"{self._place}/{key}".encode()).decode()

    def __getitem__(self, key: str) -> str:
        return str(self.get(key))


def _secrets() -> Secrets:
    api: Any = _Secrets()
    return Secrets(api, clock=lambda: 0.0)


def desired(deployment: Json) -> Desired:
    read = ModelDeployment.model_validate(deployment)
    return effective(read, operator_namespace=SYSTEM, generate_api_keys=True)


def _with_digest(deployment: Json) -> Desired:
    found = desired(deployment)
    key = found.api_key
    return found if key is None else replace(found, api_key=replace(key, digest="d1"))


def _reference(cluster: Json) -> ClusterReference:
    meta = cluster["metadata"]
    return ClusterReference(namespace=meta["namespace"], name=meta["name"])


def counts(deployment: Json, cluster: Json) -> object:
    """Workers of each pool, and the order in which pools are filled."""
    wanted = desired(deployment)
    return place(wanted).counts, [pool.name for pool in by_priority(wanted.pools)]


def pods(deployment: Json, cluster: Json) -> object:
    """The Deployments of the workers."""
    wanted, settings = _with_digest(deployment), Settings()
    return [
        render.deployment(
            desired=wanted,
            pool=pool.name,
            revision=REVISION,
            template=render.pod_template(
                desired=wanted,
                pool=pool,
                revision=REVISION,
                pre_stop_seconds=int(settings.pre_stop_seconds),
                shutdown_seconds=int(settings.termination_grace),
            ),
            replicas=1,
        )
        for pool in wanted.pools
        if pool.kubernetes is not None
    ]


def slurm_job(deployment: str, pool: str, place: ClusterReference, **spec: Any) -> Json:
    reference = {"namespace": place.namespace, "name": place.name}
    return {
        "apiVersion": names.API_VERSION,
        "kind": "SlurmJob",
        "metadata": {"namespace": "team-a", "name": f"{deployment}-{pool}-abcdef", "uid": "u-1"},
        "spec": {
            "clusterRef": reference,
            "deployment": deployment,
            "pool": pool,
            "slot": 0,
            "attempt": "abcdef",
            "revision": REVISION,
            "jobName": JOB_NAME,
            **spec,
        },
    }


def jobs(deployment: Json, cluster: Json) -> object:
    """What is submitted, or why it is not."""
    wanted, read = _with_digest(deployment), SlurmCluster.model_validate(cluster)
    found: list[object] = []
    for pool in wanted.pools:
        if pool.slurm is None:
            continue
        where = pool.slurm.cluster
        there = read if where == _reference(cluster) else None
        refused = access(cluster=there, reference=where, namespace=wanted.namespace)
        if refused is not None:
            found.append(refused)
            continue
        mode = network_mode(read.spec)
        try:
            request = submit_request(
                attempt=SlurmJob.model_validate(slurm_job(wanted.name, pool.name, where)).spec,
                namespace=wanted.namespace,
                frozen=freezing.freeze(desired=wanted, pool=pool),
                cluster=read,
                installation_id="isthmus0",
                mode=mode,
                forward_port=20000,
            )
        except ValueError as error:  # the site has no such GPU: said in the status
            found.append(str(error))
        else:
            found.append((request.options, request.script, request.comment))
    return found


def endpoint(deployment: Json, cluster: Json) -> object:
    """Services, the front with its rights, and what Envoy lets through."""
    wanted = desired(deployment)
    policy = front.policy(wanted)
    return [
        render.service(desired=wanted),
        wanted.membership_service,
        *(
            [
                front.rights(desired=wanted),
                front.front_deployment(desired=wanted, image="front:1", drain_seconds=300),
                routes.virtual_host(policy, cluster="workers"),
            ]
            if wanted.endpoint.managed
            else []
        ),
    ]


def attempt(job: Json, cluster: Json) -> object:
    """What is made of one SlurmJob: its submission, its line in the status, what it leads to."""
    read = SlurmJob.model_validate(job)
    wanted = desired(_DEPLOYMENT)
    (pool,) = wanted.pools
    try:
        request: object = submit_request(
            attempt=read.spec,
            namespace=read.metadata.namespace,
            frozen=freezing.freeze(desired=wanted, pool=pool),
            cluster=SlurmCluster.model_validate(cluster),
            installation_id="isthmus0",
            work_directory=read.work_directory,
        )
    except ValueError as error:
        request = str(error)
    revision = names.revision_object_name(
        deployment=read.spec.deployment, pool=read.spec.pool, revision=read.spec.revision
    )
    groups = slurm_workers.groups(jobs=[read], members=frozenset())
    status = plan_model_deployment(builders.deployment(wanted, *groups), now=builders.NOW).status
    return request, revision, cluster_of(job), [one.model_dump() for one in status.workers]


_DEPLOYMENT: Json = {
    "metadata": {"namespace": "team-a", "name": "llama", "uid": "u-llama"},
    "spec": {
        "model": {"source": "hf://org/llama"},
        "pools": [{"name": "hpc", "slurm": {"clusterRef": {"name": "hpc"}}}],
    },
}


# ---- how a cluster is reached


class _Executor:
    """In place of both kinds: says with what it was made, and what it is asked to run."""

    def __init__(self, told: list[object], *made_with: object, **named: object) -> None:
        self._told = told
        told.append((made_with, sorted(named.items(), key=str)))
        self.warning = ""

    async def run(self, argv: Iterable[str], *, stdin: str = "", timeout: float) -> None:
        self._told.append((tuple(argv), timeout))
        raise SlurmUnavailableError("as the test says", reason="CommandFailed")

    async def close(self) -> None:
        """Nothing is open."""


def commands(deployment: Json, cluster: Json) -> object:
    """Where SLURM's commands run and as whom, which they are, and how long they may take."""
    told: list[object] = []

    def connection(targets: Iterable[object], *, credentials: Any, **_: object) -> str:
        told.append((*map(str, targets), asyncio.run(credentials.read())))
        return "a connection"

    def executor(*given: object, **named: object) -> _Executor:
        return _Executor(told, *given, **named)

    read = SlurmCluster.model_validate(cluster)
    with (
        patch.object(login, "Connection", connection),
        patch.object(login, "LocalExecutor", executor),
        patch.object(login, "OpenSshExecutor", executor),
    ):
        there = login.reach(cluster_access(read, settings=Settings()), secrets=_secrets())
        asyncio.run(_ask(there.client))
    return re.sub(r"\b[0-9a-f]{16}\b", "MARK", repr(told))  # drawn for each call


async def _ask(client: Any) -> None:
    request = SubmitRequest(job_name=JOB_NAME, comment="one", script="#!/bin/sh\n", options=())
    for question in (client.submit(request), client.version()):
        with contextlib.suppress(SlurmUnavailableError):
            await question


def _wanted(cluster: Json) -> Wanted:
    return Wanted(
        namespace="team-a",
        slurm_job="llama-hpc-0-abcdef",
        uid="u-1",
        deployment="llama",
        service="llama-workers",
        cluster=_reference(cluster),
        mode="Reverse",
        port=20000,
        host="10.10.0.1",
        engine_port=41000,
        in_traffic=True,
        public_key="ssh-ed25519 AAAA",
    )


def tunnels(deployment: Json, cluster: Json) -> object:
    """Where a supervisor connects to, and the sshd that it runs for jobs that call it."""
    return run_virtual(lambda: _tunnels(cluster))


async def _tunnels(cluster: Json) -> list[object]:
    told: list[object] = []
    reference = _reference(cluster)

    def connect(target: object, way: Any, control_path: Path) -> Any:
        told.append((str(target), way.identity.key.read_text()))
        told.append(way.identity.known_hosts.read_text())
        return _Connection()

    async def sshd(*argv: str, **_: object) -> Any:
        told.extend(_files_of_sshd(Path(argv[-1])))
        return SimpleNamespace(returncode=0)

    loop = asyncio.get_running_loop()
    links = Links(
        secrets=_secrets(),
        on_change=lambda: None,
        clock=loop.time,
        connect_timeout=5.0,
        pause=5.0,
        connect=connect,
    )
    node = LinkKey(reference, node="10.10.0.1")
    with tempfile.TemporaryDirectory() as folder:
        links.set({node: {}}, clusters={(reference.namespace, reference.name): cluster})
        await asyncio.sleep(30)
        await links.close()
        store = Store(watched=())
        store.put(SLURM_CLUSTERS, cluster)
        ours = bastion.Bastions(
            store=store, secrets=_secrets(), address="0.0.0.0", parent=Path(folder)
        )
        with patch.object(bastion.asyncio, "create_subprocess_exec", sshd):
            await ours.admit({"u-1": _wanted(cluster)})
    return told


def _files_of_sshd(configuration: Path) -> list[str]:
    folder = configuration.parent
    text = configuration.read_text().replace(str(folder), "FOLDER")
    return [text, (folder / "key").read_text()]


class _Connection:
    """Of a supervisor: it stands until it is closed."""

    forbidden = 0

    async def start(self, *, timeout: float) -> None:
        pass

    async def wait(self) -> None:
        await asyncio.get_running_loop().create_future()

    async def close(self) -> None:
        pass


# ---- a life


LIFE_SECONDS = 750.0
ABSENT = "absent"
"""Name of a Secret that does not exist."""


def life(deployment: Json, cluster: Json) -> object:
    """All that a simulated operator says and asks while a worker starts, fails and drains."""
    seed_everything("life")
    told: list[object] = []
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with simulated_edges(), asyncio.Runner(loop_factory=SimulationLoop) as runner:
            runner.get_loop().set_exception_handler(lambda loop, context: None)
            return runner.run(_life(deployment, cluster, told))
    finally:
        logging.disable(before)


async def _life(deployment: Json, cluster: Json, told: list[object]) -> list[object]:
    world = World("life1")
    world.oracle.off = True
    world.api.listeners[:] = [world.controllers._changed, _teller(world, told)]
    for name, data in named_secrets(deployment, cluster):
        for namespace in ("team-a", SYSTEM):
            secret = {"metadata": {"namespace": namespace, "name": name}, "data": data}
            world.api.create(SECRETS, secret, by="user")
    world.api.create(SLURM_CLUSTERS, cluster, by="user")
    world.slurm.jobs[7] = _orphan()
    world.api.create(MODEL_DEPLOYMENTS, deployment, by="user")
    with _told_edges(world, told):
        world.operators[0].start()
        await asyncio.sleep(150)
        for engine in world.machines.ledger:
            engine.begin(world.now + 10_000, shown_from=0.0)
        world.slurm.site.load_seconds = 1e6  # whatever starts from now on never answers
        for engine in world.machines.ledger:
            engine.broken_until = world.now + 100
        await asyncio.sleep(150)
        for job in world.api.all(SLURM_JOBS)[:1]:
            world.api.delete(SLURM_JOBS, k8s.namespace(job), k8s.name(job), by="user")
        await asyncio.sleep(LIFE_SECONDS - 300)
    told += [job.state for job in world.slurm.jobs.values()]
    world.over = True
    return told


def _orphan() -> Job:
    """A job of this installation that nobody knows."""
    name = f"gone-{INSTALLATION}-0123456789-0-zzzzzz"
    return Job(
        id=7,
        name=name,
        comment=f"isthmus:v1:{INSTALLATION}:team-a/gone:hpc:0:zzzzzz",
        request=None,
        submitted_at=0.0,
        eligible_at=0.0,
        state="RUNNING",
        started_at=0.0,
        node="gpu01",
    )


def named_secrets(*objects: Json) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Every Secret that an object names, with a value of its own under each key."""
    seen: set[str] = set()
    for name, key in _references(list(objects)):
        if name not in seen and name != ABSENT:
            seen.add(name)
            usual = (key, "alpha", "beta-2", "api-key", "token", "ca.crt")
            yield (
                name,
                {
                    each: base64.b64encode(f"a-key-of-{name}-{each}".encode()).decode()
                    for each in usual
                },
            )


def _references(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for field, item in value.items():
            if field.lower().endswith("secretref") or field == "secretKeyRef":
                yield str(item["name"]), str(item.get("key", "key"))
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def _teller(world: World, told: list[object]) -> Callable[..., None]:
    """Notes what is written, but for what users wrote themselves."""

    def listen(resource: Any, event: str, obj: Json, by: str) -> None:
        if by.startswith("op") and resource.plural not in ("leases", "secrets", "events"):
            own = {key: value for key, value in obj.items() if key != "metadata"}
            if resource in (MODEL_DEPLOYMENTS, SLURM_CLUSTERS):
                own = {"status": obj.get("status")}
            told.append((round(world.now, 3), event, resource.kind, k8s.name(obj), own))

    return listen


@contextlib.contextmanager
def _told_edges(world: World, told: list[object]) -> Iterator[None]:
    class Asking(ProbeClient):
        async def get(self, url: str, *, headers: Mapping[str, str]) -> EngineAnswer:
            told.append((round(world.now, 3), url, sorted(headers.items())))
            return await super().get(url, headers=headers)

    def router(request: httpx.Request) -> httpx.Response:
        sent = request.headers.get("Authorization")
        told.append((request.method, str(request.url), sent, request.content))
        return httpx.Response(200, stream=httpx.ByteStream(b'{"workers": []}'))

    def client(*_: object, **__: object) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(router), timeout=None)

    with (
        patch.object(operators, "ProbeClient", Asking),
        patch("isthmus.application.bounded_client", client),
    ):
        yield
