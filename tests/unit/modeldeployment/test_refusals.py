"""B4: what is refused stops only its own pool, and is told with what to do about it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from isthmus.api import names
from isthmus.api.conditions import PendingClass, Reason
from isthmus.apiserver.key import Key
from isthmus.apiserver.resources import (
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    MODEL_DEPLOYMENTS,
    PODS,
    SERVICES,
    SLURM_CLUSTERS,
    SLURM_JOBS,
    Resource,
)
from isthmus.apiserver.store import Store
from isthmus.errors import (
    ApiConflictError,
    ApiError,
    ApiForbiddenError,
    ApiInvalidError,
    NameTakenError,
)
from isthmus.modeldeployment.actions import (
    CreateDeployment,
    CreateRevision,
    CreateSlurmJob,
    DeleteSlurmJob,
    DeploymentAction,
    EnsureFront,
    EnsureService,
    FreezeDeployment,
    ScaleDeployment,
)
from isthmus.modeldeployment.execute import DeploymentActions
from isthmus.modeldeployment.execute_jobs import JobActions
from isthmus.modeldeployment.failures import Failures, failure
from isthmus.modeldeployment.observe import DeploymentObserver
from isthmus.modeldeployment.reconciler import Executors, ModelDeploymentReconciler
from isthmus.rules.actions import AddFinalizer
from isthmus.settings import Settings
from tests.simulation.apiserver import ApiSimulator
from tests.unit.builders import no_own_key

KEY = Key("ModelDeployment", "team-a", "llama")
INVALID = ApiInvalidError(
    "create deployments team-a/llama-a: 422 Invalid: Deployment is invalid: spec.x: Invalid value",
    status=422,
)
QUOTA = ApiForbiddenError(
    "create slurmjobs team-a/llama: 403 Forbidden: slurmjobs is forbidden: exceeded quota: jobs, "
    "requested: count/slurmjobs=1, used: 4, limited: 4",
    status=403,
)
RIGHTS = ApiForbiddenError(
    'create deployments team-a/llama-a: 403 Forbidden: deployments.apps is forbidden: User "op" '
    'cannot create resource "deployments" in API group "apps" in the namespace "team-a"',
    status=403,
)
POLICY = ApiForbiddenError(
    "create deployments team-a/llama-a: 403 Forbidden: admission webhook denied the request: no",
    status=403,
)


class Api:
    """The simulated API server as a client, that refuses some objects."""

    def __init__(self) -> None:
        watched = [
            CONTROLLER_REVISIONS,
            DEPLOYMENTS,
            ENDPOINT_SLICES,
            MODEL_DEPLOYMENTS,
            PODS,
            SERVICES,
            SLURM_CLUSTERS,
            SLURM_JOBS,
        ]
        self.store = Store(watched=watched)
        self.server = ApiSimulator(clock=lambda: 1.8e9)
        self.refused: dict[tuple[Resource, str], ApiError] = {}
        self.tried: list[str] = []

    async def get(self, resource: Resource, *, namespace: str, name: str) -> Any:
        return self.server.get(resource, namespace, name)

    async def create(self, resource: Resource, obj: Any) -> Any:
        name = obj["metadata"]["name"]
        self.tried.append(f"{resource.kind} {name}")
        for (kind, part), error in self.refused.items():
            if kind == resource and part in name:
                raise error
        return self._seen(resource, self.server.create(resource, obj, by="op"))

    async def apply(self, resource: Resource, obj: Any) -> Any:
        return self._seen(resource, self.server.apply(resource, obj, by="op"))

    async def patch(self, resource: Resource, *, subresource: str = "", **rest: Any) -> Any:
        where = rest["namespace"], rest["name"]
        made = self.server.patch(
            resource, *where, patch=rest["patch"], subresource=subresource, by="op"
        )
        return self._seen(resource, made)

    def _seen(self, resource: Resource, obj: Any) -> Any:
        self.store.on_written(resource, obj)
        return obj

    def exists(self, resource: Resource, part: str) -> bool:
        return any(part in obj["metadata"]["name"] for obj in self.server.all(resource))


class Nothing:
    """Parts of the operator that these passes have no use for."""

    def watch(self, *_: Any, **__: Any) -> None: ...

    def load(self, *_: Any) -> None: ...

    def emit(self, *_: Any, **__: Any) -> None: ...

    def get(self, *_: Any) -> None: ...

    def keys(self) -> tuple[()]:
        return ()

    async def settled(self, desired: Any, **_: Any) -> tuple[Any, str]:
        return desired, ""

    async def clients_problem(self, *_: Any) -> None: ...

    async def forget_unused(self, *_: Any) -> None: ...


class Operator:
    """The reconciler alone, over one ModelDeployment with two pools on Kubernetes."""

    def __init__(self, **spec: Any) -> None:
        self.api = Api()
        nothing: Any = Nothing()
        settings = Settings(generate_api_keys=False)
        api = cast(Any, self.api)
        store = self.api.store
        jobs = JobActions(
            store=store,
            api=api,
            settings=settings,
            new_attempt=lambda: "aaaaaa",
            attempt_digest=no_own_key,
        )
        self.reconciler = ModelDeploymentReconciler(
            observer=DeploymentObserver(
                store=store,
                states=nothing,
                prober=nothing,
                settings=settings,
                clock=lambda: 1.8e9,
            ),
            api=api,
            executors=Executors(
                objects=DeploymentActions(store=store, api=api, settings=settings, jobs=jobs),
                pods=nothing,
            ),
            keys=nothing,
            events=nothing,
            clock=lambda: 1.8e9,
            resync=settings.resync_interval,
        )
        pools = [
            {"name": name, "kubernetes": {}, "minReplicas": 1, "maxReplicas": 1} for name in "ab"
        ]
        obj = {
            "metadata": {"namespace": "team-a", "name": "llama"},
            "spec": {"model": {"source": "hf://org/llama"}, "replicas": 2, "pools": pools, **spec},
        }
        made = self.api.server.create(MODEL_DEPLOYMENTS, obj, by="user")
        self.api.store.put(MODEL_DEPLOYMENTS, made)

    def settle(self) -> Any:
        """Passes until one asks for no other at once; returns the status."""

        async def run() -> None:
            for _ in range(10):
                if await self.reconciler.reconcile(KEY) != 0.0:
                    return
            raise AssertionError("the passes do not end")

        asyncio.run(run())
        found = self.api.server.get(MODEL_DEPLOYMENTS, "team-a", "llama")
        assert found is not None
        return found["status"]


def condition(status: Any, kind: str) -> Any:
    return next(one for one in status["conditions"] if one["type"] == kind)


@pytest.mark.parametrize("error", [INVALID, RIGHTS, POLICY, QUOTA])
def test_b4_a_pool_that_is_refused_stops_neither_the_others_nor_front_nor_service(
    error: ApiError,
) -> None:
    operator = Operator()
    operator.api.refused[DEPLOYMENTS, "llama-a-"] = error
    status = operator.settle()
    assert operator.api.exists(DEPLOYMENTS, "llama-b-")
    assert operator.api.exists(DEPLOYMENTS, names.front_name("llama"))
    assert operator.api.exists(SERVICES, "llama")
    assert operator.api.exists(CONTROLLER_REVISIONS, "llama-b-"), "the other pool is frozen"
    pools = {pool["name"]: pool for pool in status["pools"]}
    assert str(error) in pools["a"]["pending"]["message"]
    assert pools["a"]["pending"]["class"] in {"Never", "Quota"}
    assert str(error) not in str(pools["b"])
    for kind in ("Ready", "Progressing"):
        assert condition(status, kind)["status"] == "False"
        assert condition(status, kind)["message"].startswith("pool a: ")


def test_b4_what_is_refused_is_tried_again_and_told_no_more_once_it_is_made() -> None:
    operator = Operator()
    operator.api.refused[DEPLOYMENTS, "llama-a-"] = INVALID
    operator.settle()
    first = operator.settle()
    again = operator.settle()
    assert again == first, "nothing is written where nothing changed"
    operator.api.refused.clear()
    status = operator.settle()
    assert operator.api.exists(DEPLOYMENTS, "llama-a-")
    assert "422" not in str(status)


@pytest.mark.parametrize("resource", [SERVICES, CONTROLLER_REVISIONS])
def test_b4_what_no_worker_waits_for_stops_nothing(resource: Resource) -> None:
    operator = Operator()
    operator.api.refused[resource, "llama"] = RIGHTS
    status = operator.settle()
    assert operator.api.exists(DEPLOYMENTS, "llama-a-")
    assert operator.api.exists(DEPLOYMENTS, "llama-b-")
    assert "no right" in condition(status, "Ready")["message"]


def test_b4_a_front_that_is_refused_is_told() -> None:
    operator = Operator()
    operator.api.refused[DEPLOYMENTS, names.front_name("llama")] = POLICY
    status = operator.settle()
    assert operator.api.exists(SERVICES, "llama")
    assert "admission policy" in condition(status, "Progressing")["message"]


def test_b4_a_conflict_still_ends_the_pass() -> None:
    operator = Operator()
    operator.api.refused[DEPLOYMENTS, "llama-a-"] = ApiConflictError("changed", status=409)
    with pytest.raises(ApiConflictError):
        operator.settle()
    assert not operator.api.exists(DEPLOYMENTS, "llama-b-")


A = CreateDeployment(pool="a", revision="r", replicas=1)
B = CreateDeployment(pool="b", revision="r", replicas=1)


@pytest.mark.parametrize(
    ("refused", "hindered", "free"),
    [
        (A, [ScaleDeployment(pool="a", revision="r", replicas=2)], [B, EnsureService()]),
        (
            CreateRevision(pool="a", revision="r"),
            [CreateSlurmJob(pool="a", revision="r", slot=0)],
            [CreateSlurmJob(pool="b", revision="r", slot=0), EnsureFront()],
        ),
        # What is made counts on what was to be taken away, or there is more than the surge.
        (DeleteSlurmJob(name="x", uid="u"), [A, B], [EnsureService()]),
        (ScaleDeployment(pool="a", revision="r", replicas=0), [A, B], [EnsureService()]),
        # Nothing may be on SLURM without our finalizer on its deployment.
        (AddFinalizer(), [CreateSlurmJob(pool="b", revision="r", slot=0)], [EnsureFront()]),
        (AddFinalizer(later=True), [], [A, B, EnsureService()]),
        (FreezeDeployment(pool="a", revision="r"), [], [A, B, EnsureService()]),
    ],
)
def test_b4_what_is_left_out_after_a_refusal(
    refused: DeploymentAction, hindered: list[DeploymentAction], free: list[DeploymentAction]
) -> None:
    failures = Failures()
    failures.add(refused, INVALID)
    assert [action for action in (*hindered, *free) if failures.hinder(action)] == hindered


@pytest.mark.parametrize(
    ("error", "reason", "kind", "advice"),
    [
        (INVALID, Reason.RECONCILE_FAILED, PendingClass.NEVER, "correct the field"),
        (RIGHTS, Reason.RECONCILE_FAILED, PendingClass.NEVER, "roles of its chart"),
        (POLICY, Reason.RECONCILE_FAILED, PendingClass.NEVER, "admission policy"),
        (QUOTA, Reason.PENDING_QUOTA, PendingClass.QUOTA, "ResourceQuota"),
        (NameTakenError("rename it"), Reason.NAME_CONFLICT, PendingClass.NEVER, "rename it"),
    ],
)
def test_b4_each_refusal_says_what_to_do(
    error: Any, reason: Reason, kind: PendingClass, advice: str
) -> None:
    told = failure(error, pool="a")
    assert (told.reason, told.kind) == (reason, kind)
    assert advice in told.message
    assert str(error) in told.message
    assert len(told.told) < 1024
