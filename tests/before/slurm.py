"""What a site prints: answers of sbatch and squeue by real processes, as the operator reads it."""

import shlex
import tempfile
from pathlib import Path
from typing import Any

from isthmus.api.desired import ClusterReference
from isthmus.apiserver.resources import MODEL_DEPLOYMENTS, SLURM_JOBS
from isthmus.backends.slurm.addresses import system_lookup
from isthmus.backends.slurm.commands import CommandClient
from isthmus.backends.slurm.executor import LocalExecutor
from isthmus.backends.slurm.records import Refused, SubmitRequest, Unclear
from isthmus.errors import SlurmUnavailableError
from tests.before.findings import any_of, built, finding
from tests.before.memory import MemoryApi, Nothing
from tests.slurmanswers import FIELD_END, RECORD_END, printing

_TEXT = "TEXT-OF-A-JOB"
_NODE = FIELD_END.join(("gpu01", "127.0.0.1", "idle", "gpu", "none")) + RECORD_END


def _job(job_id: str, name: str, comment: str, *, start: str = "1790000000") -> str:
    fields = (job_id, "RUNNING", "0", "gpu01", "gpu01", "1790000000", start, "N/A", "1:00:00")
    return FIELD_END.join((*fields, "0", "gpu", "normal", name, "None", comment)) + RECORD_END


class _Site:
    """A folder of commands that print what they are told to."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self.client = CommandClient(LocalExecutor(bin_directory=folder), bin_directory=folder)

    def says(self, command: str, line: str) -> None:
        path = self._folder / command
        path.write_text(f"#!/bin/bash\n{line}\n", encoding="utf-8")
        path.chmod(0o755)


async def _submitted(errors: str, *, output: str = "", code: int = 1) -> Any:
    with tempfile.TemporaryDirectory(prefix="isthmus-before-") as folder:
        site = _Site(folder)
        said = f"printf %s {shlex.quote(output)}; printf %s {shlex.quote(errors)} >&2; exit {code}"
        site.says("sbatch", f"cat >/dev/null; {said}")
        request = SubmitRequest(
            job_name="llama-isthmus0-0123456789-0-abcdef",
            comment="isthmus:v1",
            script="#!/bin/bash\n",
            options=(),
        )
        return await site.client.submit(request)


async def _snapshot(jobs: str, *, text: str = "") -> Any:
    """What is read where squeue prints these jobs, with a text of a job's own for `_TEXT`."""
    with tempfile.TemporaryDirectory(prefix="isthmus-before-") as folder:
        site = _Site(folder)
        fake = printing(jobs).rpartition("printf")[0]
        own = f"said=${{said//{_TEXT}/{shlex.quote(text)}}}"
        site.says("squeue", f'{fake}{own}\nprintf %s "$said"')
        site.says("sinfo", printing(_NODE))
        return await site.client.snapshot()


@finding("H3", "an sbatch option with a wrong value is an unclear submission, tried again for ever")
async def wrong_option_is_unclear() -> bool:
    answer = await _submitted('sbatch: error: unrecognized --mem-bind argument "garbage"')
    assert isinstance(answer, Refused | Unclear)
    return isinstance(answer, Unclear)


def _view(namespace: str, *, jobs_of: str) -> int:
    """How many unclear submissions hold back one of a namespace, where another has 16."""
    api = MemoryApi(SLURM_JOBS, MODEL_DEPLOYMENTS)
    words = {"phase": "SubmitUnknown", "lastAnswer": "sbatch ended with 1: a site's own words"}
    for number in range(16):
        meta = {"namespace": jobs_of, "name": f"j-{number}"}
        spec = {"clusterRef": {"namespace": "isthmus-system", "name": "hpc"}}
        api.put(SLURM_JOBS, {"metadata": meta, "spec": spec, "status": words})
    view = built(
        "isthmus.slurmcluster.view:ClusterView",
        "isthmus.reconcile.cluster_view:ClusterView",
        store=api.store,
        states=_Seen(),
        clock=lambda: 1.8e9,
    )
    cluster = any_of("isthmus.api.slurmcluster:SlurmCluster").model_validate(
        {
            "metadata": {"namespace": "isthmus-system", "name": "hpc"},
            "spec": {
                "login": {"local": {}},
                "files": {"workDirectory": "/work"},
                "access": {"allowedNamespaces": {"names": ["team-a", "team-b"]}},
            },
        }
    )
    reference = ClusterReference(namespace="isthmus-system", name="hpc")
    seen = view.observe(cluster=cluster, reference=reference, namespace=namespace, except_for="")
    assert seen.usable
    return int(seen.unresolved)


class _Seen(Nothing):
    """Clusters that have all been seen a moment ago."""

    snapshot = None
    snapshot_starts = ()

    def get(self, *_: Any) -> Any:
        return self

    def fresh(self, *, now: float) -> bool:
        return True

    def why_not_fresh(self, *, now: float) -> tuple[str, str]:
        return "", ""


_MOST_UNRESOLVED = 16


@finding("H3", "16 unclear submissions of one namespace stop all others on that SLURM cluster")
def one_namespace_stops_all_others() -> bool:
    return _view("team-b", jobs_of="team-a") >= _MOST_UNRESOLVED


@finding("F5", "an attempt that waits for others' unclear submissions says nothing")
def waiting_says_nothing() -> bool:
    cluster = built(
        "isthmus.slurmcluster.observation:ClusterObservation",
        "isthmus.plan.slurmjob_observation:ClusterObservation",
        usable=True,
        fresh=True,
        snapshot=built(
            "isthmus.backends.slurm.records:Snapshot",
            jobs=(),
            nodes={},
            started_at=1.8e9,
            taken_at=1.8e9,
            cluster_time=1_800_000_000,
        ),
        unresolved=_MOST_UNRESOLVED,
    )
    plan = any_of("isthmus.slurmjob.plan:plan_slurm_job", "isthmus.plan.slurmjob:plan_slurm_job")(
        _attempt(cluster), now=1.8e9
    )
    assert plan.status.phase == "Waiting", plan
    return not plan.status.message


def _attempt(cluster: Any) -> Any:
    """An attempt that was never submitted."""
    modules = ("isthmus.slurmjob.observation", "isthmus.plan.slurmjob_observation")
    limits = built(
        *(f"{module}:Limits" for module in modules),
        submit_unknown_wait=60.0,
        deregister_delay=5.0,
        termination_grace=60.0,
    )
    rules = built(
        *(f"{module}:EndpointRules" for module in modules),
        port_from=1,
        port_to=65535,
        startup_timeout=600.0,
    )
    status = any_of("isthmus.slurmjob.record:AttemptStatus", "isthmus.api.slurmjob:SlurmJobStatus")
    return built(
        *(f"{module}:SlurmJobObservation" for module in modules),
        job_name="llama-isthmus0-0123456789-0-abcdef",
        attempt="abcdef",
        deleting=False,
        has_finalizer=True,
        status=status(),
        cluster=cluster,
        limits=limits,
        endpoint=rules,
    )


@finding("F4", "a refusal in words that nobody has listed (job_submit.lua) is unclear")
async def unlisted_refusal_is_unclear() -> bool:
    failed = "sbatch: error: Batch job submission failed: "
    answers = [
        await _submitted(f"sbatch: error: You must choose a GPU model\n{failed}Unspecified error"),
        await _submitted(f"{failed}Invalid license specification"),
    ]
    return any(isinstance(answer, Unclear) for answer in answers)


@finding("F4", "what a wrapper of sbatch prints on standard output is lost")
async def wrappers_words_are_lost() -> bool:
    answer = await _submitted("", output="--> Checking available allocation ... FAILED\n")
    return "FAILED" not in answer.message


@finding("M1", "a comment of a job forges the record of another")
async def comment_forges_a_record() -> bool:
    fields = ("50", "RUNNING", "0", "gpu01", "gpu01", "1", "1", "N/A", "1:00", "0", "gpu", "normal")
    forged = "\x1f".join((*fields, "victim-isthmus0-0123456789-0-abcdef", "None", "forged"))
    snapshot = await _snapshot(_job("1", "attacker", _TEXT), text=f"x\x1f\x1e\n{forged}")
    return any(job.name.startswith("victim") for job in snapshot.jobs)


@finding("M1", "a time of 5000 digits ends the operator")
async def long_number_ends_the_poller() -> bool:
    try:
        await _snapshot(_job("1", "other", "", start="9" * 5000))
    except SlurmUnavailableError:
        return False
    except ValueError:
        return True
    return False


@finding("M1", "a node's address with a label of 70 characters ends the operator")
async def long_label_ends_the_poller() -> bool:
    try:
        return bool(await system_lookup(["gpu..example.org", f"{'x' * 70}.example.org"]))
    except UnicodeError:
        return True


@finding("F15", "a job's name with separators in it blinds the cluster")
async def name_blinds_the_cluster() -> bool:
    jobs = _job("1", _TEXT, "") + _job("2", "other", "")
    try:
        snapshot = await _snapshot(jobs, text="x\x1f\x1e\ny")
    except SlurmUnavailableError:
        return True
    return "other" not in {job.name for job in snapshot.jobs}
