"""What the chart renders, by the helm that the playground builds; no cluster is needed."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from isthmus.api.front_pods import read_front_pods
from isthmus.settings import Settings
from isthmus.tunnels.settings import TunnelSettings
from playground import build
from playground.config import default_cache
from playground.progress import Progress

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts" / "isthmus"
GIVEN = ("--set", "installationId=prod0001")
Json = dict[str, Any]
Objects = dict[tuple[str, str], Json]


@pytest.fixture(scope="session")
def helm() -> Path:
    return build.ensure_helm(default_cache(), Progress(silent=True))


def call(helm: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECONFIG": "/nonexistent"}
    return subprocess.run(
        [helm, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def render(helm: Path, *options: str, namespace: str = "isthmus-system") -> Objects:
    done = call(helm, "template", "isthmus", str(CHART), f"--namespace={namespace}", *options)
    assert done.returncode == 0, done.stderr
    return by_name(done.stdout)


def refused(helm: Path, *options: str) -> str:
    done = call(helm, "template", "isthmus", str(CHART), *options)
    assert done.returncode != 0, done.stdout
    return done.stderr


def by_name(text: str) -> Objects:
    found = [document for document in yaml.safe_load_all(text) if document]
    named = {(one["kind"], one["metadata"]["name"]): one for one in found}
    assert len(named) == len(found), "each object once"
    return named


def plain() -> Objects:
    """The same through kubectl: crds/ and deploy/."""
    files = [*(REPOSITORY / "crds").glob("*.yaml"), *(REPOSITORY / "deploy").glob("*.yaml")]
    objects = by_name("\n---\n".join(path.read_text(encoding="utf-8") for path in files))
    del objects["Namespace", "isthmus-system"]
    return objects


def without_marks(one: Json) -> Json:
    """An object without what only a release adds."""
    metadata = {k: v for k, v in one["metadata"].items() if k not in ("labels", "annotations")}
    return {**one, "metadata": metadata}


def container(one: Json) -> Json:
    (found,) = one["spec"]["template"]["spec"]["containers"]
    result: Json = found
    return result


def environment(one: Json) -> Json:
    return {each["name"]: each.get("value") for each in container(one)["env"]}


def test_lint(helm: Path) -> None:
    done = call(helm, "lint", "--strict", str(CHART), *GIVEN)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("folder", ["crds", "deploy"])
def test_copies_are_those_of_the_repository(folder: str) -> None:
    copies = CHART / "files" / ("crds" if folder == "crds" else "")
    for copy in copies.glob("*.yaml"):
        original = REPOSITORY / folder / copy.name
        assert copy.read_bytes() == original.read_bytes(), f"run `make crds` ({copy.name} differs)"
    assert list(copies.glob("*.yaml"))


def test_chart_and_plain_manifests_are_the_same(helm: Path) -> None:
    chart, manifests = render(helm, *GIVEN), plain()
    del chart["ConfigMap", "isthmus-installation"]
    variables = container(manifests["Deployment", "isthmus"])["env"]
    (installation,) = [one for one in variables if one.get("value") == "CHANGE-ME"]
    installation["value"] = "prod0001"
    assert chart.keys() == manifests.keys()
    for key, one in chart.items():
        assert without_marks(one) == without_marks(manifests[key]), key


def test_kinds_stay_when_the_release_goes(helm: Path) -> None:
    objects = render(helm, *GIVEN)
    kinds = [one for (kind, _), one in objects.items() if kind == "CustomResourceDefinition"]
    kept = [objects["ConfigMap", "isthmus-installation"], *kinds]
    assert len(kinds) == 3
    for one in kept:
        assert one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    none = render(helm, *GIVEN, "--set", "crds.install=false")
    assert not [kind for kind, _ in none if kind == "CustomResourceDefinition"]


def test_everything_follows_the_namespace_of_the_release(helm: Path) -> None:
    objects = render(helm, *GIVEN, namespace="elsewhere")
    assert "isthmus-system" not in yaml.safe_dump_all(
        one for (kind, _), one in objects.items() if kind != "CustomResourceDefinition"
    )
    (subject,) = objects["ClusterRoleBinding", "isthmus"]["subjects"]
    assert subject["namespace"] == "elsewhere"


def test_values_reach_the_pods(helm: Path) -> None:
    objects = render(
        helm,
        *GIVEN,
        "--set=operator.image.repository=example.org/isthmus,operator.image.tag=1.2.0",
        "--set=front.image.repository=example.org/front,front.image.tag=v7",
        "--set=operator.settings.relist_interval=5m,operator.settings.workers=4",
        "--set=operator.watchNamespaces={team-a,team-b}",
        "--set=operator.replicas=2,operator.priorityClassName=high",
        "--set=tunnels.settings.check_interval=2s",
    )
    operator = objects["Deployment", "isthmus"]
    assert container(operator)["image"] == "example.org/isthmus:1.2.0"
    assert operator["spec"]["replicas"] == 2
    assert operator["spec"]["template"]["spec"]["priorityClassName"] == "high"
    assert objects["PodDisruptionBudget", "isthmus"]["spec"]["maxUnavailable"] == 1
    settings = Settings.from_environment(
        {k: v for k, v in environment(operator).items() if v is not None}
    )
    assert settings.front_image == "example.org/front:v7"
    assert (settings.relist_interval, settings.workers) == (300, 4)
    assert settings.watch_namespaces == ("team-a", "team-b")
    assert settings.installation_id == "prod0001"
    tunnels = objects["Deployment", "isthmus-tunnels"]
    assert container(tunnels)["image"] == "localhost/isthmus:dev", "an image of its own"
    given = {k: v for k, v in environment(tunnels).items() if v is not None}
    read = TunnelSettings.from_environment({**given, "POD_IP": "10.0.0.1"})
    assert read.check_interval == 2
    assert read.watch_namespaces == ("team-a", "team-b")


def test_f11_values_reach_the_pods_of_fronts(helm: Path) -> None:
    """What the chart offers for its own pods is there for those that the operator makes, too."""
    options = ("--set=imagePullSecrets[0].name=regcred", "--set=front.nodeSelector.pool=cpu")
    taint = "--set=front.tolerations[0].key=nvidia.com/gpu,front.tolerations[0].operator=Exists"
    size = "--set=front.resources.limits.memory=512Mi"
    objects = render(helm, *GIVEN, *options, taint, size)
    given = environment(objects["Deployment", "isthmus"])
    settings = Settings.from_environment({k: v for k, v in given.items() if v is not None})
    read = read_front_pods(settings.front_pods)
    assert read.pod_fields() == {
        "imagePullSecrets": [{"name": "regcred"}],
        "nodeSelector": {"pool": "cpu"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    }
    assert read.quantities() == {"limits": {"memory": "512Mi"}}
    other = render(helm, *GIVEN, *options, "--set=front.imagePullSecrets[0].name=theirs")
    text = environment(other["Deployment", "isthmus"])["ISTHMUS_FRONT_PODS"]
    assert read_front_pods(text).pod_fields()["imagePullSecrets"] == [{"name": "theirs"}]


def test_an_upgrade_of_the_operator_leaves_the_tunnels_alone(helm: Path) -> None:
    before = render(helm, *GIVEN)
    after = render(helm, *GIVEN, "--set=operator.image.tag=next")
    changed = {key for key, one in after.items() if one != before[key]}
    assert changed == {("Deployment", "isthmus")}


def test_without_tunnels(helm: Path) -> None:
    objects = render(helm, *GIVEN, "--set=tunnels.enabled=false")
    assert not [name for _, name in objects if "tunnels" in name]


def test_l2_an_administrator_says_who_may_call_the_bastion(helm: Path) -> None:
    on = (*GIVEN, "--set=tunnels.bastion.enabled=true")
    ranges = "--set=tunnels.bastion.loadBalancerSourceRanges={10.20.0.0/16}"
    spec = render(helm, *on, ranges)["Service", "isthmus-bastion"]["spec"]
    assert spec["loadBalancerSourceRanges"] == ["10.20.0.0/16"]
    assert "loadBalancerSourceRanges" not in render(helm, *on)["Service", "isthmus-bastion"]["spec"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "installationId is missing: write 8 characters"),
        (("--set=installationId=Prod",), "installationId"),
        ((*GIVEN, "--set=operator.image.tag="), "tag"),
        ((*GIVEN, "--set=operator.replica=2"), "replica"),
        ((*GIVEN, "--set=operator.settings.Relist=5m"), "Relist"),
        ((*GIVEN, "--set=operator.watchNamespaces={Team_A}"), "watchNamespaces"),
    ],
)
def test_wrong_values_are_refused(helm: Path, options: tuple[str, ...], words: str) -> None:
    assert words in refused(helm, *options)
