"""The operator as a pod of the chart: its rights, its probes, its Lease, and nothing else.

No kubeconfig, no home folder, no root, a read-only file system. helm installs, upgrades and removes
it as an administrator would.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from playground import images, manifests
from playground.errors import PlaygroundError
from playground.operator_process import NAMESPACE, Operator
from playground.release import Release, values
from tests.real.api import Json
from tests.real.conftest import FAST_SETTINGS
from tests.real.tunnels import calling_cluster
from tests.real.world import Not, World, deployment, kubernetes_pool, slurm_pool, until

NAME = "isthmus"
LEASE = "isthmus"
SELECTOR = "app.kubernetes.io/component=operator"
TUNNELS = "app.kubernetes.io/component=tunnels"
FRONT = "isthmus.dev/component=front"
BASTION = 30022


def chart_values(world: World, **operator: object) -> Json:
    """The chart's values for the code of now, with settings that are fast."""
    given: Json = dict(values(tag=images.install(world.playground).tag, installation_id="incluste"))
    settings = {
        name.replace("-", "_"): value
        for name, value in FAST_SETTINGS.items()
        if name != "liveness-port"
    }
    given["operator"] = {**given["operator"], "settings": settings, **operator}
    fast = {"successor_wait": "20s", "leave_floor": "1s", "drain_budget": "5s"}
    given["tunnels"] = {**given["tunnels"], "settings": fast, "terminationGracePeriodSeconds": 40}
    return given


class OperatorPod:
    """The operator in the cluster, as an administrator sees it."""

    def __init__(self, world: World) -> None:
        self.world = world

    def pods(self) -> list[Json]:
        return self.world.pods(SELECTOR, NAMESPACE)

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
            ours = any(word.endswith(b"isthmus") for word in arguments)
            if ours and uid in (folder / "cgroup").read_text():
                return int(folder.name)
    raise AssertionError(f"no process of pod {uid}")


@pytest.fixture
def release(world: World, operator: Operator) -> Iterator[Release]:
    """Nothing of the operator runs; what the test installs is removed after it."""
    operator.stop()
    release = Release(world.playground)
    try:
        yield release
    finally:
        pod = OperatorPod(world)
        with contextlib.suppress(PlaygroundError):
            print(pod.log())
        with contextlib.suppress(PlaygroundError):
            release.uninstall()
        until(lambda: not pod.pods(), "the pods of the operator are gone", timeout=90)


@pytest.fixture
def pod(world: World, release: Release) -> OperatorPod:
    """The operator runs as a pod, and as nothing else."""
    release.install(chart_values(world))
    return OperatorPod(world)


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
    assert "orbidden" not in log, "its rights allow all that it does"
    assert "healthz" not in log, "probes do not fill the log"
    # What needs SLURM's commands beside the operator says so; nothing else does not work.
    cluster = world.get("slc", "hpc", NAMESPACE)["status"]["conditions"]
    assert [c["reason"] for c in cluster if c["type"] == "SlurmReachable"] == ["ClusterNotAllowed"]

    world.remove("pod", first, namespace=NAMESPACE)
    second = pod.wait_leading()
    assert second != first
    assert members == world.members("inside"), "nothing that serves was touched"
    world.scale("inside", 2)
    world.wait_agree("inside", kubernetes=2)
    assert pod.restarts() == 0


@pytest.mark.timeout(300)
def test_frozen_pod_is_restarted_by_its_probe(world: World, release: Release) -> None:
    """A process that hangs holds no Lease, and its probe ends it."""
    probe = {"periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 3}
    release.install(chart_values(world, livenessProbe=probe))
    pod = OperatorPod(world)
    pod.wait_leading()
    before = pod.holder()
    world.apply(deployment("frozen", kubernetes_pool(), replicas=1))
    world.wait_agree("frozen", kubernetes=1)
    os.kill(operator_process(pod.pods()[0]), signal.SIGSTOP)
    until(lambda: pod.restarts() == 1, "the kubelet restarts the container", timeout=200)
    pod.wait_leading()
    until(lambda: pod.holder() != before, "the new process leads")
    world.scale("frozen", 2)
    world.wait_agree("frozen", kubernetes=2)


def uids(world: World, selector: str, namespace: str = "") -> set[str]:
    """The pods that are not on their way out."""
    return {
        str(pod["metadata"]["uid"])
        for pod in world.pods(selector, namespace)
        if not pod["metadata"].get("deletionTimestamp")
    }


def answering(world: World, name: str) -> set[str]:
    """Who answers through the address of a deployment: the engines that are known by now."""
    return {world.chat(world.service_url(name)).partition(",")[0] for _ in range(8)}


@pytest.mark.timeout(300)
def test_jobs_call_the_supervisor_in_the_cluster(world: World, release: Release) -> None:
    """Mode Reverse with everything in pods: no pod can call a compute node, its job calls out."""
    given = chart_values(world)
    given["tunnels"]["bastion"] = {"enabled": True, "type": "NodePort", "nodePort": BASTION}
    release.install(given)
    kubernetes, slurm = world.playground.kubernetes, world.playground.slurm
    where = {"host": kubernetes.address("gpu-1"), "port": BASTION, "listenPort": 2222}
    (secret, cluster) = calling_cluster(world, "calls", **where)
    cluster["spec"]["login"] = manifests.ssh_login(slurm)
    world.extra(dict(manifests.ssh_secret(slurm)), secret, cluster)
    kubernetes.refuse_pods_to_slurm()
    try:
        world.apply(deployment("called", slurm_pool(cluster="calls"), replicas=1))
        world.wait_agree("called", slurm=1, timeout=120)
        assert world.condition("called", "TunnelsUp")["status"] == "True"
        (member,) = world.members("called")
        assert member.split(":")[0] in {
            pod["status"]["podIP"] for pod in world.pods(TUNNELS, NAMESPACE)
        }
        assert "SGLang" in world.chat(world.service_url("called"))
        world.delete("called")
    finally:
        kubernetes.allow_pods_to_slurm()


@pytest.mark.timeout(600)
def test_install_serve_upgrade_uninstall(world: World, release: Release) -> None:
    """helm, both schedulers, the front, tunnels: an upgrade of the operator touches only itself."""
    given = chart_values(world, replicas=2)
    release.install(given)
    pod = OperatorPod(world)
    until(lambda: len(pod.pods()) == 2, "two instances, both ready for helm")
    slurm = world.playground.slurm
    world.extra(dict(manifests.ssh_secret(slurm)))
    world.apply(world.cluster(login=manifests.ssh_login(slurm)))
    both = deployment("both", kubernetes_pool(maxReplicas=1, priority=10), slurm_pool(), replicas=2)
    world.apply({**both, "spec": {**both["spec"], "endpoint": {"type": "Managed"}}})
    world.wait_condition("both", "Ready", status="True")
    until(lambda: len(answering(world, "both")) == 2, "both workers answer", timeout=60)
    restarts = [p["status"]["containerStatuses"][0]["restartCount"] for p in pod.pods()]
    assert restarts == [0, 0], "the one that stands by is alive for its probes"

    def untouched() -> list[object]:
        engines = uids(world, "isthmus.dev/modeldeployment=both")
        jobs = [job["id"] for job in world.jobs("both")]
        return [uids(world, TUNNELS, NAMESPACE), uids(world, FRONT), engines, jobs]

    before, operators = untouched(), uids(world, SELECTOR, NAMESPACE)
    assert all(before)
    given["operator"]["image"] = {**given["operator"]["image"], "tag": images.TAG}
    release.install(given)
    assert not operators & uids(world, SELECTOR, NAMESPACE), "the operator was upgraded"
    until(lambda: pod.holder().startswith(f"{NAME}-"), "one of the new ones leads")
    assert untouched() == before
    world.wait_condition("both", "Ready", status="True")
    assert len(answering(world, "both")) == 2

    world.delete("both")
    release.uninstall()
    until(lambda: not uids(world, SELECTOR, NAMESPACE), "the operator is gone", timeout=90)
    assert world.get("slc", "hpc", NAMESPACE), "kinds and objects stay"
    kept = world.get("configmap", "isthmus-installation", NAMESPACE)
    assert kept["data"] == {"installationId": "incluste"}
    world.apply(world.cluster())
