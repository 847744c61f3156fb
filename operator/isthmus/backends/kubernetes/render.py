"""What a pool on Kubernetes looks like: pod template, Deployment, Service.

The pod template is rendered once per revision and frozen in a ControllerRevision; a Deployment is
made from the frozen template, and only its `replicas` ever changes. Everything here is pure.
"""

from collections.abc import Mapping
from math import ceil

from isthmus.api import names
from isthmus.api.desired import Desired, EnvironmentVariable, Pool
from isthmus.api.ip_family import IpFamily, host_port
from isthmus.api.keys import configuration_entry
from isthmus.apiserver.objects import dig
from isthmus.backends.kubernetes.firstprocess import under_first_process
from isthmus.backends.kubernetes.prestop import pre_stop
from isthmus.backends.kubernetes.security import container_security, pod_security
from isthmus.engines import ENGINES
from isthmus.engines.base import EngineProfile, LaunchRequest
from isthmus.engines.model_argument import model_argument

PORT_NAME = "http"
SERVICE_PORT = 80
CONTAINER_PORT = 8000
STARTUP_PERIOD_SECONDS = 2
HUNG_GRACE_SECONDS = 15
KEY_FOLDER = "/run/isthmus-key"
KEY_FILE = f"{KEY_FOLDER}/engine.yaml"
SHARED_MEMORY_FOLDER = "/dev/shm"

Json = dict[str, object]


def pod_template(
    *,
    desired: Desired,
    pool: Pool,
    revision: str,
    pre_stop_seconds: int,
    shutdown_seconds: int,
    family: IpFamily = IpFamily.IPV4,
) -> Json:
    """The pod template of one revision of one pool.

    A deleted pod leaves the endpoints at once, waits `pre_stop_seconds` so that every node has
    heard of it, then until its engine is idle for at most `drain.timeout`, and only then is the
    engine told to end. That holds for every deletion, also one that nobody planned.

    Args:
        desired: the deployment with derived defaults.
        pool: one of its pools on Kubernetes.
        revision: hash of what the user wrote for this pool.
        pre_stop_seconds: floor for the propagation of the endpoints, 0 for none.
        shutdown_seconds: time for the engine between SIGTERM and SIGKILL.
        family: of pods' addresses.
    """
    placement = pool.kubernetes
    if placement is None:
        raise ValueError(f"pool {pool.name} is not on Kubernetes")
    engine = ENGINES[pool.engine.type]
    drain_seconds = round(desired.drain.timeout)
    spec: Json = {
        "containers": [_container(desired, pool, engine, pre_stop_seconds, family)],
        # A Service called "vllm" would set VLLM_PORT=tcp://…, which vLLM refuses.
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": pre_stop_seconds + drain_seconds + shutdown_seconds,
        "tolerations": [*map(dict, placement.tolerations), *_lost_node_tolerations()],
    }
    volumes = [*_key_volume(desired, engine), *_shared_memory_volume(pool)]
    if volumes:
        spec["volumes"] = volumes
    if placement.node_selector:
        spec["nodeSelector"] = dict(placement.node_selector)
    if placement.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in placement.image_pull_secrets]
    if placement.runtime_class_name is not None:
        spec["runtimeClassName"] = placement.runtime_class_name
    if placement.security_context:
        spec["securityContext"] = pod_security(placement.security_context)
    return {
        "metadata": {
            "labels": {
                **pod_labels(desired=desired, pool=pool.name, revision=revision),
                names.LABEL_ENGINE: engine.name,
            }
        },
        "spec": spec,
    }


def _digest(desired: Desired) -> str | None:
    return None if desired.api_key is None else desired.api_key.digest


def _key_by_file(desired: Desired, engine: EngineProfile) -> bool:
    return _digest(desired) is not None and engine.key_variable is None


def _key_volume(desired: Desired, engine: EngineProfile) -> list[Json]:
    """The engine's configuration file with its key, and nothing else of the Secret."""
    if not _key_by_file(desired, engine):
        return []
    entry = configuration_entry(_digest(desired) or "")
    secret = {
        "secretName": names.worker_keys_secret(desired.name),
        "items": [{"key": entry, "path": KEY_FILE.removeprefix(f"{KEY_FOLDER}/")}],
    }
    return [{"name": "key", "secret": secret}]


def _shared_memory_volume(pool: Pool) -> list[Json]:
    """Memory that the engine's processes share: a container's own /dev/shm has 64 MiB.

    A bound, not a reservation; what is used counts as the container's memory.
    """
    size = pool.worker.shared_memory
    if size is None:
        return []
    return [{"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": size}}]


def key_label(desired: Desired) -> dict[str, str]:
    """The label that tells which API key a worker has; none without a key."""
    digest = _digest(desired)
    return {} if digest is None else {names.LABEL_KEY: digest}


def pod_labels(*, desired: Desired, pool: str, revision: str) -> dict[str, str]:
    """Labels of a pod at birth; the traffic label puts it into the Service's selector."""
    return {
        **selector_labels(deployment=desired.name, pool=pool, revision=revision),
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_TRAFFIC: names.TRAFFIC_ON,
        **key_label(desired),
    }


def selector_labels(*, deployment: str, pool: str, revision: str) -> dict[str, str]:
    """The immutable selector: without the traffic label, so that a drained pod stays."""
    return {
        names.LABEL_DEPLOYMENT: deployment,
        names.LABEL_POOL: pool,
        names.LABEL_REVISION: revision,
    }


def _lost_node_tolerations() -> list[Json]:
    """Replace pods of a lost node after 30 s instead of the cluster's default of 300 s."""
    return [
        {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute",
         "tolerationSeconds": 30}
        for taint in ("not-ready", "unreachable")
    ]  # fmt: skip


def _container(
    desired: Desired, pool: Pool, engine: EngineProfile, pre_stop_seconds: int, family: IpFamily
) -> Json:
    drain_seconds = round(desired.drain.timeout)
    command = engine.command(
        LaunchRequest(
            model=model_argument(desired.model.source, paths={}),
            revision=desired.model.revision,
            served_names=desired.model.served_names,
            port=str(CONTAINER_PORT),
            attempt=None,
            drain_seconds=drain_seconds,
            args=pool.engine.args,
            key_file=KEY_FILE if _key_by_file(desired, engine) else None,
            listen=family.any_address,
        )
    )
    started = under_first_process(
        command, port=CONTAINER_PORT, path=engine.readiness_path, host=family.loopback
    )
    container: Json = {
        "name": "engine",
        "image": pool.engine.image,
        "imagePullPolicy": "IfNotPresent",
        "command": started.command,
        "args": started.args,
        "ports": [{"name": PORT_NAME, "containerPort": CONTAINER_PORT}],
        "resources": _resources(pool),
        "securityContext": container_security(pool),
        **_probes(desired, engine),
        "lifecycle": {
            "preStop": pre_stop(
                floor=pre_stop_seconds,
                budget=drain_seconds,
                metrics=f"http://{host_port(family.loopback, CONTAINER_PORT)}{engine.metrics.path}",
                rule=engine.load,
            )
        },
    }
    environment = [*map(_env, pool.engine.env), *_key_variable(desired, engine)]
    if environment:
        container["env"] = environment
    mounts: list[Json] = []
    if _key_by_file(desired, engine):
        mounts.append({"name": "key", "mountPath": KEY_FOLDER, "readOnly": True})
    if pool.worker.shared_memory is not None:
        mounts.append({"name": "shared-memory", "mountPath": SHARED_MEMORY_FOLDER})
    if mounts:
        container["volumeMounts"] = mounts
    return container


def _env(variable: EnvironmentVariable) -> Json:
    if variable.value_from is not None:
        return {"name": variable.name, "valueFrom": dict(variable.value_from)}
    return {"name": variable.name, "value": variable.value or ""}


def _key_variable(desired: Desired, engine: EngineProfile) -> list[Json]:
    """The key of this revision: the Secret of worker keys keeps it as long as a pod may start."""
    digest = _digest(desired)
    if digest is None or engine.key_variable is None:
        return []
    reference = {"name": names.worker_keys_secret(desired.name), "key": digest}
    return [{"name": engine.key_variable, "valueFrom": {"secretKeyRef": reference}}]


def _resources(pool: Pool) -> Json:
    """GPUs are a limit (requests follow it); CPU and memory are requests."""
    placement = pool.kubernetes
    requests = {
        key: value
        for key, value in (("cpu", pool.worker.cpu), ("memory", pool.worker.memory))
        if value is not None
    }
    resources: Json = {}
    if requests:
        resources["requests"] = requests
    if placement is not None and pool.worker.gpus_per_node:
        resources["limits"] = {placement.gpu_resource: str(pool.worker.gpus_per_node)}
    return resources


def _probes(desired: Desired, engine: EngineProfile) -> Json:
    """Start-up sized by `startupTimeout`; readiness by `health`; liveness generous.

    Liveness only finds an engine that hangs for minutes: a restart costs a model load. What has
    hung has nothing to drain, so a short grace replaces the pod's own.
    """
    health = desired.health

    headers = [{"name": h.name, "value": h.value} for h in health.headers if h.value is not None]

    def get(path: str) -> Json:
        request: Json = {"path": path, "port": PORT_NAME}
        return {"httpGet": request | ({"httpHeaders": headers} if headers else {})}

    return {
        "startupProbe": get(engine.health_path)
        | {
            "periodSeconds": STARTUP_PERIOD_SECONDS,
            "timeoutSeconds": engine.health_timeout,
            "failureThreshold": max(1, ceil(health.startup_timeout / STARTUP_PERIOD_SECONDS)),
            "terminationGracePeriodSeconds": HUNG_GRACE_SECONDS,
        },
        "readinessProbe": get(engine.readiness_path)
        | {
            "periodSeconds": max(1, round(health.interval)),
            "timeoutSeconds": 5,
            "successThreshold": health.success_threshold,
            "failureThreshold": health.failure_threshold,
        },
        "livenessProbe": get(engine.health_path)
        | {
            "periodSeconds": 10,
            "timeoutSeconds": engine.health_timeout,
            "failureThreshold": 6,
            "terminationGracePeriodSeconds": HUNG_GRACE_SECONDS,
        },
    }


def object_metadata(
    *, desired: Desired, name: str, labels: Mapping[str, str], uid: str | None = None
) -> Json:
    """Metadata of an object that belongs to the deployment and is collected with it."""
    return {
        "name": name,
        "namespace": desired.namespace,
        "labels": {
            names.LABEL_MANAGED_BY: names.MANAGED_BY,
            names.LABEL_DEPLOYMENT: desired.name,
            **labels,
        },
        "ownerReferences": [
            {
                "apiVersion": names.API_VERSION,
                "kind": "ModelDeployment",
                "name": desired.name,
                "uid": uid or desired.uid,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
    }


def deployment(
    *, desired: Desired, pool: str, revision: str, template: Mapping[str, object], replicas: int
) -> Json:
    """The Deployment of one revision of one pool, from the frozen template."""
    labels = {names.LABEL_POOL: pool, names.LABEL_REVISION: revision, **_template_key(template)}
    name = names.workload_name(deployment=desired.name, pool=pool, revision=revision)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": object_metadata(desired=desired, name=name, labels=labels),
        "spec": {
            "replicas": replicas,
            "selector": {
                "matchLabels": selector_labels(
                    deployment=desired.name, pool=pool, revision=revision
                )
            },
            # The template never changes, so this strategy never acts; the rollout is ours.
            "strategy": {"type": "RollingUpdate"},
            "progressDeadlineSeconds": int(desired.health.startup_timeout) + 60,
            "revisionHistoryLimit": 0,
            "template": dict(template),
        },
    }


def _template_key(template: Mapping[str, object]) -> dict[str, str]:
    digest = dig(template, "metadata", "labels", names.LABEL_KEY)
    return {names.LABEL_KEY: digest} if isinstance(digest, str) else {}


def service(*, desired: Desired) -> Json:
    """The deployment's address, port 80: the front's pods, or without one the workers themselves.

    Without a front, workers outside the cluster join by EndpointSlices that name this Service.
    Its labels are copied to the slices that the EndpointSlice controller makes for the pods, which
    is how the operator's selective watch sees both kinds.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": object_metadata(desired=desired, name=desired.name, labels={}),
        "spec": service_spec(desired=desired),
    }


def service_spec(*, desired: Desired) -> Json:
    """The part of the Service that is ours and is kept as it is here."""
    return {
        "type": "ClusterIP",
        "selector": front_labels(desired)
        if desired.endpoint.managed
        else workers_selector(desired),
        "ports": service_ports(),
    }


def front_labels(desired: Desired) -> dict[str, str]:
    """Labels and selector of the front's pods; without the traffic label, which workers carry."""
    return {names.LABEL_DEPLOYMENT: desired.name, names.LABEL_COMPONENT: names.COMPONENT_FRONT}


def workers_selector(desired: Desired) -> dict[str, str]:
    """Selector of the pods that may get requests."""
    return {names.LABEL_DEPLOYMENT: desired.name, names.LABEL_TRAFFIC: names.TRAFFIC_ON}


def service_ports() -> list[Json]:
    """The one port of a Service of ours; slices of ours use its name."""
    return [{"name": PORT_NAME, "port": SERVICE_PORT, "protocol": "TCP", "targetPort": PORT_NAME}]
