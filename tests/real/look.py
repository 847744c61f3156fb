"""Everything of a namespace and of the queue as it was at one moment, and whether it agrees.

Apart from world.py, which asks anew for each question: what is to be compared is looked at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.real.api import Json, kind_of

LABEL = "isthmus.dev/modeldeployment"
LISTS = (
    "modeldeployments",
    "slurmjobs",
    "deployments",
    "controllerrevisions",
    "pods",
    "services",
    "endpointslices",
)


@dataclass(frozen=True)
class Look:
    """One moment: a list per kind, by its plural, and the live jobs of the queue."""

    found: Mapping[str, Sequence[Json]]
    queue: Sequence[Json]

    def get(self, kind: str, name: str) -> Json:
        """The object, {} if there was none."""
        found = self.found[kind_of(kind).plural]
        return next((obj for obj in found if obj["metadata"]["name"] == name), {})

    def objects(self, kind: str, deployment: str = "") -> list[Json]:
        return [
            obj
            for obj in self.found[kind_of(kind).plural]
            if not deployment or obj["metadata"].get("labels", {}).get(LABEL) == deployment
        ]

    def jobs(self, deployment: str) -> list[Json]:
        """Jobs in the queue whose name belongs to exactly this deployment object."""
        names = {job["spec"]["jobName"] for job in self.objects("sj", deployment)}
        return [job for job in self.queue if job["name"] in names]

    def members(self, name: str) -> set[str]:
        """`address:port` of every ready endpoint of the Service."""
        label = "kubernetes.io/service-name"
        slices = self.objects("endpointslices")
        return members(each for each in slices if each["metadata"]["labels"].get(label) == name)

    def agree(self, name: str, *, kubernetes: int, slurm: int) -> str:
        """Why the Deployments, pods, jobs, slices and status do not agree; "" if they do."""
        obj = self.get("mdep", name)
        if not obj:
            return "no such ModelDeployment"
        status: Json = obj.get("status", {})
        total = kubernetes + slurm
        pods = [
            pod
            for pod in self.objects("pods", name)
            if not pod["metadata"].get("deletionTimestamp") and not _of_front(pod)
        ]
        ready_pods = [p for p in pods if _pod_ready(p)]
        jobs = self.jobs(name)
        running = [job for job in jobs if job["state"] == "RUNNING"]
        workers = status.get("workers", [])
        urls = {worker.get("url", "").removeprefix("http://") for worker in workers}
        found = self.members(membership(obj))
        asked = sum(
            each["spec"]["replicas"]
            for each in self.objects("deployments", name)
            if not _of_front(each)
        )
        checks: Sequence[tuple[str, object, object]] = (
            *words(obj, total=total),
            ("replicas of the Deployments", asked, kubernetes),
            ("pods", len(pods), kubernetes),
            ("ready pods", len(ready_pods), kubernetes),
            ("jobs in the queue", len(jobs), slurm),
            ("running jobs", len(running), slurm),
            ("SlurmJobs", len([sj for sj in self.objects("sj", name) if not _ended(sj)]), slurm),
            ("members of the Service", len(found), total),
            ("addresses of the workers", urls, found),
        )
        return differences(checks)


def words(obj: Json, *, total: int) -> Sequence[tuple[str, object, object]]:
    """What the ModelDeployment says of itself, and what it should say: (what, is, want)."""
    status: Json = obj.get("status", {})
    return (
        ("status.ready", status.get("ready"), f"{total}/{total}"),
        ("status.replicas", status.get("replicas"), total),
        ("status.updatedReplicas", status.get("updatedReplicas"), total),
        ("observedGeneration", status.get("observedGeneration"), obj["metadata"]["generation"]),
        ("Ready", condition(obj, "Ready").get("status"), "True"),
    )


def differences(checks: Sequence[tuple[str, object, object]]) -> str:
    return "; ".join(f"{what} {is_}, not {want}" for what, is_, want in checks if is_ != want)


def condition(obj: Json, kind: str) -> Json:
    """One condition of an object, {} if it has none of that type."""
    found = obj.get("status", {}).get("conditions", [])
    return next((c for c in found if c["type"] == kind), {})


def members(slices: Any) -> set[str]:
    """`address:port` of every ready endpoint of some EndpointSlices."""
    return {
        f"{address}:{item['ports'][0]['port']}"
        for item in slices
        for endpoint in item.get("endpoints") or []
        if (endpoint.get("conditions") or {}).get("ready")
        for address in endpoint["addresses"]
    }


def membership(obj: Json) -> str:
    """Name of the Service whose endpoints are the workers."""
    name: str = obj["metadata"]["name"]
    return name if obj["spec"]["endpoint"]["type"] != "Managed" else f"{name}-workers"


def _of_front(obj: Json) -> bool:
    return bool(obj["metadata"]["labels"].get("isthmus.dev/component") == "front")


def _pod_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _ended(slurm_job: Mapping[str, Any]) -> bool:
    """A failed attempt that is kept to say why; not a worker any more."""
    return bool(slurm_job.get("status", {}).get("finishedAt"))
