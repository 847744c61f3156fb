"""What each account may do, asked of a real API server with the manifests of deploy/ applied.

Rights against the tables of docs/security.md, and what rights cannot say against the policies: as
somebody with a stolen token of a component, as a tenant, and as the components themselves.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from isthmus.api.defaults import effective
from isthmus.api.desired import Desired
from isthmus.api.modeldeployment import ModelDeployment
from isthmus.apiserver.client import KubernetesApiServer
from isthmus.apiserver.connection import Connection
from isthmus.apiserver.objects import name as name_of
from isthmus.apiserver.objects import uid
from isthmus.apiserver.resources import ENDPOINT_SLICES
from isthmus.backends.kubernetes import front, render
from isthmus.routing.tunnel_slice import TunnelSlice
from isthmus.routing.tunnel_slices import Published, tunnel_slice
from isthmus.tunnels.heartbeat import Heartbeat
from playground import build, kubernetes_files, manifests
from playground.config import default_cache
from playground.operator_process import NAMESPACE, install_manifests
from playground.progress import Progress
from tests.bareapi import bare_api
from tests.contract.test_chart import CHART, CLUSTER_CHART, GIVEN, REPOSITORY, call
from tests.real.api import Api, Json, Refused

DOCUMENT = REPOSITORY / "docs" / "security.md"
SERVED, RELEASE = "rights-a", "rights-release"
OPERATOR, TUNNELS = "isthmus", "isthmus-tunnels"
OURS = {"app.kubernetes.io/managed-by": "isthmus", "isthmus.dev/modeldeployment": "llama"}
PATIENCE = 30.0

Rights = frozenset[tuple[str, str]]
"""(resource as kubectl prints it, with the one name it is for; verb)."""


def account(name: str, namespace: str = NAMESPACE) -> str:
    return f"system:serviceaccount:{namespace}:{name}"


@cache
def caller(user: str = "") -> Api:
    return Api(bare_api().kubernetes.kubeconfig, user=user)


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    install_manifests(bare_api())
    for namespace in (SERVED, RELEASE):
        path = f"/api/v1/namespaces/{namespace}"
        caller().apply(path, named("v1", "Namespace", namespace, namespace=""))
        caller().apply(
            f"{path}/serviceaccounts/default", named("v1", "ServiceAccount", "default", namespace)
        )


def named(version: str, kind: str, name: str, namespace: str = SERVED, **fields: Any) -> Json:
    labels = fields.pop("labels", {})
    metadata = {"name": name, "labels": labels, **fields.pop("metadata", {})}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}


# ---- rights, as the API server lists them


def rights(user: str, namespace: str) -> Rights:
    """What an account may do in a namespace, but for what everybody may."""
    return _listed(user, namespace) - _listed(account("nobody", "nowhere"), namespace)


def _listed(user: str, namespace: str) -> Rights:
    review = {"spec": {"namespace": namespace}}
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    status = caller(user).request("POST", path, review)["status"]
    assert not status["incomplete"]
    return of_rules(status["resourceRules"])


def of_rules(rules: list[Json]) -> Rights:
    return frozenset(
        (f"{_plural(resource, group)}{f' {name}' if name else ''}", verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames") or [""]
        for verb in rule["verbs"]
    )


def _plural(resource: str, group: str) -> str:
    kind, _, part = resource.partition("/")
    return f"{kind}{'.' if group else ''}{group}{'/' if part else ''}{part}"


@cache
def tables() -> Mapping[str, list[list[str]]]:
    """Rows of docs/security.md by the heading that they stand below."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line.strip("# ").partition(":")[0]
        elif line.startswith("| `"):
            found.setdefault(heading, []).append([cell.strip() for cell in line.split("|")[1:-1]])
    return found


def documented(heading: str, *places: str) -> Rights:
    """Rights of a component in these kinds of places."""
    rows = [(cells[0], cells[1], cells[2]) for cells in tables()[heading]]
    return frozenset(
        (resource.strip("`"), verb)
        for resource, verbs, where in rows
        if where in places
        for verb in verbs.split(", ")
    )


@pytest.mark.parametrize(
    ("name", "beside"),
    [(OPERATOR, ("release",)), (TUNNELS, ("release", "SlurmClusters"))],
)
def test_h6_a_component_has_the_rights_of_the_table(name: str, beside: tuple[str, ...]) -> None:
    assert rights(account(name), SERVED) == documented(name, "served", "cluster")
    everywhere = ("served", "cluster", *beside)
    assert rights(account(name), NAMESPACE) == documented(name, *everywhere)


def test_a_front_has_the_rights_of_the_table() -> None:
    _, role, _ = front.rights(desired=desired("NAME"))
    rules: Any = role["rules"]
    assert of_rules(rules) == documented("NAME-front", "its own")


@pytest.mark.parametrize("role", ["isthmus-view", "isthmus-edit", "isthmus-admin"])
def test_h4_people_have_the_rights_of_the_table(role: str) -> None:
    wanted = set()
    for name, resources, verbs in tables()["People"]:
        if name.strip("`") == role:
            first, *parts = re.findall(r"`([^`]+)`", resources)
            for resource in (first, *(f"{first}{part}" for part in parts)):
                wanted |= {(resource, verb) for verb in verbs.split(", ")}
    bind(role, "ClusterRole", user=f"person-{role}", namespace=SERVED)
    assert rights(f"person-{role}", SERVED) == wanted
    assert rights(f"person-{role}", RELEASE) == frozenset()


def test_h4_roles_of_kubernetes_take_in_those_for_people() -> None:
    """view, edit and admin select by label; writing SlurmClusters is in none of them."""
    path = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    for ours, theirs in (("isthmus-view", "view"), ("isthmus-edit", "edit"), ("isthmus-admin", "")):
        labels = caller().get(f"{path}/{ours}")["metadata"].get("labels") or {}
        prefix = "rbac.authorization.k8s.io/aggregate-to-"
        found = [label.removeprefix(prefix) for label in labels if label.startswith(prefix)]
        assert found == ([theirs] if theirs else [])
        if theirs:
            selectors = caller().get(f"{path}/{theirs}")["aggregationRule"]["clusterRoleSelectors"]
            assert {"matchLabels": {f"{prefix}{theirs}": "true"}} in selectors


def bind(role: str, kind: str, *, user: str, namespace: str) -> None:
    group = "rbac.authorization.k8s.io"
    binding = named(
        f"{group}/v1",
        "RoleBinding",
        f"{role}-{user.replace(':', '-')}",
        namespace,
        roleRef={"apiGroup": group, "kind": kind, "name": role},
        subjects=[{"apiGroup": group, "kind": "User", "name": user}],
    )
    place = f"/apis/{group}/v1/namespaces/{namespace}/rolebindings"
    caller().apply(f"{place}/{binding['metadata']['name']}", binding)


# ---- what rights cannot say


def path_of(kind: str, name: str = "", namespace: str = SERVED) -> str:
    groups = {
        "services": "/api/v1",
        "secrets": "/api/v1",
        "pods": "/api/v1",
        "serviceaccounts": "/api/v1",
        "poddisruptionbudgets": "/apis/policy/v1",
        "controllerrevisions": "/apis/apps/v1",
        "deployments": "/apis/apps/v1",
        "rolebindings": "/apis/rbac.authorization.k8s.io/v1",
        "roles": "/apis/rbac.authorization.k8s.io/v1",
        "endpointslices": "/apis/discovery.k8s.io/v1",
        "leases": "/apis/coordination.k8s.io/v1",
        "slurmjobs": "/apis/isthmus.dev/v1alpha1",
    }
    return f"{groups[kind]}/namespaces/{namespace}/{kind}{f'/{name}' if name else ''}"


def refusal(call: Callable[[], object], *, words: str) -> None:
    """A policy is in force a moment after it is stored: ask until it is."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            call()
            said = "it was done"
        except Refused as error:
            said = str(error)
            if error.status in (403, 422) and words in said:
                return
        assert time.monotonic() < end, said
        time.sleep(0.1)


def create(user: str, kind: str, obj: Json) -> Callable[[], object]:
    place = obj["metadata"].get("namespace", SERVED)
    return partial(
        caller(user).request, "POST", f"{path_of(kind, namespace=place)}?dryRun=All", obj
    )


def change(user: str, kind: str, name: str, patch: Json, part: str = "") -> Callable[[], object]:
    return partial(caller(user).patch, f"{path_of(kind, name)}{part}?dryRun=All", patch)


def remove(user: str, kind: str, name: str, namespace: str = SERVED) -> Callable[[], object]:
    path = path_of(kind, name, namespace)
    return partial(caller(user).request, "DELETE", path, {"dryRun": ["All"]})


def service(name: str, labels: Mapping[str, str]) -> Json:
    return named("v1", "Service", name, labels=dict(labels), spec={"ports": [{"port": 80}]})


def slurm_job(name: str = "llama-hpc-0-abc123", **labels: str) -> Json:
    spec = {
        "clusterRef": {"name": "hpc", "namespace": NAMESPACE},
        "deployment": "llama",
        "pool": "hpc",
        "slot": 0,
        "attempt": "abc123",
        "revision": "0123456789",
        "jobName": "llama-isthmus0-0123456789-0-abc123",
    }
    return named("isthmus.dev/v1alpha1", "SlurmJob", name, labels=labels, spec=spec)


def slice_for(name: str, service: str, *, labels: Mapping[str, str], owner: str = "") -> Json:
    reference = {"apiVersion": "isthmus.dev/v1alpha1", "kind": "SlurmJob", "name": owner}
    return named(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        name,
        labels={"kubernetes.io/service-name": service, **labels},
        metadata={"ownerReferences": [{**reference, "uid": "0"}] if owner else []},
        addressType="IPv4",
        endpoints=[{"addresses": ["10.0.0.1"]}],
        ports=[{"port": 80, "protocol": "TCP"}],
    )


def desired(name: str = "llama") -> Desired:
    spec = {"model": {"source": "hf://org/name", "servedNames": ["llama"]}}
    pools = [{"name": "k8s", "kubernetes": {}}]
    metadata = {"name": name, "namespace": SERVED, "uid": "0", "generation": 1}
    obj = {"metadata": metadata, "spec": {**spec, "replicas": 1, "pools": pools}}
    return effective(ModelDeployment.model_validate(obj))


@pytest.fixture(scope="module")
def foreign() -> None:
    """Objects of somebody else, and a SlurmJob of ours."""
    admin = caller()
    for kind, obj in (
        ("services", service("bank", {})),
        ("secrets", named("v1", "Secret", "bank", data={})),
        ("endpointslices", slice_for("bank-x", "bank", labels={})),
        ("slurmjobs", slurm_job(**OURS)),
    ):
        admin.apply(path_of(kind, obj["metadata"]["name"]), obj)


@pytest.mark.usefixtures("foreign")
@pytest.mark.parametrize("rules", ["*", "slurmjobs"])
def test_h4_nobody_but_isthmus_writes_slurm_jobs(rules: str) -> None:
    """Also not who may do everything in the namespace: `*` holds the verb `manage` there."""
    user, group = f"writer-{len(rules)}", "rbac.authorization.k8s.io/v1"
    resources = ["*"] if rules == "*" else ["slurmjobs", "slurmjobs/status"]
    role = named(
        group,
        "Role",
        user,
        rules=[{"apiGroups": ["*"], "resources": resources, "verbs": ["*"]}],
    )
    caller().apply(path_of("roles", user), role)
    bind(user, "Role", user=user, namespace=SERVED)
    job, words = "llama-hpc-0-abc123", "only Isthmus writes SlurmJobs"
    refusal(create(user, "slurmjobs", slurm_job("pivot")), words=words)
    refusal(change(user, "slurmjobs", job, {"metadata": {"labels": {"a": "b"}}}), words=words)
    status = {"status": {"phase": "Ready", "host": "127.0.0.1", "port": 46080}}
    refusal(change(user, "slurmjobs", job, status, "/status"), words=words)
    remove(user, "slurmjobs", job)()


@pytest.mark.usefixtures("foreign")
def test_h4_operator_controllers_and_administrators_write_slurm_jobs() -> None:
    job = "llama-hpc-0-abc123"
    touched = {"metadata": {"labels": {"a": "b"}}}
    for user in ("", account(OPERATOR)):
        create(user, "slurmjobs", slurm_job("another", **OURS))()
        change(user, "slurmjobs", job, touched)()
        change(user, "slurmjobs", job, {"status": {"phase": "Pending"}}, "/status")()
    change(account("generic-garbage-collector", "kube-system"), "slurmjobs", job, touched)()
    refusal(create(account(TUNNELS), "slurmjobs", slurm_job("another", **OURS)), words="forbidden")


@pytest.mark.usefixtures("foreign")
def test_h6_the_operator_writes_only_what_is_its_own() -> None:
    user, words = account(OPERATOR), "only objects with the label"
    refusal(create(user, "services", service("new", {})), words=words)
    refusal(change(user, "services", "bank", {"spec": {"selector": {"a": "b"}}}), words=words)
    refusal(change(user, "services", "bank", {"metadata": {"labels": OURS}}), words=words)
    refusal(change(user, "secrets", "bank", {"data": {"a": "Yg=="}}), words=words)
    refusal(remove(user, "services", "bank"), words=words)
    refusal(remove(user, "endpointslices", "bank-x"), words=words)
    ours = caller(user).request("POST", path_of("services"), service("mine", OURS))
    lost = {"metadata": {"labels": dict.fromkeys(OURS)}}
    refusal(change(user, "services", ours["metadata"]["name"], lost), words=words)
    caller(user).request("DELETE", path_of("services", "mine"), {})


@pytest.mark.usefixtures("foreign")
def test_h6_the_operator_s_token_becomes_no_other_account() -> None:
    """Each of these made it the administrator of the cluster, where such an account was."""
    user = account(OPERATOR)
    token = named(
        "v1",
        "Secret",
        "token",
        labels=OURS,
        metadata={"annotations": {"kubernetes.io/service-account.name": "default"}},
        type="kubernetes.io/service-account-token",
    )
    refusal(create(user, "secrets", token), words="type Opaque only")
    unlike: list[tuple[Json, str]] = [
        ({"serviceAccountName": "strong"}, "default account"),
        ({"serviceAccountName": "strong-front"}, "default account"),
        ({"hostNetwork": True}, "nothing of their node"),
        ({"hostPID": True}, "nothing of their node"),
        ({"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}, "nothing of their node"),
        (
            {
                "initContainers": [
                    {"name": "a", "image": "b", "securityContext": {"privileged": True}}
                ]
            },
            "no privileges",
        ),
    ]
    for changed, words in unlike:
        obj: Any = render.deployment(
            desired=desired(), pool="k8s", revision="0123456789", template=template(), replicas=1
        )
        pod = obj["spec"]["template"]["spec"]
        pod.update({**changed, "volumes": [*pod["volumes"], *changed.get("volumes", [])]})
        refusal(create(user, "deployments", obj), words=words)
    role: Any
    binding: Any
    _, role, binding = front.rights(desired=desired())
    strong: Any = {**role, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}
    refusal(create(user, "roles", strong), words="attempting to grant RBAC permissions")
    name = binding["metadata"]["name"]
    caller(user).request("POST", path_of("roles"), role)
    create(user, "rolebindings", dict(binding))()
    cluster = {**binding["roleRef"], "kind": "ClusterRole", "name": "isthmus"}
    mine = {"kind": "ServiceAccount", "name": "mine", "namespace": SERVED}
    for altered in ({"roleRef": cluster}, {"subjects": [*binding["subjects"], mine]}):
        refusal(create(user, "rolebindings", {**binding, **altered}), words="same name only")
    caller(user).request("DELETE", path_of("roles", name), {})


def template() -> Json:
    made: Any = render.pod_template(
        desired=desired(),
        pool=desired().pools[0],
        revision="0123456789",
        pre_stop_seconds=1,
        shutdown_seconds=1,
    )
    return dict(made)


@pytest.mark.usefixtures("foreign")
def test_h6_a_supervisor_leads_no_service_elsewhere() -> None:
    user, job = account(TUNNELS), "llama-hpc-0-abc123"
    ours = {**OURS, "endpointslice.kubernetes.io/managed-by": "isthmus.dev"}
    endpoints = {"endpoints": [{"addresses": ["10.9.9.9"]}]}
    words = "only objects with the label"
    refusal(change(user, "endpointslices", "bank-x", endpoints), words="Isthmus writes")
    refusal(remove(user, "endpointslices", "bank-x"), words=words)
    bare = {"isthmus.dev/modeldeployment": "llama"}
    unlabelled = slice_for(f"{job}-y", "llama", labels=bare, owner=job)
    refusal(create(user, "endpointslices", unlabelled), words=words)
    for name, owner, labels in (
        ("bank-y", "", ours),
        ("bank-y", job, ours),
        (f"{job}-y", job, ours),
        ("bank-y", job, {**ours, "isthmus.dev/modeldeployment": "bank"}),
        (f"{job}-y", job, {**ours, "isthmus.dev/modeldeployment": "bank"}),
    ):
        made = slice_for(name, "bank", labels=labels, owner=owner)
        refusal(create(user, "endpointslices", made), words="Isthmus writes EndpointSlices")
    good = slice_for(f"{job}-tunnels", "llama-workers", labels=ours, owner=job)
    create(user, "endpointslices", good)()


def test_h6_a_supervisor_reads_keys_where_slurm_clusters_are_and_writes_its_leases() -> None:
    user = account(TUNNELS)
    lease = partial(named, "coordination.k8s.io/v1", "Lease", namespace=NAMESPACE, spec={})
    caller().apply(path_of("leases", "isthmus", NAMESPACE), lease("isthmus"))
    words = "Leases of tunnel supervisors only"
    refusal(create(user, "leases", lease("foreign")), words=words)
    refusal(remove(user, "leases", "isthmus", NAMESPACE), words=words)
    create(user, "leases", lease("isthmus-tunnels-a", labels=OURS))()
    refusal(
        partial(caller(user).request, "GET", path_of("secrets", "any", "kube-system")),
        words="forbidden",
    )
    assert caller(user).get(path_of("secrets", "any", NAMESPACE)) == {}
    other = partial(caller(account(OPERATOR)).patch, path_of("leases", "foreign", NAMESPACE), {})
    refusal(other, words="forbidden")


def test_every_kind_that_a_component_writes_is_held_by_the_policy() -> None:
    """A right that is added later is not forgotten there."""
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/isthmus-components"
    constraints = caller().get(path)["spec"]["matchConstraints"]["resourceRules"]
    held = {
        _plural(resource, group)
        for rule in constraints
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    written = {
        resource
        for name in (OPERATOR, TUNNELS)
        for resource, verb in rights(account(name), NAMESPACE)
        if verb in ("create", "update", "patch", "delete", "deletecollection")
    }
    others = {name for name in written if ".isthmus.dev" in name or name.startswith("leases.")}
    assert written - others - {"events"} == held


# ---- the chart for a few namespaces


@pytest.fixture(scope="module")
def namespaced() -> None:
    """What the two charts make of a release for two namespaces."""
    helm = build.ensure_helm(default_cache(), Progress(silent=True))
    where = f"--namespace={RELEASE}"
    options = ["--set=scope=Namespaced,cluster.enabled=false", *GIVEN]
    options.append(f"--set=operator.watchNamespaces={{{SERVED},{RELEASE}}}")
    text = call(helm, "template", "isthmus", str(CHART), where, *options).stdout
    objects = [one for one in yaml.safe_load_all(text) if one and one["kind"] != "Deployment"]
    given = f"--set=operatorNamespaces={{{NAMESPACE},{RELEASE}}}"
    text = call(helm, "template", "cluster", str(CLUSTER_CHART), given).stdout
    objects += [
        one for one in yaml.safe_load_all(text) if one and one["kind"] == "ClusterRoleBinding"
    ]
    apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"]
    bare_api().kubectl(*apply, stdin=yaml.safe_dump_all(objects))


@pytest.mark.usefixtures("namespaced")
def test_h6_namespaced_has_no_right_elsewhere() -> None:
    for name in (OPERATOR, TUNNELS):
        user = account(name, RELEASE)
        assert rights(user, SERVED) == documented(name, "served", "cluster")
        own = documented(name, "served", "cluster", "release", "SlurmClusters")
        assert rights(user, RELEASE) == own
        assert rights(user, "kube-system") == documented(name, "cluster")
    user, words = account(OPERATOR, RELEASE), "only objects with the label"
    refusal(create(user, "services", service("new", {})), words=words)


# ---- the code itself under all of it


def kubeconfig(name: str, folder: Path) -> Path:
    """With a token of an account of the release, as its pod has one."""
    kubernetes = bare_api().kubernetes
    token = bare_api().kubectl("create", "token", name, f"--namespace={RELEASE}").strip()
    path = folder / f"{name}.kubeconfig"
    text = kubernetes_files.kubeconfig(
        server=kubernetes.server, authority=kubernetes.authority, token=token, user=name
    )
    path.write_text(text, encoding="utf-8")
    return path


MADE = {
    "services": 2,
    "secrets": 2,
    "serviceaccounts": 1,
    "roles": 1,
    "rolebindings": 1,
    "poddisruptionbudgets": 1,
    "deployments": 2,
    "controllerrevisions": 1,
}
"""How many objects of each kind the deployment of the next test is made into."""


def missing(name: str) -> Mapping[str, int]:
    """Of which kinds there are how many, where that is not as it should be."""
    selector = f"isthmus.dev/modeldeployment={name}"
    found = {
        kind: len(caller().get(f"{path_of(kind)}?labelSelector={selector}")["items"])
        for kind in MADE
    }
    return {kind: count for kind, count in found.items() if count != MADE[kind]}


def eventually(left: Callable[[], object], log: Path) -> None:
    """Wait until nothing is left."""
    end = time.monotonic() + 2 * PATIENCE
    while found := left():
        assert time.monotonic() < end, f"{found}\n{log.read_text()[-3000:]}"
        time.sleep(0.1)


@pytest.mark.usefixtures("namespaced")
def test_the_operator_does_all_of_its_work_with_these_rights(tmp_path: Path) -> None:
    """A front, keys, workers, and the end of all: nothing of it is forbidden.

    The real layer runs with the same rights, SLURM and the playground's nodes included.
    """
    for command in ("squeue", "sinfo", "scontrol", "sbatch", "scancel"):
        (tmp_path / command).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / command).chmod(0o755)
    cluster: Any = manifests.slurm_cluster(tmp_path, bin_folder=tmp_path)
    cluster["spec"]["access"] = {"allowedNamespaces": {"names": [SERVED]}}
    place = f"/apis/isthmus.dev/v1alpha1/namespaces/{RELEASE}/slurmclusters/hpc"
    caller().apply(place, {**cluster, "metadata": {"name": "hpc", "namespace": RELEASE}})
    settings = {
        "namespace": RELEASE,
        "watch-namespaces": f"{SERVED},{RELEASE}",
        "liveness-port": "0",
        "front-image": "localhost/front:1",
        "installation-id": "rights00",
    }
    words = [word for name, text in settings.items() for word in ("--set", f"{name}={text}")]
    config = ["--kubeconfig", str(kubeconfig(OPERATOR, tmp_path))]
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "isthmus", "run", *config, *words],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY / "operator")},
            cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    pools = [
        {"name": "k8s", "kubernetes": {}, "maxReplicas": 1, "engine": {"image": "localhost/v:1"}},
        {"name": "hpc", "slurm": {"clusterRef": {"name": "hpc", "namespace": RELEASE}}},
    ]
    model = {"source": "hf://org/name", "servedNames": ["served"]}
    wanted = named(
        "isthmus.dev/v1alpha1",
        "ModelDeployment",
        "served",
        spec={"model": model, "replicas": 1, "pools": pools, "endpoint": {"type": "Managed"}},
    )
    path = f"/apis/isthmus.dev/v1alpha1/namespaces/{SERVED}/modeldeployments/served"
    try:
        caller().apply(path, wanted)
        eventually(lambda: missing("served"), log)
        caller().delete(path)
        eventually(lambda: caller().get(path), log)
    finally:
        process.terminate()
        process.wait(timeout=30)
    said = log.read_text()
    assert "orbidden" not in said
    assert "Traceback" not in said


@pytest.mark.usefixtures("namespaced")
async def test_the_supervisor_does_all_of_its_work_with_these_rights(tmp_path: Path) -> None:
    connection = Connection(kubeconfig=str(kubeconfig(TUNNELS, tmp_path)))
    api = await KubernetesApiServer.connect(connection, timeout=10)
    try:
        tunnel = TunnelSlice(host="b", address="10.0.0.9", port=20000, ready=True, up=True)
        published = Published(
            namespace=SERVED,
            slurm_job="served-hpc-0-abc123",
            uid="0",
            deployment="served",
            service="served-workers",
            tunnel=tunnel,
        )
        await api.apply(ENDPOINT_SLICES, tunnel_slice(published))
        down = replace(published, tunnel=replace(tunnel, ready=False))
        stored = await api.apply(ENDPOINT_SLICES, tunnel_slice(down))
        where = {"namespace": SERVED, "name": name_of(stored), "uid": uid(stored)}
        await api.delete(ENDPOINT_SLICES, **where)
        for host in ("b", "a"):
            beats = Heartbeat(
                api=api, namespace=RELEASE, host=host, duration=15, clock=time.monotonic
            )
            await beats.beat()
        await beats.bury("b")
        await beats.beat()
        assert beats.known() == {"a"}
    finally:
        await api.close()
