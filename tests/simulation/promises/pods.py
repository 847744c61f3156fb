"""Pods drain before they are released, and are released before they are scaled away."""

from isthmus.api import names
from isthmus.api.times import epoch
from isthmus.apiserver import objects as k8s
from tests.simulation.apiserver import Json
from tests.simulation.clock import EPOCH
from tests.simulation.promises.ledger import Ledger


class PodRules(Ledger):
    """Judges each change of a pod."""

    def _pod(self, obj: Json, *, by: str) -> None:
        """Pods drain before they are released, and are released before they are scaled away."""
        engine, notes = self.engine_of_pod(obj), k8s.annotations(obj)
        released = notes.get(names.ANNOTATION_DRAINED_AT)
        if released is None:
            self._drained_pods.discard(k8s.uid(obj))
        if engine is None:
            return
        if released is not None and k8s.uid(obj) not in self._drained_pods:
            self._drained_pods.add(k8s.uid(obj))
            since = (epoch(notes.get(names.ANNOTATION_DRAINING_SINCE)) or 0.0) - EPOCH
            place = k8s.namespace(obj), k8s.labels(obj).get(names.LABEL_DEPLOYMENT, "")
            self.not_cut("release of", k8s.name(obj), engine, place=place, since=since)
        if by == "controller" and k8s.deletion_timestamp(obj) and not self.caches_late:
            lately = self.now - engine.started_at < 15
            served = names.LABEL_TRAFFIC in k8s.labels(obj) and _ready(obj)
            self.require(not served or lately, f"{k8s.name(obj)} is scaled away in rotation")


def _ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
