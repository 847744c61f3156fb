"""What executing an action makes, through the simulated API server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from isthmus.api import names
from isthmus.api.desired import Desired
from isthmus.api.slurmcluster import SlurmCluster
from isthmus.api.slurmjob import SlurmJob
from isthmus.apiserver.gate import OpenGate
from isthmus.apiserver.objects import Object
from isthmus.apiserver.reading import read_job
from isthmus.apiserver.resources import (
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    SLURM_CLUSTERS,
    SLURM_JOBS,
    Resource,
)
from isthmus.apiserver.store import Store
from isthmus.errors import ApiForbiddenError, ApiNotFoundError, NameTakenError
from isthmus.modeldeployment.actions import (
    CreateDeployment,
    CreateSlurmJob,
    DeploymentAction,
    FreezeDeployment,
)
from isthmus.modeldeployment.execute import DeploymentActions
from isthmus.modeldeployment.execute_jobs import JobActions
from isthmus.modeldeployment.policy.lost_labels import lost_labels
from isthmus.settings import Settings
from isthmus.slurmjob.start_gate import Closing, StartGate
from tests.simulation.apiserver import ApiSimulator
from tests.unit.builders import desired, no_own_key, slurm_pool

NAME = names.revision_object_name(deployment="llama", pool="k8s", revision="new")
CREATE = CreateDeployment(pool="k8s", revision="new", replicas=2)
FREEZE = FreezeDeployment(pool="k8s", revision="new")


class Api:
    """The simulated API server as a client whose answers go into the store."""

    def __init__(self) -> None:
        watched = [DEPLOYMENTS, CONTROLLER_REVISIONS, SLURM_CLUSTERS, SLURM_JOBS]
        self.store = Store(watched=watched)
        self.server = ApiSimulator(clock=lambda: 1.8e9)

    async def get(self, resource: Resource, *, namespace: str, name: str) -> Any:
        return self.server.get(resource, namespace, name)

    async def create(self, resource: Resource, obj: Any) -> Any:
        made = self.server.create(resource, obj, by="op")
        self.store.on_written(resource, made)
        return made

    async def patch(self, resource: Resource, *, namespace: str, name: str, patch: Any) -> Any:
        return self.server.patch(resource, namespace, name, patch=patch, subresource="", by="op")

    async def delete(self, resource: Resource, *, namespace: str, name: str, uid: str) -> Any:
        found = self.server.get(resource, namespace, name)
        assert found is not None
        assert found["metadata"]["uid"] == uid
        self.server.delete(resource, namespace, name, by="op")
        self.store.on_deleted(resource, None, namespace=namespace, name=name, uid=uid)

    def executor(self, new_attempt: Callable[[], str], **settings: Any) -> DeploymentActions:
        shared: Any = {"store": self.store, "api": self, "settings": Settings(**settings)}
        jobs = JobActions(**shared, new_attempt=new_attempt, attempt_digest=no_own_key)
        return DeploymentActions(**shared, jobs=jobs)

    def execute(
        self, *actions: DeploymentAction, of: Desired | None = None, **settings: Any
    ) -> None:
        executor = self.executor(lambda: "aaaaaa", **settings)

        async def run() -> None:
            for action in actions:
                await executor.execute(action, raw={}, desired=of or desired())

        asyncio.run(run())

    def template(self, resource: Resource) -> Any:
        found = self.server.get(resource, "team-a", NAME)
        assert found is not None
        return (
            found["spec"]["template"] if resource == DEPLOYMENTS else found["data"]["podTemplate"]
        )

    def foreign(self, resource: Resource) -> None:
        obj: Object = {"metadata": {"namespace": "team-a", "name": NAME, "uid": "u"}}
        self.server.create(resource, obj, by="user")


def test_an_upgrade_between_deployment_and_freezing_freezes_what_runs() -> None:
    api = Api()
    api.execute(CREATE, termination_grace=60.0)
    api.execute(FREEZE, termination_grace=90.0)
    assert api.template(CONTROLLER_REVISIONS) == api.template(DEPLOYMENTS)


def test_a_lost_deployment_comes_back_as_it_was_frozen() -> None:
    api = Api()
    api.execute(CREATE, FREEZE, termination_grace=60.0)
    before = api.template(DEPLOYMENTS)
    api.server.delete(DEPLOYMENTS, "team-a", NAME, by="user")
    api.execute(CREATE, termination_grace=90.0)
    assert api.template(DEPLOYMENTS) == before


def test_a_deployment_whose_labels_were_taken_gets_them_again() -> None:
    """Without them no list shows it, and it was made again and again without a pause."""
    api = Api()
    api.execute(CREATE)
    before = api.server.get(DEPLOYMENTS, "team-a", NAME)
    assert before is not None
    bare = {"metadata": {"labels": dict.fromkeys(before["metadata"]["labels"])}}
    stripped = api.server.patch(DEPLOYMENTS, "team-a", NAME, patch=bare, subresource="", by="user")
    told = stripped["metadata"]["uid"], int(stripped["metadata"]["resourceVersion"])
    api.store.remove(DEPLOYMENTS, "team-a", NAME, *told)  # as a watch tells of it
    api.execute(CREATE)
    after = api.server.get(DEPLOYMENTS, "team-a", NAME)
    assert after is not None
    assert after["metadata"]["labels"] == before["metadata"]["labels"]
    assert [obj["metadata"]["name"] for obj in api.store.labelled(DEPLOYMENTS, "team-a", "llama")]


def test_a_revision_whose_labels_were_taken_is_made_again_of_what_it_froze() -> None:
    """No watch shows one without labels, and no right of ours changes one."""
    api = Api()
    api.execute(CREATE, FREEZE, termination_grace=60.0)
    before = api.server.get(CONTROLLER_REVISIONS, "team-a", NAME)
    assert before is not None
    bare = {"metadata": {"labels": dict.fromkeys(before["metadata"]["labels"])}}
    stripped = api.server.patch(
        CONTROLLER_REVISIONS, "team-a", NAME, patch=bare, subresource="", by="user"
    )
    told = stripped["metadata"]["uid"], int(stripped["metadata"]["resourceVersion"])
    api.store.remove(CONTROLLER_REVISIONS, "team-a", NAME, *told)
    api.execute(FREEZE)
    after = api.server.get(CONTROLLER_REVISIONS, "team-a", NAME)
    assert after is not None
    assert after["metadata"]["labels"] == before["metadata"]["labels"]
    assert after["data"] == before["data"]
    assert api.store.labelled(CONTROLLER_REVISIONS, "team-a", "llama")


def test_an_attempt_gets_its_labels_back() -> None:
    api = Api()
    api.execute(CreateSlurmJob(pool="hpc", revision="new", slot=3), of=desired(slurm_pool()))
    (made,) = api.server.all(SLURM_JOBS)
    before = made["metadata"]["labels"]
    place = "team-a", made["metadata"]["name"]
    bare = {"metadata": {"labels": dict.fromkeys(before)}}
    api.server.patch(SLURM_JOBS, *place, patch=bare, subresource="", by="user")
    found = read_job(api.server.get(SLURM_JOBS, *place)).value
    assert found is not None
    action = lost_labels(found, desired=desired(slurm_pool()), current={"hpc": "new"})
    assert action is not None
    api.execute(action, of=desired(slurm_pool()))
    after = api.server.get(SLURM_JOBS, *place)
    assert after is not None
    assert after["metadata"]["labels"] == before
    again = read_job(after).value
    assert again is not None
    assert lost_labels(again, desired=desired(slurm_pool()), current={"hpc": "new"}) is None


def test_an_attempt_holds_where_its_start_gate_is() -> None:
    """Whatever becomes of its status, and of the folder of its SlurmCluster: seed 551."""
    api = Api()
    cluster = {
        "metadata": {"namespace": "isthmus-system", "name": "hpc"},
        "spec": {"files": {"workDirectory": "/scratch/first"}},
    }
    api.store.put(SLURM_CLUSTERS, api.server.create(SLURM_CLUSTERS, cluster, by="user"))
    api.execute(CreateSlurmJob(pool="hpc", revision="new", slot=0), of=desired(slurm_pool()))
    (made,) = api.server.all(SLURM_JOBS)
    job = SlurmJob.model_validate(made)
    assert job.work_directory == "/scratch/first"

    clusters = Clusters()
    later = SlurmCluster.model_validate(
        {
            **cluster,
            "spec": {
                "files": {"workDirectory": "/scratch/second"},
                "login": {"local": {}},
                "network": {"ports": {"from": 41000, "to": 41999}},
            },
        }
    )
    gate = StartGate(clusters=cast(Any, clusters), gate=OpenGate())
    assert asyncio.run(gate.close(job, later)) is Closing.CLOSED
    assert clusters.closed == [("/scratch/first", job.spec.job_name)]
    # B5: what cannot be read is not what is gone, for a submission may be on its way there.
    assert asyncio.run(gate.close(job, None, unread="spec.login")) is Closing.FAILED
    assert asyncio.run(gate.close(job, None)) is Closing.CLOSED


class Clusters:
    """Of which each client closes gates and remembers which."""

    def __init__(self) -> None:
        self.closed: list[tuple[str, str]] = []

    def work_folder(self, reference: object) -> Clusters:
        return self

    async def close_gate(self, *, work_directory: str, job_name: str) -> bool:
        self.closed.append((work_directory, job_name))
        return True


def test_what_is_gone_is_not_frozen() -> None:
    with pytest.raises(ApiNotFoundError, match="gone"):
        Api().execute(FREEZE)


@pytest.mark.parametrize("resource", [DEPLOYMENTS, CONTROLLER_REVISIONS])
def test_what_is_not_ours_is_told_and_kept(resource: Resource) -> None:
    api = Api()
    api.foreign(resource)
    before = api.server.get(resource, "team-a", NAME)
    with pytest.raises(NameTakenError, match=f"{resource.kind} team-a/{NAME} exists"):
        api.execute(CREATE, FREEZE)
    assert api.server.get(resource, "team-a", NAME) == before


class Refusing(Api):
    """Refuses every SlurmJob, in words that hold its name, as the API server does."""

    def __init__(self) -> None:
        super().__init__()
        self.tried: list[str] = []

    async def create(self, resource: Resource, obj: Any) -> Any:
        name = obj["metadata"]["name"]
        self.tried.append(name)
        raise ApiForbiddenError(f"create slurmjobs team-a/{name}: 403 exceeded quota", status=403)


def test_an_attempt_that_is_refused_is_tried_again_under_its_name() -> None:
    """With a new name each time the refusal had new words, a new status and a pass at once."""
    api = Refusing()
    attempts = iter(["aaaaaa", "bbbbbb", "cccccc"])
    executor = api.executor(lambda: next(attempts))
    action = CreateSlurmJob(pool="hpc", revision="new", slot=0)
    for _ in range(3):
        with pytest.raises(ApiForbiddenError):
            asyncio.run(executor.execute(action, raw={}, desired=desired(slurm_pool())))
    assert len(api.tried) == 3
    assert len(set(api.tried)) == 1
