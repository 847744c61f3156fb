"""Which forwards a supervisor holds: of SlurmJobs that count, to where their cluster allows.

A status says where a forward leads, and whoever may write one had a way into the cluster's network
otherwise. So each forward is judged before it is held, by the SlurmCluster and not by the object.
What is held goes on, whatever happens to its owner, until the administrator's addresses
(`network.nodeCIDRs`) leave it out, or its SlurmJob is one that counts for nothing.
"""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from isthmus.address_rules import parse_address, special, within
from isthmus.api.names import membership_service
from isthmus.api.slurm_network import NetworkSpec
from isthmus.api.slurmjob import PUBLIC_KEY
from isthmus.apiserver.objects import Object, dig
from isthmus.apiserver.reading import read_cluster
from isthmus.apiserver.resources import SLURM_CLUSTERS, SLURM_JOBS
from isthmus.apiserver.store import Store
from isthmus.slurmcluster.access import access
from isthmus.slurmjob.ownership import ownership
from isthmus.tunnels.desired import Wanted

_log = logging.getLogger(__name__)

_MODES = frozenset({"Tunnel", "NodeSSH", "Reverse"})


@dataclass(frozen=True, slots=True)
class _Agreed:
    """By what a forward was agreed to.

    Attributes:
        place: what of it was judged.
        raw: the SlurmJob, by which version it counts.
        networks: where the nodes of its cluster may be; None where that could not be read.
    """

    place: tuple[object, ...]
    raw: Object | None
    networks: tuple[str, ...] | None


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
        self._agreed: dict[str, _Agreed] = {}
        self._said: dict[str, str] = {}

    def admits(self, one: Wanted) -> bool:
        """Whether a forward may be held; says once why not."""
        network = self._network(one)
        wanted = _Agreed(
            place=_place(one),
            raw=self._store.get(SLURM_JOBS, one.namespace, one.slurm_job),
            networks=None if network is None else network.node_cidrs,
        )
        before = self._agreed.pop(one.uid, None)
        if before is not None and before.place == wanted.place:
            problem = self._of_held(one, before, wanted)
        else:
            problem = self._problem(one, network)
        if not problem:
            self._agreed[one.uid] = wanted
            self._said.pop(one.uid, None)
            return True
        if self._said.get(one.uid) != problem:
            self._said[one.uid] = problem
            _log.warning("No forward for SlurmJob %s/%s: %s", one.namespace, one.slurm_job, problem)
        return False

    def keep(self, uids: Iterable[str]) -> None:
        """Forget all SlurmJobs but these."""
        present = frozenset(uids)
        self._agreed = {uid: agreed for uid, agreed in self._agreed.items() if uid in present}
        self._said = {uid: text for uid, text in self._said.items() if uid in present}

    def _of_held(self, one: Wanted, before: _Agreed, now: _Agreed) -> str:
        """Why what is held is let go; what cannot be read or is gone ends nothing."""
        if now.raw is not None and now.raw is not before.raw:
            problem = ownership(now.raw, store=self._store).problem
            if problem:
                return problem
        if now.networks is None or now.networks == before.networks:
            return ""
        return _host_problem(one.host, now.networks)

    def _network(self, one: Wanted) -> NetworkSpec | None:
        """The rules of its cluster, whole or not at all: a part of them allows too much."""
        raw = self._store.get(SLURM_CLUSTERS, one.cluster.namespace, one.cluster.name)
        return None if raw is None else self._store.derived.of(raw, _network_of)

    def _problem(self, one: Wanted, network: NetworkSpec | None) -> str:
        raw = self._store.get(SLURM_JOBS, one.namespace, one.slurm_job)
        if raw is None:
            return "it is gone"
        owned = ownership(raw, store=self._store)
        if owned.problem or not owned.owner_is_there:
            return owned.problem or "its ModelDeployment is not there"
        reference = one.cluster
        found = self._store.get(SLURM_CLUSTERS, reference.namespace, reference.name)
        reading = None if found is None else self._store.derived.of(found, read_cluster)
        denied = access(
            cluster=None if reading is None else reading.value,
            reference=reference,
            namespace=one.namespace,
            unread="" if reading is None else reading.problem,
        )
        if denied is not None:
            return denied[1]
        if network is None:
            where = f"{reference.namespace}/{reference.name}"
            return f"spec.network of SlurmCluster {where} cannot be read"
        return self._of_place(one, network)

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


def _place(one: Wanted) -> tuple[object, ...]:
    where = (one.cluster, one.mode, one.port, one.host, one.engine_port, one.service)
    return (*where, one.public_key)


def _network_of(raw: Object) -> NetworkSpec | None:
    try:
        return NetworkSpec.model_validate(dig(raw, "spec", "network", default={}))
    except (ValidationError, RecursionError):
        return None


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
