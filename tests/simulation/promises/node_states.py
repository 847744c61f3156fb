"""What is told of nodes is what SLURM has shown of them, of that cluster and lately.

Clusters name their nodes alike, so that what one shows can be taken for another one's.
"""

from collections import deque
from dataclasses import dataclass, field

from isthmus.api.reasons import Reason
from isthmus.apiserver import objects as k8s
from tests.simulation.apiserver import ApiSimulator, Json
from tests.simulation.engines import Machines
from tests.simulation.promises.ledger import Ledger
from tests.simulation.shape import Shape
from tests.simulation.slurm import Slurm

ON_ITS_WAY = 40.0
"""Most seconds between a look and what is written of it."""

LOOKS = 8
"""So many last looks, of one of which a count may be: watches are late, and writes are refused."""


@dataclass(slots=True)
class Shown:
    """What was shown of the nodes of one cluster."""

    drained_at: dict[str, float] = field(default_factory=dict)  # node → when it last was
    counts: deque[str] = field(default_factory=lambda: deque(maxlen=LOOKS))


class NodeStateRules(Ledger):
    """Judges what statuses say of nodes."""

    def __init__(
        self,
        *,
        api: ApiSimulator,
        slurm: Slurm,
        machines: Machines,
        shape: Shape | None = None,
    ) -> None:
        super().__init__(api=api, slurm=slurm, machines=machines, shape=shape)
        self._shown: dict[str, Shown] = {}  # cluster → what was shown of it
        self._told_counts: dict[str, str] = {}  # cluster → the last count

    def nodes_shown(self, at: Slurm) -> None:
        """An operator is shown the nodes of a cluster."""
        shown = self._shown.setdefault(at.name, Shown())
        shown.drained_at.update(dict.fromkeys(at.site.drained, self.now))
        shown.counts.append(at.node_count())

    def _displaced_rightly(self, obj: Json) -> None:
        """Workers that leave a drained node stand on one that was shown so, in their cluster.

        So none leaves one that is silent or maintained, or that another cluster drains.
        """
        workers = k8s.dig(obj, "status", "workers", default=[])
        if not isinstance(workers, list) or self.clocks_jumped:
            return
        for worker in workers:
            if k8s.dig(worker, "displaced", "reason") != Reason.NODE_DRAINING:
                continue
            attempt = next((a for a in self.attempts.values() if a.name == worker["name"]), None)
            cluster = "" if attempt is None else attempt.cluster
            shown = self._shown.get(cluster, Shown())
            since = self.now - shown.drained_at.get(str(worker.get("node")), -1e9)
            self.require(
                since <= self.stale_after + ON_ITS_WAY,
                f"{worker['name']} leaves {worker.get('node')} of {cluster or 'nowhere'}, which "
                "was not shown as drained",
            )

    def _counts_nodes(self, obj: Json) -> None:
        """How many nodes can be used, as SLURM showed it lately."""
        told, name = k8s.dig(obj, "status", "nodes"), k8s.name(obj)
        if told is None or told == self._told_counts.get(name) or name not in self._shown:
            return
        self._told_counts[name] = str(told)
        known = self._shown[name].counts
        self.require(told in known, f"{name} is said to have {told} nodes, shown were {set(known)}")
