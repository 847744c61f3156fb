"""Every property counts: each field that somebody may write changes something that can be seen.

A field that is read by nobody, or dropped on its way to a pod or a script, is a promise that is
not kept, and nobody notices it: the object is accepted. So a new field without an effect fails
here, until it has one or stands in `INERT` with its reason.
"""

from __future__ import annotations

import copy
from itertools import islice
from random import Random
from typing import Any

import pytest

from isthmus.api.desired import ClusterReference
from tests import observable
from tests.drawn_specs import VALUE, Json, Path, changes, leaves, problems, schema
from tests.observable import SYSTEM, View

_HEADER = "spec.health.headers.[].valueFrom.secretKeyRef"
_NOT_OF_PODS = "a pod's probes stand in its template, where a secret must not be"
INERT: dict[tuple[str, str], str] = {
    ("pods", f"{_HEADER}.name"): _NOT_OF_PODS,
    ("pods", f"{_HEADER}.key"): _NOT_OF_PODS,
    ("pods", f"{_HEADER}.optional"): _NOT_OF_PODS,
    ("cluster", "spec.login.local"): "holds nothing; login.ssh, which has to be gone for it, shows",
}
"""Where (the first base of a group, or "cluster") and field, to why a change is seen nowhere."""

TRIES, LIVES = 12, 2
_OURS = {"apiVersion": "isthmus.dev/v1alpha1"}


def _deployment(pools: list[Json], **spec: object) -> Json:
    return {
        **_OURS,
        "kind": "ModelDeployment",
        "metadata": {"namespace": "team-a", "name": "llama", "uid": "u-llama", "generation": 1},
        "spec": {
            "model": {"source": "hf://org/llama", "revision": "main", "servedNames": ["llama"]},
            "replicas": 2,
            "pools": pools,
            "health": {
                "startupTimeout": "3m",
                "interval": "10s",
                "headers": [
                    {"name": "X-Plain", "value": "plain"},
                    {"name": "X-Hidden", "valueFrom": {"secretKeyRef": _key("probe")}},
                ],
            },
            "drain": {"timeout": "1m"},
            "endpoint": {"type": "Service"},
            **spec,
        },
    }


def _key(name: str) -> Json:
    return {"name": name, "key": "token"}


def _cluster(**spec: object) -> Json:
    return {
        **_OURS,
        "kind": "SlurmCluster",
        "metadata": {"namespace": SYSTEM, "name": "hpc", "uid": "u-hpc", "resourceVersion": "1"},
        "spec": {
            "login": {"local": {}},
            "files": {"workDirectory": "/scratch/isthmus"},
            "network": {"ports": {"from": 41000, "to": 41999}},
            "site": {"gpuTypes": {"h100": "nvidia_h100"}, "modules": ["cuda/12.8"]},
            "models": {"hf://org/llama": "/models/llama"},
            "access": {"allowedNamespaces": {"names": ["team-a"]}},
            **spec,
        },
    }


_POD_POOL: Json = {
    "name": "k8s",
    "worker": {"gpusPerNode": 2},
    "engine": {
        "env": [
            {"name": "PLAIN", "value": "plain"},
            {"name": "HIDDEN", "valueFrom": {"secretKeyRef": _key("hidden")}},
            {"name": "MAPPED", "valueFrom": {"configMapKeyRef": _key("mapped")}},
        ],
    },
    "kubernetes": {
        "tolerations": [
            {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoExecute"},
        ],
    },
}
_SPARE: Json = {"name": "spare", "priority": 5, "kubernetes": {}}
_JOB_POOL: Json = {
    "name": "hpc",
    "worker": {"gpusPerNode": 2, "gpuType": "h100", "memory": "8Gi"},
    "engine": {"env": [{"name": "PLAIN", "value": "plain"}]},
    "slurm": {"clusterRef": {"name": "hpc"}},
}
_ROUTER: Json = {
    "kind": "smg",
    "url": "https://router.team-a:30000",
    "authSecretRef": {"name": "router"},
    "caSecretRef": {"name": "router"},
}
_SSH: Json = {
    "hosts": ["login1"],
    "user": "svc",
    "keySecretRef": {"name": "hpc-ssh"},
    "knownHostsRef": {"name": "hpc-ssh"},
}
_BASTION: Json = {
    "host": "tunnels.example.org",
    "hostKey": "ssh-ed25519 AAAA",
    "hostKeySecretRef": {"name": "bastion"},
}

_ABSENT: Json = {"name": "X-Absent", "valueFrom": {"secretKeyRef": _key(observable.ABSENT)}}

_PODS = _deployment([_POD_POOL, _SPARE])
_JOBS = _deployment([_JOB_POOL])
DEPLOYMENTS: dict[str, tuple[Json, Json]] = {
    "pods": (_PODS, _cluster()),
    "jobs": (_JOBS, _cluster()),
    "front": (_deployment([_POD_POOL, _SPARE], endpoint={}), _cluster()),
    "router": (
        _deployment(
            [_JOB_POOL],
            endpoint={
                "type": "External",
                "external": _ROUTER,
                "apiKeySecretRef": {"name": "engines"},
            },
        ),
        _cluster(),
    ),
    "open router": (
        _deployment(
            [_JOB_POOL],
            endpoint={"type": "External", "external": {"kind": "smg", "url": "http://router"}},
        ),
        _cluster(),
    ),
    "absent": (_deployment([_JOB_POOL], health={"headers": [_ABSENT]}), _cluster()),
}
CLUSTERS: dict[str, tuple[Json, Json]] = {
    "direct": (_JOBS, _cluster()),
    "ssh": (_JOBS, _cluster(login={"ssh": _SSH})),
    "reverse": (
        _JOBS,
        _cluster(login={"ssh": _SSH}, network={"mode": "Reverse", "bastion": _BASTION}),
    ),
}
PURE: dict[str, tuple[View, ...]] = {
    "ModelDeployment": (
        observable.counts,
        observable.pods,
        observable.jobs,
        observable.endpoint,
    ),
    "SlurmCluster": (observable.jobs, observable.commands, observable.tunnels),
    "SlurmJob": (observable.attempt,),
}
"""Views of each kind from the cheapest to the dearest; after them a life is looked at."""

ATTEMPT: tuple[Json, Json] = (
    observable.slurm_job("llama", "hpc", ClusterReference(namespace=SYSTEM, name="hpc")),
    _cluster(),
)

_OF_ALL_POOLS = ("priority", "minReplicas", "maxReplicas", "replicas")
_HASHED = ("spec.model", "spec.pools")
"""Parts of a revision: a change of them is a rollout, whatever it does, so a life is no witness."""


def _text(path: Path) -> str:
    return ".".join(path)


def _fields(kind: str) -> list[tuple[Path, Json]]:
    return list(leaves(schema(kind)["properties"]["spec"], ("spec",)))


class _Seen:
    """What each view shows of a base, made once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, View], str] = {}

    def of(self, base: str, view: View, pair: tuple[Json, Json]) -> str:
        if (base, view) not in self._known:
            self._known[base, view] = shown(view, pair)
        return self._known[base, view]


SEEN = _Seen()


def shown(view: View, pair: tuple[Json, Json]) -> str:
    deployment, cluster = copy.deepcopy(pair)
    return repr(view(deployment, cluster))


def effect(base: str, pair: tuple[Json, Json], path: Path, node: Json) -> str | None:
    """The view that shows a change of the field, "" if none does; None where it cannot stand."""
    kind, inner, random = path[0], path[1:], Random(_text(path))
    which = 0 if pair[0]["kind"] == kind else 1
    tried: list[tuple[Json, Json]] = []
    for one in islice(changes(pair[which], inner, node, random), TRIES):
        tried.append((one, pair[1]) if which == 0 else (pair[0], one))
        for view in PURE[kind]:
            if shown(view, tried[-1]) != SEEN.of(base, view, pair):
                return view.__name__
    if kind != "SlurmJob" and not _text(inner).startswith(_HASHED):
        for new in tried[-LIVES:]:
            if shown(observable.life, new) != SEEN.of(base, observable.life, pair):
                return "life"
    return "" if tried else None


def _witnesses(path: Path) -> tuple[tuple[str, ...], ...]:
    """In which bases a change has to show: in one of each group, if the field can stand there."""
    if path[:2] == ("spec", "endpoint"):
        return (("front", "jobs", "router", "open router"),)
    if path[-1] in _OF_ALL_POOLS:
        return (("pods", "jobs"),)
    if "kubernetes" in path or "configMapKeyRef" in path:
        return (("pods",),)
    if "slurm" in path:
        return (("jobs",),)
    return (("pods",), ("jobs", "absent"))


def _shows(bases: dict[str, tuple[Json, Json]], group: tuple[str, ...], *field: Any) -> str | None:
    """The first view that shows it in one of these bases, as `effect`."""
    path, node = field
    found = None
    for base in group:
        view = effect(base, bases[base], path, node)
        if view:
            return view
        found = view if view is not None else found
    return found


@pytest.mark.parametrize("base", [*DEPLOYMENTS, *CLUSTERS])
def test_the_objects_that_are_changed_are_valid(base: str) -> None:
    for obj in (DEPLOYMENTS | CLUSTERS)[base]:
        assert problems(obj) == []


@pytest.mark.parametrize(
    ("path", "node"), _fields("ModelDeployment"), ids=lambda one: _text(one) if one else ""
)
def test_every_field_of_a_deployment_shows_on_each_scheduler(path: Path, node: Json) -> None:
    found: list[str | None] = []
    for group in _witnesses(path):
        view = _shows(DEPLOYMENTS, group, ("ModelDeployment", *path), node)
        inert = INERT.get((group[0], _text(path)))
        assert view != "" or inert, f"{_text(path)} changes nothing in {group}"
        assert not (view and inert), f"{_text(path)} shows in {view}: it is not inert in {group}"
        found.append(view)
    assert any(view is not None for view in found), f"no valid {_text(path)}: see TEXTS"


@pytest.mark.parametrize(
    ("path", "node"), _fields("SlurmCluster"), ids=lambda one: _text(one) if one else ""
)
def test_every_field_of_a_cluster_shows(path: Path, node: Json) -> None:
    view = _shows(CLUSTERS, tuple(CLUSTERS), ("SlurmCluster", *path), node)
    inert = INERT.get(("cluster", _text(path)))
    assert view is not None or inert, f"no valid {_text(path)}: see TEXTS"
    assert bool(view) is not bool(inert), f"{_text(path)} shows in {view!r}, and is inert: {inert}"


@pytest.mark.parametrize(
    ("path", "node"), _fields("SlurmJob"), ids=lambda one: _text(one) if one else ""
)
def test_every_field_of_an_attempt_shows(path: Path, node: Json) -> None:
    assert effect("job", ATTEMPT, ("SlurmJob", *path), node), _text(path)


def test_what_is_inert_is_there() -> None:
    """A field that is gone, or works, takes its line with it."""
    known = {_text(path) for kind in PURE for path, _ in _fields(kind)}
    assert {field for _, field in INERT} <= known


def test_a_field_that_nobody_reads_is_found() -> None:
    """The test of the test: a change that the operator does not see shows in no view."""
    path: Path = ("ModelDeployment", "metadata", "labels", VALUE)
    node = {"type": "string"}
    deployment = {**_JOBS, "metadata": {**_JOBS["metadata"], "labels": {"a": "b"}}}
    assert effect("labelled", (deployment, _cluster()), path, node) == ""
