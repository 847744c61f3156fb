"""The controllers that matter to the operator: Deployments make pods, pods become endpoints, owned
objects are collected. Each looks at what is and acts after a short while, as the real ones do.
"""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from isthmus.api import names
from isthmus.api.times import epoch, rfc3339
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    PODS,
    SERVICES,
    Resource,
)
from isthmus.errors import ApiError
from tests.simulation.apiserver import ApiSimulator, Json
from tests.simulation.clock import EPOCH, outside
from tests.simulation.engines import POD_PORT, Engine, Machines


@dataclass(slots=True)
class Nodes:
    """The Kubernetes nodes together.

    Attributes:
        gpus: pods beyond this number are Unschedulable.
        room: the same while nothing is wrong.
        load_seconds: longest time until a pod is ready.
        stop_seconds: longest time until a deleted pod is gone.
    """

    gpus: int = 8
    room: int = 8
    load_seconds: float = 40.0
    stop_seconds: float = 30.0
    crashing: bool = False


TEMPLATE_HASH = "5d8f7b9c6d"
"""Of the ReplicaSet, which has no object of its own here."""


def generated_name(deployment: str, drawn: str) -> str:
    """The name of a pod as a ReplicaSet's controller and the API server make it.

    `generateName` is cut at 58 characters, and five are drawn.
    """
    return f"{deployment}-{TEMPLATE_HASH}-"[:58] + drawn


class Controllers:
    """Deployment, pod, EndpointSlice and garbage collection in one."""

    def __init__(
        self, api: ApiSimulator, *, nodes: Nodes, machines: Machines, random: Random
    ) -> None:
        self._api, self.nodes, self._random = api, nodes, random
        self._machines = machines
        self._context = outside()
        self._pending: set[tuple[Any, ...]] = set()
        self._addresses = itertools.count(10)
        self._names = itertools.count(1)
        api.listeners.append(self._changed)

    def _changed(self, resource: Resource, event: str, obj: Json, by: str) -> None:
        place = k8s.namespace(obj), k8s.name(obj)
        if resource is DEPLOYMENTS and event != "DELETED":
            self._soon(self._sync_deployment, *place)
        elif resource is PODS:
            self._pod_changed(event, obj)
        elif resource is SERVICES and event != "DELETED":
            self._soon(self._sync_slice, *place)
        if event == "DELETED" or (event == "ADDED" and k8s.owner_uids(obj)):
            self._soon(self._collect)

    def _pod_changed(self, event: str, obj: Json) -> None:
        namespace = k8s.namespace(obj)
        for owner in obj["metadata"].get("ownerReferences", ()):
            self._soon(self._sync_deployment, namespace, owner["name"])
        for service in self._api.all(SERVICES):
            if k8s.namespace(service) == namespace:
                self._soon(self._sync_slice, namespace, k8s.name(service))
        if event == "ADDED":
            self._soon(self._schedule, namespace, k8s.name(obj), least=0.1)
        elif event == "MODIFIED" and k8s.deletion_timestamp(obj) is not None:
            seconds = 1 + self._random.random() * self.nodes.stop_seconds
            self._soon(self._remove, namespace, k8s.name(obj), least=seconds)
        elif event == "DELETED":
            for pod in self._api.all(PODS):
                if k8s.dig(pod, "spec", "nodeName") is None:
                    self._soon(self._schedule, k8s.namespace(pod), k8s.name(pod))

    def _soon(self, do: Callable[..., None], *args: Any, least: float = 0.0) -> None:
        """Run once, a little later, however often it is asked for until then."""
        key = (do.__name__, *args)
        if key in self._pending:
            return
        self._pending.add(key)

        def run() -> None:
            self._pending.discard(key)
            do(*args)

        delay = least + 0.05 + self._random.random() * 0.5
        asyncio.get_running_loop().call_later(delay, run, context=self._context)

    # ---- Deployments

    def _sync_deployment(self, namespace: str, name: str) -> None:
        found = self._api.get(DEPLOYMENTS, namespace, name)
        if found is None or k8s.deletion_timestamp(found) is not None:
            return
        pods = [
            pod
            for pod in self._api.all(PODS)
            if k8s.uid(found) in k8s.owner_uids(pod) and k8s.deletion_timestamp(pod) is None
        ]
        failed = [pod for pod in pods if k8s.dig(pod, "status", "phase") == "Failed"]
        pods = [pod for pod in pods if pod not in failed]
        wanted = int(found["spec"].get("replicas", 1))
        for _ in range(wanted - len(pods)):
            self._make_pod(found)
        pods.sort(key=_keeps)
        for pod in pods[: max(0, len(pods) - wanted)]:
            self._api.delete(PODS, namespace, k8s.name(pod), by="controller")
        if names.LABEL_COMPONENT in k8s.labels(found):
            self._tell_deployment(found, pods)

    def _tell_deployment(self, found: Json, pods: list[Json]) -> None:
        """The status of a front's Deployment; of workers the operator looks at the pods alone."""
        status = {
            "observedGeneration": found["metadata"]["generation"],
            "replicas": len(pods),
            "updatedReplicas": len(pods),
            "availableReplicas": sum(map(is_ready, pods)),
        }
        if found.get("status") != status:
            self._api.patch(
                DEPLOYMENTS,
                k8s.namespace(found),
                k8s.name(found),
                patch={"status": status},
                subresource="status",
                by="controller",
            )

    def _make_pod(self, owner: Json) -> None:
        template = owner["spec"]["template"]
        self._api.create(
            PODS,
            {
                "metadata": {
                    "name": generated_name(k8s.name(owner), f"{next(self._names):05}"),
                    "namespace": k8s.namespace(owner),
                    "labels": dict(template["metadata"]["labels"]),
                    "ownerReferences": [
                        {"kind": "Deployment", "name": k8s.name(owner), "uid": k8s.uid(owner)}
                    ],
                },
                "spec": dict(template["spec"]),
            },
            by="controller",
        )

    # ---- pods

    def reschedule(self) -> None:
        """There is more room: try again for what waits."""
        for pod in self._api.all(PODS):
            self._soon(self._schedule, k8s.namespace(pod), k8s.name(pod))

    def _schedule(self, namespace: str, name: str) -> None:
        pod = self._api.get(PODS, namespace, name)
        if pod is None or k8s.deletion_timestamp(pod) or k8s.dig(pod, "spec", "nodeName"):
            return
        used = sum(k8s.dig(other, "spec", "nodeName") is not None for other in self._api.all(PODS))
        now = EPOCH + asyncio.get_running_loop().time()
        if used >= self.nodes.gpus:
            condition = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": "Insufficient nvidia.com/gpu",
            }
            self._status(pod, {"phase": "Pending", "conditions": [condition]})
            return
        self._api.patch(
            PODS, namespace, name, patch={"spec": {"nodeName": "node-1"}}, subresource="", by="node"
        )
        self._status(
            pod,
            {
                "phase": "Running",
                "podIP": f"10.244.{(n := next(self._addresses)) // 250}.{n % 250}",
                "startTime": rfc3339(int(now)),
                "conditions": [{"type": "Ready", "status": "False"}],
            },
        )
        seconds = 2 + self._random.random() * self.nodes.load_seconds
        self._soon(self._loaded, namespace, name, least=seconds)

    def _loaded(self, namespace: str, name: str) -> None:
        pod = self._api.get(PODS, namespace, name)
        if (
            pod is None
            or k8s.deletion_timestamp(pod)
            or k8s.dig(pod, "status", "phase") == "Failed"
        ):
            return
        if self.nodes.crashing:
            self._soon(self._loaded, namespace, name, least=10.0)
            return
        self._status(pod, {"conditions": [{"type": "Ready", "status": "True"}]})
        self._serve(pod)

    def _serve(self, pod: Json) -> None:
        now = asyncio.get_running_loop().time()
        engine = Engine(
            job_name="",
            job_id=0,
            attempt="",
            model="",
            address=str(k8s.dig(pod, "status", "podIP")),
            port=POD_PORT,
            started_at=now,
            ready_at=now,
        )
        self._machines.start(engine)

    def engine(self, pod: Json) -> Engine | None:
        """The engine that answers at a pod's address."""
        return self._machines.listening.get((str(k8s.dig(pod, "status", "podIP")), POD_PORT))

    def set_ready(self, pod: Json, ready: bool) -> None:
        """A fault: the kubelet's probe fails, or succeeds again."""
        word = "True" if ready else "False"
        self._status(pod, {"conditions": [{"type": "Ready", "status": word}]})

    def fail(self, pod: Json) -> None:
        """A fault: the node evicts the pod."""
        self._end_engine(pod)
        self._status(pod, {"phase": "Failed", "conditions": [{"type": "Ready", "status": "False"}]})

    def _status(self, pod: Json, status: Json) -> None:
        self._api.patch(
            PODS,
            k8s.namespace(pod),
            k8s.name(pod),
            patch={"status": status},
            subresource="status",
            by="node",
        )

    def _end_engine(self, pod: Json) -> None:
        engine = self.engine(pod)
        if engine is not None:
            self._machines.end(engine)

    def _remove(self, namespace: str, name: str) -> None:
        """The hook waits for the requests, at most until the grace is over."""
        pod = self._api.get(PODS, namespace, name)
        if pod is None:
            return
        engine, now = self.engine(pod), asyncio.get_running_loop().time()
        over = (epoch(k8s.deletion_timestamp(pod)) or 0.0) - EPOCH
        if engine is not None and engine.held(now) and now < over:
            self._soon(self._remove, namespace, name, least=1.0)
            return
        self._end_engine(pod)
        self._api.remove_pod(PODS, namespace, name)

    # ---- EndpointSlices

    def _sync_slice(self, namespace: str, name: str) -> None:
        service = self._api.get(SERVICES, namespace, name)
        if service is None or k8s.deletion_timestamp(service) is not None:
            return
        selector = k8s.dig(service, "spec", "selector", default={})
        assert isinstance(selector, dict)
        endpoints = [
            {
                "addresses": [k8s.dig(pod, "status", "podIP")],
                "conditions": {
                    "ready": is_ready(pod) and k8s.deletion_timestamp(pod) is None,
                },
                "targetRef": {"kind": "Pod", "name": k8s.name(pod), "uid": k8s.uid(pod)},
            }
            for pod in self._api.all(PODS)
            if k8s.namespace(pod) == namespace
            and selector.items() <= dict(k8s.labels(pod)).items()
            and k8s.dig(pod, "status", "podIP") is not None
            and k8s.dig(pod, "status", "phase") == "Running"
        ]
        slice_name = f"{name}-pods"
        labels = {
            **k8s.labels(service),
            "kubernetes.io/service-name": name,
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        }
        wanted = {
            "metadata": {
                "name": slice_name,
                "namespace": namespace,
                "labels": labels,
                "ownerReferences": [{"kind": "Service", "name": name, "uid": k8s.uid(service)}],
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}],
        }
        found = self._api.get(ENDPOINT_SLICES, namespace, slice_name)
        if found is not None and k8s.owner_uids(found) != (k8s.uid(service),):
            self._soon(self._sync_slice, namespace, name, least=1.0)  # an older Service's
            return
        self._api.apply(ENDPOINT_SLICES, wanted, by="controller")

    # ---- owners

    def _collect(self) -> None:
        """Delete what has owners of which none exists."""
        for resource, obj in list(self._api.everything()):
            owners = k8s.owner_uids(obj)
            if not owners or any(self._api.exists(owner) for owner in owners):
                continue
            if k8s.deletion_timestamp(obj) is None:
                try:
                    self._api.delete(resource, k8s.namespace(obj), k8s.name(obj), by="collector")
                except ApiError:
                    continue


def _keeps(pod: Json) -> tuple[bool, int, int]:
    """As a ReplicaSet ranks: not ready ones go first, then the lowest cost, then the newest."""
    cost = int(k8s.annotations(pod).get(names.ANNOTATION_DELETION_COST, "0"))
    return is_ready(pod), cost, -int(pod["metadata"]["resourceVersion"])


def is_ready(pod: Json) -> bool:
    """What the kubelet says of it."""
    conditions = k8s.dig(pod, "status", "conditions", default=[])
    assert isinstance(conditions, list)
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
