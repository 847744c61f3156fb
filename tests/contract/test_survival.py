"""300 hostile stored objects, on a real API server, beside an honest tenant: `isthmus run` goes on.

The schemas are opened for this: what a rollback, an older release or a restored backup left behind
was never checked by the ones of now. The same cases in greater number, with engines, routers and
SLURM records, are drawn in the simulation (`tests/simulation/survival.py`).
"""

import asyncio
import base64
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from isthmus.apiserver import objects as k8s
from isthmus.apiserver.client import KubernetesApiServer
from isthmus.apiserver.connection import Connection
from isthmus.apiserver.resources import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    MODEL_DEPLOYMENTS,
    SECRETS,
    SLURM_CLUSTERS,
    SLURM_JOBS,
    Resource,
)
from isthmus.errors import ApiError
from playground import manifests
from playground.cluster import Playground
from tests.bareapi import NAMESPACES, start_bare_api
from tests.hostile_values import CANARY, TEXTS, secret_bytes, spoiled
from tests.simulation import manifests as drawn

CORE_EVENTS = Resource("", "v1", "events", "Event")
ROOT = Path(__file__).parents[2]
CASES = 300
CASES_OF_A_ROUND = 30
PATIENCE = 60.0
"""Seconds within which the honest tenant has what it asks for, on a busy machine too."""
SYSTEM, HONEST, HOSTILE = "isthmus-system", "team-a", "team-b"


@pytest.fixture(scope="module")
def server() -> Iterator[Playground]:
    """An API server of its own, whose CRDs take everything."""
    playground = start_bare_api()
    try:
        crds = []
        for path in sorted((ROOT / "crds").glob("*.yaml")):
            crd = yaml.safe_load(path.read_text(encoding="utf-8"))
            for version in crd["spec"]["versions"]:
                anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                version["schema"] = {"openAPIV3Schema": anything}
            crds.append(crd)
        playground.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(crds))
        playground.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        yield playground
    finally:
        playground.down()


@pytest.fixture
async def api(server: Playground) -> AsyncIterator[KubernetesApiServer]:
    connection = Connection(kubeconfig=str(server.kubernetes.kubeconfig))
    client = await KubernetesApiServer.connect(connection, timeout=10.0)
    for name in (SYSTEM, HONEST, HOSTILE):
        await client.create(NAMESPACES, {"metadata": {"name": name}})
    yield client
    await client.close()


class Operator:
    """`isthmus run` as a process."""

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        self.log = log
        words = ["run", "--kubeconfig", str(kubeconfig), "--set", "liveness-port=0"]
        words += ["--set", f"namespace={SYSTEM}", "--set", "slurm-poll-interval=1s"]
        words += ["--set", "local-login=true", "--installation-id", "hostile0"]
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "isthmus", *words],
                env=os.environ | {"PYTHONPATH": str(ROOT / "operator")},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check(self) -> None:
        """It lives, and tells nobody's Secrets."""
        said = self.log.read_text(errors="replace")
        assert self.process.poll() is None, f"the operator ended:\n{said[-3000:]}"
        assert CANARY not in said, "a Secret is in the log"


@pytest.mark.timeout(900)
async def test_survives_what_is_stored(
    server: Playground, api: KubernetesApiServer, tmp_path: Path
) -> None:
    operator = Operator(server.kubernetes.kubeconfig, tmp_path / "operator.log")
    try:
        await api.create(SLURM_CLUSTERS, hostile_slurm())
        await api.create(MODEL_DEPLOYMENTS, honest())
        await served(api, operator, replicas=1)
        tenant, refused = Tenant(api, Random("hostile")), 0
        stored = 0
        while stored < CASES:
            try:
                stored += await tenant.case()
            except (ApiError, ValueError):  # no JSON, or refused: it is not stored
                refused += 1
                assert refused < 3 * CASES, "most of what is drawn is refused: draw something else"
            if stored % CASES_OF_A_ROUND == 0:
                await served(api, operator, replicas=1 + stored // CASES_OF_A_ROUND % 3)
        await served(api, operator, replicas=5)
        for resource in (
            MODEL_DEPLOYMENTS,
            SLURM_JOBS,
            SLURM_CLUSTERS,
            CORE_EVENTS,
            ENDPOINT_SLICES,
        ):
            for obj in (await api.list(resource)).items:
                assert CANARY not in repr(obj), f"a Secret shows in {resource} {k8s.name(obj)}"
    finally:
        operator.process.kill()
        operator.process.wait(timeout=10)


def honest() -> dict[str, Any]:
    """A deployment of pods; no controller runs, so that its Deployment is all there is to see."""
    obj = drawn.model_deployment(namespace=HONEST, name="honest", random=Random(1))
    obj["spec"]["pools"] = [drawn.kubernetes_pool()]
    return obj


def hostile_slurm() -> dict[str, Any]:
    """A SlurmCluster whose every command prints something else."""
    folder = Path(tempfile.mkdtemp(prefix="isthmus-hostile-", dir="/tmp"))
    texts = [text.encode("utf-8", errors="replace") for text in TEXTS]
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_bytes(text)
    for command in ("squeue", "sinfo", "scontrol", "sbatch", "scancel"):
        path = folder / command
        path.write_text(f"#!/bin/bash\ncat {folder}/$((RANDOM % {len(texts)})).txt\n")
        path.chmod(0o755)
    cluster = manifests.slurm_cluster(folder, bin_folder=folder)
    return {**cluster, "metadata": {"name": "hpc", "namespace": SYSTEM}}


async def served(api: KubernetesApiServer, operator: Operator, *, replicas: int) -> None:
    """The honest tenant asks for so many workers, and its Deployment has them."""
    wanted = {"spec": {"replicas": replicas}}
    await api.patch(MODEL_DEPLOYMENTS, namespace=HONEST, name="honest", patch=wanted)
    seen: list[object] = []
    async with asyncio.timeout(PATIENCE):
        while seen != [replicas]:
            operator.check()
            await asyncio.sleep(0.2)
            found = (await api.list(DEPLOYMENTS, namespaces=[HONEST])).items
            seen = [k8s.dig(obj, "spec", "replicas") for obj in found]


class Tenant:
    """Stores one odd thing after the other."""

    def __init__(self, api: KubernetesApiServer, random: Random) -> None:
        self._api, self._random, self._number = api, random, 0

    async def case(self) -> int:
        """Store something; how many objects that were."""
        do = self._random.choice((self._deployment, self._stored, self._status, self._secret))
        return int(await do())

    async def _deployment(self) -> bool:
        random = self._random
        self._number += 1
        obj = drawn.model_deployment(namespace=HOSTILE, name=f"bad{self._number}", random=random)
        if random.random() < 0.4:
            obj["spec"]["endpoint"] = {
                "type": "External",
                "external": {
                    "kind": "smg",
                    "url": random.choice([t for t in TEXTS if t.startswith("http")]),
                    "authSecretRef": {"name": "token", "key": "token"},
                },
            }
        if random.random() < 0.8:
            obj["spec"] = spoiled(obj["spec"], random, typed=False)
        obj["metadata"]["annotations"] = {"isthmus.dev/x": random.choice(TEXTS)}
        await self._api.create(MODEL_DEPLOYMENTS, obj)
        return True

    async def _some(self) -> tuple[Resource, Any] | None:
        resource = self._random.choice((MODEL_DEPLOYMENTS, SLURM_JOBS))
        found = (await self._api.list(resource, namespaces=[HOSTILE])).items
        return (resource, self._random.choice(found)) if found else None

    async def _stored(self) -> bool:
        return await self._change("spec", subresource="")

    async def _status(self) -> bool:
        return await self._change("status", subresource="status")

    async def _change(self, part: str, *, subresource: str) -> bool:
        found = await self._some()
        if found is None:
            return False
        resource, obj = found
        now = obj.get(part) or {"phase": "Ready"}
        new = spoiled(now, self._random, typed=False)
        gone = {key: None for key in now if not isinstance(new, dict) or key not in new}
        patch = {part: {**gone, **new} if isinstance(new, dict) else new}
        await self._api.patch(
            resource,
            namespace=HOSTILE,
            name=k8s.name(obj),
            patch=patch,
            subresource=subresource,
        )
        return True

    async def _secret(self) -> bool:
        self._number += 1
        name = "token" if self._number % 5 == 0 else f"secret{self._number}"
        data = {"token": base64.b64encode(secret_bytes(self._random)).decode()}
        obj = {"metadata": {"name": name, "namespace": HOSTILE}, "data": data}
        await self._api.create(SECRETS, obj)
        return True
