"""Several releases of SLURM at once: a world for each, and one operator that reaches all over ssh.

There is no node and no controller of Kubernetes, only an API server: nothing is garbage-collected,
so what is left after a delete is looked for among what the operator itself has to end.
"""

import functools
import json
import shutil
import tempfile
import textwrap
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from playground import manifests, slurm_releases
from playground.cluster import Config, Playground, default_cache
from playground.errors import PlaygroundError
from playground.operator_process import NAMESPACE, Operator
from playground.progress import Progress
from tests.bareapi import bare_api
from tests.real.api import Api
from tests.real.look import condition
from tests.real.world import Json, Not, World, deployment, slurm_pool, until

DEBIANS = "22.05"
RELEASES = (DEBIANS, *slurm_releases.SUITES)
LEASE = "matrix"
NODES = 3
EVERY = 0.3
"""Seconds between two looks: three worlds share the processors with their engines."""
SUPERVISION = threading.Lock()
"""The operator of all worlds is started again by one of them."""

SBATCH = """#!/bin/sh
# The real one. Where there is a file `gate`, says that it was called and waits until it is gone.
if [ -e {jobs}/gate ]; then
    touch {jobs}/called
    while [ -e {jobs}/gate ]; do sleep 0.05; done
fi
exec {bin}/sbatch "$@"
"""


@dataclass
class Site(World):
    """One SLURM, with a namespace and a SlurmCluster of its own behind the common API server."""

    release: str = ""
    server: Playground | None = None

    @functools.cached_property
    def version(self) -> str:
        """Such as 24.11.5, as slurmctld says it."""
        return self.slurm("scontrol", "--version").split()[-1]

    @functools.cached_property
    def api(self) -> Api:
        assert self.server is not None
        return Api(self.server.kubernetes.kubeconfig)

    def slurm(self, *argv: str, user: str = "") -> str:
        """A command of SLURM, of this release; as administrator unless told otherwise."""
        return self.playground.slurm.command(*argv, user=user)

    # -- what it is made of

    @property
    def jobs_folder(self) -> Path:
        return self.playground.state / "jobs"

    def make_commands(self) -> Path:
        """A folder with this release's commands, of which sbatch can be held up."""
        folder = self.playground.state / "slurm-commands"
        folder.mkdir()
        real = self.playground.slurm.bin_folder
        for name in ("squeue", "sinfo", "scancel", "scontrol", "srun", "sacct"):
            (folder / name).symlink_to(real / name)
        wrapper = folder / "sbatch"
        wrapper.write_text(SBATCH.format(jobs=self.jobs_folder, bin=real))
        for path in (folder, wrapper):
            path.chmod(0o755)
        return folder

    def install(self) -> None:
        """The namespace, the SlurmCluster and the Secret of its login."""
        commands, slurm = self.make_commands(), self.playground.slurm
        name = {"name": self.namespace}
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": name}
        self.api.apply(self.path("namespace", self.namespace), space)
        secret = f"{self.namespace}-ssh"
        first, last = manifests.WORKER_PORTS
        told = f'{{ echo "$PATH"; scontrol --version; }} >{self.jobs_folder}/$SLURM_JOB_ID.release'
        cluster = self.cluster(
            self.namespace,
            login=manifests.ssh_login(slurm, secret=secret),
            network={"mode": "Direct", "ports": {"from": first, "to": last}},
            access={"allowedNamespaces": {"names": [self.namespace]}},
        )
        cluster["spec"]["commands"]["binDir"] = str(commands)
        cluster["spec"]["site"]["setup"] += f"\n{told}"
        self.apply(dict(manifests.ssh_secret(slurm, name=secret)), cluster)

    def deploy(
        self, name: str, *, replicas: int = 1, spec: Json | None = None, **pool: Any
    ) -> None:
        """Apply a ModelDeployment with one pool on this SLURM."""
        made = slurm_pool(cluster=self.namespace)
        for key, value in pool.items():
            made[key] = {**made[key], **value} if isinstance(value, dict) and key in made else value
        self.apply(deployment(name, made, replicas=replicas, **(spec or {})))

    # -- what is seen of it

    def supervise(self) -> None:
        with SUPERVISION:
            super().supervise()

    def until(self, look: Callable[[], Any], what: str, *, timeout: float = 90.0) -> Any:
        def supervised() -> Any:
            self.supervise()  # an API server that is slow for a while costs the operator its Lease
            return look()

        return until(supervised, what, timeout=timeout, every=EVERY)

    def ready(
        self, name: str, replicas: int, *, comments: bool = True, timeout: float = 90.0
    ) -> list[Json]:
        """Wait until all tell the same story: status, slices, objects and the queue.

        Args:
            name: of the deployment.
            replicas: how many workers it shall have.
            comments: whether each job's comment must have the port that the status has.
            timeout: seconds.
        """

        def look() -> Any:
            said = self.agree(name, kubernetes=0, slurm=replicas)
            said = said or self.told_apart(name, comments=comments)
            return Not(said) if said else True

        self.until(look, f"{name} has {replicas} jobs and all agree", timeout=timeout)
        return list(self.status(name)["workers"])

    def told_apart(self, name: str, *, comments: bool) -> str:
        """Where the status and squeue differ about a worker's node, port and end; "" if nowhere."""
        queue = {job["id"]: job for job in self.queue()}
        for worker in self.status(name).get("workers", []):
            job = queue.get(str(worker.get("jobId")))
            if job is None:
                return f"job {worker.get('jobId')} of the status is not in the queue"
            ends = datetime.fromisoformat(worker.get("endsAt") or "1970-01-01T00:00:00+00:00")
            port = worker.get("url", "").rpartition(":")[2]
            told = (worker.get("node"), ends)
            seen = (job["node"], datetime.fromisoformat(job["end"]).astimezone())
            if told != seen or (comments and f":port={port}" not in job["comment"]):
                return f"the status says {worker}, squeue {job}"
        return ""

    def queue(self, states: str = "all") -> list[Json]:
        """Every job that slurmctld still knows."""
        said = self.slurm("squeue", "-h", "-a", f"--states={states}", "-o", "%i|%j|%T|%N|%e|%r|%k")
        fields = ("id", "name", "state", "node", "end", "reason", "comment")
        # A job of somebody else may have any name, also one with line feeds.
        lines = [line.split("|") for line in said.splitlines()]
        return [dict(zip(fields, line, strict=True)) for line in lines if len(line) == len(fields)]

    def job(self, job_id: object) -> Json:
        """One of them, {} where it is forgotten."""
        return next((job for job in self.queue() if job["id"] == str(job_id)), {})

    def wait_saved(self, name: str) -> None:
        """Wait until slurmctld has written what it knows of these jobs, which it does now and then.

        One that is killed before loses it: a job that has just begun may end with it (24.11).
        """
        ids = self.ids(name)
        comments = [job["comment"].encode() for job in self.queue() if job["id"] in ids]
        saved = self.playground.state / "slurm" / "controller" / "job_state"
        self.until(
            lambda: all(comment in saved.read_bytes() for comment in comments),
            f"slurmctld has saved the jobs of {name}",
        )

    def ids(self, name: str) -> set[str]:
        return {job["id"] for job in self.jobs(name)}

    def attempts(self, name: str) -> list[Json]:
        return self.objects("sj", name)

    def pending(self, name: str) -> Json:
        """Why the pool has fewer workers than wanted, with the reason of each attempt."""
        pools = self.status(name).get("pools") or [{}]
        return pools[0].get("pending") or {}

    def wait_pending(self, name: str, *words: str, timeout: float = 90.0) -> None:
        """Wait until the pool's status, or that of an attempt, has all of these words."""

        def look() -> Any:
            attempts = [sj.get("status", {}) for sj in self.attempts(name)]
            seen = json.dumps([self.pending(name), *attempts])
            return all(word in seen for word in words) or Not(seen)

        self.until(look, f"{name} is pending: {', '.join(words)}", timeout=timeout)

    def reachable(self) -> Json:
        return condition(self.get("slc", self.namespace, NAMESPACE), "SlurmReachable")

    def wait_reachable(self, status: str) -> Json:
        def look() -> Any:
            found = self.reachable()
            return found if found.get("status") == status else Not(str(found))

        found: Json = self.until(look, f"SlurmReachable is {status}")
        return found

    def left(self, name: str) -> list[str]:
        """What the operator has to end itself, and has not."""
        found = [f"sj {sj['metadata']['name']}" for sj in self.attempts(name)]
        found += [f"mdep {name}"] if self.get("mdep", name) else []
        live = "PENDING,CONFIGURING,RUNNING,SUSPENDED,COMPLETING"
        return found + [j["name"] for j in self.queue(live) if j["name"].startswith(f"{name}-")]

    def wait_gone(self, name: str, *, timeout: float = 90.0) -> None:
        self.until(
            lambda: Not(str(left)) if (left := self.left(name)) else True,
            f"nothing of {name} is left",
            timeout=timeout,
        )

    def assert_one_engine_per_attempt(self, name: str) -> None:
        """Every attempt passed its gate at most once, and no live job is without its object."""
        known = {sj["spec"]["jobName"] for sj in self.attempts(name)}
        started = {attempt: self.starts(attempt) for attempt in known}
        assert all(len(starts) <= 1 for starts in started.values()), started
        live = [job["name"] for job in self.jobs(name)]
        assert len(live) == len(set(live)), live

    # -- after a test

    def mend(self) -> None:
        """Every node in service, the controller there, and no deployment left."""
        (self.jobs_folder / "gate").unlink(missing_ok=True)
        slurm = self.playground.slurm
        slurm.continue_controller() if slurm.components.process("slurmctld") else None
        slurm.start_controller()
        for number in range(1, NODES + 1):
            slurm.resume(f"gpu{number:02}")
        self.until(
            lambda: Not(str(left)) if (left := self.sweep()) else True,
            "nothing of the test is left",
            timeout=120,
        )


@dataclass
class Matrix:
    """All of them.

    Attributes:
        sites: of the releases that are there.
        missing: release → why it is not there.
    """

    sites: list[Site]
    missing: dict[str, str]
    operator: Operator
    broken: list[str] = field(default_factory=list)

    def each(self, body: Callable[[Site], object]) -> None:
        """Apply a test's body to all at the same time; the failure of each names its release."""
        begin = time.monotonic()

        def one(site: Site) -> str:
            try:
                body(site)
            except BaseException:  # a failed check of any kind, told with the others
                took = time.monotonic() - begin
                said = textwrap.indent(traceback.format_exc(limit=-6), "    ")
                return f"SLURM {site.version} ({site.release}) after {took:.0f} s:\n{said}"
            return ""

        with ThreadPoolExecutor(max_workers=len(self.sites)) as pool:
            failures = [said for said in pool.map(one, self.sites) if said]
        if failures:
            good = ", ".join(
                s.version for s in self.sites if not any(s.version in f for f in failures)
            )
            pytest.fail("\n".join([*failures, f"fine on: {good or 'none'}"]), pytrace=False)

    def kill_operator(self) -> None:
        """KILL, and its Lease is over, which otherwise takes as long as it lasts."""
        self.operator.kill()
        site = self.sites[0]
        path = site.path("lease", LEASE, namespace=NAMESPACE)
        site.api.patch(path, {"spec": {"holderIdentity": None}})

    def describe(self) -> str:
        found = [f"{site.version} ({site.release})" for site in self.sites]
        return "SLURM " + ", ".join([*found, *(f"NOT {name}" for name in self.missing)])


def start(stack: ExitStack, *, arguments: Callable[..., list[str]]) -> Matrix:
    """Start the API server, a SLURM of each release that can be had, and the operator."""
    prefixes, missing = _prefixes()
    with ThreadPoolExecutor() as pool:
        api = pool.submit(bare_api)
        worlds = {name: pool.submit(_world, prefix) for name, prefix in prefixes.items()}
        failures = [error for each in worlds.values() if (error := each.exception())]
        for each in worlds.values():
            if not each.exception():
                stack.callback(each.result().down)
    if failures:
        raise failures[0]
    kubernetes = api.result()
    sites = [
        Site(
            each.result(),
            namespace=f"slurm-{name.replace('.', '-')}",
            release=name,
            server=kubernetes,
        )
        for name, each in worlds.items()
    ]
    settings = arguments(
        watch_namespaces=",".join([NAMESPACE, *(site.namespace for site in sites)]),
        slurm_poll_interval="500ms",
        lease_name=LEASE,
    )
    operator = Operator(
        kubernetes, arguments=settings, installation_id="matrix00", name="matrix-operator"
    )
    stack.callback(operator.stop)
    operator.prepare()
    for site in sites:
        site.operators.append(operator)
        site.install()
    operator.start()
    matrix = Matrix(sites=sites, missing=missing, operator=operator)
    matrix.each(lambda site: site.wait_reachable("True"))
    return matrix


def _prefixes() -> tuple[dict[str, Path | None], dict[str, str]]:
    found: dict[str, Path | None] = {DEBIANS: None}
    missing = {}
    for name in slurm_releases.SUITES:
        try:
            made = slurm_releases.ensure(name, cache=default_cache(), progress=Progress())
            found[name] = made.prefix
        except PlaygroundError as error:
            missing[name] = str(error)
    return found, missing


def _world(prefix: Path | None) -> Playground:
    state = Path(tempfile.mkdtemp(prefix="isthmus-matrix-", dir="/var/tmp"))
    state.chmod(0o755)
    config = Config(
        state=state,
        instance=None,
        parts=frozenset({"slurm"}),
        slurm_nodes=NODES,
        slurm_prefix=prefix,
    )
    try:
        return Playground(config, progress=Progress(silent=True)).__enter__()
    except BaseException:
        shutil.rmtree(state, ignore_errors=True)
        raise
