"""What is measured on: a playground with the operator in it, and the few calls that it takes.

Objects go to the API server by HTTP, not through kubectl, which takes longer to start than some of
what is measured. Isthmus and the raw commands are watched in the same way and equally often.
"""

import contextlib
import json
import shlex
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import yaml

from isthmus.backends.slurm.comments import parse_comment
from playground import manifests
from playground.cluster import Playground
from playground.commands import run
from playground.errors import PlaygroundError
from playground.operator_process import Operator

Json = dict[str, Any]
PATIENCE = 180.0
LOOK_EVERY = 0.02
MODEL = "hf://meta-llama/Llama-3.1-8B-Instruct"
LOAD_SECONDS = "0.3"
"""What a simulated engine takes to load, of both sides alike."""

_NAMESPACED = {
    "Deployment": "/apis/apps/v1/namespaces/default/deployments",
    "Service": "/api/v1/namespaces/default/services",
    "ModelDeployment": "/apis/isthmus.dev/v1alpha1/namespaces/default/modeldeployments",
}
_SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
_OURS = "isthmus.dev%2Fmodeldeployment"


def model_deployment(name: str, *, backend: str, replicas: int = 1) -> Json:
    """A ModelDeployment with one pool, everything else left at its default."""
    engine: Json = {"env": [{"name": "SIMULATOR_LOAD_SECONDS", "value": LOAD_SECONDS}]}
    pool: Json = {"name": backend, "engine": engine}
    if backend == "slurm":
        pool["slurm"] = {"clusterRef": {"name": manifests.SLURM_CLUSTER}}
    else:
        pool["kubernetes"] = {}
        engine["image"] = "localhost/vllm-simulator:1"
    return {
        "apiVersion": "isthmus.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "model": {"source": MODEL, "servedNames": ["llama"]},
            "replicas": replicas,
            "pools": [pool],
            "endpoint": {"type": "Service"},
        },
    }


@dataclass(frozen=True, slots=True)
class BatchJob:
    """What a person would submit: the options and the script that `isthmus render` prints."""

    options: tuple[str, ...]
    script: str


class Lab:
    """The playground, the operator, and how both sides are driven and watched."""

    def __init__(self, playground: Playground, operator: Operator) -> None:
        self.playground = playground
        self.operator = operator
        self._submitted = 0

    def start(self) -> None:
        """Start the operator and wait until it has seen the SLURM cluster."""
        self.operator.start()
        slurm = self.playground.slurm
        cluster = manifests.slurm_cluster(self.playground.state, bin_folder=slurm.bin_folder)
        self.playground.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(cluster))
        path = "/apis/isthmus.dev/v1alpha1/namespaces/isthmus-system/slurmclusters/hpc"

        def seen() -> bool:
            conditions = self.get(path).get("status", {}).get("conditions", [])
            return any(c["type"] == "SlurmReachable" and c["status"] == "True" for c in conditions)

        self.wait(seen, what="the operator sees the SLURM cluster")

    def wait(self, condition: Callable[[], bool], *, what: str) -> None:
        """Look until it is true; raises PlaygroundError after three minutes."""
        end = time.monotonic() + PATIENCE
        while not condition():
            self.operator.require_running()
            if time.monotonic() > end:
                raise PlaygroundError(f"waited {PATIENCE:.0f} s for: {what}")
            time.sleep(LOOK_EVERY)

    # -- Kubernetes

    def get(self, path: str) -> Json:
        """One object or list; raises PlaygroundError."""
        found: Json = json.loads(self.playground.kubernetes.request("GET", path))
        return found

    def create(self, obj: Json) -> None:
        """Post an object in the namespace `default`."""
        self.playground.kubernetes.request(
            "POST", _NAMESPACED[obj["kind"]], body=json.dumps(obj), kind="application/json"
        )

    def scale(self, kind: str, name: str, replicas: int) -> None:
        """What `kubectl scale` does."""
        self.playground.kubernetes.request(
            "PATCH",
            f"{_NAMESPACED[kind]}/{name}/scale",
            body=json.dumps({"spec": {"replicas": replicas}}),
            kind="application/merge-patch+json",
        )

    def delete(self, kind: str, *names: str) -> None:
        """Delete objects; returns at once."""
        for name in names:
            self.playground.kubernetes.request("DELETE", f"{_NAMESPACED[kind]}/{name}")

    def members(self, service: str) -> int:
        """Ready endpoints of a Service."""
        slices = self.get(f"{_SLICES}?labelSelector=kubernetes.io%2Fservice-name%3D{service}")
        return sum(
            len(endpoint["addresses"])
            for item in slices["items"]
            for endpoint in item.get("endpoints") or []
            if (endpoint.get("conditions") or {}).get("ready")
        )

    def wait_members(self, *services: str, count: int) -> None:
        """Wait until each Service has that many ready endpoints."""
        waiting = set(services)

        def ready() -> bool:
            waiting.difference_update(n for n in sorted(waiting) if self.members(n) >= count)
            return not waiting

        self.wait(ready, what=f"{', '.join(services)}: {count} ready endpoints each")

    def deployment_of(self, name: str) -> Json:
        """The one Deployment that the operator made for a ModelDeployment."""
        path = f"{_NAMESPACED['Deployment']}?labelSelector={_OURS}%3D{name}"
        (found,) = self.get(path)["items"]
        result: Json = found
        return result

    def wait_no_pods(self, selector: str) -> None:
        """Wait until pods of a selector (URL-encoded) are gone."""
        path = f"/api/v1/namespaces/default/pods?labelSelector={selector}"
        self.wait(lambda: not self.get(path)["items"], what="the pods are gone")

    def wait_idle(self, *names: str) -> None:
        """Wait until no pod of these ModelDeployments and no job at all is left."""
        for name in names:
            self.wait_no_pods(f"{_OURS}%3D{name}")
        self.wait_no_jobs()

    # -- SLURM

    def render(self, obj: Json) -> BatchJob:
        """The batch job of a ModelDeployment with one pool on SLURM, by `isthmus render`."""
        slurm = self.playground.slurm
        cluster = manifests.slurm_cluster(self.playground.state, bin_folder=slurm.bin_folder)
        file = self.playground.state / "bench.yaml"
        file.write_text(yaml.safe_dump_all([obj, cluster]), encoding="utf-8")
        command = self.playground.bin_folder / "isthmus"
        without_key = "--set=generate-api-keys=false"  # nobody would put one into its place
        said = run([command, "render", without_key, file], timeout=60).stdout
        head, mark, script = said.partition("#!")
        lines = [line for line in head.splitlines() if line.startswith("#   --")]
        options = tuple(word for line in lines for word in shlex.split(line.strip("# \\")))
        if not (mark and options):
            raise PlaygroundError(f"isthmus render printed no batch script: {said[:300]}")
        return BatchJob(options=options, script=mark + script)

    def sbatch(self, job: BatchJob, *, count: int) -> list[str]:
        """Submit that many jobs, one after another, as a person's loop does; returns the ids."""
        found = []
        for _ in range(count):
            self._submitted += 1
            attempt = f"r{self._submitted:05}"
            script = self.playground.state / "jobs" / f"raw-{attempt}.sh"
            script.write_text(job.script.replace("xxxxxx", attempt), encoding="utf-8")
            script.chmod(0o755)
            options = [option.replace("xxxxxx", attempt) for option in job.options]
            said = self.playground.slurm.command("sbatch", *options, str(script), user="svc")
            found.append(said.strip())
        return found

    def wait_healthy(self, ids: Sequence[str]) -> None:
        """Wait until the engine of each job answers GET /health.

        Each is asked in a thread of its own, because SGLang takes a second for an answer.
        """
        asked: dict[str, Future[None]] = {}
        stop = threading.Event()

        def healthy() -> bool:
            if len(asked) < len(ids):
                for job, url in self._published(ids):
                    if job not in asked:
                        asked[job] = pool.submit(_until_answers, f"{url}/health", stop=stop)
            return len(asked) == len(ids) and all(map(_done, asked.values()))

        with ThreadPoolExecutor(max_workers=len(ids)) as pool:
            try:
                self.wait(healthy, what="the engines answer")
            finally:
                stop.set()

    def _published(self, ids: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Jobs that have published their port, with the URL of their engine."""
        slurm = self.playground.slurm
        said = slurm.command("squeue", "-h", "-j", ",".join(ids), "-o", "%i|%N|%k")
        for line in said.splitlines():
            job, node, comment = line.split("|")
            if published := parse_comment(comment):
                yield job, f"http://{slurm.address(node)}:{published.port}"

    def scancel(self, ids: Sequence[str]) -> None:
        """Cancel jobs and wait until none is left."""
        self.playground.slurm.command("scancel", *ids)
        self.wait_no_jobs()

    def wait_no_jobs(self) -> None:
        """Wait until the queue is empty."""
        slurm = self.playground.slurm
        self.wait(lambda: not slurm.command("squeue", "-h").strip(), what="the queue is empty")


def _done(future: "Future[None]") -> bool:
    """Whether it is; raises what it raised."""
    return future.done() and future.result() is None


def _until_answers(url: str, *, stop: threading.Event) -> None:
    while not stop.wait(LOOK_EVERY):
        # urllib's errors are OSErrors
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10) as answer:
            if answer.status == 200:
                return
