"""API keys of attempts: what stands in the file that a job takes its key from."""

import base64
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from isthmus.api import names
from isthmus.api.defaults import effective
from isthmus.api.desired import ApiKey
from isthmus.api.keys import key_digest
from isthmus.api.modeldeployment import ModelDeployment
from isthmus.api.slurmcluster import SlurmCluster
from isthmus.api.slurmjob import SlurmJob
from isthmus.apiserver.resources import DEPLOYMENTS, PODS, SECRETS, SLURM_JOBS
from isthmus.apiserver.secrets import Secrets
from isthmus.backends.slurm.frozen import freeze
from tests.before.findings import any_of, built, finding
from tests.before.memory import MemoryApi

_KEY = "a-common-password"
_CLUSTER = SlurmCluster.model_validate(
    {
        "metadata": {"namespace": "isthmus-system", "name": "hpc", "uid": "uid-hpc"},
        "spec": {"login": {"local": {}}, "files": {"workDirectory": "/work"}},
    }
)


@dataclass
class _Folder:
    """The work directory of a cluster.

    Attributes:
        files: the content of each key file by the name of its job.
        placed: how often one was written.
    """

    files: dict[str, str] = field(default_factory=dict)
    placed: int = 0

    def client(self, *_: Any) -> "_Folder":
        return self

    def work_folder(self, *_: Any) -> "_Folder":
        return self

    async def place_secret(self, *, work_directory: str, job_name: str, content: str) -> None:
        self.placed += 1
        self.files[job_name] = content

    async def placed_secrets(self, **_: Any) -> frozenset[str]:
        return frozenset(self.files)


class _Keys:
    """The parts of the operator that know keys, with a deployment whose key a person has chosen."""

    def __init__(self) -> None:
        self.api = MemoryApi(DEPLOYMENTS, PODS, SLURM_JOBS)
        value = base64.b64encode(_KEY.encode()).decode()
        place = {"namespace": "team-a", "name": "mine"}
        self.api.put(SECRETS, {"metadata": place, "data": {"key": value}})
        secrets = Secrets(self.api, clock=lambda: 0.0)  # type: ignore[arg-type]
        self.parts: dict[str, Any] = {"store": self.api.store, "api": self.api, "secrets": secrets}
        with suppress(LookupError):  # of releases without a seed
            self.parts["seed"] = built(
                "isthmus.slurmjob.attempt_keys:InstallationSeed",
                namespace="isthmus-system",
                draw=lambda: "a-seed-of-256-bits",
                **self.parts,
            )
            self.parts["attempts"] = built(
                "isthmus.slurmjob.attempt_keys:AttemptKeys", **self.parts
            )
        self.deployment = built(
            "isthmus.modeldeployment.keys:DeploymentKeys",
            "isthmus.reconcile.keys:DeploymentKeys",
            new_key=lambda: "",
            **self.parts,
        )

    async def settled(self) -> Any:
        """The deployment, with the digest of its key."""
        pool = {"name": "hpc", "slurm": {"clusterRef": {"name": "hpc"}}}
        read = ModelDeployment.model_validate(
            {
                "metadata": {"namespace": "team-a", "name": "llama", "uid": "uid-llama"},
                "spec": {
                    "model": {"source": "hf://org/model", "servedNames": ["llama"]},
                    "pools": [pool],
                },
            }
        )
        desired = effective(read, operator_namespace="isthmus-system")
        key = ApiKey(secret="mine", key="key", generated=False)
        settled, wrong = await self.deployment.settled(replace(desired, api_key=key))
        assert settled.api_key.digest, wrong
        return settled

    async def attempt(self, settled: Any, slot: int) -> SlurmJob:
        """An attempt as it is made for the deployment."""
        name = names.slurm_job_name(
            installation_id="isthmus0",
            namespace="team-a",
            deployment="llama",
            uid="uid-llama",
            slot=slot,
            attempt="abcdef",
        )
        shared, notes = settled.api_key.digest, {}
        digest = shared
        if "attempts" in self.parts:
            digest = await self.parts["attempts"].digest(settled, job_name=name) or shared
            notes = {names.ANNOTATION_KEY_SOURCE: shared}
        obj = {
            "apiVersion": names.API_VERSION,
            "kind": "SlurmJob",
            "metadata": {
                "namespace": "team-a",
                "name": f"llama-{slot}",
                "labels": {names.LABEL_DEPLOYMENT: "llama", names.LABEL_KEY: digest},
                "annotations": notes,
                "ownerReferences": [{"kind": "ModelDeployment", "uid": "uid-llama"}],
            },
            "spec": {
                "clusterRef": {"namespace": "isthmus-system", "name": "hpc"},
                "deployment": "llama",
                "pool": "hpc",
                "slot": slot,
                "attempt": "abcdef",
                "revision": "0123456789",
                "jobName": name,
            },
        }
        return SlurmJob.model_validate(self.api.put(SLURM_JOBS, obj))

    def staging(self, folder: _Folder) -> Any:
        """What brings keys to jobs, as it is after a restart."""
        return built(
            "isthmus.slurmjob.key_files:KeyStaging",
            "isthmus.reconcile.staging:KeyStaging",
            keys=self.parts.get("attempts"),
            clusters=folder,
            check=lambda: None,
            clock=lambda: 1.8e9,
            secrets=self.parts["secrets"],
        )


@finding("L7", "the digest of a key is made with nothing but the key and a uid that all can see")
async def digest_can_be_guessed() -> bool:
    settled = await _Keys().settled()
    return bool(settled.api_key.digest == key_digest(_KEY, uid="uid-llama"))


@finding("H1", "the key that one node learns opens all workers of the deployment")
async def one_key_opens_all() -> bool:
    keys, folder = _Keys(), _Folder()
    settled = await keys.settled()
    frozen = freeze(desired=settled, pool=settled.pools[0])
    for slot in (0, 1):
        job = await keys.attempt(settled, slot)
        await keys.staging(folder).stage(job=job, frozen=frozen, folder="/work")
    assert len(folder.files) == 2
    return len(set(folder.files.values())) == 1


@finding("B9", "after a restart the keys of all jobs that wait are staged at once")
async def all_keys_are_staged_again() -> bool:
    keys, folder = _Keys(), _Folder()
    settled = await keys.settled()
    frozen = freeze(desired=settled, pool=settled.pools[0])
    jobs = [await keys.attempt(settled, slot) for slot in range(4)]
    folder.files = {job.spec.job_name: "its key" for job in jobs[1:]}
    made = any_of("isthmus.slurmjob.record:AttemptStatus", "isthmus.api.slurmjob:SlurmJobStatus")
    staging = keys.staging(folder)
    for job in jobs:
        status = made(phase="Pending")
        await staging.keep(job=job, frozen=frozen, cluster=_CLUSTER, status=status)
    assert folder.placed, "that of the first is missing"
    return folder.placed > 1
