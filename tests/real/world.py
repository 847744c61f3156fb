"""What the real tests look at: the same things a user and an administrator would look at.

`World` asks the API server, squeue and HTTP, never the operator; `agree` is the one check that all
of them tell the same story.
"""

import base64
import contextlib
import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from playground import manifests
from playground.cluster import Playground
from playground.operator_process import NAMESPACE, Operator
from tests.real.api import Api, Json, Refused, Unavailable, kind_of
from tests.real.look import LABEL, LISTS, Look, condition, differences, members, words

EXTRA = "test.isthmus.dev/extra"
"""Label of what a test puts there beside deployments; it goes with the test."""
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
        "metadata": {"name": name},
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
    """One playground with the kinds installed, and what to look at in it.

    Attributes:
        namespace: of the deployments; meant wherever none is given.
        messes: how many tests in a row did not leave it as they found it.
        lost: why no further test can use it; "" as long as they can.
    """

    playground: Playground
    operators: list[Operator] = field(default_factory=list)
    namespace: str = "default"
    messes: int = 0
    lost: str = ""
    _names: dict[str, str] = field(default_factory=dict)  # address of a Service → its deployment
    _keys: dict[str, str] = field(default_factory=dict)  # deployment → its key, as last read

    def require(self) -> None:
        """Fail at once where no test can be expected to work any more."""
        if self.lost:
            pytest.fail(self.lost, pytrace=False)

    def supervise(self) -> None:
        """Operators that chose to end are started again, as in a cluster."""
        for operator in self.operators:
            operator.supervise()

    # ---- Kubernetes

    @functools.cached_property
    def api(self) -> Api:
        """The API server, as administrator."""
        return Api(self.playground.kubernetes.kubeconfig)

    def kubectl(self, *argv: str, stdin: str | None = None, timeout: float = 60) -> str:
        """The real kubectl, for what is about it."""
        return self.playground.kubectl(*argv, stdin=stdin, timeout=timeout)

    def path(self, kind: str, name: str = "", *, namespace: str = "", subresource: str = "") -> str:
        """Where the API server has an object, or all of a kind."""
        return kind_of(kind).path(namespace or self.namespace, name, subresource)

    def apply(self, *objects: Json) -> None:
        for obj in objects:
            metadata = obj["metadata"]
            namespace = metadata.get("namespace", "")
            self.api.apply(self.path(obj["kind"], metadata["name"], namespace=namespace), obj)

    def extra(self, *objects: Json) -> None:
        """Apply what is no deployment and goes with the test."""
        for obj in objects:
            metadata = obj["metadata"]
            labels = {**metadata.get("labels", {}), EXTRA: "yes"}
            self.apply({**obj, "metadata": {**metadata, "labels": labels}})

    def get(self, kind: str, name: str, namespace: str = "") -> Json:
        """The object, {} if there is none."""
        return self.api.get(self.path(kind, name, namespace=namespace))

    def listed(self, kind: str, selector: str = "", namespace: str = "") -> list[Json]:
        """All objects of a kind, or those that a label selector finds."""
        query = f"?labelSelector={quote(selector)}" if selector else ""
        path = self.path(kind, namespace=namespace)
        items: list[Json] = self.api.request("GET", path + query)["items"]
        return items

    def objects(self, kind: str, deployment: str = "", namespace: str = "") -> list[Json]:
        return self.listed(kind, f"{LABEL}={deployment}" if deployment else "", namespace)

    def pods(self, selector: str, namespace: str = "") -> list[Json]:
        return self.listed("pods", selector, namespace)

    def status(self, name: str) -> Json:
        found: Json = self.get("mdep", name).get("status", {})
        return found

    def condition(self, name: str, kind: str) -> Json:
        return condition(self.get("mdep", name), kind)

    def patch(self, name: str, patch: Json) -> None:
        self.api.patch(self.path("mdep", name), patch)

    def scale(self, name: str, replicas: int) -> None:
        path = self.path("mdep", name, subresource="scale")
        self.api.patch(path, {"spec": {"replicas": replicas}})

    def delete(self, name: str, *, wait: bool = True) -> None:
        """Delete a deployment."""
        self.remove("mdep", name, wait=wait)

    def remove(
        self, kind: str, *names: str, namespace: str = "", wait: bool = True, timeout: float = 120
    ) -> None:
        """Delete objects, if they are there, and wait until exactly these are gone."""
        paths = [self.path(kind, name, namespace=namespace) for name in names]
        uids = {path: obj["metadata"]["uid"] for path in paths if (obj := self.api.get(path))}
        for path in uids:
            self.api.delete(path)

        def gone() -> Any:
            found = {path: self.api.get(path).get("metadata", {}).get("uid") for path in uids}
            there = [path for path in uids if found[path] == uids[path]]
            return Not(str(there)) if there else True

        if wait:
            until(gone, f"{kind} {', '.join(names)} gone", timeout=timeout)

    def end_lease(self, operator: Operator) -> None:
        """Take the Lease away from an operator that is known to be dead, if it had it.

        As if it had run out, which takes as long as it lasts and is tested elsewhere.
        """
        assert not operator.running, "it lives, and two would lead"
        path = self.path("lease", "isthmus", namespace=NAMESPACE)
        holder = self.api.get(path).get("spec", {}).get("holderIdentity")
        if holder and f"({holder})" in operator.output():
            self.api.patch(path, {"spec": {"holderIdentity": None}})

    # ---- after a test

    def sweep(self) -> list[str]:
        """Ask for the end of all deployments and extra objects; what of all that is still there."""
        left = [(kind, obj) for kind in ("mdep", "sj") for obj in self.objects(kind)]
        if not left:  # jobs end through their SlurmCluster and its Secret
            left = [
                (kind, obj)
                for kind in ("slc", "secrets", "services")
                for namespace in (self.namespace, NAMESPACE)
                for obj in self.listed(kind, EXTRA, namespace)
            ]
        for kind, obj in left:
            if kind != "sj" and not obj["metadata"].get("deletionTimestamp"):
                self.api.delete(self._path_of(kind, obj))
        return [f"{kind} {obj['metadata']['name']}" for kind, obj in left]

    def force(self) -> None:
        """Nothing of a test is left, whatever has to be cut for that."""
        self.playground.slurm.command("scancel", f"--user={self.playground.config.user}")
        for _ in range(2):  # what is made while it ends goes with the second one
            self.sweep()
            for kind in ("mdep", "sj", "slc"):
                for namespace in {self.namespace, NAMESPACE}:
                    for obj in self.listed(kind, namespace=namespace):
                        if kind == "sj" or obj["metadata"].get("deletionTimestamp"):
                            self._cut(kind, obj)
        for pod in self.objects("pods"):
            path = self._path_of("pods", pod)
            with contextlib.suppress(Refused):
                self.api.request("DELETE", path, {"gracePeriodSeconds": 0})

    def _cut(self, kind: str, obj: Json) -> None:
        path = self._path_of(kind, obj)
        with contextlib.suppress(Refused):
            self.api.delete(path)
            self.api.patch(path, {"metadata": {"finalizers": None}})

    def _path_of(self, kind: str, obj: Json) -> str:
        return self.path(kind, obj["metadata"]["name"], namespace=obj["metadata"]["namespace"])

    # ---- SLURM

    def cluster(self, name: str = "hpc", **spec: Any) -> Json:
        slurm = self.playground.slurm
        obj = manifests.slurm_cluster(self.playground.state, bin_folder=slurm.bin_folder, name=name)
        body: Json = dict(obj)
        body["spec"] = {**body["spec"], **spec}
        return body

    def jobs(self, deployment: str, states: str = LIVE_STATES) -> list[Json]:
        """Jobs in the queue whose name belongs to exactly this deployment object."""
        names = {job["spec"]["jobName"] for job in self.objects("sj", deployment)}
        return [job for job in self.all_jobs(states) if job["name"] in names]

    def all_jobs(self, states: str = LIVE_STATES) -> list[Json]:
        said = self.playground.slurm.command(
            "squeue", "-h", "-a", f"--states={states}", "-o", "%i|%j|%T|%N|%k"
        )
        fields = ("id", "name", "state", "node", "comment")
        # A job of somebody else may have any name, also one with line feeds.
        lines = [line.split("|") for line in said.splitlines()]
        return [dict(zip(fields, line, strict=True)) for line in lines if len(line) == len(fields)]

    def starts(self, job_name: str) -> list[str]:
        """Engines started for an attempt: one folder for each start that passed the gate."""
        folder = self.playground.state / "jobs" / job_name
        return sorted(os.listdir(folder)) if folder.is_dir() else []

    # ---- the data path

    def members(self, name: str) -> set[str]:
        """`address:port` of every ready endpoint of the Service."""
        return members(self.listed("endpointslices", f"kubernetes.io/service-name={name}"))

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

    def look(self) -> Look:
        """Everything of now."""
        lists = {plural: self.listed(plural) for plural in LISTS}
        return Look(lists, queue=self.all_jobs())

    def agree(self, name: str, *, kubernetes: int, slurm: int) -> str:
        """Why the Deployments, pods, jobs, slices and status do not agree; "" if they do.

        As long as its own status is not what it should be, nothing else is asked.
        """
        obj = self.get("mdep", name)
        said = differences(words(obj, total=kubernetes + slurm)) if obj else "no ModelDeployment"
        return said or self.look().agree(name, kubernetes=kubernetes, slurm=slurm)

    def wait_agree(
        self, name: str, *, kubernetes: int = 0, slurm: int = 0, timeout: float = PATIENCE
    ) -> None:
        def look() -> bool | Not:
            self.supervise()
            said = self.agree(name, kubernetes=kubernetes, slurm=slurm)
            return Not(said) if said else True

        try:
            until(look, f"{name} has {kubernetes} pods and {slurm} jobs", timeout=timeout)
        except AssertionError as error:
            said = self.look().agree(name, kubernetes=kubernetes, slurm=slurm)
            raise AssertionError(f"{error}; now: {said}") from None

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


def bearer(key: str) -> dict[str, str]:
    """The header of a client that has a key."""
    return {"Authorization": f"Bearer {key}"} if key else {}


class Not(str):
    """Not yet; says why. Falsy, so that `until` goes on and can tell the last look."""

    def __bool__(self) -> bool:
        return False


def until(
    look: Callable[[], Any], what: str, *, timeout: float = PATIENCE, every: float = 0.1
) -> Any:
    """Look until something true is seen and return it; the last look is in the failure.

    An API server that is away for a while is waited for.
    """
    end = time.monotonic() + timeout
    while True:
        try:
            seen = look()
        except Unavailable as error:
            seen = Not(str(error))
        if seen:
            return seen
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout:.0f} s for: {what}; last seen: {seen!r}")
        time.sleep(every)
