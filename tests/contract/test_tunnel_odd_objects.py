"""Slices and SlurmJobs that nobody should write, beside a good forward that must not notice.

Finding M2 of docs/security.md: one of them ended the supervisor that holds all tenants' forwards.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from isthmus.api import names
from isthmus.api.desired import ClusterReference
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.objects import dig
from isthmus.apiserver.resources import (
    ENDPOINT_SLICES,
    MODEL_DEPLOYMENTS,
    SLURM_CLUSTERS,
    SLURM_JOBS,
)
from isthmus.apiserver.secrets import Secrets
from isthmus.routing.tunnel_slices import tunnel_of
from isthmus.ssh.files import PrivateFolder
from isthmus.tunnels.bastion import authorized_keys
from isthmus.tunnels.desired import Wanted, parsed, wanted_forwards
from isthmus.tunnels.links import LinkKey, Links
from isthmus.tunnels.rules import Outcome
from tests.contract.test_tunnel_supervisor import CLUSTER, Lab
from tests.unit.tunnels.test_tunnel_rules import slurm_job
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
    publish = lab.publisher.publish

    async def broken(wanted: Any) -> None:
        nonlocal rounds
        rounds += 1
        lab.supervisor.wake()
        if rounds < 4:
            raise KeyError("what nobody has thought of")
        await publish(wanted)

    monkeypatch.setattr(lab.publisher, "publish", broken)
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


def hostile(name: str = "k", **changes: Any) -> dict[str, Any]:
    """A SlurmJob as somebody writes it who may write them, with a forward to wherever he likes."""
    forward = {"mode": "Tunnel", "port": 20002, "inTraffic": True, "service": "llama"}
    spec, meta = changes.pop("spec", {}), changes.pop("metadata", {})
    forward |= changes.pop("forward", {})
    job = slurm_job(name)
    job["spec"] |= {"attempt": "aaaaaa"} | spec
    job["spec"]["jobName"] = spec.get("jobName") or names.slurm_job_name(
        deployment="llama",
        installation_id="isthmus0",
        namespace="team-a",
        uid="uid-llama",
        slot=0,
        attempt="aaaaaa",
    )
    job["metadata"] |= {"resourceVersion": "901"} | meta
    job["status"] |= {"host": "10.10.0.2", "forward": forward} | changes
    return job


def test_h4_the_hostile_ones_differ_from_good_ones_in_one_thing_only() -> None:
    lab = Lab()
    lab.store.put(SLURM_JOBS, hostile())
    asyncio.run(lab.supervisor.round())
    assert set(lab.links.wanted) == {"uid-k"}


HOSTILE = {
    "no owner": hostile(metadata={"ownerReferences": []}),
    "an owner that is not there": hostile(metadata={"namespace": "team-b"}),
    "another job's name": hostile(spec={"jobName": "victim-isthmus0-0123456789-0-aaaaaa"}),
    "a cluster that is not there": hostile(spec={"clusterRef": {"name": "x", "namespace": "y"}}),
    "the login host's loopback": hostile(host="127.0.0.1"),
    "the same by another name": hostile(host="::ffff:127.0.0.1"),
    "no host at all": hostile(host="0.0.0.0"),
    "the metadata service": hostile(host="169.254.169.254"),
    "a name": hostile(host="localhost"),
    "a scope id": hostile(host="fe80::1%$(id)"),
    "odd text": hostile(host="\ud800\n"),
    "a port of no engine": hostile(port=6443),
    "a port below the range": hostile(forward={"port": 8082}),
    "a port above the range": hostile(forward={"port": 25000}),
    "a mode that is none": hostile(forward={"mode": "Direct"}),
    "a Service that is not its own": hostile(forward={"service": "payments"}),
    "a second line of authorized_keys": hostile(
        forward={"mode": "Reverse", "publicKey": "ssh-ed25519 AAAA\nssh-ed25519 BBBB"}
    ),
    "a key that is no ASCII": hostile(
        forward={"mode": "Reverse", "publicKey": "ssh-ed25519 \u00e4"}
    ),
}


@pytest.mark.parametrize("job", HOSTILE.values(), ids=HOSTILE)
async def test_h4_a_hostile_slurm_job_gets_no_forward(
    job: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    lab = Lab()
    lab.store.put(SLURM_JOBS, job)
    lab.job()
    for _ in range(3):
        await lab.told(Outcome.ANSWERED)
    assert lab.slice().ready, "the good one is not held up"
    assert set(lab.links.wanted) == {"uid-j"}
    assert caplog.text.count("No forward for SlurmJob") == 1, "told once"


async def test_h4_a_namespace_that_the_cluster_does_not_admit_gets_no_forward() -> None:
    lab = Lab()
    admitting = dig(CLUSTER, "spec")
    closed = {**admitting, "access": {"allowedNamespaces": {"names": []}}}
    meta = {**CLUSTER["metadata"], "resourceVersion": "2"}
    lab.store.put(SLURM_CLUSTERS, {"metadata": meta, "spec": closed})
    lab.job()
    await lab.supervisor.round()
    assert not lab.links.wanted


@pytest.mark.parametrize(
    ("networks", "host", "held"),
    [
        (["10.10.0.0/16"], "10.10.0.1", True),
        (["10.20.0.0/16"], "10.10.0.1", False),
        (["10.10.0.0/16"], "127.0.0.1", False),
        (["127.0.0.1/32"], "127.0.0.1", True),  # the login host is the node, and is declared so
    ],
)
async def test_h4_a_forward_leads_to_a_network_of_the_cluster(
    networks: list[str], host: str, held: bool
) -> None:
    lab = Lab()
    spec = {**CLUSTER["spec"], "network": {"nodeCIDRs": networks}}
    meta = {**CLUSTER["metadata"], "resourceVersion": "2"}
    lab.store.put(SLURM_CLUSTERS, {"metadata": meta, "spec": spec})
    lab.job(host=host)
    await lab.supervisor.round()
    assert bool(lab.links.wanted) is held


def with_network(lab: Lab, network: Any, **parts: Any) -> None:
    spec = {**CLUSTER["spec"], "network": network, **parts}
    meta = {**CLUSTER["metadata"], "resourceVersion": str(next(lab.api.versions))}
    lab.store.put(SLURM_CLUSTERS, {"metadata": meta, "spec": spec})


async def test_h4_what_is_held_is_closed_where_the_administrators_addresses_leave_it_out() -> None:
    lab = Lab()
    lab.job()
    await lab.told(Outcome.ANSWERED)
    with_network(lab, {"nodeCIDRs": ["192.168.0.0/24"]})
    await lab.supervisor.round()
    assert not lab.links.wanted
    assert lab.slice() is None
    with_network(lab, {"nodeCIDRs": ["10.10.0.0/16"]})
    await lab.supervisor.round()
    assert set(lab.links.wanted) == {"uid-j"}


@pytest.mark.parametrize("network", ["text", {"nodeCIDRs": 7}, {"ports": {"first": "many"}}])
async def test_h4_b5_rules_that_cannot_be_read_close_nothing_and_allow_nothing(
    network: object,
) -> None:
    """Read in part they would allow what they forbid."""
    lab = Lab()
    lab.job()
    await lab.told(Outcome.ANSWERED)
    with_network(lab, network)
    lab.job("other", port=20002)
    await lab.told(Outcome.ANSWERED)
    assert lab.slice().ready
    assert set(lab.links.wanted) == {"uid-j"}


async def test_b5_what_a_newer_release_wrote_elsewhere_in_a_cluster_closes_no_way() -> None:
    lab = Lab()
    with_network(lab, {"nodeCIDRs": ["10.10.0.0/16"]}, newer={"a": 1})
    lab.job()
    await lab.told(Outcome.ANSWERED)
    assert lab.slice().ready


async def test_h4_what_is_held_is_closed_when_its_slurm_job_counts_for_nothing() -> None:
    """Also where it was agreed to: its owner reference was taken away."""
    lab = Lab()
    lab.job()
    await lab.told(Outcome.ANSWERED)
    stored = lab.store.get(SLURM_JOBS, "team-a", "j")
    assert stored is not None
    version = str(next(lab.api.versions))
    meta = {**stored["metadata"], "ownerReferences": [], "resourceVersion": version}
    lab.store.put(SLURM_JOBS, {**stored, "metadata": meta})
    await lab.supervisor.round()
    assert not lab.links.wanted


async def test_h4_what_is_held_stays_when_its_owner_or_its_cluster_goes() -> None:
    lab = Lab()
    lab.job()
    await lab.told(Outcome.ANSWERED)
    lab.store.remove(SLURM_CLUSTERS, "isthmus-system", "hpc", "uid-hpc")
    lab.store.remove(MODEL_DEPLOYMENTS, "team-a", "llama", "uid-llama")
    await lab.told(Outcome.ANSWERED)
    assert lab.slice().ready
    lab.job(host="10.10.0.9")  # another place is judged anew
    await lab.supervisor.round()
    assert not lab.links.wanted


def test_h4_no_odd_key_becomes_a_line_of_authorized_keys() -> None:
    good = wanted_for("ssh-ed25519 AAAA")
    lines = authorized_keys(
        [good, *map(wanted_for, ["ssh-ed25519 A\nssh-rsa B", "ssh-ed25519 \u00e4", "x", ""])]
    )
    assert lines == 'restrict,port-forwarding,permitlisten="20001" ssh-ed25519 AAAA\n'


def wanted_for(public_key: str) -> Wanted:
    (one,) = wanted_forwards([parsed(slurm_job())], held={})
    return replace(one, public_key=public_key)


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
