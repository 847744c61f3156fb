"""The kinds on a real API server: wrong objects are refused with our sentences, good ones filled.

The same table goes through `isthmus validate` in tests/unit/cli/test_validate.py.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from isthmus.api.defaults import effective
from isthmus.api.modeldeployment import ModelDeployment
from isthmus.backends.kubernetes.front import front_deployment
from isthmus.backends.kubernetes.pending import not_created
from isthmus.backends.kubernetes.render import pod_template
from playground.errors import PlaygroundError
from tests.bareapi import bare_api
from tests.real.api import Api, Json, Refused, kind_of
from tests.unit.builders import desired
from tests.wrong_inputs import GOOD, ODD_BUT_RIGHT, WRONG_INPUTS, WrongInput, changed

ROOT = Path(__file__).parents[2]
CRDS = ROOT / "crds"
SAMPLES = ROOT / "deploy" / "samples"

Kubectl = Callable[..., str]


@pytest.fixture(scope="module")
def kubectl() -> Kubectl:
    """Runs kubectl against the API server of all tests that need no more than that."""
    kubectl = bare_api().kubectl
    known = kubectl("get", "namespaces", "-o", "name")
    for namespace in ("team-a", "isthmus-system"):
        if f"namespace/{namespace}\n" not in known:
            kubectl("create", "namespace", namespace)
    return kubectl


@pytest.fixture(scope="module")
def api(kubectl: Kubectl) -> Api:
    """The same by HTTP: two hundred times kubectl would be half a minute."""
    return Api(bare_api().kubernetes.kubeconfig)


def dry_run(api: Api, made: Json) -> Json:
    path = kind_of(made["kind"]).path(made["metadata"].get("namespace", "default"))
    return api.request("POST", f"{path}?dryRun=All&fieldValidation=Strict", made)


def by_kubectl(kubectl: Kubectl, made: Json) -> Json:
    text = json.dumps(made)
    said: Json = json.loads(
        kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=text)
    )
    return said


def check_refusal(wrong: WrongInput, words: str) -> None:
    assert "connection refused" not in words
    assert "rule evaluation" not in words  # a rule that breaks refuses too, but without a sentence
    if wrong.sentence is not None:
        assert wrong.sentence in words


@pytest.mark.parametrize("wrong", WRONG_INPUTS, ids=lambda wrong: f"{wrong.kind}: {wrong.name}")
def test_wrong_input_is_refused(api: Api, wrong: WrongInput) -> None:
    with pytest.raises(Refused) as refused:
        dry_run(api, wrong.object())
    assert refused.value.status in (400, 422)
    check_refusal(wrong, str(refused.value))


@pytest.mark.parametrize(
    "wrong",
    WRONG_INPUTS[::40],
    ids=lambda wrong: f"{wrong.kind}: {wrong.name}",
)
def test_kubectl_shows_the_sentence(kubectl: Kubectl, wrong: WrongInput) -> None:
    with pytest.raises(PlaygroundError) as refused:
        by_kubectl(kubectl, wrong.object())
    check_refusal(wrong, str(refused.value))


def test_definitions_are_small_enough_for_plain_apply(kubectl: Kubectl) -> None:
    """It keeps the whole text in an annotation, of 256 KiB at most."""
    said = kubectl("apply", "--dry-run=server", "-f", str(CRDS))
    assert said.count("(server dry run)") == len(list(CRDS.glob("*.yaml")))


@pytest.mark.parametrize("kind", GOOD)
def test_good_objects_are_accepted(api: Api, kind: str):
    assert dry_run(api, GOOD[kind])["spec"] != {}


@pytest.mark.parametrize("name", ODD_BUT_RIGHT)
def test_f12_what_real_files_have_is_accepted(api: Api, name: str) -> None:
    assert dry_run(api, changed(GOOD["ModelDeployment"], ODD_BUT_RIGHT[name]))["spec"] != {}


def test_crds_are_structural_and_accepted_in_full(kubectl: Kubectl):
    for definition in json.loads(kubectl("get", "crds", "-o", "json"))["items"]:
        conditions = {one["type"]: one["status"] for one in definition["status"]["conditions"]}
        assert conditions.get("NonStructuralSchema", "False") == "False", definition["metadata"]
        assert conditions["NamesAccepted"] == "True"


def test_smallest_object_gets_every_static_default(api: Api):
    spec = {"model": {"source": "hf://org/model"}, "pools": [{"kubernetes": {}}]}
    made = dry_run(api, {**GOOD["ModelDeployment"], "spec": spec})
    assert made["spec"] == {
        "model": {"source": "hf://org/model"},
        "replicas": 1,
        "pools": [
            {
                "name": "default",
                "priority": 0,
                "minReplicas": 0,
                "worker": {"gpusPerNode": 1},
                "engine": {},
                "kubernetes": {"gpuResource": "nvidia.com/gpu"},
            }
        ],
        "health": {
            "startupTimeout": "30m",
            "interval": "5s",
            "successThreshold": 1,
            "failureThreshold": 3,
        },
        "drain": {"timeout": "5m"},
        "endpoint": {"type": "Managed", "administration": False, "extraPaths": []},
    }


def test_smallest_cluster_gets_every_static_default(api: Api):
    spec = {"login": {"local": {}}, "files": {"workDirectory": "/scratch"}}
    made = dry_run(api, {**GOOD["SlurmCluster"], "spec": spec})
    assert made["spec"] == {
        **spec,
        "commands": {
            "binDir": "/usr/bin",
            "pollInterval": "30s",
            "timeout": "25s",
            "submitTimeout": "60s",
        },
        "network": {
            "mode": "Auto",
            "nodeCIDRs": [],
            "nodeSSHPort": 22,
            "ports": {"from": 41000, "to": 41999},
        },
        "orphanPolicy": "Cancel",
        "defaults": {"timeLimit": "8h"},
        "site": {
            "gpuDirective": "gres",
            "memoryDirective": "mem",
            "exclusive": False,
            "setup": "",
        },
        "access": {"allowedNamespaces": {}},
    }


def test_null_parts_get_their_defaults(api: Api):
    made = dry_run(api, changed(GOOD["ModelDeployment"], {"spec.health": None}))
    assert made["spec"]["health"]["interval"] == "5s"


def test_offline_defaults_are_the_servers(api: Api):
    from isthmus.api.crd import KINDS, object_schema
    from isthmus.cli.schema_check import defaulted, without_nulls

    for kind in KINDS:
        good = GOOD[kind.name]
        schema = object_schema(kind.model)
        offline = defaulted(without_nulls(good, schema), schema)
        assert isinstance(offline, dict)
        assert dry_run(api, good)["spec"] == offline["spec"]


def test_samples_are_accepted(kubectl: Kubectl):
    output = kubectl("apply", "--dry-run=server", "-f", str(SAMPLES))
    documents = [d for path in SAMPLES.glob("*.yaml") for d in yaml.safe_load_all(path.read_text())]
    assert output.count("created") == len([d for d in documents if d]), output


def test_scale_subresource_and_columns(kubectl: Kubectl):
    made = changed(GOOD["ModelDeployment"], {"metadata.name": "scaled"})
    kubectl("apply", "-f", "-", stdin=json.dumps(made))
    kubectl("scale", "mdep", "scaled", "--replicas=5")
    status = {
        "status": {
            "replicas": 3,
            "selector": "isthmus.dev/modeldeployment=scaled",
            "ready": "2/5",
            "updatedReplicas": 3,
            "backend": "kubernetes+slurm",
            "summary": "Progressing: waiting for GPUs",
            "pools": [{"name": "hpc", "pending": {"class": "Resources", "reason": "Priority"}}],
        }
    }
    kubectl(
        "patch", "mdep", "scaled", "--subresource=status", "--type=merge", "-p", json.dumps(status)
    )
    raw = kubectl(
        "get",
        "--raw",
        "/apis/isthmus.dev/v1alpha1/namespaces/default/modeldeployments/scaled/scale",
    )
    scale = json.loads(raw)
    assert scale["spec"]["replicas"] == 5
    assert scale["status"] == {"replicas": 3, "selector": "isthmus.dev/modeldeployment=scaled"}
    stored = json.loads(kubectl("get", "mdep", "scaled", "-o", "json"))
    assert stored["status"] == status["status"]
    head, row = kubectl("get", "mdep", "scaled").splitlines()
    assert head.split() == ["NAME", "READY", "DESIRED", "UP-TO-DATE", "BACKEND", "STATUS", "AGE"]
    assert " ".join(row.split()).startswith(
        "scaled 2/5 5 3 kubernetes+slurm Progressing: waiting for GPUs"
    )
    with pytest.raises(PlaygroundError, match="less than or equal to 512"):
        kubectl("scale", "mdep", "scaled", "--replicas=513")


def test_a_slurm_job_never_changes(kubectl: Kubectl):
    kubectl("apply", "-f", "-", stdin=json.dumps(GOOD["SlurmJob"]))
    status = {"status": {"phase": "Pending", "jobId": 4711, "nodes": "gpu[01-02]"}}
    name = GOOD["SlurmJob"]["metadata"]["name"]
    kubectl("patch", "sj", name, "--subresource=status", "--type=merge", "-p", json.dumps(status))
    with pytest.raises(PlaygroundError, match="a SlurmJob is one attempt and never changes"):
        kubectl("patch", "sj", name, "--type=merge", "-p", '{"spec": {"slot": 1}}')
    head, row = kubectl("get", "sj", name).splitlines()
    assert head.split() == ["NAME", "JOBID", "STATE", "REASON", "NODE", "ENDS", "AGE"]
    assert row.split()[:4] == [name, "4711", "Pending", "gpu[01-02]"]


def test_status_words_are_bound_to_the_documented_ones(kubectl: Kubectl):
    job = changed(GOOD["SlurmJob"], {"metadata.name": "words"})
    kubectl("apply", "-f", "-", stdin=json.dumps(job))
    patch = '{"status": {"phase": "Sleeping"}}'
    with pytest.raises(PlaygroundError, match="Unsupported value"):
        kubectl("patch", "sj", "words", "--subresource=status", "--type=merge", "-p", patch)


def test_all_kinds_are_listed_by_category(kubectl: Kubectl):
    kubectl("apply", "-f", str(SAMPLES / "slurmcluster.yaml"))
    names = kubectl("get", "isthmus", "-A", "-o", "name")
    assert "slurmcluster.isthmus.dev/hpc" in names


# ---- Pod Security: what of our pods a namespace takes that enforces its level `restricted`


@pytest.fixture(scope="module")
def restricted(kubectl: Kubectl) -> str:
    """The namespace; no controller makes accounts here, so they are made."""
    name = "restricted"
    if f"namespace/{name}\n" not in kubectl("get", "namespaces", "-o", "name"):
        kubectl("create", "namespace", name)
        kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        for account in ("default", "llama-front"):
            kubectl("create", "serviceaccount", account, "-n", name)
    return name


def as_pod(template: Json, namespace: str) -> Json:
    metadata = {**template["metadata"], "name": "one", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def worker(**kubernetes: object) -> Json:
    """The pod template of a pool, as it is rendered for a user."""
    spec = {"model": {"source": "hf://a/b"}, "pools": [{"name": "k8s", "kubernetes": kubernetes}]}
    wanted = effective(
        ModelDeployment.model_validate({"metadata": {"name": "llama"}, "spec": spec})
    )
    return pod_template(
        desired=wanted,
        pool=wanted.pools[0],
        revision="r",
        pre_stop_seconds=5,
        shutdown_seconds=60,
    )


def test_l9_a_worker_with_a_security_context_is_taken(api: Api, restricted: str) -> None:
    pool = {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000}
    taken = dry_run(api, as_pod(worker(securityContext=pool), restricted))
    assert taken["spec"]["securityContext"]["runAsUser"] == 1000


def test_l9_one_without_is_refused_and_told_by_its_name(api: Api, restricted: str) -> None:
    """The real words of the admission are known as such."""
    with pytest.raises(Refused) as refused:
        dry_run(api, as_pod(worker(), restricted))
    failed = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": str(refused.value),
    }
    found = not_created({"status": {"conditions": [failed]}})
    assert found is not None
    assert found.reason == "PodSecurityRefused"
    assert "allowPrivilegeEscalation" not in str(refused.value), "that is never allowed anyway"


def test_l9_m9_a_front_is_taken_as_it_is(api: Api, restricted: str) -> None:
    """And an API server gives it no further token: the projected one is the sidecar's alone."""
    made = front_deployment(desired=desired(), image="front:1", drain_seconds=60)
    spec: Json = made["spec"]  # type: ignore[assignment]
    pod = dry_run(api, as_pod(spec["template"], restricted))["spec"]
    (envoy,), (sidecar, contract) = pod["containers"], pod["initContainers"]
    assert [mount["name"] for mount in envoy["volumeMounts"]] == ["run"]
    assert [mount["name"] for mount in sidecar["volumeMounts"]] == ["run", "account"]
    assert not contract.get("volumeMounts")
