"""`python -m bench.paths`: what each path to the workers costs, on the playground.

The same pods are asked directly, through a bare Service and through the front, in turns.
"""

import argparse
import asyncio
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.front import Ratios, lines_of, load
from bench.http_load import Address
from bench.lab import Lab, model_deployment
from isthmus.api import names
from playground.cluster import Config, Playground
from playground.front_image import import_front_image
from playground.operator_process import Operator

NAME = f"paths-{os.getpid()}"
WORKERS = 4
ENGINE = {
    "SIMULATOR_LOAD_SECONDS": "0.1",
    "SIMULATOR_FIRST_TOKEN_SECONDS": "0.04",
    "SIMULATOR_TOKENS_PER_SECOND": "400",
}
"""About 80 ms an answer."""

_SERVICES = "/api/v1/namespaces/default/services"
_SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"


def address_of_service(lab: Lab, name: str) -> Address:
    """Cluster address and port."""
    return str(lab.get(f"{_SERVICES}/{name}")["spec"]["clusterIP"]), 80


def addresses_of_workers(lab: Lab) -> list[Address]:
    """Every worker itself."""
    workers = names.membership_service(NAME, managed=True)
    found = lab.get(f"{_SLICES}?labelSelector=kubernetes.io%2Fservice-name%3D{workers}")["items"]
    return [
        (address, item["ports"][0]["port"])
        for item in found
        for endpoint in item["endpoints"]
        for address in endpoint["addresses"]
    ]


def deploy(lab: Lab) -> dict[str, Callable[[], Sequence[Address]]]:
    """The deployment with its front, and a bare Service before the same pods."""
    wanted = model_deployment(NAME, backend="kubernetes", replicas=WORKERS)
    wanted["spec"]["endpoint"] = {"type": "Managed"}
    environment = [{"name": name, "value": value} for name, value in ENGINE.items()]
    wanted["spec"]["pools"][0]["engine"]["env"] = environment
    lab.create(wanted)
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
    workers = addresses_of_workers(lab)
    bare, front = address_of_service(lab, f"{NAME}-bare"), address_of_service(lab, NAME)
    return {"direct": lambda: workers, "bare Service": lambda: [bare], "front": lambda: [front]}


async def compare(
    paths: dict[str, Callable[[], Sequence[Address]]], options: argparse.Namespace
) -> dict[str, Ratios]:
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
        settings = ["liveness-port=0", "lease-duration=120s"]
        settings.append(f"front-image={import_front_image(playground)}")
        operator = Operator(
            playground,
            arguments=[word for each in settings for word in ("--set", each)],
            installation_id="benchmrk",
        )
        lab = Lab(playground, operator)
        lab.start()
        try:
            found = asyncio.run(compare(deploy(lab), options))
        finally:
            lab.delete("ModelDeployment", NAME)
            lab.delete("Service", f"{NAME}-bare")
            lab.wait_idle(NAME)
            operator.stop()
    finally:
        if options.state is None:
            playground.down()
    title = f"{WORKERS} pods that take 80 ms, {options.clients} clients: ratio to direct"
    print("\n".join(lines_of(title, found)))


if __name__ == "__main__":
    main()
