"""What operators report of changes: nothing that did not come to be, and nothing twice.

The judge makes the transitions from what etcd holds, one write of a status after the other, whoever
writes. Each event must be one of them that has had none yet: an operator that works on an old copy,
or reports what it could not write, reports too much. What is lost is lost: a process may end
between the two.
"""

from collections import Counter

from isthmus.api.modeldeployment_status import ModelDeploymentStatus
from isthmus.api.reasons import Reason
from isthmus.api.slurmcluster import SlurmClusterStatus
from isthmus.api.slurmjob import SlurmJobStatus
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.reading import read
from isthmus.telemetry.transitions import Status, transitions
from tests.simulation.apiserver import ApiSimulator, Json
from tests.simulation.engines import Machines
from tests.simulation.promises.ledger import INTRUDERS, Ledger
from tests.simulation.shape import Shape
from tests.simulation.slurm import Slurm

_KINDS: dict[str, type[Status]] = {
    "ModelDeployment": ModelDeploymentStatus,
    "SlurmJob": SlurmJobStatus,
    "SlurmCluster": SlurmClusterStatus,
}
_BY_HAND = frozenset({Reason.DRAIN_TIMEOUT})
"""Of a pod, which has no status of ours."""


class ToldOnceRules(Ledger):
    """Judges each event."""

    def __init__(
        self,
        *,
        api: ApiSimulator,
        slurm: Slurm,
        machines: Machines,
        shape: Shape | None = None,
    ) -> None:
        super().__init__(api=api, slurm=slurm, machines=machines, shape=shape)
        self._due: Counter[tuple[str, str]] = Counter()  # uid and reason
        self._known: dict[str, Json] = {}  # uid → status

    def status_changed(self, obj: Json) -> None:
        """Note what may be told of an object from now on."""
        kind = _KINDS.get(str(obj.get("kind")))
        if kind is None or k8s.namespace(obj) == INTRUDERS:
            return
        uid, written = k8s.uid(obj), dict(obj.get("status") or {})
        before = self._known.get(uid, {})
        if before == written:
            return
        self._known[uid] = written
        was, now = read(kind, before).value, read(kind, written).value
        if now is not None:
            self._due.update((uid, str(one.reason)) for one in transitions(was, now))

    def event_made(self, event: Json) -> None:
        """Judge an event of an operator."""
        uid, reason = k8s.dig(event, "involvedObject", "uid"), event["reason"]
        if reason in _BY_HAND or k8s.namespace(event) == INTRUDERS:
            return
        told = (str(uid), str(reason))
        self.require(
            self._due[told] > 0,
            f"{k8s.dig(event, 'involvedObject', 'name')}: {reason} is reported, which did not come "
            "to be, or was reported before",
        )
        self._due[told] -= 1
