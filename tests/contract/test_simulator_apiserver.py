"""The simulated API server answers as the real one does: one table of operations, run against both.

What the simulation proves is worth what its simulators are; here every rule of the API server on
which the operator counts is asked of both.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias

import pytest

from isthmus.api import names
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.resources import (
    CONTROLLER_REVISIONS,
    ENDPOINT_SLICES,
    LEASES,
    MODEL_DEPLOYMENTS,
    SLURM_JOBS,
    Resource,
)
from isthmus.errors import ApiError
from tests.bareapi import connect, new_namespace
from tests.simulation.apiedge import ApiEdge, Weather
from tests.simulation.apiserver import ApiSimulator

Answer: TypeAlias = dict[str, Any]


def job(name: str = "a", **meta: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"app": "x"}, **meta},
        "spec": {
            "clusterRef": {"name": "hpc", "namespace": "isthmus-system"},
            "deployment": "llama",
            "pool": "hpc",
            "slot": 0,
            "attempt": "x7k2qp",
            "revision": "0123456789",
            "jobName": "llama-isthmus0-0123456789-0-x7k2qp",
        },
        "status": {"phase": "Ready"},
    }


def deployment(name: str = "llama", **meta: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, **meta},
        "spec": {"model": {"source": "hv://x"}, "pools": [{"name": "k8s", "kubernetes": {}}]}
        | {"model": {"source": "hf://org/llama"}, "replicas": 1},
    }


def lease(holder: str) -> dict[str, Any]:
    return {"metadata": {"name": "isthmus"}, "spec": {"holderIdentity": holder}}


def slice_of(address: str, **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "llama-0", "labels": labels},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}],
    }


@dataclass
class Session:
    """One client in a namespace of its own, and what it was told but for what differs by nature."""

    api: ApiServer
    namespace: str
    answers: list[Answer] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)
    versions: list[int] = field(default_factory=list)

    async def create(self, resource: Resource, obj: dict[str, Any]) -> None:
        await self._say(self.api.create(resource, self._placed(obj)))

    async def apply(self, resource: Resource, obj: dict[str, Any]) -> None:
        await self._say(self.api.apply(resource, self._placed(obj)))

    async def patch(
        self, resource: Resource, name: str, patch: dict[str, Any], subresource: str = ""
    ) -> None:
        call = self.api.patch(
            resource, namespace=self.namespace, name=name, patch=patch, subresource=subresource
        )
        await self._say(call)

    async def delete(self, resource: Resource, name: str, uid: str | None = None) -> None:
        uid = k8s.uid(self.last) if uid is None else uid
        await self._say(self.api.delete(resource, namespace=self.namespace, name=name, uid=uid))

    async def get(self, resource: Resource, name: str) -> None:
        await self._say(self.api.get(resource, namespace=self.namespace, name=name))

    async def list(self, resource: Resource, selector: str) -> None:
        found = await self.api.list(resource, label_selector=selector, namespaces=[self.namespace])
        self.answers.append(
            {
                "names": [k8s.name(item) for item in found.items],
                "kinds": [item.get("kind") for item in found.items],
                "not older": found.resource_version >= max(self.versions),
            }
        )

    @property
    def version(self) -> str:
        return str(self.last["metadata"]["resourceVersion"])

    def _placed(self, obj: dict[str, Any]) -> dict[str, Any]:
        return {**obj, "metadata": {**obj["metadata"], "namespace": self.namespace}}

    async def _say(self, call: Awaitable[Any]) -> None:
        try:
            answer = await call
        except ApiError as error:
            self.answers.append({"error": type(error).__name__})
            return
        if answer is None:
            self.answers.append({"answer": None})
            return
        self.answers.append(self._told(answer))
        self.last = answer

    def _told(self, obj: dict[str, Any]) -> Answer:
        version = k8s.resource_version(obj)
        assert version is not None
        same = bool(self.versions) and version == self.versions[-1]
        newer = not self.versions or version > max(self.versions)
        self.versions.append(version)
        generation = {} if obj["kind"] in {"Lease", "ControllerRevision"} else k8s.generation(obj)
        return {
            "version": "same" if same else "newer" if newer else "older",
            "same uid": k8s.uid(obj) == k8s.uid(self.last) if self.last else None,
            "uid": bool(k8s.uid(obj)),
            "generation": generation,
            "deleting": k8s.deletion_timestamp(obj) is not None,
            "finalizers": k8s.finalizers(obj),
            "labels": dict(k8s.labels(obj)),
            "status": obj.get("status"),
            "replicas": k8s.dig(obj, "spec", "replicas"),
            "holder": k8s.dig(obj, "spec", "holderIdentity"),
            "endpoints": [e["addresses"] for e in obj.get("endpoints", ())],
        }


Case: TypeAlias = Callable[[Session], Awaitable[None]]
CASES: dict[str, Case] = {}


def case(do: Case) -> Case:
    CASES[do.__name__] = do
    return do


@case
async def create_twice(s: Session) -> None:
    await s.get(SLURM_JOBS, "a")
    await s.create(SLURM_JOBS, job())  # its status is ignored
    await s.create(SLURM_JOBS, job())
    await s.get(SLURM_JOBS, "a")


@case
async def a_status_has_bounds(s: Session) -> None:
    """H2: one that is too long is refused as a whole; length is counted in characters."""

    async def write(**status: Any) -> None:
        await s.patch(SLURM_JOBS, "a", {"status": status}, "status")

    await s.create(SLURM_JOBS, job())
    forward = {"mode": "Tunnel", "inTraffic": True}
    await write(phase="Ready", forward=forward, message="é" * 1023 + "…")
    await write(phase="Degraded", forward={"inTraffic": False}, message="x" * 1025)
    await write(phase="Bogus")
    await write(conditions=[{"type": f"T{n}", "status": "True"} for n in range(17)])
    await write(conditions=[{"type": "TunnelUp", "status": "Maybe"}])
    await write(phase="Degraded", forward={"inTraffic": None}, message=None)


@case
async def status_is_apart(s: Session) -> None:
    await s.create(SLURM_JOBS, job())
    await s.patch(SLURM_JOBS, "a", {"status": {"phase": "Ready"}})
    await s.patch(
        SLURM_JOBS,
        "a",
        {"status": {"phase": "Ready", "jobId": 7}, "metadata": {"labels": {"app": "y"}}},
        "status",
    )
    await s.patch(SLURM_JOBS, "a", {"status": {"jobId": None}}, "status")
    await s.get(SLURM_JOBS, "a")


@case
async def spec_moves_the_generation(s: Session) -> None:
    await s.create(MODEL_DEPLOYMENTS, deployment())
    await s.patch(MODEL_DEPLOYMENTS, "llama", {"spec": {"replicas": 3}})
    await s.patch(MODEL_DEPLOYMENTS, "llama", {"metadata": {"labels": {"team": "a"}}})
    await s.patch(MODEL_DEPLOYMENTS, "llama", {"status": {"replicas": 1}}, "status")


@case
async def nothing_new_is_no_write(s: Session) -> None:
    await s.create(MODEL_DEPLOYMENTS, deployment())
    await s.patch(MODEL_DEPLOYMENTS, "llama", {"spec": {"replicas": 1}})
    await s.patch(MODEL_DEPLOYMENTS, "llama", {"status": {"replicas": 1}}, "status")
    await s.patch(MODEL_DEPLOYMENTS, "llama", {"status": {"replicas": 1}}, "status")
    await s.patch(MODEL_DEPLOYMENTS, "llama", {"metadata": {"resourceVersion": s.version}})


@case
async def versions_are_preconditions(s: Session) -> None:
    await s.create(SLURM_JOBS, job())
    old = s.version
    await s.patch(SLURM_JOBS, "a", {"metadata": {"resourceVersion": old, "labels": {"n": "1"}}})
    await s.patch(SLURM_JOBS, "a", {"metadata": {"resourceVersion": old, "labels": {"n": "2"}}})
    await s.patch(
        SLURM_JOBS,
        "a",
        {"metadata": {"resourceVersion": old}, "status": {"phase": "Ready"}},
        "status",
    )
    await s.patch(
        SLURM_JOBS,
        "a",
        {"metadata": {"resourceVersion": s.version}, "status": {"phase": "Ready"}},
        "status",
    )


@case
async def uids_are_preconditions(s: Session) -> None:
    await s.create(SLURM_JOBS, job())
    await s.patch(SLURM_JOBS, "a", {"metadata": {"uid": "another", "labels": {"n": "1"}}})
    await s.delete(SLURM_JOBS, "a", "another")
    await s.get(SLURM_JOBS, "a")


@case
async def what_is_not_there(s: Session) -> None:
    await s.patch(SLURM_JOBS, "a", {"metadata": {"labels": {"n": "1"}}})
    await s.patch(SLURM_JOBS, "a", {"status": {"phase": "Ready"}}, "status")
    await s.delete(SLURM_JOBS, "a", "any")


@case
async def finalizers_hold(s: Session) -> None:
    held = [names.FINALIZER_SLURM_JOB]
    await s.create(SLURM_JOBS, job(finalizers=held))
    await s.delete(SLURM_JOBS, "a")
    await s.get(SLURM_JOBS, "a")
    await s.delete(SLURM_JOBS, "a")  # once more: nothing new
    await s.patch(SLURM_JOBS, "a", {"status": {"phase": "Draining"}}, "status")
    await s.patch(SLURM_JOBS, "a", {"metadata": {"finalizers": [*held, "example.org/more"]}})
    await s.create(SLURM_JOBS, job())
    await s.patch(SLURM_JOBS, "a", {"metadata": {"finalizers": []}})
    await s.get(SLURM_JOBS, "a")
    await s.create(SLURM_JOBS, job())  # another object


@case
async def without_finalizers_it_is_gone(s: Session) -> None:
    await s.create(SLURM_JOBS, job())
    await s.delete(SLURM_JOBS, "a")
    await s.get(SLURM_JOBS, "a")


@case
async def applied_slices(s: Session) -> None:
    await s.apply(ENDPOINT_SLICES, slice_of("10.1.0.1", one="1", two="2"))
    await s.apply(ENDPOINT_SLICES, slice_of("10.1.0.1", one="1", two="2"))
    await s.apply(ENDPOINT_SLICES, slice_of("10.1.0.2", one="1", two="2"))
    await s.apply(ENDPOINT_SLICES, slice_of("10.1.0.2", one="1"))  # a label is given up
    await s.delete(ENDPOINT_SLICES, "llama-0")


@case
async def created_slices_stay(s: Session) -> None:
    await s.create(ENDPOINT_SLICES, slice_of("10.1.0.1", one="1"))
    await s.create(ENDPOINT_SLICES, slice_of("10.1.0.2", one="1"))
    await s.apply(ENDPOINT_SLICES, slice_of("10.1.0.2", one="1"))


@case
async def leases(s: Session) -> None:
    await s.create(LEASES, lease("a"))
    old = s.version
    for holder in ("b", "c"):
        meta = {"resourceVersion": old}
        await s.patch(LEASES, "isthmus", {"metadata": meta, "spec": {"holderIdentity": holder}})
    await s.get(LEASES, "isthmus")


@case
async def revisions(s: Session) -> None:
    wanted = {"metadata": {"name": "llama-hpc-1"}, "data": {"job": {"x": 1}}, "revision": 1}
    await s.create(CONTROLLER_REVISIONS, wanted)
    await s.create(CONTROLLER_REVISIONS, wanted)
    await s.delete(CONTROLLER_REVISIONS, "llama-hpc-1")


@case
async def lists(s: Session) -> None:
    await s.create(SLURM_JOBS, job("b"))
    await s.create(SLURM_JOBS, job("a"))
    await s.create(SLURM_JOBS, job("c", labels={"app": "y"}))
    await s.list(SLURM_JOBS, "")
    await s.list(SLURM_JOBS, "app=x")
    await s.list(SLURM_JOBS, "app=z")


async def real(do: Case) -> list[Answer]:
    api = await connect()
    try:
        session = Session(api, await new_namespace(api))
        await do(session)
        return session.answers
    finally:
        await api.close()


async def simulated(do: Case) -> list[Answer]:
    loop = asyncio.get_running_loop()
    server = ApiSimulator(clock=lambda: 1_800_000_000.0 + loop.time())
    weather = Weather(slowest=0.0)
    edge = ApiEdge(server, weather=lambda: weather, timeout=5.0, random=Random(1), by="op1")
    session = Session(edge, "test")
    await do(session)
    return session.answers


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", sorted(CASES))
async def test_both_answer_alike(name: str) -> None:
    expected = await real(CASES[name])
    assert expected
    assert await simulated(CASES[name]) == expected
