"""One engine on one scheduler, and what a row of the table does with it.

A row says `serve` and gets a deployment behind a front with so many ready workers, from the row
before where that left one, or made anew. Everything is looked at as a user or an administrator
would: kubectl, squeue, HTTP, the processes of the machine.
"""

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from playground.processes import Process, alive, end
from tests.engines import pods, running
from tests.engines.client import Ask, ask
from tests.patience import patience
from tests.real.world import Json, Not, World, deployment, until

PATIENCE = float(os.environ.get("PATIENCE") or patience())
"""A factor on all limits of time, for a machine that has other things to do."""
START = 420.0
"""Seconds within which a worker serves."""
KEY_SECRET = "real-key"
DRAIN = 240
CONTEXT = 32_768
LONGEST = CONTEXT - 1000
"""Tokens of the longest prompt that leaves room for an answer."""
ARGUMENTS = {
    "vllm": [
        "--enforce-eager",
        f"--max-model-len={CONTEXT}",
        "--max-num-batched-tokens=32",  # a long prompt takes many steps
    ],
    "sglang": [
        "--device=cpu",
        "--attention-backend=torch_native",
        "--sampling-backend=pytorch",
        f"--context-length={CONTEXT}",
        "--max-total-tokens=70000",
        "--chunked-prefill-size=64",  # the same
        "--disable-radix-cache",
        "--sleep-on-idle",  # an idle scheduler takes a whole processor else
    ],
}
BATCH = {"vllm": "--max-num-seqs", "sglang": "--max-running-requests"}
TOLD_TO_END = {"vllm": "[shutdown]", "sglang": "SIGTERM received"}


@dataclass(frozen=True, slots=True)
class Worker:
    """One ready worker.

    Attributes:
        name: of its pod or SlurmJob.
        url: where it answers.
        processes: of its engine, the main process first.
    """

    name: str
    url: str
    processes: tuple[Process, ...]


class Log(threading.Thread):
    """Watches a log for the line by which an engine says that it has had its TERM.

    Attributes:
        told: when that was first seen, on the monotonic clock.
    """

    def __init__(self, path: Path, mark: str) -> None:
        super().__init__(daemon=True)
        self.told: float | None = None
        self._path, self._mark, self._end = path, mark, threading.Event()

    def text(self) -> str:
        """All that has been written so far."""
        return self._path.read_text(encoding="utf-8", errors="replace")

    def run(self) -> None:
        while self.told is None and not self._end.wait(0.25):
            if self._mark in self.text():
                self.told = time.monotonic()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._end.set()
        self.join()


@dataclass
class Site:
    """An engine on a scheduler: `job` or `pod`."""

    world: World
    engine: str
    scheduler: str
    folder: Path
    _numbers: int = field(default=0)

    @property
    def name(self) -> str:
        """Of the deployment that rows share."""
        return f"{self.engine}-{self.scheduler}"

    # ---- what is asked for

    def deployment(self, name: str, *, replicas: int = 1, batch: int = 8, gpus: int = 1) -> Json:
        """A ModelDeployment; another `batch` is another revision."""
        arguments = ["--load-format=dummy", "--dtype=bfloat16", *ARGUMENTS[self.engine]]
        engine: Json = {
            "type": self.engine,
            "args": [*arguments, f"{BATCH[self.engine]}={batch}"],
            "env": [{"name": "DO_NOT_TRACK", "value": "1"}],
        }
        place: Json = {"slurm": {"clusterRef": {"name": "hpc"}}}
        if self.scheduler == "pod":
            engine["image"] = pods.IMAGES[self.engine]
            place = {"kubernetes": {}}
        pool = {"name": "real", "engine": engine, "worker": {"gpusPerNode": gpus}, **place}
        home = pods.FOLDER if self.scheduler == "pod" else str(self.folder)
        key = {"apiKeySecretRef": {"name": KEY_SECRET}} if self.scheduler == "pod" else {}
        return deployment(
            name,
            pool,
            replicas=replicas,
            model={"source": f"{home}/model", "servedNames": ["llama"]},
            health={"startupTimeout": f"{round(START * PATIENCE)}s", "interval": "2s"},
            drain={"timeout": f"{round(DRAIN * PATIENCE)}s"},
            endpoint={"type": "Managed", **key},
        )

    def serve(self, *, replicas: int = 1) -> list[Worker]:
        """The shared deployment with so many ready workers, and no other site's."""
        for other in self.world.objects("mdep"):
            if other["metadata"]["name"] != self.name:
                self.remove_deployment(other["metadata"]["name"])
        self.world.apply(self.deployment(self.name, replicas=replicas))
        return self.wait_served(replicas)

    def wait_served(self, replicas: int = 1) -> list[Worker]:
        """Wait until exactly so many workers are ready and everybody agrees."""
        where = {"job": "slurm", "pod": "kubernetes"}[self.scheduler]
        self.world.wait_agree(self.name, timeout=START * PATIENCE, **{where: replicas})
        return [self._worker(one) for one in self.world.status(self.name)["workers"]]

    def _worker(self, said: Json) -> Worker:
        name: str = said["name"]
        processes = until(
            lambda: self.engine_of(name) or Not(str(self.processes(name))),
            f"the main process of {name}",
            timeout=20 * PATIENCE,
        )
        return Worker(name=name, url=said["url"], processes=processes)

    # ---- what there is

    def engine_of(self, worker: str) -> tuple[Process, ...]:
        """The processes of a worker's engine as they are now, the main one first; or none."""
        main = running.main_process(self.processes(worker))
        return (main, *running.descendants(main)) if main else ()

    def processes(self, worker: str) -> set[Process]:
        """All processes of a pod or of the job of a SlurmJob."""
        if self.scheduler == "pod":
            pod = self.world.get("pod", worker)
            return running.of_pod(pod["metadata"]["uid"]) if pod else set()
        job = self.world.get("sj", worker)
        return running.of_job(self.job_folder(job["spec"]["jobName"])) if job else set()

    def job_folder(self, job_name: str) -> Path:
        """Where a job runs."""
        return self.world.playground.state / "jobs" / job_name

    @property
    def front(self) -> str:
        """Address of the deployment's front."""
        return self.world.service_url(self.name)

    @property
    def key(self) -> str:
        """The API key of its workers."""
        return self.world.key(self.name)

    @contextlib.contextmanager
    def follow(self, worker: Worker) -> Iterator[Log]:
        """What the engine of a worker writes, also while it ends and after it has gone."""
        if self.scheduler == "job":
            name = self.world.get("sj", worker.name)["spec"]["jobName"]
            (path,) = (self.world.playground.state / "jobs").glob(f"{name}.*.log")
            with Log(path, TOLD_TO_END[self.engine]) as log:
                yield log
            return
        kubeconfig = f"--kubeconfig={self.world.playground.kubernetes.kubeconfig}"
        program = self.world.playground.bin_folder / "kubectl"
        with tempfile.NamedTemporaryFile(prefix="isthmus-engine-") as file:
            follower = subprocess.Popen(
                [program, kubeconfig, "logs", "--follow", worker.name],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                with Log(Path(file.name), TOLD_TO_END[self.engine]) as log:
                    yield log
            finally:
                follower.kill()
                follower.wait()

    def remove(self, worker: Worker) -> None:
        """Delete a worker as an administrator would; another one comes in its place."""
        kind = "pod" if self.scheduler == "pod" else "sj"
        self.world.kubectl("delete", kind, worker.name, "--wait=false")

    def wait_gone(self, worker: Worker, *, timeout: float) -> None:
        """Wait until its object and all its processes are gone."""
        kind = "pod" if self.scheduler == "pod" else "sj"

        def gone() -> Any:
            left = [running.title(p) for p in worker.processes if alive(p)]
            if self.world.get(kind, worker.name):
                return Not(f"{worker.name} is there; processes: {left}")
            return not left or Not(str(left))

        until(gone, f"{worker.name} is gone", timeout=timeout * PATIENCE)

    # ---- requests

    def direct(self, worker: Worker, **options: Any) -> Ask:
        """A request to one worker with its key, begun."""
        self._numbers += 1
        one = Ask(worker.url, key=self.key, first=self._numbers, **options)
        one.start()
        return one

    def tokens_for(self, worker: Worker, seconds: float) -> int:
        """How many tokens four streams at a time take so long for, by a measurement."""
        probes = [self.direct(worker, tokens=200) for _ in range(4)]
        for probe in probes:
            probe.join()
            assert not probe.problem, probe.problem
        slowest = max(probe.seconds for probe in probes)
        return max(200, min(8000, round(200 * seconds / slowest)))

    def prompt_for(self, worker: Worker, seconds: float) -> int:
        """How many tokens of a prompt take at least so long to read, found by doubling.

        Attention grows with the square of the length, so that nothing is extrapolated.
        """
        length = 2000
        while length < LONGEST:
            self._numbers += 1
            probe = ask(
                worker.url, key=self.key, tokens=2, prompt_tokens=length, first=self._numbers
            )
            if probe.first_token >= seconds:
                break
            length = min(LONGEST, 2 * length)
        return length

    # ---- between rows

    def remove_deployment(self, name: str) -> None:
        """Delete a deployment and wait until all of it is gone."""
        self.world.kubectl("delete", "mdep", name, "--ignore-not-found", "--wait=false")
        until(
            lambda: not (left := self.world.leftovers(name)) or Not(str(left)),
            f"nothing of {name} is left",
            timeout=(DRAIN + 90) * PATIENCE,
            every=1.0,
        )

    def reset(self) -> None:
        """After a row that failed: its deployments go, by force where that takes too long."""
        names = [obj["metadata"]["name"] for obj in self.world.objects("mdep")]
        for name in names:
            try:
                self.remove_deployment(name)
            except AssertionError:
                pods_ = [pod["metadata"]["name"] for pod in self.world.objects("pods", name)]
                for pod in pods_:
                    self.world.kubectl("delete", "pod", pod, "--force", "--grace-period=0")
        found = running.of_job(self.world.playground.state / "jobs")
        end(found, grace=0.0)
