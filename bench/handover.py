"""How long a rolling upgrade is without an operator: from TERM to the end, and to the next one.

`python -m bench.handover` measures it alone, on a bare API server: etcd, kube-apiserver, and two
operators of which one leads and one stands by.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.bare import Client
from playground import manifests
from playground.cluster import Config, Playground
from playground.errors import PlaygroundError
from playground.operator_process import NAMESPACE, Operator
from playground.progress import Progress

_LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/isthmus"
_CLUSTERS = f"/apis/isthmus.dev/v1alpha1/namespaces/{NAMESPACE}/slurmclusters"
_PATIENCE = 120.0
_LOOK_EVERY = 0.005


@dataclass(frozen=True, slots=True)
class HandOver:
    """Seconds from TERM to the one that leads.

    Attributes:
        ended: until its process was gone.
        released: until it did not hold the Lease any more.
        reconciling: until the other one was in sync and reconciled.
    """

    ended: float
    released: float
    reconciling: float


def measure_handovers(playground: Playground, leader: Operator, *, runs: int) -> list[HandOver]:
    """Hand over between two operators, forth and back, and leave `leader` alone and leading."""
    client = Client.administrator(playground)
    second = Operator(
        playground,
        arguments=leader.arguments,
        installation_id=leader.installation_id,
        name=f"{leader.name}-2",
    )
    pair = [leader, second]
    found = []
    try:
        for _ in range(runs + runs % 2):  # an even number ends where it began
            _stand_by(pair[1])
            found.append(_hand_over(client, *pair))
            pair.reverse()
    finally:
        second.stop()
        client.close()
    return found


def _stand_by(operator: Operator) -> None:
    before = operator.output().count("Waiting: ")
    operator.start()
    _wait(lambda: operator.output().count("Waiting: ") > before, what="an operator stands by")


def _hand_over(client: Client, leader: Operator, second: Operator) -> HandOver:
    components = leader.playground.components
    holder = _holder(client)
    before = second.output().count("In sync")
    ended = released = reconciling = 0.0
    begin = time.monotonic()
    components.signal(leader.name, signal.SIGTERM)
    while not (ended and released and reconciling):
        now = time.monotonic() - begin
        if not ended and components.process(leader.name) is None:
            ended = now
        if not released and _holder(client) != holder:
            released = now
        if not reconciling and second.output().count("In sync") > before:
            reconciling = now
        if now > _PATIENCE:
            raise PlaygroundError(f"no hand-over within {_PATIENCE:.0f} s")
        time.sleep(_LOOK_EVERY)
    leader.stop()
    return HandOver(ended=ended, released=released, reconciling=reconciling)


def _holder(client: Client) -> str:
    found = client.call("GET", _LEASE)
    return str(found["spec"].get("holderIdentity", ""))


def _wait(condition: Callable[[], bool], *, what: str) -> None:
    end = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise PlaygroundError(f"waited {_PATIENCE:.0f} s for: {what}")
        time.sleep(0.05)


@contextmanager
def _site(options: argparse.Namespace) -> Iterator[Operator]:
    """A bare API server with an operator that polls a cluster."""
    state = Path(tempfile.mkdtemp(prefix="isthmus-handover-", dir="/var/tmp"))
    state.chmod(0o755)
    config = Config(state=state, instance=options.instance, parts=frozenset({"apiserver"}))
    with Playground(config, progress=Progress()) as playground:
        settings = ["liveness-port=0", *options.set]
        operator = Operator(
            playground,
            arguments=[word for each in settings for word in ("--set", each)],
            installation_id="benchmrk",
        )
        operator.start()
        try:
            operator.wait_for_output("In sync", timeout=_PATIENCE)
            # There is no SLURM: what is polled is missing, and is looked at again and again.
            cluster = manifests.slurm_cluster(state, bin_folder=Path("/nonexistent"))
            Client.administrator(playground).call("POST", _CLUSTERS, cluster)
            operator.wait_for_output("cannot be seen", timeout=_PATIENCE)
            yield operator
        finally:
            operator.stop()


def main() -> int:
    """Measure on a bare API server and print one line a run; 1 where it fails."""
    parser = argparse.ArgumentParser(prog="python -m bench.handover", description=__doc__)
    parser.add_argument("--runs", type=int, default=6, help="hand-overs (an even number)")
    parser.add_argument("--instance", type=int, help="of the playground; default: a free one")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="setting of `isthmus run`"
    )
    options = parser.parse_args()
    try:
        with _site(options) as operator:
            found = measure_handovers(operator.playground, operator, runs=options.runs)
    except PlaygroundError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    for each in found:
        print(json.dumps({name: round(getattr(each, name), 3) for name in HandOver.__slots__}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
