"""What the real tests look at: the same things a user and an administrator would look at.

`World` asks kubectl, squeue and HTTP, never the operator; `agree` is the one check that all of
them tell the same story.
"""

import base64
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import yaml

from playground import manifests
from playground.cluster import Playground
from playground.operator_process import Operator

Json = dict[str, Any]
PATIENCE = 60.0
MODEL = "hf://meta-llama/Llama-3.1-8B-Instruct"
FAST = [("SIMULATOR_LOAD_SECONDS", "0.3"), ("SIMULATOR_DRAIN_POLL_SECONDS", "0.3")]
"""Engines that are ready and drained at once; `test_drain` and `test_tunnels` have real drains."""

LIVE_STATES = "PENDING,CONFIGURING,RUNNING,SUSPENDED,COMPLETING"


def kubernetes_pool(name: str = "k8s", **extra: Any) -> Json:
    engine = {"image": "localhost/vllm-simulator:1", "args": ["--max-model-len=8192"]}
    return _pool(name, engine, extra, kubernetes={})


def slurm_pool(name: str = "hpc", cluster: str = "hpc", **extra: Any) -> Json:
    engine = {"args": ["--mem-fraction-static=0.85"]}
    return _pool(name, engine, extra, slurm={"clusterRef": {"name": cluster}})


def _pool(name: str, engine: Json, extra: Json, **scheduler: Json) -> Json:
    pool: Json = {"name": name, "engine": engine, **scheduler}
    for key, value in extra.items():
        pool[key] = {**pool[key], **value} if isinstance(value, dict) and key in pool else value
    pool["engine"].setdefault("env", [{"name": n, "value": v} for n, v in FAST])
    return pool


def deployment(name: str, *pools: Json, replicas: int = 1, **spec: Any) -> Json:
    return {
        "apiVersion": "isthmus.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "model": {"source": MODEL, "servedNames": ["llama"]},
            "replicas": replicas,
            "pools": list(pools),
            "health": {"startupTimeout": "2m", "interval": "1s"},
            "endpoint": {"type": "Service"},
            **spec,
        },
    }


@dataclass
class World:
    """One playground with the kinds installed, and what to look at in it."""

    playground: Playground
    operators: list[Operator] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)  # address of a Service → its deployment
    _keys: dict[str, str] = field(default_factory=dict)  # deployment → its key, as last read

    def supervise(self) -> None:
        """Operators that chose to end are started again, as in a cluster."""
        for operator in self.operators:
            operator.supervise()

    # ---- Kubernetes

    def kubectl(self, *argv: str, stdin: str | None = None, timeout: float = 60) -> str:
        return self.playground.kubectl(*argv, stdin=stdin, timeout=timeout)

    def apply(self, *objects: Json) -> None:
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def get(self, kind: str, name: str, namespace: str = "default") -> Json:
        """The object, {} if there is none."""
        said = self.kubectl("get", kind, name, "-n", namespace, "--ignore-not-found", "-o", "json")
        found: Json = json.loads(said) if said.strip() else {}
        return found

    def objects(self, kind: str, deployment: str = "", namespace: str = "default") -> list[Json]:
        selector = ["-l", f"isthmus.dev/modeldeployment={deployment}"] if deployment else []
        items: list[Json] = json.loads(
            self.kubectl("get", kind, "-n", namespace, *selector, "-o", "json")
        )["items"]
        return items

    def pods(self, selector: str) -> list[Json]:
        items: list[Json] = json.loads(self.kubectl("get", "pods", "-l", selector, "-o", "json"))[
            "items"
        ]
        return items

    def status(self, name: str) -> Json:
        found: Json = self.get("mdep", name).get("status", {})
        return found

    def condition(self, name: str, kind: str) -> Json:
        conditions = self.status(name).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind), {})

    def patch(self, name: str, patch: Json) -> None:
        self.kubectl("patch", "mdep", name, "--type=merge", "-p", json.dumps(patch))

    def scale(self, name: str, replicas: int) -> None:
        self.kubectl("scale", f"mdep/{name}", f"--replicas={replicas}")

    def delete(self, name: str, *, wait: bool = True) -> None:
        self.kubectl("delete", "mdep", name, f"--wait={str(wait).lower()}", timeout=120)

    def cluster(self, name: str = "hpc", **spec: Any) -> Json:
        slurm = self.playground.slurm
        obj = manifests.slurm_cluster(self.playground.state, bin_folder=slurm.bin_folder, name=name)
        body: Json = dict(obj)
        body["spec"] = {**body["spec"], **spec}
        return body

    # ---- SLURM

    def jobs(self, deployment: str, states: str = LIVE_STATES) -> list[Json]:
        """Jobs in the queue whose name belongs to exactly this deployment object."""
        names = {job["spec"]["jobName"] for job in self.objects("sj", deployment)}
        return [job for job in self.all_jobs(states) if job["name"] in names]

    def all_jobs(self, states: str = LIVE_STATES) -> list[Json]:
        said = self.playground.slurm.command(
            "squeue", "-h", "-a", f"--states={states}", "-o", "%i|%j|%T|%N|%k"
        )
        fields = ("id", "name", "state", "node", "comment")
        return [dict(zip(fields, line.split("|"), strict=True)) for line in said.splitlines()]

    def starts(self, job_name: str) -> list[str]:
        """Engines started for an attempt: one folder for each start that passed the gate."""
        folder = self.playground.state / "jobs" / job_name
        return sorted(os.listdir(folder)) if folder.is_dir() else []

    # ---- the data path

    def members(self, name: str) -> set[str]:
        """`address:port` of every ready endpoint of the Service."""
        said = self.kubectl(
            "get", "endpointslices", "-l", f"kubernetes.io/service-name={name}", "-o", "json"
        )
        found = set()
        for item in json.loads(said)["items"]:
            for endpoint in item.get("endpoints") or []:
                if (endpoint.get("conditions") or {}).get("ready"):
                    port = item["ports"][0]["port"]
                    found |= {f"{address}:{port}" for address in endpoint["addresses"]}
        return found

    def service_url(self, name: str) -> str:
        url = f"http://{self.get('service', name)['spec']['clusterIP']}"
        self._names[url] = name
        return url

    def key(self, name: str) -> str:
        """The API key of a deployment, as its users read it; "" if it has none."""
        place = self.status(name).get("apiKey")
        if not place:
            return ""
        data = self.get("secret", place["secret"])["data"]
        return base64.b64decode(data[place["key"]]).decode()

    def chat(self, url: str, *, model: str = "llama", **body: Any) -> str:
        """One chat completion on a connection of its own; the text of the answer.

        At the address of a Service, with the key of its deployment.
        """
        message = [{"role": "user", "content": "Where are you?"}]
        name = self._names.get(url)
        for known in (True, False):
            if name is not None and not (known and name in self._keys):
                self._keys[name] = self.key(name)
            answer = httpx.post(
                f"{url}/v1/chat/completions",
                json={"model": model, "messages": message, **body},
                headers={"Connection": "close", **bearer(self._keys.get(name or "", ""))},
                timeout=30,
                trust_env=False,
            )
            if answer.status_code != 401:
                break
        text: str = answer.raise_for_status().json()["choices"][0]["message"]["content"]
        return text

    # ---- checks

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
        running = [job for job in self.jobs(name) if job["state"] == "RUNNING"]
        workers = status.get("workers", [])
        urls = {worker.get("url", "").removeprefix("http://") for worker in workers}
        members = self.members(membership(obj))
        asked = sum(
            each["spec"]["replicas"]
            for each in self.objects("deployments", name)
            if not _of_front(each)
        )
        checks: Sequence[tuple[str, object, object]] = (
            ("replicas of the Deployments", asked, kubernetes),
            ("pods", len(pods), kubernetes),
            ("ready pods", len(ready_pods), kubernetes),
            ("jobs in the queue", len(self.jobs(name)), slurm),
            ("running jobs", len(running), slurm),
            ("SlurmJobs", len([sj for sj in self.objects("sj", name) if not _ended(sj)]), slurm),
            ("members of the Service", len(members), total),
            ("addresses of the workers", urls, members),
            ("status.ready", status.get("ready"), f"{total}/{total}"),
            ("status.replicas", status.get("replicas"), total),
            ("status.updatedReplicas", status.get("updatedReplicas"), total),
            ("observedGeneration", status.get("observedGeneration"), obj["metadata"]["generation"]),
            ("Ready", self.condition(name, "Ready").get("status"), "True"),
        )
        return "; ".join(f"{what} {is_}, not {want}" for what, is_, want in checks if is_ != want)

    def wait_agree(
        self, name: str, *, kubernetes: int = 0, slurm: int = 0, timeout: float = PATIENCE
    ) -> None:
        def look() -> bool | Not:
            self.supervise()
            said = self.agree(name, kubernetes=kubernetes, slurm=slurm)
            return Not(said) if said else True

        until(look, f"{name} has {kubernetes} pods and {slurm} jobs", timeout=timeout)

    def wait_condition(self, name: str, kind: str, **wanted: str) -> Json:
        """Wait for a condition with these fields; returns it."""

        def look() -> Any:
            self.supervise()
            found = self.condition(name, kind)
            good = all(found.get(key) == value for key, value in wanted.items())
            return found if good and found else Not(str(found))

        return until(look, f"{name} has {kind} with {wanted}")

    def leftovers(self, name: str) -> dict[str, list[str]]:
        """Names of everything that still belongs to a deployment."""
        kinds = ("deployments", "replicasets", "pods", "sj", "services", "endpointslices")
        kinds += ("controllerrevisions",)
        found = {
            kind: [item["metadata"]["name"] for item in self.objects(kind, name)] for kind in kinds
        }
        found["mdep"] = [name] if self.get("mdep", name) else []
        return {kind: names for kind, names in found.items() if names}


def membership(obj: Json) -> str:
    """Name of the Service whose endpoints are the workers."""
    name: str = obj["metadata"]["name"]
    return name if obj["spec"]["endpoint"]["type"] != "Managed" else f"{name}-workers"


def bearer(key: str) -> dict[str, str]:
    """The header of a client that has a key."""
    return {"Authorization": f"Bearer {key}"} if key else {}


class Not(str):
    """Not yet; says why. Falsy, so that `until` goes on and can tell the last look."""

    def __bool__(self) -> bool:
        return False


def until(
    look: Callable[[], Any], what: str, *, timeout: float = PATIENCE, every: float = 0.2
) -> Any:
    """Look until something true is seen and return it; the last look is in the failure."""
    end = time.monotonic() + timeout
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout:.0f} s for: {what}; last seen: {seen!r}")
        time.sleep(every)


def _of_front(obj: Json) -> bool:
    return bool(obj["metadata"]["labels"].get("isthmus.dev/component") == "front")


def _pod_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _ended(slurm_job: Mapping[str, Any]) -> bool:
    """A failed attempt that is kept to say why; not a worker any more."""
    return bool(slurm_job.get("status", {}).get("finishedAt"))
