"""How long workers take to serve, by Isthmus and by raw commands that do the same.

The raw side gets exactly what the operator made: the pod template of its Deployment, and the batch
script that `isthmus render` prints. Both sides take turns, so that a slow minute of the machine
meets both.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.lab import BatchJob, Json, Lab, model_deployment

SCALE_TO = 4
MANY_DEPLOYMENTS, WORKERS_OF_EACH = 10, 2


@dataclass(slots=True)
class Comparison:
    """Times in seconds of one measurement, one element a run."""

    name: str
    raw_name: str
    isthmus: list[float] = field(default_factory=list)
    raw: list[float] = field(default_factory=list)


def measure_startup(lab: Lab, *, runs: int) -> list[Comparison]:
    """Start, scale and many at once, on each scheduler."""
    progress = lab.playground.progress
    with progress.step("warm-up"):
        template = _pod_template(lab)
        job = lab.render(model_deployment("raw", backend="slurm"))
    found = []
    pods = (
        Comparison("apply → 1 pod in the EndpointSlice", "Deployment + Service"),
        Comparison(f"scale 1 → {SCALE_TO} pods", "scale of the Deployment"),
    )
    jobs = (
        Comparison("apply → 1 SLURM worker in the EndpointSlice", "sbatch, /health answers"),
        Comparison(f"scale 1 → {SCALE_TO} SLURM workers", f"{SCALE_TO - 1} x sbatch"),
    )
    many = Comparison(
        f"{MANY_DEPLOYMENTS} deployments x {WORKERS_OF_EACH} SLURM workers",
        f"{MANY_DEPLOYMENTS * WORKERS_OF_EACH} x sbatch",
    )
    for number in range(1, runs + 1):
        with progress.step(f"run {number} of {runs}"):
            _isthmus(lab, f"pods-{number}", backend="kubernetes", into=pods)
            _raw_pods(lab, f"raw-{number}", template=template, into=pods)
            _isthmus(lab, f"jobs-{number}", backend="slurm", into=jobs)
            _raw_jobs(lab, job=job, into=jobs)
            _many(lab, number, job=job, into=many)
    found += [*pods, *jobs, many]
    return found


def _pod_template(lab: Lab) -> Json:
    """The pod template that the operator makes, once everything is warm."""
    names = ["warm-pods", "warm-jobs"]
    for name, backend in zip(names, ("kubernetes", "slurm"), strict=True):
        lab.create(model_deployment(name, backend=backend))
    lab.wait_members(*names, count=1)
    template: Json = lab.deployment_of(names[0])["spec"]["template"]
    lab.delete("ModelDeployment", *names)
    lab.wait_idle(*names)
    return template


def _timed(work: Callable[[], object]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


Pair = tuple[Comparison, Comparison]


def _isthmus(lab: Lab, name: str, *, backend: str, into: Pair) -> None:
    def start() -> None:
        lab.create(model_deployment(name, backend=backend))
        lab.wait_members(name, count=1)

    def scale() -> None:
        lab.scale("ModelDeployment", name, SCALE_TO)
        lab.wait_members(name, count=SCALE_TO)

    into[0].isthmus.append(_timed(start))
    into[1].isthmus.append(_timed(scale))
    lab.delete("ModelDeployment", name)
    lab.wait_idle(name)


def _raw_pods(lab: Lab, name: str, *, template: Json, into: Pair) -> None:
    labels = {"app": name}
    metadata = {"name": name, "namespace": "default"}
    deployment: Json = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {**template, "metadata": {"labels": labels}},
        },
    }
    port = template["spec"]["containers"][0]["ports"][0]["containerPort"]
    service: Json = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": port}]},
    }

    def start() -> None:
        lab.create(deployment)
        lab.create(service)
        lab.wait_members(name, count=1)

    def scale() -> None:
        lab.scale("Deployment", name, SCALE_TO)
        lab.wait_members(name, count=SCALE_TO)

    into[0].raw.append(_timed(start))
    into[1].raw.append(_timed(scale))
    lab.delete("Deployment", name)
    lab.delete("Service", name)
    lab.wait_no_pods(f"app%3D{name}")


def _raw_jobs(lab: Lab, *, job: BatchJob, into: Pair) -> None:
    ids: list[str] = []

    def submit(count: int) -> None:
        fresh = lab.sbatch(job, count=count)
        ids.extend(fresh)
        lab.wait_healthy(fresh)

    into[0].raw.append(_timed(lambda: submit(1)))
    into[1].raw.append(_timed(lambda: submit(SCALE_TO - 1)))
    lab.scancel(ids)


def _many(lab: Lab, number: int, *, job: BatchJob, into: Comparison) -> None:
    names = many_names(f"many-{number}")

    def start() -> None:
        start_many(lab, names)

    into.isthmus.append(_timed(start))
    lab.delete("ModelDeployment", *names)
    lab.wait_idle(*names)
    ids: list[str] = []

    def submit() -> None:
        ids.extend(lab.sbatch(job, count=MANY_DEPLOYMENTS * WORKERS_OF_EACH))
        lab.wait_healthy(ids)

    into.raw.append(_timed(submit))
    lab.scancel(ids)


def many_names(prefix: str) -> list[str]:
    """Names of ten ModelDeployments."""
    return [f"{prefix}-{index}" for index in range(MANY_DEPLOYMENTS)]


def start_many(lab: Lab, names: list[str]) -> None:
    """Two SLURM workers for each of the names; returns when all are members."""
    for name in names:
        lab.create(model_deployment(name, backend="slurm", replicas=WORKERS_OF_EACH))
    lab.wait_members(*names, count=WORKERS_OF_EACH)
