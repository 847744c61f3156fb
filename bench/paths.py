"""`python -m bench.paths`: what each path to the workers costs, on the playground.

The same pods are asked directly, through a bare Service and through the front, in turns; then jobs
directly, through each kind of tunnel, and through the front before a tunnel.
"""

import argparse
import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import yaml

from bench.front import Ratios, lines_of, load
from bench.http_load import Address
from bench.lab import Json, Lab, model_deployment
from isthmus.api import names
from playground import manifests
from playground.cluster import Config, Playground
from playground.front_image import import_front_image
from playground.operator_process import Operator
from playground.tunnels_process import TunnelHost

Paths: TypeAlias = dict[str, Callable[[], Sequence[Address]]]

NAME = f"paths-{os.getpid()}"
WORKERS = 4
MODES = ("Tunnel", "NodeSSH", "Reverse")
BASTION_PORT = 22222
ENGINE = {
    "SIMULATOR_LOAD_SECONDS": "0.1",
    "SIMULATOR_FIRST_TOKEN_SECONDS": "0.04",
    "SIMULATOR_TOKENS_PER_SECOND": "400",
}
"""About 80 ms an answer."""

_SERVICES = "/api/v1/namespaces/default/services"
_SLURM_JOBS = "/apis/isthmus.dev/v1alpha1/namespaces/default/slurmjobs"
_SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"


def address_of_service(lab: Lab, name: str) -> Address:
    """Cluster address and port."""
    return str(lab.get(f"{_SERVICES}/{name}")["spec"]["clusterIP"]), 80


def members(lab: Lab, service: str) -> list[Address]:
    """Every worker as the membership names it; of a worker behind a tunnel its forward."""
    found = lab.get(f"{_SLICES}?labelSelector=kubernetes.io%2Fservice-name%3D{service}")["items"]
    return [
        (address, item["ports"][0]["port"])
        for item in found
        for endpoint in item.get("endpoints") or []
        for address in endpoint["addresses"]
    ]


def jobs_themselves(lab: Lab, name: str) -> list[Address]:
    """The engines of a deployment's jobs on their nodes, which the host can reach."""
    found = lab.get(f"{_SLURM_JOBS}?labelSelector=isthmus.dev%2Fmodeldeployment%3D{name}")["items"]
    return [(job["status"]["host"], job["status"]["port"]) for job in found]


def wanted(name: str, *, backend: str, front: bool) -> Json:
    """A deployment whose engines take their time."""
    made = model_deployment(name, backend=backend, replicas=WORKERS)
    made["spec"]["endpoint"] = {"type": "Managed" if front else "Service"}
    environment = [{"name": name, "value": value} for name, value in ENGINE.items()]
    made["spec"]["pools"][0]["engine"]["env"] = environment
    return made


def deploy_pods(lab: Lab) -> Paths:
    """The deployment with its front, and a bare Service before the same pods."""
    lab.create(wanted(NAME, backend="kubernetes", front=True))
    selector = {names.LABEL_DEPLOYMENT: NAME, names.LABEL_TRAFFIC: names.TRAFFIC_ON}
    lab.create(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": f"{NAME}-bare", "namespace": "default"},
            "spec": {"selector": selector, "ports": [{"port": 80, "targetPort": "http"}]},
        }
    )
    lab.wait_members(names.membership_service(NAME, managed=True), count=WORKERS)
    lab.wait_members(NAME, count=2)
    workers = members(lab, names.membership_service(NAME, managed=True))
    bare, front = address_of_service(lab, f"{NAME}-bare"), address_of_service(lab, NAME)
    return {"direct": lambda: workers, "bare Service": lambda: [bare], "front": lambda: [front]}


def deploy_jobs(lab: Lab, host: TunnelHost) -> Paths:
    """A deployment for each way to jobs; the first has a front too.

    The direct path is to the jobs of mode Tunnel: those of the others listen on loopback.
    """
    playground = lab.playground
    slurm, state = playground.slurm, playground.state
    where = {"host": host.address, "port": BASTION_PORT, "user": playground.config.user}
    bastion, secret = manifests.bastion(state, **where)
    objects: list[Mapping[str, object]] = [manifests.ssh_secret(slurm), secret]
    for mode in MODES:
        cluster = manifests.ssh_cluster(slurm, state, name=mode.lower(), mode=mode)
        objects.append(
            manifests.with_network(cluster, bastion=bastion) if mode == "Reverse" else cluster
        )
    playground.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))
    services = {}
    for mode in MODES:
        name, front = f"{NAME}-{mode.lower()}", mode == MODES[0]
        made = wanted(name, backend="slurm", front=front)
        made["spec"]["pools"][0]["slurm"]["clusterRef"]["name"] = mode.lower()
        lab.create(made)
        services[mode] = names.membership_service(name, managed=front)
    lab.wait_members(*services.values(), count=WORKERS)
    first = f"{NAME}-{MODES[0].lower()}"
    lab.wait_members(first, count=2)
    direct, front_address = jobs_themselves(lab, first), address_of_service(lab, first)
    paths: Paths = {"direct": lambda: direct, f"front, {MODES[0]}": lambda: [front_address]}
    for mode, service in services.items():
        forwards = members(lab, service)
        paths[mode] = lambda forwards=forwards: forwards  # type: ignore[misc]
    return paths


async def compare(paths: Paths, options: argparse.Namespace) -> dict[str, Ratios]:
    """Each path against the direct one of the same round."""
    found = {name: Ratios() for name in paths if name != "direct"}
    for _ in range(options.rounds):
        seen = {
            name: await load(targets, seconds=options.seconds, clients=options.clients)
            for name, targets in paths.items()
        }
        for name, ratios in found.items():
            ratios.take(seen[name], seen["direct"])
    return found


def measure(playground: Playground, options: argparse.Namespace) -> Iterator[str]:
    """Lines of the results: pods first, then jobs."""
    front_image = import_front_image(playground)
    settings = ["liveness-port=0", "lease-duration=120s", "generate-api-keys=false"]
    settings.append(f"front-image={front_image}")
    operator = Operator(
        playground,
        arguments=[word for each in settings for word in ("--set", each)],
        installation_id="benchmrk",
    )
    lab, host = Lab(playground, operator), TunnelHost(playground)
    lab.start()
    host.start()
    told = f"{options.clients} clients: ratio to direct"
    jobs = [f"{NAME}-{mode.lower()}" for mode in MODES]
    try:
        found = asyncio.run(compare(deploy_pods(lab), options))
        yield from lines_of(f"{WORKERS} pods that take 80 ms, {told}", found)
        lab.delete("ModelDeployment", NAME)
        lab.delete("Service", f"{NAME}-bare")
        lab.wait_idle(NAME)
        found = asyncio.run(compare(deploy_jobs(lab, host), options))
        yield from lines_of(f"{WORKERS} jobs that take 80 ms, {told}", found)
    finally:
        lab.delete("ModelDeployment", *jobs)
        lab.wait_idle(*jobs)
        host.stop()
        operator.stop()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.paths", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="rounds (%(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load (%(default)s)")
    parser.add_argument("--clients", type=int, default=8, help="at a time (%(default)s)")
    parser.add_argument("--state", type=Path, help="a playground that runs already, and stays")
    options = parser.parse_args()
    state = options.state or Path(tempfile.mkdtemp(prefix="isthmus-bench-", dir="/var/tmp"))
    state.chmod(0o755)
    playground = Playground(Config(state=state, instance=None))
    try:
        playground.up()
        for line in measure(playground, options):
            print(line, flush=True)
    finally:
        if options.state is None:
            playground.down()


if __name__ == "__main__":
    main()
