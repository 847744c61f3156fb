"""The operator as a pod: its ServiceAccount's rights, its probe, its Lease, and nothing else.

No kubeconfig, no home folder, no root, a read-only file system. It serves Kubernetes only: the
image has no SLURM commands, which the SlurmCluster of this playground must show, and nothing more.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from playground import images
from playground.errors import PlaygroundError
from playground.operator_process import NAMESPACE, SERVICE_ACCOUNT, Operator
from tests.real.conftest import FAST_SETTINGS
from tests.real.world import Json, Not, World, deployment, kubernetes_pool, until

NAME = "operator"
LEASE = "isthmus"
LABELS = {"app": NAME}


def workload(image: str) -> Json:
    """The Deployment of the operator, with every restriction that a strict cluster asks for."""
    settings = FAST_SETTINGS | {"installation-id": "incluste", "liveness-port": "8081"}
    environment = [
        {"name": f"ISTHMUS_{name.replace('-', '_').upper()}", "value": value}
        for name, value in settings.items()
    ]
    container = {
        "name": "operator",
        "image": image,
        "imagePullPolicy": "Never",
        "env": environment,
        "ports": [{"name": "health", "containerPort": 8081}],
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "health"},
            "initialDelaySeconds": 5,
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": 4,
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 65534,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": LABELS},
            "template": {
                "metadata": {"labels": LABELS},
                "spec": {
                    "serviceAccountName": SERVICE_ACCOUNT,
                    "containers": [container],
                    "terminationGracePeriodSeconds": 20,
                },
            },
        },
    }


class OperatorPod:
    """The operator in the cluster, as an administrator sees it."""

    def __init__(self, world: World) -> None:
        self.world = world

    def pods(self) -> list[Json]:
        found = self.world.kubectl(
            "get", "pods", "-n", NAMESPACE, "-l", f"app={NAME}", "-o", "json"
        )
        items: list[Json] = yaml.safe_load(found)["items"]
        return items

    def running(self) -> str:
        """Name of the one pod that is not on its way out; "" while there is none."""
        names = [
            pod["metadata"]["name"]
            for pod in self.pods()
            if not pod["metadata"].get("deletionTimestamp")
            and pod["status"].get("phase") == "Running"
        ]
        return names[0] if len(names) == 1 else ""

    def restarts(self) -> int:
        (pod,) = self.pods()
        count: int = pod["status"]["containerStatuses"][0]["restartCount"]
        return count

    def log(self) -> str:
        return self.world.kubectl("logs", "-n", NAMESPACE, f"deployment/{NAME}", "--tail=-1")

    def holder(self) -> str:
        lease = self.world.get("lease", LEASE, NAMESPACE)
        return str(lease.get("spec", {}).get("holderIdentity") or "")

    def wait_leading(self) -> str:
        """Wait until the running pod holds the Lease; returns the pod's name."""

        def leading() -> object:
            pod, holder = self.running(), self.holder()
            return pod if pod and holder.startswith(f"{pod}_") else Not(f"{pod=} {holder=}")

        return str(until(leading, "the pod of the operator leads", timeout=90))


def operator_process(pod: Json) -> int:
    """The pid on the host of a pod's only process."""
    uid = pod["metadata"]["uid"]
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            arguments = (
                (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdigit() else []
            )
            if b"isthmus" in arguments and uid in (folder / "cgroup").read_text():
                return int(folder.name)
    raise AssertionError(f"no process of pod {uid}")


@pytest.fixture
def pod(world: World, operator: Operator) -> Iterator[OperatorPod]:
    """The operator runs as a pod, and as nothing else."""
    image = f"localhost/isthmus:{images.install(world.playground).tag}"
    operator.stop()
    world.apply(workload(image))
    pod = OperatorPod(world)
    try:
        yield pod
    finally:
        with contextlib.suppress(PlaygroundError):
            print(pod.log())
        world.kubectl("delete", "deployment", NAME, "-n", NAMESPACE)
        until(lambda: not pod.pods(), "the pod of the operator is gone")


@pytest.mark.timeout(300)
def test_operator_as_a_pod(world: World, pod: OperatorPod) -> None:
    first = pod.wait_leading()
    world.apply(deployment("inside", kubernetes_pool(), replicas=1))
    world.wait_agree("inside", kubernetes=1)
    world.scale("inside", 3)
    world.wait_agree("inside", kubernetes=3)
    assert "vLLM" in world.chat(world.service_url("inside"))

    assert pod.restarts() == 0, "the liveness probe finds it alive"
    members = world.members("inside")
    log = pod.log()
    assert "Traceback" not in log
    assert " ERROR " not in log
    assert "orbidden" not in log, "deploy/rbac.yaml allows all that it does"
    assert "healthz" not in log, "probes do not fill the log"
    # What needs SLURM's commands says so; it is the only thing that does not work.
    cluster = world.get("slc", "hpc", NAMESPACE)["status"]["conditions"]
    assert [c["reason"] for c in cluster if c["type"] == "SlurmReachable"] == ["CommandNotFound"]

    world.kubectl("delete", "pod", first, "-n", NAMESPACE)
    second = pod.wait_leading()
    assert second != first
    assert members == world.members("inside"), "nothing that serves was touched"
    world.scale("inside", 2)
    world.wait_agree("inside", kubernetes=2)
    assert pod.restarts() == 0


@pytest.mark.timeout(300)
def test_frozen_pod_is_restarted_by_its_probe(world: World, pod: OperatorPod) -> None:
    """A process that hangs holds no Lease, and its probe ends it."""
    pod.wait_leading()
    before = pod.holder()
    world.apply(deployment("frozen", kubernetes_pool(), replicas=1))
    world.wait_agree("frozen", kubernetes=1)
    os.kill(operator_process(pod.pods()[0]), signal.SIGSTOP)
    until(lambda: pod.restarts() == 1, "the kubelet restarts the container", timeout=90)
    pod.wait_leading()
    until(lambda: pod.holder() != before, "the new process leads")
    world.scale("frozen", 2)
    world.wait_agree("frozen", kubernetes=2)
