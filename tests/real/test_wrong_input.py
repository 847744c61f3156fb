"""The kinds on a real API server: wrong objects are refused with our sentences, good ones filled.

The same table goes through `isthmus validate` in tests/plan/test_validate.py.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from playground.cluster import Config, Playground, PlaygroundError
from tests.wrong_inputs import GOOD, WRONG_INPUTS, WrongInput, changed

ROOT = Path(__file__).parents[2]
CRDS = ROOT / "crds"
SAMPLES = ROOT / "deploy" / "samples"

Kubectl = Callable[..., str]


@pytest.fixture(scope="module")
def kubectl() -> Iterator[Kubectl]:
    """Runs kubectl against an API server of this module, with the CRDs installed by plain apply."""
    state = Path(tempfile.mkdtemp(prefix="isthmus-kinds-", dir="/var/tmp"))
    try:
        parts = frozenset({"apiserver"})
        with Playground(Config(state=state, instance=None, parts=parts)) as playground:
            playground.kubectl("apply", "-f", str(CRDS))
            names = [
                f"crd/{path.stem.partition('_')[2]}.isthmus.dev" for path in CRDS.glob("*.yaml")
            ]
            playground.kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
            for namespace in ("team-a", "isthmus-system"):
                playground.kubectl("create", "namespace", namespace)
            yield playground.kubectl
    finally:
        shutil.rmtree(state, ignore_errors=True)


def dry_run(kubectl: Kubectl, made: dict) -> dict:
    text = json.dumps(made)
    output = kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=text)
    return json.loads(output)


@pytest.mark.parametrize("wrong", WRONG_INPUTS, ids=lambda wrong: f"{wrong.kind}: {wrong.name}")
def test_wrong_input_is_refused(kubectl: Kubectl, wrong: WrongInput):
    with pytest.raises(PlaygroundError) as refused:
        dry_run(kubectl, wrong.object())
    words = str(refused.value)
    assert "connection refused" not in words
    assert "rule evaluation" not in words  # a rule that breaks refuses too, but without a sentence
    if wrong.sentence is not None:
        assert wrong.sentence in words


@pytest.mark.parametrize("kind", GOOD)
def test_good_objects_are_accepted(kubectl: Kubectl, kind: str):
    assert dry_run(kubectl, GOOD[kind])["spec"] != {}


def test_crds_are_structural_and_accepted_in_full(kubectl: Kubectl):
    for definition in json.loads(kubectl("get", "crds", "-o", "json"))["items"]:
        conditions = {one["type"]: one["status"] for one in definition["status"]["conditions"]}
        assert conditions.get("NonStructuralSchema", "False") == "False", definition["metadata"]
        assert conditions["NamesAccepted"] == "True"


def test_smallest_object_gets_every_static_default(kubectl: Kubectl):
    spec = {"model": {"source": "hf://org/model"}, "pools": [{"kubernetes": {}}]}
    made = dry_run(kubectl, {**GOOD["ModelDeployment"], "spec": spec})
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
        "endpoint": {"type": "Managed"},
    }


def test_smallest_cluster_gets_every_static_default(kubectl: Kubectl):
    spec = {"login": {"local": {}}, "files": {"workDirectory": "/scratch"}}
    made = dry_run(kubectl, {**GOOD["SlurmCluster"], "spec": spec})
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


def test_null_parts_get_their_defaults(kubectl: Kubectl):
    made = dry_run(kubectl, changed(GOOD["ModelDeployment"], {"spec.health": None}))
    assert made["spec"]["health"]["interval"] == "5s"


def test_offline_defaults_are_the_servers(kubectl: Kubectl):
    from isthmus.api.crd import KINDS, object_schema
    from isthmus.cli.schema_check import defaulted, without_nulls

    for kind in KINDS:
        good = GOOD[kind.name]
        schema = object_schema(kind.model)
        offline = defaulted(without_nulls(good, schema), schema)
        assert isinstance(offline, dict)
        assert dry_run(kubectl, good)["spec"] == offline["spec"]


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
    head, row = kubectl("get", "sj").splitlines()
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
