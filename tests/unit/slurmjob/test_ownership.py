"""H4: a SlurmJob counts only with its owner and under its own name; for others nothing is done."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

import isthmus
from isthmus.api import names
from isthmus.apiserver.resources import (
    ENDPOINT_SLICES,
    MODEL_DEPLOYMENTS,
    SLURM_CLUSTERS,
    SLURM_JOBS,
    Resource,
)
from isthmus.apiserver.store import Store
from isthmus.routing.slices import worker_slice
from isthmus.slurmjob.ownership import ownership
from isthmus.slurmjob.refused_jobs import refuse
from tests.simulation.apiserver import ApiSimulator
from tests.unit.tunnels.test_tunnel_rules import slurm_job

INSTALLATION = "isthmus0"


def store(*, owner_uid: str = "uid-llama") -> Store:
    made = Store(watched=[MODEL_DEPLOYMENTS, SLURM_JOBS, SLURM_CLUSTERS])
    if owner_uid:
        meta = {"namespace": "team-a", "name": "llama", "uid": owner_uid, "resourceVersion": "1"}
        made.put(MODEL_DEPLOYMENTS, {"metadata": meta})
    return made


def changed(**owner: Any) -> dict[str, Any]:
    job = slurm_job()
    job["metadata"]["ownerReferences"][0] |= owner
    return job


def foreign_name(uid: str = "uid-llama", **parts: Any) -> dict[str, Any]:
    """A SlurmJob whose name is that of another job."""
    job = slurm_job()
    given = {"deployment": "llama", "namespace": "team-a", "slot": 0, "attempt": "x7k2qp"} | parts
    job["spec"]["jobName"] = names.slurm_job_name(installation_id=INSTALLATION, uid=uid, **given)
    return job


def without_owners(job: dict[str, Any] | None = None) -> dict[str, Any]:
    job = job or slurm_job()
    del job["metadata"]["ownerReferences"]
    return job


HOSTILE = {
    "no owner": without_owners(),
    "no owner, under the name that follows from none": without_owners(foreign_name(uid="")),
    "owners that are none": {
        **slurm_job(),
        "metadata": {**slurm_job()["metadata"], "ownerReferences": "x"},
    },
    "an owner that does not control it": changed(controller=None),
    "an owner of another kind": changed(kind="Service"),
    "an owner of another group": changed(apiVersion="apps/v1"),
    "another name than spec.deployment": changed(name="qwen"),
    "an owner without uid": changed(uid=""),
    "the name of another namespace's job": foreign_name(namespace="team-b"),
    "the name of another deployment's job": foreign_name(uid="uid-other"),
    "the name of another attempt": foreign_name(attempt="abcdef"),
    "the name of another slot": foreign_name(slot=1),
    "no name of ours": {**slurm_job(), "spec": {**slurm_job()["spec"], "jobName": "bash"}},
    "no spec": {**slurm_job(), "spec": None},
}


@pytest.mark.parametrize("job", HOSTILE.values(), ids=HOSTILE)
def test_h4_what_the_operator_did_not_make_counts_for_nothing(job: dict[str, Any]) -> None:
    found = ownership(job, store=store(), installation_id=INSTALLATION)
    assert "delete it" in found.problem


def test_h4_what_it_made_counts() -> None:
    found = ownership(slurm_job(), store=store(), installation_id=INSTALLATION)
    assert (found.problem, found.owner_is_there) == ("", True)


@pytest.mark.parametrize("owner_uid", ["", "uid-of-its-successor"])
def test_h4_what_runs_when_its_owner_is_gone_is_still_followed_and_ended(owner_uid: str) -> None:
    found = ownership(slurm_job(), store=store(owner_uid=owner_uid), installation_id=INSTALLATION)
    assert (found.problem, found.owner_is_there) == ("", False)


def test_h4_no_uid_of_an_owner_that_is_not_there_takes_a_job_that_has_one() -> None:
    """Ten digits of a hash can be tried until they fit: here as if somebody had."""
    seen = store()
    seen.put(SLURM_JOBS, with_version(slurm_job("victim")))
    forged = copy.deepcopy(slurm_job("forged"))
    forged["metadata"]["namespace"] = "team-b"
    original = names.deployment_hash
    try:
        names.deployment_hash = lambda **_: original(  # type: ignore[assignment]
            namespace="team-a", name="llama", uid="uid-llama"
        )
        found = ownership(forged, store=seen, installation_id=INSTALLATION)
    finally:
        names.deployment_hash = original
    assert "belongs to another SlurmJob" in found.problem


def test_h4_a_job_of_another_installation_is_not_ended_for_an_owner_that_is_gone() -> None:
    found = ownership(slurm_job(), store=store(owner_uid=""), installation_id="isthmus9")
    assert "of installation isthmus0, not of isthmus9" in found.problem


def with_version(obj: dict[str, Any]) -> dict[str, Any]:
    return {**obj, "metadata": {**obj["metadata"], "resourceVersion": "7"}}


class Api:
    """The simulated API server as a client."""

    def __init__(self) -> None:
        self.server = ApiSimulator(clock=lambda: 1.8e9)

    async def patch(self, resource: Resource, *, subresource: str = "", **rest: Any) -> Any:
        where = rest["namespace"], rest["name"]
        return self.server.patch(
            resource, *where, patch=rest["patch"], subresource=subresource, by="op"
        )

    async def delete(
        self, resource: Resource, *, namespace: str, name: str, uid: str, **_: Any
    ) -> Any:
        return self.server.delete(resource, namespace, name, uid=uid, by="op")


async def test_h4_a_refused_one_is_told_why_and_keeps_its_phase() -> None:
    api: Any = Api()
    made = api.server.create(SLURM_JOBS, slurm_job(), by="user")
    status = {"status": {"phase": "Ready", "jobId": 101}}
    made = api.server.patch(
        SLURM_JOBS, "team-a", "j", patch=status, subresource="status", by="user"
    )
    await refuse(api, store(), made, problem="not ours")
    found = api.server.get(SLURM_JOBS, "team-a", "j")["status"]
    assert (found["reason"], found["message"]) == ("SlurmJobRefused", "not ours")
    assert (found["phase"], found["jobId"]) == ("Ready", 101)


@pytest.mark.parametrize(
    ("owner", "labels", "stays"),
    [
        ("uid-j", {}, False),
        ("uid-other", {}, True),
        ("uid-j", {names.LABEL_MANAGED_BY: "somebody"}, True),
    ],
)
async def test_h4_no_requests_go_to_a_refused_one(
    owner: str, labels: dict[str, str], stays: bool
) -> None:
    """Nobody probes its worker; and the slice of another that has its name is not touched."""
    api: Any = Api()
    made = api.server.create(SLURM_JOBS, slurm_job(), by="user")
    made["metadata"]["uid"] = "uid-j"
    member: Any = worker_slice(
        namespace="team-a",
        deployment="llama",
        service="llama",
        owner={"name": "j", "uid": owner},
        address="10.10.0.1",
        port=41000,
    )
    member["metadata"]["labels"] |= labels
    seen = store()
    seen.put(ENDPOINT_SLICES, api.server.create(ENDPOINT_SLICES, member, by="op"))
    await refuse(api, seen, made, problem="not ours")
    assert (api.server.get(ENDPOINT_SLICES, "team-a", "j") is not None) is stays


async def test_h4_a_refused_one_that_is_deleted_is_let_go() -> None:
    api: Any = Api()
    job = slurm_job()
    job["metadata"]["finalizers"] = [names.FINALIZER_SLURM_JOB]
    api.server.create(SLURM_JOBS, job, by="user")
    api.server.delete(SLURM_JOBS, "team-a", "j", by="user")
    await refuse(api, store(), api.server.get(SLURM_JOBS, "team-a", "j"), problem="not ours")
    assert api.server.get(SLURM_JOBS, "team-a", "j") is None


async def test_b5_a_refused_one_that_cannot_be_read_is_told_and_keeps_its_status() -> None:
    api: Any = Api()
    job = slurm_job()
    job["spec"]["slot"] = {"of": "a newer release"}
    api.server.create(SLURM_JOBS, job, by="user")
    status = {"status": {"phase": "Ready", "jobId": 101}}
    made = api.server.patch(
        SLURM_JOBS, "team-a", "j", patch=status, subresource="status", by="user"
    )
    await refuse(api, store(), made, problem="not ours")
    found = api.server.get(SLURM_JOBS, "team-a", "j")["status"]
    assert (found["phase"], found["jobId"]) == ("Ready", 101)
    assert "cannot be read" in found["message"]


def test_b5_stored_slurm_jobs_are_read_in_one_place() -> None:
    """Strictly read, one odd SlurmJob ended the passes of all others of its deployment."""
    folder = Path(isthmus.__file__).parent
    strict = [p.name for p in folder.rglob("*.py") if "SlurmJob.model_validate" in p.read_text()]
    assert strict == []
