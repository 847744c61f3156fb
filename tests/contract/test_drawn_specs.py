"""The oracles over drawn specs in a short form: `isthmus run` as a process, a real API server.

No controllers run there, so it is seen what the operator itself makes of pools of pods. The long
form, with SLURM, nodes and engines, is `tests/simulation/test_oracles.py`.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from isthmus.apiserver import objects as k8s
from isthmus.apiserver.client import KubernetesApiServer
from isthmus.apiserver.objects import Object
from isthmus.apiserver.resources import (
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    MODEL_DEPLOYMENTS,
    SERVICES,
    Resource,
)
from tests.bareapi import bare_api, connect, new_namespace
from tests.simulation.drawn import NAME, drawn_deployment

ROOT = Path(__file__).parents[2]
SEEDS = (0, 1)
PATIENCE = 60.0
"""Seconds until the operator has done what it is asked for, on a busy machine too."""
Json = dict[str, Any]


@pytest.fixture
async def api() -> AsyncIterator[KubernetesApiServer]:
    client = await connect()
    yield client
    await client.close()


@pytest.fixture
async def spaces(api: KubernetesApiServer) -> list[str]:
    return [await new_namespace(api) for _ in range(3)]


@pytest.fixture
def operator(spaces: list[str], tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """It watches the namespaces of this test alone."""
    kubeconfig = str(bare_api().kubernetes.kubeconfig)
    words = ["run", "--kubeconfig", kubeconfig, "--installation-id", "drawn000"]
    words += ["--set", "liveness-port=0", "--set", f"namespace={spaces[0]}"]
    words += ["--set", f"watch-namespaces={','.join(spaces)}"]
    with (tmp_path / "operator.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "isthmus", *words],
            env=os.environ | {"PYTHONPATH": str(ROOT / "operator")},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)


def drawn(seed: int, *, namespace: str, replicas: int = 1) -> Json:
    """A drawn deployment of one pool of pods, of which a worker is wanted."""
    wanted = drawn_deployment(Random(f"contract/{seed}"))
    pools = [pool for pool in wanted["spec"]["pools"] if "kubernetes" in pool]
    if not pools:
        return drawn(seed + 1000, namespace=namespace, replicas=replicas)
    pools[0].pop("kubernetes")  # Kubernetes has rules of its own for what stands there
    spec = {
        **wanted["spec"],
        "replicas": replicas,
        "pools": [{**pools[0], "priority": 0, "kubernetes": {}}],
    }
    return {**wanted, "metadata": {"namespace": namespace, "name": NAME}, "spec": spec}


def write(wanted: Json) -> None:
    """`kubectl replace`, or create: the spec is exactly this, and what is ours in metadata goes."""
    text = yaml.safe_dump(wanted)
    place = "-n", wanted["metadata"]["namespace"]
    there = bare_api().kubectl("get", "mdep", NAME, *place, "--ignore-not-found", "-o", "name")
    bare_api().kubectl("replace" if str(there).strip() else "create", "-f", "-", stdin=text)


async def children(api: KubernetesApiServer, namespace: str) -> dict[str, list[object]]:
    """What the operator made of the deployment there, without names that differ and uids."""
    found: dict[str, list[object]] = {}
    for resource in (DEPLOYMENTS, SERVICES):
        for obj in (await api.list(resource, namespaces=[namespace])).items:
            spec = dict(k8s.dig(obj, "spec", default={}))  # type: ignore[call-overload]
            kept = {key: spec.get(key) for key in ("replicas", "selector", "template")}
            found.setdefault(resource.kind, []).append([k8s.name(obj), k8s.labels(obj), kept])
    return found


async def until(operator: "subprocess.Popen[bytes]", good: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await good():
            assert operator.poll() is None, "the operator ended"
            await asyncio.sleep(0.3)


async def settled(
    api: KubernetesApiServer, operator: "subprocess.Popen[bytes]", wanted: Json
) -> dict[str, list[object]]:
    """Its children once one Deployment is there, and the status is of the last spec."""
    namespace = wanted["metadata"]["namespace"]
    found: dict[str, list[object]] = {}

    async def good() -> bool:
        nonlocal found
        obj = await api.get(MODEL_DEPLOYMENTS, namespace=namespace, name=NAME) or {}
        current = k8s.dig(obj, "metadata", "generation")
        before, found = found, await children(api, namespace)
        told = k8s.dig(obj, "status", "observedGeneration") == current
        return told and len(found.get("Deployment", ())) == 1 and found == before

    await until(operator, good)
    return found


@pytest.mark.timeout(600)
async def test_a_changed_deployment_ends_as_a_fresh_one_and_is_mended(
    api: KubernetesApiServer, spaces: list[str], operator: "subprocess.Popen[bytes]"
) -> None:
    changed, fresh = spaces[1:]
    for seed in SEEDS:
        write(drawn(seed, namespace=changed))
        last = drawn(seed + 100, namespace=changed, replicas=2)
        if seed % 2:
            await settled(api, operator, last)
        write(last)
        again = {**last, "metadata": {"namespace": fresh, "name": NAME}}
        write(again)
        same = _same(api, changed, as_in=fresh, expected=await settled(api, operator, again))
        await until(operator, same)
        if seed == SEEDS[0]:
            await _slip(api, operator, last, same)
            for resource in (DEPLOYMENTS, SERVICES):
                await _rough(api, resource, changed)
                await until(operator, same)
        for namespace in (changed, fresh):
            await _deleted(api, operator, namespace)


def _same(
    api: KubernetesApiServer, namespace: str, *, as_in: str, expected: object
) -> Callable[[], Awaitable[bool]]:
    async def same() -> bool:
        found = await children(api, namespace)
        return repr(found) == repr(expected).replace(as_in, namespace)

    return same


async def _slip(
    api: KubernetesApiServer,
    operator: "subprocess.Popen[bytes]",
    good: Json,
    same: Callable[[], Awaitable[bool]],
) -> None:
    """An image that does not exist, taken back; nothing is ever healthy here, so all may go."""
    spec, namespace = good["spec"], good["metadata"]["namespace"]
    engine = {**spec["pools"][0].get("engine", {}), "image": "registry.example/nowhere:1"}
    write({**good, "spec": {**spec, "pools": [{**spec["pools"][0], "engine": engine}]}})

    async def made() -> bool:
        return "nowhere" in str(await children(api, namespace))

    await until(operator, made)
    write(good)
    await until(operator, same)


async def _rough(api: KubernetesApiServer, resource: Resource, namespace: str) -> None:
    """Labels taken, and what was made scaled or led elsewhere."""
    for obj in (await api.list(resource, namespaces=[namespace])).items:
        wrong: Json = {"replicas": 7} if resource is DEPLOYMENTS else {"selector": {"app": "mine"}}
        gone = dict.fromkeys(k8s.labels(obj))
        place = {"namespace": namespace, "name": k8s.name(obj)}
        await api.patch(resource, **place, patch={"spec": wrong, "metadata": {"labels": gone}})


async def _deleted(
    api: KubernetesApiServer, operator: "subprocess.Popen[bytes]", namespace: str
) -> None:
    """Nothing is left but what a garbage collector takes, which does not run here."""
    await _delete(
        api, MODEL_DEPLOYMENTS, await api.get(MODEL_DEPLOYMENTS, namespace=namespace, name=NAME)
    )

    async def gone() -> bool:
        return await api.get(MODEL_DEPLOYMENTS, namespace=namespace, name=NAME) is None

    await until(operator, gone)
    for resource in (DEPLOYMENTS, SERVICES, CONTROLLER_REVISIONS):
        for obj in (await api.list(resource, namespaces=[namespace])).items:
            if k8s.name(obj).startswith(NAME):
                await _delete(api, resource, obj)


async def _delete(api: KubernetesApiServer, resource: Resource, obj: Object | None) -> None:
    assert obj is not None
    await api.delete(resource, namespace=k8s.namespace(obj), name=k8s.name(obj), uid=k8s.uid(obj))
