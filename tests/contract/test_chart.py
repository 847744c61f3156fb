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
CLUSTER_CHART = REPOSITORY / "charts" / "isthmus-cluster"
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


def render(
    helm: Path, *options: str, namespace: str = "isthmus-system", chart: Path = CHART
) -> Objects:
    done = call(helm, "template", "isthmus", str(chart), f"--namespace={namespace}", *options)
    assert done.returncode == 0, done.stderr
    return by_name(done.stdout)


def refused(helm: Path, *options: str) -> str:
    done = call(helm, "template", "isthmus", str(CHART), *options)
    assert done.returncode != 0, done.stdout
    return done.stderr


def by_name(text: str) -> Objects:
    """By kind and name; what is there once for each namespace, by NAMESPACE/NAME."""
    found = [document for document in yaml.safe_load_all(text) if document]
    places: dict[tuple[str, str], set[str]] = {}
    for one in found:
        place = one["metadata"].get("namespace", "")
        places.setdefault((one["kind"], one["metadata"]["name"]), set()).add(place)

    def name(one: Json) -> str:
        several = len(places[one["kind"], one["metadata"]["name"]]) > 1
        prefix = f"{one['metadata']['namespace']}/" if several else ""
        return f"{prefix}{one['metadata']['name']}"

    named = {(one["kind"], name(one)): one for one in found}
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
    for chart, options in ((CHART, GIVEN), (CLUSTER_CHART, ())):
        done = call(helm, "lint", "--strict", str(chart), *options)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("folder", "copies"),
    [
        ("crds", CLUSTER_CHART / "files" / "crds"),
        ("deploy", CLUSTER_CHART / "files"),
        ("deploy", CHART / "files"),
    ],
)
def test_copies_are_those_of_the_repository(folder: str, copies: Path) -> None:
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
    none = render(helm, *GIVEN, "--set", "cluster.crds.install=false")
    assert not [kind for kind, _ in none if kind == "CustomResourceDefinition"]


def test_the_cluster_s_part_alone_is_the_same(helm: Path) -> None:
    """In one release with the operator or in one of an administrator's: it is one thing."""
    whole = render(helm, *GIVEN)
    operators = render(helm, *GIVEN, "--set=cluster.enabled=false")
    alone = render(helm, chart=CLUSTER_CHART)
    assert whole.keys() == operators.keys() | alone.keys()
    assert not operators.keys() & alone.keys()
    for key, one in alone.items():
        assert without_marks(one) == without_marks(whole[key]), key
    less = render(
        helm, "--set=policies.install=false,roles.install=false", chart=CLUSTER_CHART
    ).keys()
    assert {key for key in less if key[0] != "CustomResourceDefinition"} == {
        ("ClusterRole", "isthmus-component"),
        ("ClusterRoleBinding", "isthmus-component"),
    }


def test_h4_only_accounts_of_named_namespaces_may_write_slurm_jobs(helm: Path) -> None:
    def bound(*options: str, **where: Any) -> set[tuple[str, str]]:
        found = render(helm, *options, **where)["ClusterRoleBinding", "isthmus-component"]
        return {(each["namespace"], each["name"]) for each in found["subjects"]}

    names = ("isthmus", "isthmus-tunnels")
    assert bound(*GIVEN, namespace="elsewhere") == {("elsewhere", name) for name in names}
    assert bound("--set=operatorNamespaces={a,b}", chart=CLUSTER_CHART) == {
        (namespace, name) for namespace in "ab" for name in names
    }


def test_everything_follows_the_namespace_of_the_release(helm: Path) -> None:
    objects = render(helm, *GIVEN, namespace="elsewhere")
    assert "isthmus-system" not in yaml.safe_dump_all(
        one for (kind, _), one in objects.items() if kind != "CustomResourceDefinition"
    )
    (subject,) = objects["ClusterRoleBinding", "isthmus"]["subjects"]
    assert subject["namespace"] == "elsewhere"


NAMESPACED = (
    *GIVEN,
    "--set=scope=Namespaced,cluster.enabled=false,networkPolicy.enabled=true",
    "--set=operator.watchNamespaces={isthmus-system,team-a,team-b}",
)


def test_h6_with_namespaces_there_is_no_right_beyond_them(helm: Path) -> None:
    """What is said of Namespaced in the table of the chart's README."""
    objects = render(helm, *NAMESPACED)
    wide = [key for key, one in objects.items() if "namespace" not in one["metadata"]]
    assert wide == []
    whole = render(helm, *GIVEN)
    for component in ("isthmus", "isthmus-tunnels"):
        rules = whole["ClusterRole", component]["rules"]
        for namespace in ("isthmus-system", "team-a", "team-b"):
            key = f"{namespace}/{component}-served"
            assert objects["Role", key]["rules"] == rules
            binding = objects["RoleBinding", key]
            assert binding["roleRef"]["kind"] == "Role"
            assert binding["roleRef"]["name"] == f"{component}-served"
            assert binding["subjects"] == whole["ClusterRoleBinding", component]["subjects"]
    places = {
        one["metadata"]["namespace"]
        for (kind, _), one in objects.items()
        if kind in ("Role", "RoleBinding")
    }
    assert places == {"isthmus-system", "team-a", "team-b"}


def test_h6_namespaces_narrow_the_rights_in_scope_cluster_too(helm: Path) -> None:
    objects = render(helm, *GIVEN, "--set=operator.watchNamespaces={isthmus-system,team-a}")
    wide = {key for key in objects if key[0].startswith("ClusterRole")}
    people = {f"isthmus-{name}" for name in ("view", "edit", "admin", "component")}
    assert wide == {
        *(("ClusterRole", name) for name in people),
        ("ClusterRoleBinding", "isthmus-component"),
    }
    assert {key for key in objects if "served" in key[1]} == {
        (kind, f"{namespace}/{name}-served")
        for kind in ("Role", "RoleBinding")
        for namespace in ("isthmus-system", "team-a")
        for name in ("isthmus", "isthmus-tunnels")
    }


def test_h6_tunnels_read_secrets_where_slurm_clusters_are(helm: Path) -> None:
    def places(*options: str) -> set[str]:
        found = render(helm, *GIVEN, *options)
        for (kind, name), one in found.items():
            reads = any("secrets" in rule["resources"] for rule in one.get("rules") or ())
            assert not reads or "isthmus-tunnels" not in name or "keys" in name, (kind, name)
        return {
            one["metadata"]["namespace"]
            for (kind, name), one in found.items()
            if kind == "Role" and name.endswith("isthmus-tunnels-keys")
        }

    assert places() == {"isthmus-system"}
    more = "--set=tunnels.slurmClusterNamespaces={hpc,isthmus-system}"
    assert places(more) == {"isthmus-system", "hpc"}


def test_the_lease_s_name_is_the_one_it_may_write(helm: Path) -> None:
    objects = render(helm, *GIVEN, "--set=operator.settings.lease_name=other")
    named = [rule["resourceNames"] for rule in objects["Role", "isthmus-lease"]["rules"][:1]]
    assert named == [["other"]]


def test_m9_network_policies_are_there_when_asked_for(helm: Path) -> None:
    assert not [kind for kind, _ in render(helm, *GIVEN) if kind == "NetworkPolicy"]
    on = (
        *NAMESPACED,
        "--set=tunnels.bastion.enabled=true,operator.settings.tunnel_port_last=20100",
    )
    objects = {name: one for (kind, name), one in render(helm, *on).items() if "Network" in kind}
    fronts = {f"{namespace}/isthmus-fronts" for namespace in ("isthmus-system", "team-a", "team-b")}
    assert objects.keys() == {"isthmus", "isthmus-tunnels", *fronts}

    def opened(name: str) -> list[tuple[int, bool]]:
        """Ports, and whether only some may come in."""
        rules = objects[name]["spec"].get("ingress", [])
        return [(port["port"], bool(rule.get("from"))) for rule in rules for port in rule["ports"]]

    assert objects["isthmus"]["spec"]["policyTypes"] == ["Ingress"]
    assert opened("isthmus") == []
    assert opened("isthmus-tunnels") == [(20000, True), (2222, False)]
    assert objects["isthmus-tunnels"]["spec"]["ingress"][0]["ports"][0]["endPort"] == 20100
    assert opened("team-a/isthmus-fronts") == [(8080, True)]
    on = (*on, '--set-json=networkPolicy.statusFrom=[{"podSelector":{}}]')
    objects = {name: one for (kind, name), one in render(helm, *on).items() if "Network" in kind}
    assert opened("isthmus") == [(8081, True), (8082, True)]
    assert (8082, True) in opened("isthmus-tunnels")
    assert opened("team-a/isthmus-fronts") == [(8080, True), (8081, True)]


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
        "--set=operator.settings.tunnel_port_first=21000",
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
    assert (read.port_first, read.port_last) == (21000, 24999), "the operator's"
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


def test_m7_an_image_may_be_named_by_its_digest(helm: Path) -> None:
    digest = f"sha256:{'0123456789abcdef' * 4}"
    given = (f"--set={one}.image.digest={digest}" for one in ("operator", "front", "tunnels"))
    objects = render(helm, *GIVEN, *given)
    operator = objects["Deployment", "isthmus"]
    assert container(operator)["image"] == f"localhost/isthmus:dev@{digest}"
    front = environment(operator)["ISTHMUS_FRONT_IMAGE"]
    assert front == f"localhost/isthmus-front:dev@{digest}"
    assert container(objects["Deployment", "isthmus-tunnels"])["image"].endswith(digest)


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
        ((*GIVEN, "--set=front.image.digest=latest"), "digest"),
        ((*GIVEN, "--set=operator.replica=2"), "replica"),
        ((*GIVEN, "--set=operator.settings.Relist=5m"), "Relist"),
        ((*GIVEN, "--set=operator.watchNamespaces={Team_A}"), "watchNamespaces"),
        ((*GIVEN, "--set=scope=Namespaced"), "scope Namespaced needs operator.watchNamespaces"),
        (
            (*GIVEN, "--set=scope=Namespaced,operator.watchNamespaces={a}"),
            "an administrator installs the chart isthmus-cluster once",
        ),
        ((*GIVEN, "--set=cluster.crd.install=false"), "crd"),
    ],
)
def test_wrong_values_are_refused(helm: Path, options: tuple[str, ...], words: str) -> None:
    assert words in refused(helm, *options)
