"""The front of a deployment: an Envoy per pod, with a sidecar that follows the EndpointSlices.

Apart from render.py, which is about workers. Configuration is not in these objects: the sidecar
writes it, so it belongs to the image. All of it is pure.
"""

import hashlib
import json
from decimal import Decimal

from isthmus.api import names
from isthmus.api.desired import Desired
from isthmus.api.front_pods import NO_MORE, FrontPods
from isthmus.api.quantities import parse_quantity
from isthmus.backends.kubernetes import front_version
from isthmus.backends.kubernetes.render import (
    PORT_NAME,
    Json,
    front_labels,
    object_metadata,
    service_ports,
    workers_selector,
)
from isthmus.front.policy import ENVIRONMENT, MEMORY_ENVIRONMENT, Policy, policy_text

ANNOTATION_FRONT: str = f"{names.GROUP}/front"
"""On the front's Deployment: hash of what it was made from; another one means: apply it again."""

REPLICAS = 2
PORT = 8080
HEALTH_PORT = 8081
FOLDER = "/run/isthmus-front"
USER_ID = 65532


ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where programs look for the token of their pod; of a front's containers only one has it."""
TOKEN_SECONDS = 3607
"""How long a token of the sidecar is good for: the kubelet's own, which makes a new one in time."""


MEMORY_LIMIT = "1Gi"
"""Of Envoy's container, which bounds itself a little below."""

_SMALL: Json = {"requests": {"cpu": "10m", "memory": "64Mi"}}


def policy(desired: Desired) -> Policy:
    """What the front of a deployment lets through."""
    return Policy(
        engines=tuple(map(str, desired.engines)),
        administration=desired.endpoint.administration,
        extra_paths=desired.endpoint.extra_paths,
    )


def front_revision(
    *, image: str, drain_seconds: int, pods: FrontPods = NO_MORE, desired: Desired | None = None
) -> str:
    """Hash of what a front is made from, not of what it renders to.

    So a newer operator that renders a front in another way leaves running fronts alone until the
    image changes.

    Args:
        image: see `front_deployment`.
        drain_seconds: see `front_deployment`.
        pods: see `front_deployment`.
        desired: None for the hash of a front that is told of no policy, as older operators made.
    """
    given = pods.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    told = [] if desired is None else [policy_text(policy(desired)), desired.endpoint.client_keys]
    parts = [image, drain_seconds, *([given] if given else []), *told]
    made_from = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(made_from.encode()).hexdigest()[:10]


def accepted_revisions(
    *, image: str, drain_seconds: int, pods: FrontPods, desired: Desired
) -> frozenset[str]:
    """The hashes of fronts that do what is wanted.

    Where the deployment asks for nothing of its front, one that an older operator made does too: a
    newer operator alone replaces no front.
    """
    wanted = front_revision(image=image, drain_seconds=drain_seconds, pods=pods, desired=desired)
    endpoint = desired.endpoint
    if endpoint.administration or endpoint.extra_paths or endpoint.client_keys:
        return frozenset({wanted})
    older = front_revision(image=image, drain_seconds=drain_seconds, pods=pods)
    return frozenset({wanted, older})


def workers_service(*, desired: Desired) -> Json:
    """The headless Service of the workers: its EndpointSlices are the membership."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": object_metadata(desired=desired, name=desired.membership_service, labels={}),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "selector": workers_selector(desired),
            "ports": service_ports(),
        },
    }


def rights(*, desired: Desired) -> tuple[Json, Json, Json]:
    """ServiceAccount, Role and RoleBinding: read EndpointSlices and, by name, Secrets of keys."""
    name = names.front_name(desired.name)
    secrets = [names.worker_keys_secret(desired.name)]
    if desired.endpoint.client_keys is not None:
        secrets.append(desired.endpoint.client_keys)
    metadata = _metadata(desired)
    return (
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": metadata,
            "rules": [
                {
                    "apiGroups": ["discovery.k8s.io"],
                    "resources": ["endpointslices"],
                    "verbs": ["list", "watch"],
                },
                {
                    "apiGroups": [""],
                    "resources": ["secrets"],
                    "resourceNames": secrets,
                    "verbs": ["get"],
                },
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Role",
                "name": name,
            },
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": desired.namespace}],
        },
    )


def disruption_budget(*, desired: Desired) -> Json:
    """One front pod may be evicted at a time, and one that is not ready always."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(desired),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": front_labels(desired)},
        },
    }


def front_deployment(
    *, desired: Desired, image: str, drain_seconds: int, pods: FrontPods = NO_MORE
) -> Json:
    """The Deployment of the front, replaced pod by pod, each new one first.

    Args:
        desired: the deployment.
        image: Envoy and this package.
        drain_seconds: how long a pod that is deleted waits for its requests.
        pods: what the administrator adds.
    """
    metadata = _metadata(desired)
    revision = front_revision(image=image, drain_seconds=drain_seconds, pods=pods, desired=desired)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {**metadata, "annotations": {ANNOTATION_FRONT: revision}},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": front_labels(desired)},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "revisionHistoryLimit": 2,
            "template": {
                # By the second label the operator sees its pods, and why they do not start.
                "metadata": {
                    "labels": {
                        **front_labels(desired),
                        names.LABEL_MANAGED_BY: names.MANAGED_BY,
                    }
                },
                "spec": _pod(desired, image=image, drain_seconds=drain_seconds, pods=pods),
            },
        },
    }


def _metadata(desired: Desired) -> Json:
    return object_metadata(
        desired=desired,
        name=names.front_name(desired.name),
        labels={names.LABEL_COMPONENT: names.COMPONENT_FRONT},
    )


def _pod(desired: Desired, *, image: str, drain_seconds: int, pods: FrontPods) -> Json:
    spread = {
        "labelSelector": {"matchLabels": front_labels(desired)},
        "topologyKey": "kubernetes.io/hostname",
    }
    preferred = {"weight": 100, "podAffinityTerm": spread}
    return {
        **pods.pod_fields(),
        "serviceAccountName": names.front_name(desired.name),
        # The token reads workers' keys: Envoy, which reads what strangers send, has none.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": drain_seconds + 15,
        "affinity": {
            "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preferred]}
        },
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        # A sidecar: it has written a membership before Envoy starts, and ends after it.
        "initContainers": [_sidecar(desired, image), _contract(image)],
        "containers": [_envoy(image, drain_seconds, pods)],
        "volumes": [
            {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
            _account_volume(),
        ],
    }


def _account_volume() -> Json:
    """What a pod's token folder holds, with a token that ends by itself."""
    namespace = {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
    certificate = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
        {"configMap": certificate},
        {"downwardAPI": {"items": [namespace]}},
    ]
    return {"name": "account", "projected": {"sources": sources}}


def _container(name: str, image: str) -> Json:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "volumeMounts": [{"name": "run", "mountPath": FOLDER}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _sidecar(desired: Desired, image: str) -> Json:
    service = f"--service={desired.namespace}/{desired.membership_service}"
    guard = desired.endpoint.client_keys
    memory = {"resource": "limits.memory", "containerName": "envoy"}
    return _container("membership", image) | {
        "restartPolicy": "Always",
        "command": [
            "python3",
            "-m",
            "isthmus.front",
            service,
            f"--keys-secret={names.worker_keys_secret(desired.name)}",
            f"--directory={FOLDER}",
            # An argument: an older front must fail, and not answer everybody.
            *([] if guard is None else [f"--client-keys-secret={guard}"]),
        ],
        "env": [
            {"name": ENVIRONMENT, "value": policy_text(policy(desired))},
            {"name": MEMORY_ENVIRONMENT, "valueFrom": {"resourceFieldRef": memory}},
        ],
        "startupProbe": {
            "exec": {"command": ["test", "-f", f"{FOLDER}/eds.json"]},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 300,
        },
        "volumeMounts": [
            {"name": "run", "mountPath": FOLDER},
            {"name": "account", "mountPath": ACCOUNT_FOLDER, "readOnly": True},
        ],
        "resources": _SMALL,
    }


def _contract(image: str) -> Json:
    """Says what the image understands, and ends."""
    made = _container(front_version.CONTAINER, image)
    return made | {"command": front_version.command(), "volumeMounts": [], "resources": _SMALL}


def _envoy(image: str, drain_seconds: int, pods: FrontPods) -> Json:
    probe = {"httpGet": {"path": "/ready", "port": HEALTH_PORT}}
    return _container("envoy", image) | {
        "command": [
            "envoy",
            "--config-path",
            f"{FOLDER}/bootstrap.json",
            "--use-dynamic-base-id",
            "--log-level",
            "warning",
            "--concurrency",
            "2",
            # While it drains, every answer closes its connection, so clients go elsewhere.
            "--drain-strategy",
            "immediate",
            "--drain-time-s",
            str(drain_seconds),
        ],
        "ports": [{"name": PORT_NAME, "containerPort": PORT}],
        "readinessProbe": probe
        | {"periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2, "successThreshold": 1},
        # /live stays good while it drains.
        "livenessProbe": {
            "httpGet": {"path": "/live", "port": HEALTH_PORT},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "lifecycle": {
            "preStop": {
                "exec": {
                    "command": [
                        "python3",
                        "-m",
                        "isthmus.front.drain",
                        str(drain_seconds),
                    ]
                }
            }
        },
        "resources": _resources(pods),
    }


def _resources(pods: FrontPods) -> Json:
    """What is not given has our values; a limit of memory is there always, not below a request."""
    given = pods.quantities()
    requests = given.get("requests", {"cpu": "100m", "memory": "128Mi"})
    memory = max(requests.get("memory", "0"), MEMORY_LIMIT, key=_bytes)
    return {"requests": requests, "limits": {"memory": memory, **given.get("limits", {})}}


def _bytes(quantity: str) -> Decimal:
    try:
        return parse_quantity(quantity)
    except ValueError:  # digits beyond reason: the API server judges them
        return Decimal("Infinity")
