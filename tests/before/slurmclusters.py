"""One SLURM cluster: its orphans, the files of its jobs, its nodes, the way to it."""

import os
import shlex
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from isthmus.api.conditions import Reason
from isthmus.api.desired import ClusterReference
from isthmus.apiserver.resources import MODEL_DEPLOYMENTS, SLURM_CLUSTERS, SLURM_JOBS
from isthmus.backends.slurm.commands import CommandClient
from isthmus.backends.slurm.executor import LocalExecutor
from isthmus.backends.slurm.records import JobRecord, SubmitRequest, Unclear
from isthmus.backends.slurm.ssh import OpenSshExecutor
from isthmus.errors import SlurmError, SshError
from tests.before.findings import any_of, built, finding, tree
from tests.before.memory import MemoryApi, Nothing, key

_REFERENCE = ClusterReference(namespace="isthmus-system", name="hpc")


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
