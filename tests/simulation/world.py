"""The world of one run: the simulators, the operators, the clock and the trace."""

import asyncio
import contextlib
from collections.abc import Iterator
from random import Random
from typing import Any

from isthmus.api import names
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import MODEL_DEPLOYMENTS, Resource
from isthmus.errors import ApiError
from isthmus.settings import Settings
from tests.simulation.apiedge import ApiEdge, Weather
from tests.simulation.apiserver import ApiSimulator, Json
from tests.simulation.clock import EPOCH, Process
from tests.simulation.controllers import Controllers, Nodes
from tests.simulation.engines import Machines
from tests.simulation.manifests import commands_of, spread
from tests.simulation.operators import Replica
from tests.simulation.oracle import Oracle
from tests.simulation.promises.tunnels import TunnelOracle
from tests.simulation.shape import FIRST, ClusterShape, Shape, usual
from tests.simulation.slurm import Slurm
from tests.simulation.supervisors import TunnelHost, TunnelHosts
from tests.simulation.traffic import Traffic

NAMESPACE = "team-a"
HOSTILE = "team-z"
"""Of whose deployments nothing is ever submitted, in some seeds."""
SYSTEM = "isthmus-system"
INSTALLATION = "isthmus0"


class World:
    """Everything, at one moment of virtual time."""

    def __init__(
        self,
        seed: str,
        shape: Shape | None = None,
        *,
        installation: str = INSTALLATION,
        beside: "World | None" = None,
    ) -> None:
        """Make the simulators, and start nothing.

        Args:
            seed: decides whatever is drawn.
            shape: of which sizes it is; None: the common ones.
            installation: id of the operators' installation.
            beside: whose SLURM account and nodes it has; None: its own.
        """
        self.seed, self.shape, self.installation = seed, shape or usual(seed), installation
        self._time = asyncio.get_running_loop().time
        self.random = Random(f"{seed}/world")
        self.trace: list[str] = []
        self.over = False
        self.peaceful = False  # nothing goes wrong but what one namespace does
        self.watch_delay = 0.3
        self.watches_broken = False
        self.weather = Weather()
        self.keys_noticed_at = 0.0  # Secrets are not watched: a changed one is read a while later
        self.keys_apart = self.shape.keys_apart
        first_uid = 1 if beside is None else 1_000_000  # no two servers give the same
        self.api = ApiSimulator(clock=self.wall_clock, first_uid=first_uid)
        self.neighbours: list[World] = []  # installations on the same SLURM account
        if beside is None:
            self.machines = Machines(random=Random(f"{seed}/machines"))
            self.slurm = self._cluster(self.shape.cluster, number=0)
            further = [self._cluster(one, number=n) for n, one in enumerate(self.shape.others, 1)]
            self.clusters = {one.name: one for one in (self.slurm, *further)}
        else:
            self.machines, self.slurm = beside.machines, beside.slurm
            self.clusters = beside.clusters
        self.controllers = Controllers(
            self.api,
            nodes=Nodes(gpus=self.shape.pods, room=self.shape.pods),
            machines=self.machines,
            random=Random(f"{seed}/controllers"),
        )
        self.oracle = Oracle(
            api=self.api, slurm=self.slurm, machines=self.machines, shape=self.shape
        )
        for one in self.clusters.values():
            if one is not self.slurm:
                self.oracle.joined_by(one)
        self.oracle.secrecy.keys_apart = lambda: self.keys_apart and self.now > self.keys_noticed_at
        self.oracle.engine_of_pod = self.controllers.engine
        self.api.listeners.append(self._told)
        self.tunnel_oracle = TunnelOracle(self)
        self.tunnels: Any = None  # of seeds whose nodes pods cannot reach
        if self.shape.tunnels:
            self.tunnels = TunnelHosts(self, Random(f"{seed}/tunnel hosts"))
        self.traffic = Traffic(self)
        self.operators = [Replica(self, number) for number in range(1, self.shape.operators + 1)]

    def _cluster(self, shape: ClusterShape, *, number: int) -> Slurm:
        def tell(text: str) -> None:
            self.tell(f"{shape.name}: {text}" if number else text)

        stream = f"slurm {shape.name}" if number else "slurm"
        random = Random(f"{self.seed}/{stream}")
        return Slurm(machines=self.machines, random=random, tell=tell, shape=shape, number=number)

    @contextlib.contextmanager
    def at(self, cluster: Slurm) -> Iterator[None]:
        """What happens meanwhile to the cluster of SLURM happens to this one."""
        before, self.slurm = self.slurm, cluster
        try:
            yield
        finally:
            self.slurm = before

    def behind(self, commands: str) -> Slurm:
        """The cluster whose commands lie in that folder, the first one for any other."""
        found = (one for name, one in self.clusters.items() if commands_of(name) == commands)
        return next(found, self.slurm)

    def is_node(self, address: str) -> bool:
        """Whether it is one of a compute node."""
        return any(address in slurm.nodes.values() for slurm in self.clusters.values())

    def spread(self, wanted: Json) -> Json:
        """A deployment with pools on every cluster of this world."""
        further = [name for name in self.clusters if name != FIRST]
        random = Random(f"{self.seed}/{k8s.name(wanted)}/pools")
        return spread(wanted, further, random=random) if further else wanted

    @property
    def now(self) -> float:
        return self._time()

    def wall_clock(self) -> float:
        return EPOCH + self.now

    def tell(self, text: str) -> None:
        self.trace.append(f"{self.now:9.2f}  {text}")

    def edge(self, process: Process, *, timeout: float) -> ApiEdge:
        return ApiEdge(
            self.api,
            weather=lambda: self.weather,
            timeout=timeout,
            random=Random(f"{self.seed}/{process.name}/{timeout}"),
            by=process.name,
            cut_off=lambda: self.now < process.cut_off_until,
        )

    def settings(self, identity: str) -> Settings:
        return Settings(
            namespace=SYSTEM,
            identity=identity,
            installation_id=self.installation,
            liveness_port=None,
            local_login=True,
            generate_api_keys=True,
            termination_grace=self.shape.termination_grace,
            renew_interval=5.0,
            relist_interval=180.0,
        )

    def hosts(self) -> "list[TunnelHost]":
        """Tunnel hosts, also those that are gone."""
        return [] if self.tunnels is None else list(self.tunnels.hosts)

    def caches_late(self, seconds: float) -> None:
        """From now on operators may not know for some seconds what has been written."""
        until = self.now + seconds
        self.oracle.caches_late_until = max(self.oracle.caches_late_until, until)

    @contextlib.contextmanager
    def may_fail(self) -> Iterator[None]:
        """What a user does may be too late, or come twice."""
        try:
            yield
        except ApiError as error:
            self.tell(f"user: {error}")

    def deployments(self) -> list[Json]:
        return sorted(self.api.all(MODEL_DEPLOYMENTS), key=k8s.name)

    def _told(self, resource: Resource, event: str, obj: Json, by: str) -> None:
        if resource.plural in {"leases", "pods"} and by in {"node", "controller"}:
            return
        if resource.plural == "leases":
            if names.LABEL_TUNNEL_HOST in k8s.labels(obj):
                return
            holder = k8s.dig(obj, "spec", "holderIdentity")
            if holder != getattr(self, "_holder", None):
                self._holder = holder
                self.tell(f"lease: {holder}")
            return
        what = ""
        if resource.kind == "SlurmJob":
            what = _said(obj, "phase", "reason", "jobId", "state", "url")
        elif resource.kind == "ModelDeployment":
            what = f"{k8s.dig(obj, 'spec', 'replicas')} {_said(obj, 'ready', 'summary')}"
        elif resource.kind == "Deployment":
            what = f"replicas={k8s.dig(obj, 'spec', 'replicas')}"
        elif resource.kind == "EndpointSlice":
            what = str(
                [(e["addresses"][0], e["conditions"]["ready"]) for e in obj.get("endpoints", ())]
            )
        end = " (deleting)" if k8s.deletion_timestamp(obj) else ""
        name = k8s.name(obj)
        if resource.kind == "Event":
            name = name.partition(".")[0]  # the rest is drawn anew in every run
        self.tell(f"{by}: {event} {resource.kind} {name}{end} {what}")


def _said(obj: Json, *keys: str) -> str:
    status = obj.get("status", {})
    return " ".join(f"{key}={status[key]}" for key in keys if key in status)
