"""Which forwards a supervisor holds: of SlurmJobs that count, to where their cluster allows.

A status says where a forward leads, and whoever may write one had a way into the cluster's network
otherwise. So each forward is judged before it is held, by the SlurmCluster and not by the object.
What is held goes on as it is: rules that an administrator changes are for those that come.
"""

import logging
import re
from collections.abc import Iterable

from pydantic import ValidationError

from isthmus.address_rules import parse_address, special, within
from isthmus.api.names import membership_service
from isthmus.api.slurm_network import NetworkSpec
from isthmus.api.slurmcluster import SlurmCluster
from isthmus.api.slurmjob import PUBLIC_KEY
from isthmus.apiserver.resources import SLURM_CLUSTERS, SLURM_JOBS
from isthmus.reconcile.access import access
from isthmus.reconcile.ownership import ownership
from isthmus.reconcile.store import Store
from isthmus.tunnels.desired import Wanted

_log = logging.getLogger(__name__)

_MODES = frozenset({"Tunnel", "NodeSSH", "Reverse"})


class Admission:
    """Remembers what it agreed to, and what it said of the rest."""

    def __init__(self, *, store: Store, first: int, last: int) -> None:
        """Prepare.

        Args:
            store: SlurmJobs, their ModelDeployments and SlurmClusters.
            first: first port that the operator gives to forwards.
            last: last one.
        """
        self._store, self._first, self._last = store, first, last
        self._agreed: dict[str, tuple[object, ...]] = {}
        self._said: dict[str, str] = {}

    def admits(self, one: Wanted) -> bool:
        """Whether a forward may be held; says once why not."""
        place = (one.cluster, one.mode, one.port, one.host, one.engine_port, one.service)
        if self._agreed.get(one.uid) == (*place, one.public_key):
            return True
        problem = self._problem(one)
        if not problem:
            self._agreed[one.uid] = (*place, one.public_key)
            self._said.pop(one.uid, None)
            return True
        if self._said.get(one.uid) != problem:
            self._said[one.uid] = problem
            _log.warning("No forward for SlurmJob %s/%s: %s", one.namespace, one.slurm_job, problem)
        return False

    def keep(self, uids: Iterable[str]) -> None:
        """Forget all SlurmJobs but these."""
        present = frozenset(uids)
        self._agreed = {uid: place for uid, place in self._agreed.items() if uid in present}
        self._said = {uid: text for uid, text in self._said.items() if uid in present}

    def _problem(self, one: Wanted) -> str:
        raw = self._store.get(SLURM_JOBS, one.namespace, one.slurm_job)
        if raw is None:
            return "it is gone"
        owned = ownership(raw, store=self._store)
        if owned.problem or not owned.owner_is_there:
            return owned.problem or "its ModelDeployment is not there"
        reference = one.cluster
        found = self._store.get(SLURM_CLUSTERS, reference.namespace, reference.name)
        try:
            cluster = (
                None
                if found is None
                else self._store.derived.of(found, SlurmCluster.model_validate)
            )
        except ValidationError:
            return f"SlurmCluster {reference.namespace}/{reference.name} cannot be read"
        denied = access(cluster=cluster, reference=reference, namespace=one.namespace)
        if denied is not None:
            return denied[1]
        assert cluster is not None
        return self._of_place(one, cluster.spec.network)

    def _of_place(self, one: Wanted, network: NetworkSpec) -> str:
        if one.mode not in _MODES:
            return f"there is no mode {one.mode!r}"
        if not self._first <= one.port <= self._last:
            return (
                f"port {one.port} is outside the supervisor's {self._first} to {self._last}: its "
                "settings port-first and port-last, and tunnel-port-first and -last of the operator"
            )
        if not network.ports.first <= one.engine_port <= network.ports.last:
            return f"engine port {one.engine_port} is outside network.ports of the SlurmCluster"
        services = {
            membership_service(one.deployment, managed=managed) for managed in (True, False)
        }
        if one.service not in services:
            return "its Service is none of its ModelDeployment's"
        if one.mode == "Reverse" and one.public_key and not is_public_key(one.public_key):
            return "status.forward.publicKey is no ssh-ed25519 key"
        return _host_problem(one.host, network.node_cidrs)


def is_public_key(text: str) -> bool:
    """Whether a text may become a line of authorized_keys."""
    return re.fullmatch(PUBLIC_KEY[1:-1], text) is not None and len(text) <= 1024


def _host_problem(host: str, networks: tuple[str, ...]) -> str:
    address = parse_address(host)
    if address is None:
        return f"host {host[:64]!r} is no address"
    if networks:
        listed = within(address, networks)
        return "" if listed else f"host {address} is outside network.nodeCIDRs of the SlurmCluster"
    kind = special(address)
    if kind:
        return (
            f"host {address} is a {kind} address: a node of the cluster may only have one where "
            "network.nodeCIDRs of the SlurmCluster lists it"
        )
    return ""
