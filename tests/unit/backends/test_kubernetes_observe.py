"""What pods and Deployments say, from objects as an API server answers them."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.api.conditions import PendingClass
from isthmus.api.times import epoch
from isthmus.backends.kubernetes.observe import engine_of, groups, pending_of, worker

T0 = "2026-11-21T05:30:00Z"
T1 = "2026-11-21T05:31:00Z"
LABELS = {
    "app.kubernetes.io/managed-by": "isthmus",
    "isthmus.dev/modeldeployment": "llama",
    "isthmus.dev/pool": "k8s",
    "isthmus.dev/revision": "new",
    "isthmus.dev/traffic": "on",
}
RUNNING = {"running": {"startedAt": T1}}


def condition(kind: str, value: bool, **more: str) -> dict[str, Any]:
    return {"type": kind, "status": str(value), "lastTransitionTime": T1, **more}


def pod(
    name: str = "llama-k8s-new-abcde-1",
    *,
    phase: str = "Running",
    ready: bool = False,
    state: dict[str, Any] | None = None,
    last: dict[str, Any] | None = None,
    restarts: int = 0,
    revision: str = "new",
    deleting: bool = False,
    **changes: Any,
) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "name": name,
        "namespace": "team-a",
        "uid": f"uid-{name}",
        "labels": {**LABELS, "isthmus.dev/revision": revision},
    }
    if deleting:
        meta["deletionTimestamp"] = T1
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"nodeName": "node-a"},
        "status": {
            "phase": phase,
            "podIP": "10.42.0.7",
            "startTime": T0,
            "conditions": [
                condition("PodScheduled", True),
                condition("Initialized", True),
                condition("ContainersReady", ready),
                condition("Ready", ready),
            ],
            "containerStatuses": [
                {
                    "name": "engine",
                    "image": "vllm/vllm-openai:v9",
                    "ready": ready,
                    "restartCount": restarts,
                    "state": state if state is not None else RUNNING,
                    "lastState": last or {},
                }
            ],
            **changes,
        },
    }


NO_PROGRAM = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc "
    "create failed: unable to start container process: error during container init: exec: "
    '"vllm": executable file not found in $PATH'
)


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def terminated(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    said = {"message": message} if message else {}
    return {"terminated": {"exitCode": code, "reason": reason, "finishedAt": T1, **said}}


def unschedulable() -> dict[str, Any]:
    found = pod(phase="Pending")
    found["spec"] = {}
    found["status"] = {
        "phase": "Pending",
        "conditions": [
            condition(
                "PodScheduled",
                False,
                reason="Unschedulable",
                message="0/2 nodes are available: 2 Insufficient nvidia.com/gpu.",
            )
        ],
    }
    return found


def deployment(
    *, revision: str = "new", replicas: int = 1, deleting: bool = False, conditions: Any = ()
) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "name": f"llama-k8s-{revision}",
        "uid": f"uid-{revision}",
        "labels": {**LABELS, "isthmus.dev/revision": revision},
    }
    if deleting:
        meta["deletionTimestamp"] = T1
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {"replicas": replicas},
        "status": {"conditions": list(conditions)},
    }


NAME = "llama-k8s-new-abcde-1"


class TestEngine:
    def test_a_pod_says_which_engine_it_runs(self) -> None:
        """Not by its program: that is our process 1."""
        found = pod()
        found["metadata"]["labels"]["isthmus.dev/engine"] = "sglang"
        found["spec"]["containers"] = [{"command": ["/bin/sh", "-c"]}]
        assert engine_of(found) == "sglang"

    def test_a_pod_of_an_older_release_by_its_program(self) -> None:
        found = pod()
        found["spec"]["containers"] = [{"command": ["vllm", "serve"]}]
        assert engine_of(found) == "vllm"
        for other in ("/bin/sh", None, ["vllm"]):
            found["spec"]["containers"] = [{"command": [other, "serve"]}]
            assert engine_of(found) is None
        assert engine_of(pod()) is None


class TestWorker:
    def test_ready_and_in_the_membership(self) -> None:
        found = worker(pod(ready=True), members=frozenset({NAME}))
        assert (found.ready, found.in_rotation, found.available, found.serving) == (True,) * 4
        assert (found.phase, found.healthy, found.pending) == ("Ready", True, None)
        assert (found.pool, found.revision, found.backend) == ("k8s", "new", "kubernetes")
        assert (found.node, found.url) == ("node-a", "http://10.42.0.7:8000")
        assert found.started_at == T0

    def test_ready_and_not_in_the_membership(self) -> None:
        found = worker(pod(ready=True), members=frozenset({"another"}))
        assert found.ready
        assert not found.available

    def test_not_ready(self) -> None:
        found = worker(pod(), members=frozenset({NAME}))
        assert (found.ready, found.available, found.serving) == (False, False, False)
        assert found.live
        assert found.phase == "Starting"

    def test_ending(self) -> None:
        found = worker(pod(ready=True, deleting=True), members=frozenset({NAME}))
        assert found.stopping
        assert not found.live
        assert not found.available
        assert found.pending is None
        assert found.phase == "Terminating"

    @pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
    def test_over(self, phase: str) -> None:
        evicted = pod(phase=phase, reason="Evicted", message="The node was low on resource")
        found = worker(evicted, members=frozenset())
        assert found.failed
        assert not found.live
        assert found.phase == phase

    def test_just_made(self) -> None:
        bare = {"metadata": {"name": "x", "uid": "u", "labels": LABELS}}
        found = worker(bare, members=frozenset())
        assert (found.phase, found.live, found.ready, found.url) == ("Starting", True, False, None)


@pytest.mark.parametrize(
    ("found", "kind", "reason", "part"),
    [
        pytest.param(
            unschedulable(),
            PendingClass.UNSCHEDULABLE,
            "Unschedulable",
            "Insufficient nvidia.com/gpu",
            id="no node",
        ),
        pytest.param(
            pod(phase="Pending", state=waiting("ContainerCreating")),
            PendingClass.STARTUP,
            "Starting",
            "loading",
            id="being made",
        ),
        pytest.param(pod(), PendingClass.STARTUP, "Starting", "loading", id="loading"),
        pytest.param(
            pod(phase="Pending", state=waiting("ErrImagePull", "manifest unknown")),
            PendingClass.IMAGE,
            "ErrImagePull",
            "vllm/vllm-openai:v9",
            id="no such image",
        ),
        pytest.param(
            pod(phase="Pending", state=waiting("ImagePullBackOff", "Back-off pulling image")),
            PendingClass.IMAGE,
            "ImagePullBackOff",
            "engine.image",
            id="no such image, later",
        ),
        pytest.param(
            pod(phase="Pending", state=waiting("InvalidImageName", "couldn't parse")),
            PendingClass.IMAGE,
            "InvalidImageName",
            "couldn't parse",
            id="no image name",
        ),
        pytest.param(
            pod(state=waiting("CrashLoopBackOff", "back-off"), last=terminated(1), restarts=4),
            PendingClass.FAILING,
            "CrashLoopBackOff",
            "exit code 1, 4 restarts",
            id="crash loop",
        ),
        pytest.param(
            pod(state=waiting("CrashLoopBackOff"), last=terminated(2), restarts=1),
            PendingClass.FAILING,
            "CrashLoopBackOff",
            "engine.args",
            id="wrong arguments",
        ),
        pytest.param(
            pod(last=terminated(137, "OOMKilled"), restarts=1),
            PendingClass.FAILING,
            "Crashed",
            "exit code 137",
            id="starting once more",
        ),
        pytest.param(
            pod(state=terminated(1)),
            PendingClass.FAILING,
            "Crashed",
            "exit code 1",
            id="just ended",
        ),
        pytest.param(
            pod(
                phase="Pending",
                state=waiting("CreateContainerConfigError", 'secret "hf" not found'),
            ),
            PendingClass.FAILING,
            "CreateContainerConfigError",
            'secret "hf" not found',
            id="no such Secret",
        ),
        pytest.param(
            pod(
                phase="Pending",
                state=waiting("RunContainerError", "exec: no such file"),
                last=terminated(128, "StartError"),
            ),
            PendingClass.FAILING,
            "ContainerStartError",
            "no such file",
            id="no such program",
        ),
        pytest.param(
            pod(
                state=waiting("CrashLoopBackOff", "back-off 20s restarting failed container"),
                last=terminated(128, "StartError", NO_PROGRAM),
                restarts=2,
            ),
            PendingClass.FAILING,
            "ContainerStartError",
            "the image does not have the program: correct engine.image or engine.type; failed to",
            id="no such program, later",
        ),
        pytest.param(
            pod(state=terminated(128, "ContainerCannotRun", "no devices of nvidia.com/gpu")),
            PendingClass.FAILING,
            "ContainerStartError",
            "the container cannot be started: no devices of nvidia.com/gpu",
            id="not started for another cause",
        ),
        pytest.param(
            pod(
                state=waiting("CrashLoopBackOff", "back-off 20s restarting failed container"),
                last=terminated(127, "Error", "the image does not have the program vllm (…)"),
                restarts=2,
            ),
            PendingClass.FAILING,
            "ContainerStartError",
            "the engine cannot be started: the image does not have the program vllm",
            id="no such program, says process 1",
        ),
        pytest.param(
            pod(state=waiting("CrashLoopBackOff"), last=terminated(127), restarts=2),
            PendingClass.FAILING,
            "CrashLoopBackOff",
            "exit code 127 (a program that engine.image does not have?), 2 restarts",
            id="a program that an engine did not find, or no python3",
        ),
    ],
)
def test_why_a_pod_is_not_ready(
    found: dict[str, Any], kind: PendingClass, reason: str, part: str
) -> None:
    cause = pending_of(found)
    assert (cause.pending_class, cause.reason) == (kind, reason)
    assert part in cause.message
    assert cause.since == epoch(T1 if kind is PendingClass.UNSCHEDULABLE else T0)
    assert worker(found, members=frozenset()).pending == cause


def test_a_long_message_is_bounded() -> None:
    found = pod(phase="Pending", state=waiting("ErrImagePull", "x" * 5000))
    assert len(pending_of(found).message) <= 512


class TestGroups:
    def test_pods_by_revision_with_what_was_asked_for(self) -> None:
        found = groups(
            deployments=[deployment(replicas=2), deployment(revision="old", replicas=1)],
            pods=[pod("b"), pod("a", ready=True), pod("c", revision="old", ready=True)],
            members=frozenset({"a", "c"}),
        )
        assert [(one.revision, one.wanted, one.exists) for one in found] == [
            ("new", 2, True),
            ("old", 1, True),
        ]
        assert [one.name for one in found[0].workers] == ["a", "b"]
        assert [one.available for one in found] == [1, 1]

    def test_a_deployment_without_pods(self) -> None:
        (found,) = groups(deployments=[deployment(replicas=3)], pods=[], members=frozenset())
        assert (found.wanted, found.workers, found.problem) == (3, (), None)

    def test_one_being_deleted_wants_nothing(self) -> None:
        (found,) = groups(
            deployments=[deployment(replicas=3, deleting=True)], pods=[pod()], members=frozenset()
        )
        assert (found.wanted, found.exists) == (0, True)

    def test_pods_that_outlive_their_deployment_are_still_seen(self) -> None:
        (found,) = groups(deployments=[], pods=[pod(deleting=True)], members=frozenset())
        assert (found.pool, found.revision, found.wanted, found.exists) == ("k8s", "new", 0, False)
        assert len(found.workers) == 1

    def test_a_quota_is_told(self) -> None:
        words = 'pods "llama-1" is forbidden: exceeded quota: gpus, requested: nvidia.com/gpu=1'
        failure = condition("ReplicaFailure", True, reason="FailedCreate", message=words)
        (found,) = groups(
            deployments=[deployment(conditions=[failure])], pods=[], members=frozenset()
        )
        assert found.problem is not None
        assert found.problem.pending_class is PendingClass.QUOTA
        assert (found.problem.reason, found.problem.message) == ("FailedCreate", words)

    @pytest.mark.parametrize(
        ("words", "kind", "advice"),
        [
            ('violates PodSecurity "restricted:latest": seccompProfile', "Never", "Pod Security"),
            ('admission webhook "gpu.example" denied the request: no', "Never", "refuses these"),
            ('Internal error: failed calling webhook "gpu.example"', "Failing", "does not answer"),
        ],
    )
    def test_f13_what_is_no_quota_is_not_told_as_one(
        self, words: str, kind: str, advice: str
    ) -> None:
        text = f'pods "llama-1" is forbidden: {words}'
        failure = condition("ReplicaFailure", True, reason="FailedCreate", message=text)
        (found,) = groups(
            deployments=[deployment(conditions=[failure])], pods=[], members=frozenset()
        )
        assert found.problem is not None
        assert found.problem.pending_class == kind
        own = "PodSecurityRefused" if "PodSecurity" in words else "FailedCreate"
        assert found.problem.reason == own
        assert advice in found.problem.message
        assert text in found.problem.message

    def test_a_quota_of_the_past_is_not(self) -> None:
        past = [condition("ReplicaFailure", False), condition("Available", True)]
        (found,) = groups(deployments=[deployment(conditions=past)], pods=[], members=frozenset())
        assert found.problem is None


class TestDraining:
    """Marks of a pod that is on its way out; they are all that a restarted operator needs."""

    @staticmethod
    def marked(name: str = "marked", **notes: str) -> dict[str, Any]:
        found = pod(name, ready=True)
        found["metadata"]["annotations"] = {
            f"isthmus.dev/{key.replace('_', '-')}": value for key, value in notes.items()
        }
        return found

    def test_a_marked_pod_is_no_replica_and_not_asked_for_any_more(self) -> None:
        (found,) = groups(
            deployments=[deployment(replicas=2)],
            pods=[pod("stays", ready=True), self.marked(draining_since=T0)],
            members=frozenset({"stays"}),
        )
        assert found.wanted == 1
        (leaves,) = found.waiting
        assert leaves.phase == "Draining"
        assert leaves.draining is not None
        assert leaves.draining.since == epoch(T0)
        assert not leaves.live

    def test_a_released_pod_is_left_to_its_replica_set(self) -> None:
        (found,) = groups(
            deployments=[deployment(replicas=1)],
            pods=[self.marked(draining_since=T0, drained_at=T1, requests_cut="3")],
            members=frozenset(),
        )
        assert found.wanted == 1
        assert found.waiting == ()
        assert found.workers[0].draining is not None
        assert found.workers[0].draining.cut == 3

    def test_a_deleted_pod_left_when_it_was_deleted(self) -> None:
        gone = pod(ready=True, deleting=True)
        gone["metadata"]["deletionGracePeriodSeconds"] = 30
        state = worker(gone, members=frozenset()).draining
        assert state is not None
        assert state.since == (epoch(T1) or 0) - 30
        assert state.grace == 30
        assert not state.waits

    def test_an_unreadable_mark_is_none(self) -> None:
        assert worker(self.marked(draining_since="soon"), members=frozenset()).draining is None
