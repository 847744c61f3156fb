"""Slices and SlurmJobs that nobody should write, beside a good forward that must not notice.

Finding M2 of docs/security.md: one of them ended the supervisor that holds all tenants' forwards.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, cast

import pytest

from isthmus.api.desired import ClusterReference
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.resources import ENDPOINT_SLICES, SLURM_JOBS
from isthmus.apiserver.secrets import Secrets
from isthmus.routing.tunnel_slices import tunnel_of
from isthmus.ssh.files import PrivateFolder
from isthmus.tunnels.links import LinkKey, Links
from isthmus.tunnels.rules import Outcome
from tests.contract.test_tunnel_supervisor import Lab
from tests.plan.test_tunnel_rules import slurm_job
from tests.wrong_inputs import GOOD, changed

OURS = {
    "app.kubernetes.io/managed-by": "isthmus",
    "endpointslice.kubernetes.io/managed-by": "isthmus.dev",
    "isthmus.dev/tunnel-host": "x",
    "kubernetes.io/service-name": "llama",
}
OWNER = {"apiVersion": "isthmus.dev/v1alpha1", "kind": "SlurmJob", "name": "j", "uid": "uid-j"}
ENDPOINT = {"addresses": ["10.0.0.9"], "conditions": {"ready": True}}


def odd(name: str = "odd", **parts: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "team-b",
            "uid": f"uid-{name}",
            "resourceVersion": "900",
            "labels": dict(parts.pop("labels", OURS)),
            "annotations": dict(parts.pop("annotations", {})),
            "ownerReferences": parts.pop("owners", [OWNER]),
        },
        "addressType": "IPv4",
        **({"endpoints": [ENDPOINT], "ports": [{"name": "http", "port": 1}]} | parts),
    }


ODD = {
    "a port without a number": odd(ports=[{"name": "http"}]),
    "no endpoints": odd(endpoints=[]),
    "an endpoint without addresses": odd(endpoints=[{}]),
    "null parts": odd(endpoints=None, ports=None),
    "no parts of a list": odd(endpoints={"a": 1}, ports={"b": 2}),
    "a target of 5000 digits": odd(
        annotations={"isthmus.dev/tunnel-target": f"h:{'9' * 5000}"}, labels={**OURS, "x": "y"}
    ),
    "a target that is no port": odd(annotations={"isthmus.dev/tunnel-target": "h:99999"}),
    "owners that are none": odd(owners=["x", {"kind": "SlurmJob"}, None]),
}


@pytest.mark.parametrize("obj", ODD.values(), ids=ODD)
async def test_m2_an_odd_slice_stops_nothing(obj: dict[str, Any]) -> None:
    lab = Lab()
    lab.store.put(ENDPOINT_SLICES, obj)
    lab.job()
    await lab.told(Outcome.ANSWERED)
    assert lab.slice().ready
    tunnel = tunnel_of(obj)
    assert tunnel is None or tunnel.target is None


async def test_m2_an_odd_slice_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    lab = Lab()
    lab.store.put(ENDPOINT_SLICES, ODD["a port without a number"])
    lab.job()
    for _ in range(3):
        await lab.told(Outcome.ANSWERED)
    assert caplog.text.count("team-b/odd") == 1


@pytest.mark.parametrize(
    "changes",
    [
        # A Service with our labels: its controller copies them, and makes its slice anew for ever.
        {
            "labels": {
                **OURS,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "isthmus.dev/tunnel-host": "a",
            }
        },
        {"labels": {**OURS, "isthmus.dev/tunnel-host": "a"}, "owners": []},
    ],
)
async def test_m2_a_slice_that_no_supervisor_wrote_is_not_deleted(changes: Any) -> None:
    lab = Lab()
    obj = odd(**changes)
    lab.api.objects[ENDPOINT_SLICES, "team-b", "odd"] = obj
    lab.store.put(ENDPOINT_SLICES, obj)
    lab.job()
    await lab.told(Outcome.ANSWERED)
    assert lab.store.get(ENDPOINT_SLICES, "team-b", "odd") is not None
    assert lab.slice().ready


async def test_m2_an_odd_slurm_job_keeps_what_it_has_and_stops_nothing() -> None:
    lab = Lab()
    lab.job()
    lab.job("other", port=20002)
    await lab.told(Outcome.ANSWERED)
    assert lab.slice().ready
    stored = slurm_job("other")
    stored["status"]["phase"] = "FromALaterRelease"
    for written in (stored, {**stored, "spec": "text"}):
        meta = {**stored["metadata"], "resourceVersion": str(next(lab.api.versions))}
        lab.store.put(SLURM_JOBS, {**written, "metadata": meta})
        await lab.told(Outcome.ANSWERED)
        assert lab.slice().ready


async def test_m2_rounds_go_on_whatever_ends_one(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    lab = Lab()
    lab.job()
    rounds = 0
    publish = lab.supervisor._publisher.publish

    async def broken(wanted: Any) -> None:
        nonlocal rounds
        rounds += 1
        lab.supervisor.wake()
        if rounds < 4:
            raise KeyError("what nobody has thought of")
        await publish(wanted)

    monkeypatch.setattr(lab.supervisor._publisher, "publish", broken)
    running = asyncio.create_task(lab.supervisor.run())
    try:
        async with asyncio.timeout(20):
            while lab.slice() is None:
                assert not running.done()
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert caplog.text.count("A round failed unexpectedly") == 1
    assert "KeyError" in caplog.text
    assert "what nobody" not in caplog.text


@pytest.mark.parametrize("fails", ["__init__", "socket", "close"])
async def test_b9_a_full_disk_at_one_clusters_files_leaves_the_others_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fails: str
) -> None:
    """An OSError there ended each round before the links of the other clusters were looked at."""
    clusters = {
        ("hpc", name): changed(GOOD["SlurmCluster"], {"metadata.name": name}) for name in "ab"
    }
    for name, raw in clusters.items():
        raw["metadata"] |= {"namespace": "hpc", "uid": f"uid-{name}"}
    links = Links(
        secrets=Secrets(cast(ApiServer, None), clock=lambda: 0.0),
        on_change=lambda: None,
        clock=lambda: 0.0,
        connect_timeout=1.0,
        pause=1.0,
        parent=tmp_path,
    )
    keys = [LinkKey(ClusterReference(namespace="hpc", name=name)) for name in "ab"]
    if fails == "close":
        links.set({keys[0]: {}}, clusters=clusters)
    real, left = getattr(PrivateFolder, fails), [OSError(28, "No space left on device")]

    def full(*args: Any, **kwargs: Any) -> Any:
        if left:
            raise left.pop()
        return real(*args, **kwargs)

    monkeypatch.setattr(PrivateFolder, fails, full)
    wanted = keys[1:] if fails == "close" else keys
    links.set({key: {} for key in wanted}, clusters=clusters)
    assert not left
    assert links.get(keys[1]) is not None
    if fails != "close":
        assert "OSError" in links.problem(keys[0])
    await links.close()
