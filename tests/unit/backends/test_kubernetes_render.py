"""What pods, Deployments and the Service look like."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from isthmus.api.defaults import effective
from isthmus.api.desired import (
    Desired,
    Drain,
    Endpoint,
    Engine,
    EngineType,
    EnvironmentVariable,
    Health,
    KubernetesPlacement,
    Pool,
    Worker,
)
from isthmus.api.modeldeployment import ModelDeployment
from isthmus.backends.kubernetes.render import (
    deployment,
    pod_template,
    service,
    service_spec,
)
from tests.unit.builders import desired, k8s_pool, slurm_pool

LABELS = {
    "isthmus.dev/modeldeployment": "llama",
    "isthmus.dev/pool": "k8s",
    "isthmus.dev/revision": "abc234",
}


def template(
    pool: Pool | None = None, wanted: Desired | None = None, *, pre_stop: int = 5
) -> dict[str, Any]:
    one = pool or k8s_pool()
    return pod_template(
        desired=wanted or desired(one),
        pool=one,
        revision="abc234",
        pre_stop_seconds=pre_stop,
        shutdown_seconds=60,
    )


def container(*args: Any, **changes: Any) -> dict[str, Any]:
    spec = template(*args, **changes)["spec"]
    assert len(spec["containers"]) == 1
    found: dict[str, Any] = spec["containers"][0]
    return found


class TestLabels:
    def test_a_pod_is_in_rotation_from_birth(self) -> None:
        assert template()["metadata"]["labels"] == {
            **LABELS,
            "app.kubernetes.io/managed-by": "isthmus",
            "isthmus.dev/traffic": "on",
            "isthmus.dev/engine": "vllm",
        }

    def test_the_deployments_selector_has_no_traffic_label(self) -> None:
        """So that a pod that was taken out of rotation stays the Deployment's."""
        made: dict[str, Any] = deployment(
            desired=desired(), pool="k8s", revision="abc234", template=template(), replicas=2
        )
        assert made["spec"]["selector"] == {"matchLabels": LABELS}
        pod = made["spec"]["template"]["metadata"]["labels"]
        assert LABELS.items() <= pod.items()

    def test_the_services_selector_finds_every_pod_and_only_those_in_traffic(self) -> None:
        bare = desired(endpoint=Endpoint(type="Service"))
        spec: dict[str, Any] = service_spec(desired=bare)
        assert spec["selector"] == {
            "isthmus.dev/modeldeployment": "llama",
            "isthmus.dev/traffic": "on",
        }
        assert spec["selector"].items() <= template()["metadata"]["labels"].items()


class TestDeployment:
    MADE: dict[str, Any] = deployment(
        desired=desired(), pool="k8s", revision="abc234", template=template(), replicas=2
    )

    def test_it_belongs_to_the_model_deployment(self) -> None:
        meta = self.MADE["metadata"]
        assert (meta["name"], meta["namespace"]) == ("llama-k8s-abc234", "team-a")
        assert meta["labels"]["app.kubernetes.io/managed-by"] == "isthmus"
        assert meta["labels"].items() >= LABELS.items()
        assert meta["ownerReferences"] == [
            {
                "apiVersion": "isthmus.dev/v1alpha1",
                "kind": "ModelDeployment",
                "name": "llama",
                "uid": "uid-llama",
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ]

    def test_it_gives_the_engine_its_time_to_start(self) -> None:
        assert self.MADE["spec"]["replicas"] == 2
        assert self.MADE["spec"]["progressDeadlineSeconds"] > Health().startup_timeout

    def test_the_frozen_template_is_taken_as_it_is(self) -> None:
        odd: Mapping[str, object] = {"metadata": {}, "spec": {"written by": "an older release"}}
        made: dict[str, Any] = deployment(
            desired=desired(), pool="k8s", revision="abc234", template=odd, replicas=1
        )
        assert made["spec"]["template"] == odd


class TestContainer:
    def test_the_command_is_the_engines(self) -> None:
        found = container()
        assert found["image"] == "vllm/vllm-openai:v0.33.0"
        assert found["args"][:3] == ["vllm", "serve", "meta-llama/Llama-3.1-8B"]
        assert "--port=8000" in found["args"]
        assert "--shutdown-timeout=300" in found["args"]
        assert found["ports"] == [{"name": "http", "containerPort": 8000}]

    def test_a_path_is_told_as_it_is(self) -> None:
        one = k8s_pool()
        wanted = desired(one)
        model = type(wanted.model)(source="/models/llama", served_names=("llama",))
        assert container(one, desired(one, model=model))["args"][2] == "/models/llama"

    @pytest.mark.parametrize(
        ("engine", "path"), [(EngineType.VLLM, "/health"), (EngineType.SGLANG, "/ready")]
    )
    def test_process_1_is_ours(self, engine: EngineType, path: str) -> None:
        """The kernel drops a TERM that process 1 has no handler for; engines that load have none.

        Kubernetes would replace `$(NAME)` and `$$` in the texts.
        """
        shell, _, text, script, *words = container(k8s_pool(engine=Engine(type=engine, image="x")))[
            "command"
        ]
        assert shell == "/bin/sh"
        compile(script, "first process", "exec")
        assert words[:3] == ["127.0.0.1", "8000", path]
        for one in (text, script):
            assert "$(" not in one
            assert "$$" not in one

    @pytest.mark.parametrize(
        ("shape", "resources"),
        [
            (Worker(gpus_per_node=2), {"limits": {"nvidia.com/gpu": "2"}}),
            (
                Worker(gpus_per_node=1, cpu="8", memory="64Gi"),
                {
                    "requests": {"cpu": "8", "memory": "64Gi"},
                    "limits": {"nvidia.com/gpu": "1"},
                },
            ),
            (Worker(gpus_per_node=0), {}),
            (Worker(gpus_per_node=0, cpu="500m"), {"requests": {"cpu": "500m"}}),
        ],
    )
    def test_resources(self, shape: Worker, resources: dict[str, Any]) -> None:
        assert container(k8s_pool(worker=shape))["resources"] == resources

    def test_another_gpu_resource(self) -> None:
        placement = KubernetesPlacement(gpu_resource="amd.com/gpu", node_selector={})
        assert container(k8s_pool(kubernetes=placement))["resources"] == {
            "limits": {"amd.com/gpu": "1"}
        }

    def test_environment(self) -> None:
        source = {"secretKeyRef": {"name": "hf", "key": "token"}}
        engine = Engine(
            type=EngineType.VLLM,
            image="x",
            env=(
                EnvironmentVariable(name="A", value="1"),
                EnvironmentVariable(name="EMPTY", value=""),
                EnvironmentVariable(name="HF_TOKEN", value_from=source),
            ),
        )
        assert container(k8s_pool(engine=engine))["env"] == [
            {"name": "A", "value": "1"},
            {"name": "EMPTY", "value": ""},
            {"name": "HF_TOKEN", "valueFrom": source},
        ]
        assert "env" not in container()

    @pytest.mark.parametrize(
        ("engine", "health", "ready", "patience"),
        [(EngineType.VLLM, "/health", "/health", 5), (EngineType.SGLANG, "/health", "/ready", 20)],
    )
    def test_probes(self, engine: EngineType, health: str, ready: str, patience: int) -> None:
        one = k8s_pool(engine=Engine(type=engine, image="x"))
        times = Health(startup_timeout=601, interval=7.4, success_threshold=2, failure_threshold=4)
        found = container(one, desired(one, health=times))
        start, readiness, live = (
            found[kind] for kind in ("startupProbe", "readinessProbe", "livenessProbe")
        )
        assert [probe["httpGet"]["path"] for probe in (start, readiness, live)] == [
            health,
            ready,
            health,
        ]
        assert {probe["httpGet"]["port"] for probe in (start, readiness, live)} == {"http"}
        assert start["periodSeconds"] * start["failureThreshold"] >= 601
        assert start["periodSeconds"] * (start["failureThreshold"] - 1) <= 601
        assert (start["timeoutSeconds"], live["timeoutSeconds"]) == (patience, patience)
        assert readiness["periodSeconds"] == 7
        assert (readiness["successThreshold"], readiness["failureThreshold"]) == (2, 4)
        # A restart costs a model load, so liveness is slower than readiness.
        assert live["periodSeconds"] * live["failureThreshold"] >= 60
        # Kubernetes takes nothing but 1 for these two.
        assert "successThreshold" not in start
        assert "successThreshold" not in live


class TestSharedMemory:
    def shared(self, *pools: dict[str, Any]) -> dict[str, Any]:
        spec = {"model": {"source": "hf://a/b"}, "pools": list(pools)}
        written = ModelDeployment.model_validate(
            {"metadata": {"name": "llama", "namespace": "team-a"}, "spec": spec}
        )
        wanted = effective(written)
        return template(wanted.pools[0], wanted)["spec"]

    @pytest.mark.parametrize(
        ("shape", "size"),
        [
            ({}, "1Gi"),
            ({"gpusPerNode": 0}, "1Gi"),
            ({"gpusPerNode": 2}, "2Gi"),
            ({"gpusPerNode": 8}, "8Gi"),
            ({"gpusPerNode": 8, "sharedMemory": "500Mi"}, "500Mi"),
        ],
    )
    def test_it_is_sized_by_the_gpus_unless_told(self, shape: dict[str, Any], size: str) -> None:
        spec = self.shared({"name": "k8s", "worker": shape, "kubernetes": {}})
        (volume,) = spec["volumes"]
        assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": size}
        (mount,) = spec["containers"][0]["volumeMounts"]
        assert mount == {"name": volume["name"], "mountPath": "/dev/shm"}

    def test_it_is_no_part_of_the_resources(self) -> None:
        """A bound of what may be used, which counts as memory only when it is."""
        pool = {"name": "k8s", "worker": {"memory": "64Gi"}, "kubernetes": {}}
        found = self.shared(pool)["containers"][0]["resources"]
        assert found["requests"] == {"memory": "64Gi"}


class TestShutdown:
    def test_the_grace_covers_the_floor_the_drain_and_the_shutdown(self) -> None:
        one = k8s_pool()
        spec = template(one, desired(one, drain=Drain(timeout=90)), pre_stop=5)["spec"]
        assert spec["terminationGracePeriodSeconds"] == 5 + 90 + 60
        (shell, _, _, script, *words) = hook(spec["containers"][0])
        assert shell == "/bin/sh"
        compile(script, "prestop", "exec")
        assert words[:2] == ["5", "90"]
        metrics, rule = words[3:]
        assert metrics == "http://127.0.0.1:8000/metrics"
        assert json.loads(rule)["gauges"] == [
            "vllm:num_requests_running",
            "vllm:num_requests_waiting",
        ]

    def test_vllm_always_gets_a_shutdown_timeout(self) -> None:
        """With 0, its default, streams hang until SIGKILL."""
        one = k8s_pool()
        args = container(one, desired(one, drain=Drain(timeout=0)))["args"]
        assert "--shutdown-timeout=1" in args

    def test_a_hung_engine_is_not_waited_for(self) -> None:
        for probe in ("livenessProbe", "startupProbe"):
            assert container()[probe]["terminationGracePeriodSeconds"] == 15


def hook(found: dict[str, Any]) -> list[str]:
    command: list[str] = found["lifecycle"]["preStop"]["exec"]["command"]
    return command


class TestPod:
    def test_placement(self) -> None:
        own = {"key": "gpu", "operator": "Exists"}
        placement = KubernetesPlacement(node_selector={"zone": "a"}, tolerations=(own,))
        spec = template(k8s_pool(kubernetes=placement))["spec"]
        assert spec["nodeSelector"] == {"zone": "a"}
        assert spec["tolerations"][0] == own
        lost = {t["key"]: t["tolerationSeconds"] for t in spec["tolerations"][1:]}
        assert lost == {
            "node.kubernetes.io/not-ready": 30,
            "node.kubernetes.io/unreachable": 30,
        }
        assert "nodeSelector" not in template()["spec"]

    def secured(self, **kubernetes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        spec = {"model": {"source": "hf://a/b"}, "pools": [{"name": "k", "kubernetes": kubernetes}]}
        written = ModelDeployment.model_validate(
            {"metadata": {"name": "llama", "namespace": "team-a"}, "spec": spec}
        )
        wanted = effective(written)
        pod = template(wanted.pools[0], wanted)["spec"]
        return pod, pod["containers"][0]["securityContext"]

    def test_l9_a_pod_can_satisfy_restricted(self) -> None:
        """All that the level asks for, of which the image and its user decide the one word."""
        pod, engine = self.secured(securityContext={"runAsNonRoot": True, "runAsUser": 1000})
        assert pod["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert engine == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}

    def test_l9_root_keeps_what_its_image_may_need(self) -> None:
        pod, engine = self.secured()
        assert "securityContext" not in pod
        assert engine == {"allowPrivilegeEscalation": False}
        pod, engine = self.secured(securityContext={"fsGroup": 7})
        assert pod["securityContext"] == {"fsGroup": 7}
        assert "capabilities" not in engine

    def test_l9_pull_secrets_and_a_runtime_class(self) -> None:
        pod, _ = self.secured(imagePullSecrets=[{"name": "regcred"}], runtimeClassName="nvidia")
        assert pod["imagePullSecrets"] == [{"name": "regcred"}]
        assert pod["runtimeClassName"] == "nvidia"
        assert "runtimeClassName" not in self.secured()[0]

    def test_a_service_named_vllm_cannot_break_vllm(self) -> None:
        assert template()["spec"]["enableServiceLinks"] is False

    def test_model_code_gets_no_token_of_the_cluster(self) -> None:
        assert template()["spec"]["automountServiceAccountToken"] is False

    def test_a_pool_on_slurm_has_no_pods(self) -> None:
        with pytest.raises(ValueError, match="hpc is not on Kubernetes"):
            template(slurm_pool())


def test_service() -> None:
    made: dict[str, Any] = service(desired=desired())
    assert made["metadata"]["name"] == "llama"
    assert made["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "isthmus"
    assert made["spec"]["ports"] == [
        {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"}
    ]
