"""`isthmus run` and `isthmus tunnels` as processes, told to end by SIGTERM, on a real API server.

On the real clock nothing is asserted in seconds. What still happens at an interval of its own while
a process ends, here the looks at a SLURM cluster that does not answer, tells how long that took.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isthmus.apiserver.client import KubernetesApiServer
from isthmus.apiserver.objects import dig
from isthmus.apiserver.resources import LEASES, SLURM_CLUSTERS
from playground import manifests
from tests.bareapi import bare_api, connect, new_namespace

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


class Process:
    """One process of ours, with its log."""

    def __init__(self, log: Path, *words: str) -> None:
        self.log = log
        with log.open("w") as file:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "isthmus", *words, "--kubeconfig", kubeconfig()],
                env=os.environ | {"PYTHONPATH": str(ROOT / "operator")},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self, text: str) -> bool:
        return text in self.log.read_text()

    def kill(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(timeout=10)


def kubeconfig() -> str:
    return str(bare_api().kubernetes.kubeconfig)


async def until(condition: object, *, what: str) -> None:
    assert callable(condition)
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"in {PATIENCE:.0f} s it did not come true that {what}")


@pytest.fixture
async def api() -> AsyncIterator[KubernetesApiServer]:
    client = await connect()
    yield client
    await client.close()


@pytest.fixture
async def namespace(api: KubernetesApiServer) -> str:
    return await new_namespace(api)


async def holder(api: KubernetesApiServer, namespace: str) -> str:
    lease = await api.get(LEASES, namespace=namespace, name="isthmus")
    return str(dig(lease, "spec", "holderIdentity", default=""))


async def held(api: KubernetesApiServer, namespace: str) -> bool:
    """Whether any Lease has a holder."""
    leases = await api.list(LEASES, label_selector="", namespaces=[namespace])
    return any(dig(lease, "spec", "holderIdentity", default="") for lease in leases.items)


async def test_the_operator_ends_without_a_wait_and_the_next_one_leads(
    api: KubernetesApiServer, namespace: str, tmp_path: Path
) -> None:
    looks = tmp_path / "looks"
    looks.touch()
    for command in ("squeue", "sinfo", "scontrol"):
        path = tmp_path / command
        path.write_text(f"#!/bin/sh\necho look >> {looks}\nexit 1\n")
        path.chmod(0o755)
    options = ["--namespace", namespace, "--watch-namespace", namespace]
    options += ["--installation-id", "testtest"]
    for setting in ("liveness-port=0", "slurm-poll-interval=1s", "local-login=true"):
        options += ["--set", setting]
    first = Process(tmp_path / "first.log", "run", *options, "--set", "identity=first")
    second = None
    try:
        await until(lambda: first.said("In sync"), what="the first one leads")
        second = Process(tmp_path / "second.log", "run", *options, "--set", "identity=second")
        await until(lambda: second.said("Waiting: "), what="the second one stands by")
        cluster = manifests.slurm_cluster(tmp_path, bin_folder=tmp_path)
        meta = {"name": "hpc", "namespace": namespace}
        await api.create(SLURM_CLUSTERS, {**cluster, "metadata": meta})
        await until(lambda: looks.read_text().count("look") > 3, what="the cluster is looked at")

        before = looks.read_text().count("look")
        first.popen.send_signal(signal.SIGTERM)
        while await holder(api, namespace) == "first":
            assert looks.read_text().count("look") - before < 4, "it holds the Lease and waits"
            await asyncio.sleep(0.01)
        await until(lambda: first.popen.poll() is not None, what="it ends")
        assert first.popen.returncode == 0
        await until(lambda: second.said("In sync"), what="the second one leads")
        assert await holder(api, namespace) == "second"
    finally:
        first.kill()
        if second is not None:
            second.kill()


@pytest.mark.parametrize("command", ["run", "tunnels"])
async def test_told_twice_it_still_ends_in_order(
    api: KubernetesApiServer, namespace: str, tmp_path: Path, command: str
) -> None:
    """The first signal during the start, the second at the end: neither cuts anything off."""
    words = ["--set", f"watch-namespaces={namespace}", "--set", f"namespace={namespace}"]
    if command == "tunnels":
        words += ["--address", "10.20.0.1", "--set", "status-port=0", "--set", "host-id=a"]
    else:
        words += ["--set", "liveness-port=0", "--installation-id", "testtest"]
    process = Process(tmp_path / "log", command, *words)
    ready = "In sync" if command == "run" else "holds forwards"
    try:
        await until(lambda: process.said(ready), what="it runs")
        while not await held(api, namespace):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        process.popen.send_signal(signal.SIGTERM)
        process.popen.send_signal(signal.SIGINT)
        await until(lambda: process.popen.poll() is not None, what="it ends")
        assert process.popen.returncode == 0, process.log.read_text()
        assert not process.said("Traceback")
        assert not await held(api, namespace), "its Lease is given back"
    finally:
        process.kill()


async def test_a_leader_that_was_paused_past_its_lease_ends_by_itself(
    api: KubernetesApiServer, namespace: str, tmp_path: Path
) -> None:
    """Seen to hang: its connections were gone, and closing its watch waited for them."""
    options = ["--namespace", namespace, "--watch-namespace", namespace]
    options += ["--installation-id", "testtest"]
    for setting in ("liveness-port=0", "lease-duration=6s", "renew-interval=1s"):
        options += ["--set", setting]
    first = Process(tmp_path / "first.log", "run", *options, "--set", "identity=first")
    second = None
    try:
        await until(lambda: first.said("In sync"), what="the first one leads")
        second = Process(tmp_path / "second.log", "run", *options, "--set", "identity=second")
        await until(lambda: second.said("Waiting: "), what="the second one stands by")
        first.popen.send_signal(signal.SIGSTOP)
        await until(lambda: second.said("In sync"), what="the second one leads")
        first.popen.send_signal(signal.SIGCONT)
        await until(lambda: first.popen.poll() is not None, what="the first one ends by itself")
        assert first.popen.returncode == 1
        assert await holder(api, namespace) == "second"
    finally:
        first.kill()
        if second is not None:
            second.kill()
