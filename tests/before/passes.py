"""Passes over objects that are refused, too new for this release, or of somebody else."""

import contextlib
from typing import Any

from isthmus.api import names
from isthmus.api.slurmjob import SlurmJobStatus
from isthmus.apiserver import resources
from isthmus.apiserver.resources import (
    DEPLOYMENTS,
    MODEL_DEPLOYMENTS,
    SERVICES,
    SLURM_CLUSTERS,
    SLURM_JOBS,
)
from isthmus.errors import ApiForbiddenError, ApiInvalidError
from isthmus.settings import Settings
from tests.before.findings import any_of, built, finding, takes
from tests.before.memory import MemoryApi, Nothing, key

_WATCHED = (
    resources.CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    resources.ENDPOINT_SLICES,
    MODEL_DEPLOYMENTS,
    resources.PODS,
    SERVICES,
    SLURM_CLUSTERS,
    SLURM_JOBS,
)
_NOW = 1.8e9


async def _no_own_key(desired: Any, **_: Any) -> None: ...


def _reconciler(api: MemoryApi) -> Any:
    """Of ModelDeployments, alone."""
    nothing = Nothing()
    settings = Settings(generate_api_keys=False)
    parts: dict[str, Any] = {
        "store": api.store,
        "api": api,
        "settings": settings,
        "states": nothing,
        "prober": nothing,
        "keys": nothing,
        "events": nothing,
        "clock": lambda: _NOW,
        "new_attempt": lambda: "aaaaaa",
        "attempt_digest": _no_own_key,
        "pods": nothing,
        "resync": 600.0,
    }
    made = any_of(
        "isthmus.modeldeployment.reconciler:ModelDeploymentReconciler",
        "isthmus.reconcile.modeldeployment:ModelDeploymentReconciler",
    )
    if takes(made, "executors"):
        parts["jobs"] = built("isthmus.modeldeployment.execute_jobs:JobActions", **parts)
        parts["objects"] = built("isthmus.modeldeployment.execute:DeploymentActions", **parts)
        parts["executors"] = built("isthmus.modeldeployment.reconciler:Executors", **parts)
        parts["observer"] = built("isthmus.modeldeployment.observe:DeploymentObserver", **parts)
    else:
        parts["actions"] = built("isthmus.reconcile.deployment_actions:DeploymentActions", **parts)
    return made(**{name: part for name, part in parts.items() if takes(made, name)})


def _deployment(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "team-a", "name": "llama", "generation": 1},
        "spec": {
            "model": {"source": "hf://org/llama", "servedNames": ["llama"]},
            "pools": [{"name": "k8s", "kubernetes": {}}],
            **spec,
        },
    }


async def _settled(api: MemoryApi) -> dict[str, Any]:
    """The deployment after passes until none asks for another."""
    reconciler = _reconciler(api)
    for _ in range(10):
        if await reconciler.reconcile(key("ModelDeployment", "team-a", "llama")) != 0.0:
            break
    return api.objects[MODEL_DEPLOYMENTS, "team-a", "llama"]


def _two_pools() -> MemoryApi:
    api = MemoryApi(*_WATCHED)
    pools = [{"name": n, "kubernetes": {}, "minReplicas": 1, "maxReplicas": 1} for n in "ab"]
    api.put(MODEL_DEPLOYMENTS, _deployment(replicas=2, pools=pools))
    return api


@finding("B4", "one pool's invalid object keeps the other pools and the Service from being made")
async def refused_pool_stops_the_others() -> bool:
    api = _two_pools()
    api.refused[DEPLOYMENTS, "llama-a-"] = ApiInvalidError("422 Invalid: spec.x", status=422)
    await _settled(api)
    return not (
        any(name.startswith("llama-b-") for name in api.names(DEPLOYMENTS))
        and "llama" in api.names(SERVICES)
    )


@finding("B4", "a 403 is told nowhere")
async def forbidden_is_told_nowhere() -> bool:
    api = _two_pools()
    api.refused[DEPLOYMENTS, "llama-a-"] = ApiForbiddenError("403 Forbidden: no right", status=403)
    try:
        return "no right" not in str((await _settled(api)).get("status"))
    except ApiForbiddenError:
        return True  # for the log alone


@finding("B5", "an object of a newer schema is never let go once it is deleted")
async def newer_object_is_never_deleted() -> bool:
    api = MemoryApi(*_WATCHED)
    obj = _deployment(endpoint={"type": "OfANewerRelease"})
    obj["metadata"] |= {
        "deletionTimestamp": "2026-11-30T12:00:00Z",
        "finalizers": [names.FINALIZER_DEPLOYMENT],
    }
    api.put(MODEL_DEPLOYMENTS, obj)
    return bool((await _settled(api))["metadata"]["finalizers"])


@finding(
    "H2", "a status with a text that its schema does not take is written as it is, and refused"
)
async def long_message_is_written() -> bool:
    return len(await _written_message("serves " + "x" * 3000)) > 1024


@finding("B2", "a status that is refused for its prose takes the membership with it")
async def refused_status_keeps_the_worker_in() -> bool:
    write = any_of(
        "isthmus.apiserver.statuses:write_status", "isthmus.reconcile.statuses:write_status"
    )

    class Strict(MemoryApi):
        """Takes no messages, as the schema of a release that bounds them to nothing would not."""

        async def patch(self, resource: Any, **parts: Any) -> Any:
            if "message" in parts["patch"]["status"]:
                raise ApiInvalidError("422 Invalid: status.message: Too long", status=422)
            return await super().patch(resource, **parts)

    api = Strict(SLURM_JOBS)
    obj = api.put(SLURM_JOBS, _slurm_job({"phase": "Ready"}))
    status = SlurmJobStatus(phase="Degraded", message="serves something else")  # type: ignore[arg-type]
    with contextlib.suppress(ApiInvalidError):
        await write(api, SLURM_JOBS, obj=obj, status=status)
    return bool(api.objects[SLURM_JOBS, "team-a", "j"]["status"]["phase"] != "Degraded")


async def _written_message(text: str) -> str:
    write = any_of(
        "isthmus.apiserver.statuses:write_status", "isthmus.reconcile.statuses:write_status"
    )
    api = MemoryApi(SLURM_JOBS)
    obj = api.put(SLURM_JOBS, _slurm_job({}))
    await write(api, SLURM_JOBS, obj=obj, status=_with_message(text))
    return str(api.objects[SLURM_JOBS, "team-a", "j"]["status"]["message"])


def _with_message(text: str) -> SlurmJobStatus:
    """As the planner makes it, which copies without a check."""
    return SlurmJobStatus().model_copy(update={"message": text})


def _slurm_job(status: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"namespace": "team-a", "name": "j"}, "spec": {}, "status": status}


class _Clusters:
    """Takes note of the clusters whose commands would run."""

    def __init__(self) -> None:
        self.states = Nothing()
        self.run: list[str] = []

    def ensure(self, reference: Any, access: Any) -> None:
        self.run.append(access.bin_directory)

    def refuse(self, *_: Any) -> None: ...

    def stop(self, *_: Any) -> None: ...


@finding("H5", "a SlurmCluster of any namespace has programs of its own run as the operator")
async def any_namespace_runs_programs() -> bool:
    api, clusters = MemoryApi(SLURM_CLUSTERS, SLURM_JOBS, MODEL_DEPLOYMENTS), _Clusters()
    spec = {
        "login": {"local": {}},
        "commands": {"binDir": "/home/other/bin"},
        "files": {"workDirectory": "/home/other/work"},
    }
    api.put(SLURM_CLUSTERS, {"metadata": {"namespace": "team-a", "name": "hpc"}, "spec": spec})
    reconciler = built(
        "isthmus.slurmcluster.reconciler:SlurmClusterReconciler",
        "isthmus.reconcile.slurmcluster:SlurmClusterReconciler",
        store=api.store,
        api=api,
        gate=Nothing(),
        states=clusters.states,
        clusters=clusters,
        settings=Settings(),
        clock=lambda: _NOW,
        events=Nothing(),
    )
    await reconciler.reconcile(key("SlurmCluster", "team-a", "hpc"))
    status = api.objects[SLURM_CLUSTERS, "team-a", "hpc"]["status"]
    assert status["conditions"], "it was read and looked at"
    return bool(clusters.run)
