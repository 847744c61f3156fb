"""Run with the code of one release: writes what it writes, reads what another one wrote.

Not a test: `test_components_of_two_releases.py` runs it in processes of their own, one with the
modules of an older commit, one with ours; so it names only modules that both have. `write` prints
objects as its release makes them, `read` takes objects from its standard input and prints what its
release understands of them.
"""

import json
import sys
from typing import Any


def written(key: str) -> dict[str, Any]:
    from isthmus.api.desired import (
        ApiKey,
        Desired,
        Engine,
        EngineType,
        Health,
        KubernetesPlacement,
        Model,
        Pool,
        Worker,
    )
    from isthmus.api.slurmjob import ForwardStatus, SlurmJobStatus
    from isthmus.backends.kubernetes.front import front_deployment
    from isthmus.routing.slices import worker_slice
    from isthmus.routing.tunnel_slices import Published, TunnelSlice, tunnel_slice
    from isthmus.routing.worker_keys import deployments_annotation

    desired = Desired(
        namespace="team-a",
        name="llama",
        uid="uid-llama",
        generation=1,
        replicas=1,
        model=Model(source="hf://meta-llama/Llama-3.1-8B", served_names=("llama",)),
        pools=(
            Pool(
                name="k8s",
                worker=Worker(),
                engine=Engine(type=EngineType.VLLM, image="vllm/vllm-openai:v0.33.0"),
                kubernetes=KubernetesPlacement(node_selector={}),
            ),
        ),
        health=Health(),
        api_key=ApiKey(secret="llama-api-key", key="api-key", generated=True, digest=key),
    )
    deployment: Any = front_deployment(desired=desired, image="isthmus-front:7", drain_seconds=300)
    spec = deployment["spec"]["template"]["spec"]
    (sidecar,) = [
        container
        for container in [*spec.get("initContainers", []), *spec["containers"]]
        if "isthmus.front" in container.get("command", [])
    ]
    forward = ForwardStatus(mode="Tunnel", port=20001, in_traffic=True, service="llama-workers")
    status = SlurmJobStatus(phase="Ready", host="10.10.0.1", port=41000, forward=forward)
    return {
        "front": deployment,
        "command": sidecar["command"],
        "environment": {
            one["name"]: one["value"] for one in sidecar.get("env", []) if "value" in one
        },
        "direct": worker_slice(
            namespace="team-a",
            deployment="llama",
            service="llama-workers",
            owner={"name": "llama-hpc-0-x7k2qp", "uid": "uid-direct"},
            address="10.10.0.1",
            port=41001,
            key=key,
        ),
        "forwarded": tunnel_slice(
            Published(
                namespace="team-a",
                slurm_job="llama-hpc-1-y7k2qp",
                uid="uid-forwarded",
                deployment="llama",
                service="llama-workers",
                tunnel=TunnelSlice(
                    host="host1",
                    address="10.244.0.9",
                    port=20001,
                    ready=True,
                    up=True,
                    message="by login1",
                    target=("10.10.0.1", 41000),
                ),
                key=key,
            )
        ),
        "deployments": deployments_annotation([("llama-k8s-abc", key)]),
        "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
    }


def read(found: dict[str, Any]) -> dict[str, Any]:
    from isthmus.routing.tunnel_slices import tunnel_of
    from isthmus.tunnels.desired import parsed, recalled, wanted_forwards

    tunnel = tunnel_of(found["forwarded"])
    wanted = wanted_forwards([parsed(found["job"])], held={})
    ours = recalled([found["forwarded"]], jobs=[found["job"]], clusters=[])
    return {
        "tunnel": None
        if tunnel is None
        else [tunnel.host, tunnel.address, tunnel.port, tunnel.ready, tunnel.up, tunnel.target],
        "wanted": [
            [one.slurm_job, one.port, one.host, one.engine_port, one.in_traffic, one.service]
            for one in wanted
        ],
        "recalled": sorted([one.port, one.host, one.engine_port] for one in ours.values()),
    }


if __name__ == "__main__":
    verb, argument = sys.argv[1], sys.stdin.read()
    print(json.dumps(written(argument) if verb == "write" else read(json.loads(argument))))
