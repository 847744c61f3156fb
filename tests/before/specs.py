"""What people write: specs that were taken and must not be, and such as were refused."""

from collections.abc import Callable
from typing import Any

import yaml
from pydantic import ValidationError

from isthmus.api import names
from isthmus.api.modeldeployment_status import ModelDeploymentStatus
from isthmus.backends.kubernetes.observe import groups
from isthmus.backends.slurm.reasons import classify
from isthmus.cli.validate import findings as validated
from tests.before.findings import finding


def _valid(*, worker: Any = None, kubernetes: Any = None, model: Any = None, **engine: Any) -> bool:
    pool: dict[str, Any] = {"name": "k8s", "kubernetes": kubernetes or {}}
    if worker is not None:
        pool["worker"] = worker
    if engine:
        pool["engine"] = engine
    spec: dict[str, Any] = {
        "model": {"source": "hf://org/model", "servedNames": ["llama"], **(model or {})},
        "pools": [pool],
    }
    obj = {
        "apiVersion": "isthmus.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "llama", "namespace": "team-a"},
        "spec": spec,
    }
    return not any(one.is_problem for one in validated(yaml.safe_dump(obj)))


@finding("F10", "`--port 9000` in one entry and `--hf-token` pass the rule on reserved options")
def reserved_options_pass() -> bool:
    assert _valid(args=["--max-model-len=8192"])
    return any(_valid(args=[one]) for one in ("--port 9000", "--api-key sk-1", "--hf-token=x"))


@finding("F12", "limits that real files meet: long overrides, half a core, bytes, GGUF, paths")
def real_files_are_refused() -> bool:
    overrides = f'--hf-overrides={{"x":"{"1" * 1970}"}}'
    good: tuple[Callable[[], bool], ...] = (
        lambda: _valid(args=[overrides]),
        lambda: _valid(args=[part for n in range(25) for part in (f"--option-{n}", "1")]),
        lambda: _valid(worker={"cpu": "0.5"}),
        lambda: _valid(worker={"memory": "0.5Ti"}),
        lambda: _valid(worker={"memory": "1073741824"}),
        lambda: _valid(model={"source": "hf://org/repo:Q4_K_M"}),
        lambda: _valid(model={"servedNames": ["/models/llama"]}),
    )
    return not all(one() for one in good)


@finding("F13", "`QOSMinGRES`, by which a job never starts, is told as a quota that gets free")
def never_is_told_as_quota() -> bool:
    return str(classify("QOSMinGRES")) != "Never"


@finding("F13", "what Pod Security refuses is told as a quota")
def pod_security_is_told_as_quota() -> bool:
    refused = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": 'pods "llama-1" is forbidden: violates PodSecurity "restricted:latest"',
    }
    labels = {names.LABEL_POOL: "k8s", names.LABEL_REVISION: "0123456789"}
    deployment = {
        "metadata": {"namespace": "team-a", "name": "llama-k8s", "labels": labels},
        "spec": {"replicas": 1},
        "status": {"conditions": [refused]},
    }
    (group,) = groups(deployments=[deployment], pods=[], members=frozenset())
    assert group.problem is not None
    return str(group.problem.pending_class) == "Quota"


@finding("L4", "`isthmus validate` ends with a traceback")
def validate_ends_with_a_traceback() -> bool:
    for text in ("!!int abc", "a: &a [*a]", "[" * 3000, "x: 0x_", f"x: {'9' * 5000}"):
        try:
            list(validated(text))
        except (ValueError, RecursionError, TypeError):
            return True
    return False


@finding("L4", "a manifest whose `apiVersion` is a list is skipped")
def list_is_skipped() -> bool:
    text = "apiVersion: [isthmus.dev/v1alpha1]\nkind: ModelDeployment\n"
    return not any(one.is_problem for one in validated(text))


@finding("L9", "workers cannot run where pods are restricted, and tolerate every taint")
def pods_are_not_restricted() -> bool:
    restricted = {"securityContext": {"runAsNonRoot": True, "runAsUser": 1000}}
    tolerant = {"tolerations": [{"operator": "Exists"}]}
    return not _valid(kubernetes=restricted) or _valid(kubernetes=tolerant)


@finding("L10", "a status of more than 2048 workers raises in the middle of a plan")
def many_workers_raise() -> bool:
    assert ModelDeploymentStatus.model_validate({"workers": [{"name": "w"}]}).workers
    try:
        ModelDeploymentStatus.model_validate({"workers": [{"name": f"w-{n}"} for n in range(3000)]})
    except ValidationError:
        return True
    return False
