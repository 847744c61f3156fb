"""What Kubernetes is told: pods of workers and fronts, their names, rights of the components."""

from collections.abc import Iterator
from typing import Any

import yaml

from isthmus.api.defaults import effective
from isthmus.api.modeldeployment import ModelDeployment
from isthmus.backends.kubernetes import front, render
from tests.before.findings import any_of, finding, tree


def _desired(*, name: str = "llama", pool: str = "k8s", **worker: Any) -> Any:
    placed = {"name": pool, "kubernetes": {}}
    if worker:
        placed["worker"] = worker
    read = ModelDeployment.model_validate(
        {
            "apiVersion": "isthmus.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"namespace": "team-a", "name": name, "uid": "uid-llama"},
            "spec": {
                "model": {"source": "hf://org/model", "servedNames": ["llama"]},
                "pools": [placed],
            },
        }
    )
    return effective(read, operator_namespace="isthmus-system")


def _template(desired: Any) -> Any:
    return render.pod_template(
        desired=desired,
        pool=desired.pools[0],
        revision="0123456789",
        pre_stop_seconds=5,
        shutdown_seconds=60,
    )


@finding("F3", "two GPUs share 64 MiB of memory, with which tensor parallelism fails")
def no_shared_memory() -> bool:
    spec = _template(_desired(gpusPerNode=2))["spec"]
    (container,) = spec["containers"]
    assert "--tensor-parallel-size=2" in container["args"]
    in_memory = {v["name"] for v in spec.get("volumes", []) if "emptyDir" in v}
    mounts = container.get("volumeMounts", [])
    return not any(m["mountPath"] == "/dev/shm" and m["name"] in in_memory for m in mounts)


_OF_A_PODS_NAME = 58
"""Characters of its owner's name that Kubernetes keeps in a pod's, before five of its own."""


@finding("B3", "the name of a pod of a long-named deployment does not say its revision")
def pod_name_is_cut() -> bool:
    desired = _desired(name="mixture-of-experts-instruct-2026-11-fp8a", pool="kubernetes-h10a")
    made: Any = render.deployment(
        desired=desired,
        pool=desired.pools[0].name,
        revision="0123456789",
        template=_template(desired),
        replicas=1,
    )
    replica_set = f"{made['metadata']['name']}-6d4cf56db6-"
    return len(replica_set) > _OF_A_PODS_NAME


def _front(**more: Any) -> Any:
    return front.front_deployment(desired=_desired(), image="front:1", drain_seconds=60, **more)


@finding("F11", "fronts cannot be given the right to pull their image")
def fronts_have_no_pull_secret() -> bool:
    try:
        read = any_of("isthmus.api.front_pods:read_front_pods")
    except LookupError:
        made = _front()  # there is no setting for them
    else:
        made = _front(pods=read('{"imagePullSecrets": [{"name": "regcred"}]}'))
    return "imagePullSecrets" not in made["spec"]["template"]["spec"]


@finding("M9", "the token that reads the workers' keys is mounted into Envoy's container")
def envoy_holds_the_token() -> bool:
    spec = _front()["spec"]["template"]["spec"]
    if spec.get("automountServiceAccountToken", True):
        return True
    tokens = {
        volume["name"]
        for volume in spec.get("volumes", [])
        for source in volume.get("projected", {}).get("sources", [])
        if "serviceAccountToken" in source
    }
    assert tokens, "the sidecar needs one"
    (held,) = (c for c in spec["containers"] if c["name"] == "envoy")
    return any(mount["name"] in tokens for mount in held.get("volumeMounts", []))


def _rules(file: str, kind: str) -> Iterator[Any]:
    """The rules of the roles of a kind in a file of deploy/."""
    for obj in yaml.safe_load_all((tree() / "deploy" / file).read_text(encoding="utf-8")):
        if obj is not None and obj["kind"] == kind:
            yield from obj.get("rules", [])


@finding("H6", "the tunnel supervisor may read every Secret, the operator delete any")
def components_hold_too_much() -> bool:
    every = any("secrets" in rule["resources"] for rule in _rules("tunnels.yaml", "ClusterRole"))
    secrets = [
        rule for rule in _rules("rbac.yaml", "ClusterRole") if "secrets" in rule["resources"]
    ]
    assert secrets
    return every or any("delete" in rule["verbs"] for rule in secrets)
