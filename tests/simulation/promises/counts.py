"""The numbers of a status never include what has ended."""

from isthmus.api.times import epoch
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import PODS
from tests.simulation.apiserver import Json
from tests.simulation.clock import EPOCH
from tests.simulation.promises.desired import of_a_worker
from tests.simulation.promises.ledger import Ledger


class CountRules(Ledger):
    """Judges each status of a deployment."""

    def _counts(self, obj: Json, place: tuple[str, str]) -> None:
        """A status is written: it must not count what has been ending for a while."""
        jobs = sum(
            not self._ends(attempt.over_at) and not self._ends(attempt.deleted_at)
            for attempt in self.attempts.values()
            if (attempt.namespace, attempt.deployment) == place
        )
        pods = sum(
            not k8s.deletion_timestamp(pod)
            or not self._ends((epoch(k8s.deletion_timestamp(pod)) or 0.0) - _grace(pod) - EPOCH)
            for pod in self._api.all(PODS)
            if of_a_worker(pod, place[1])
        )
        said = obj.get("status", {}).get("replicas", 0)
        if not self.caches_late and self.now >= self.deletions_untold_until:
            self.require(said <= jobs + pods, f"{place}: {said} replicas of {jobs + pods} are told")

    def _ends(self, since: float | None) -> bool:
        return since is not None and self.now - since > 12


def _grace(pod: Json) -> int:
    return k8s.number(pod["metadata"].get("deletionGracePeriodSeconds")) or 0
