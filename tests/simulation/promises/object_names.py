"""Names fit where Kubernetes puts them, and lead back to what they were made from (finding B3)."""

import re

from isthmus.api import names
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import DEPLOYMENTS, PODS, SECRETS, SERVICES, Resource
from isthmus.routing.members import Worker, workers
from isthmus.routing.worker_keys import held_keys
from tests.simulation.apiserver import Json
from tests.simulation.promises.ledger import Ledger

TOLD_LATE = 60.0
"""Seconds in which a front may not know a key yet."""

_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_SUBDOMAIN = re.compile(
    r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
)
_SERVICE = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


class ObjectNameRules(Ledger):
    """Judges names and labels of what is made, and by which name a front finds a pod's key."""

    def _well_named(self, resource: Resource, obj: Json) -> None:
        """As the API server checks."""
        name, form = k8s.name(obj), _SERVICE if resource is SERVICES else _SUBDOMAIN
        self.require(form.fullmatch(name) is not None, f"{resource.kind} may not be called {name}")
        for key, value in k8s.labels(obj).items():
            good = _LABEL.fullmatch(value) is not None
            self.require(good, f"{resource.kind} {name} may have no label {key}={value}")

    def _keys_are_found(self, obj: Json) -> None:
        """A slice that Kubernetes made: a front finds the key of each pod that joins.

        An operator that is started again just then may tell of the pod's Deployment a while later.
        """
        for worker in workers((obj,)):
            if worker.address not in self._pods_with_keys:
                self._pods_with_keys.add(worker.address)
                if self._key_is_missing(worker):
                    self._slurm.later(TOLD_LATE, self._still_missing, worker)

    def _still_missing(self, worker: Worker) -> None:
        pod = self._key_is_missing(worker)
        late = self.caches_late or k8s.deletion_timestamp(pod or {}) is not None
        self.require(
            not pod or late, f"no front finds the key of {k8s.name(pod or {})} by its name"
        )

    def _key_is_missing(self, worker: Worker) -> Json | None:
        """The pod whose key a front does not find; not where its deployment has gone since."""
        found = (o for o in self._api.all(PODS) if k8s.dig(o, "status", "podIP") == worker.address)
        pod = next(found, None)
        digest = "" if pod is None else k8s.labels(pod).get(names.LABEL_KEY, "")
        if pod is None or not digest:
            return None
        secret = names.worker_keys_secret(k8s.labels(pod)[names.LABEL_DEPLOYMENT])
        held = self._api.get(SECRETS, k8s.namespace(pod), secret)
        if held is None or not self._is_owned_by_its_owner(pod, held):
            return None
        known = held_keys(held)
        key = known.key(digest="", workload=worker.workload)
        return pod if key is None or key != known.values.get(digest) else None

    def _is_owned_by_its_owner(self, pod: Json, secret: Json) -> bool:
        """Whether a pod's Deployment and a Secret are of one ModelDeployment."""
        owners = set(k8s.owner_uids(pod))
        above = (one for one in self._api.all(DEPLOYMENTS) if k8s.uid(one) in owners)
        return any(set(k8s.owner_uids(one)) & set(k8s.owner_uids(secret)) for one in above)
