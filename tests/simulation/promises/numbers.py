"""How many workers there are: never too few by our own hand, never more than the surge."""

import itertools

from isthmus.api import names
from isthmus.api.times import epoch
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import DEPLOYMENTS, MODEL_DEPLOYMENTS, PODS, SLURM_JOBS
from tests.simulation.apiserver import Json
from tests.simulation.clock import EPOCH
from tests.simulation.promises.desired import (
    drain_timeout,
    membership,
    of_a_worker,
    startup_timeout,
)
from tests.simulation.promises.ledger import WAITING, Ledger, over

_KIND = (names.LABEL_POOL, names.LABEL_REVISION)

CLOCKS = 3600.0
"""By which an operator's clock, or a site's, may be ahead."""

PASS = 1.0
"""Most seconds of one pass in good weather: what came during it is seen by the next one."""


def _hurried(live: list[Json], *, lead: float, now: float) -> int:
    """Jobs near their end of which a successor lives: those come beyond the surge.

    `lead`: most seconds by which one comes before the end.
    """
    ends = (epoch(k8s.dig(job, "status", "endTime")) for job in _replaced(live))
    return sum(end is not None and end - now < lead for end in ends)


def _replaced(live: list[Json]) -> list[Json]:
    """Jobs of which a successor lives."""
    named = {k8s.annotations(job).get(names.ANNOTATION_REPLACES) for job in live}
    return [job for job in live if k8s.name(job) in named]


class NumberRules(Ledger):
    """Judges what an operator adds and takes away."""

    def _available(self, place: tuple[str, str]) -> set[str]:
        """Members now, or so lately that an operator may not know better."""
        members = self._members.get(membership(self._api, place), {})
        kept = {uid for uid, left in members.items() if left is None or self.now - left < 15}
        leaving = {
            a.uid
            for a in self.attempts.values()
            if a.deleted_at is not None and self.now - a.deleted_at > 0
        }
        return kept - leaving

    def _not_below(self, obj: Json, *, removed: frozenset[str]) -> None:
        """An operator takes something away: enough must be left."""
        place = k8s.namespace(obj), str(k8s.labels(obj).get(names.LABEL_DEPLOYMENT))
        wanted = self._wanted(place, low=True)
        if self.caches_late or wanted == 0 or self._api.get(MODEL_DEPLOYMENTS, *place) is None:
            return
        before = self._available(place) | removed
        members = self._members.get(membership(self._api, place), {})
        if not removed & members.keys():
            return
        if any(members.get(uid) is not None for uid in removed):
            return  # it had left the membership before
        if any(self.now - self._joined.get(uid, 0.0) < PASS for uid in removed):
            return  # it joined after the pass that takes it away had begun: seed 1740
        left = len(before - removed)
        self.require(left >= wanted, f"{place}: a member is removed, {left} of {wanted} are left")

    def _not_above(self, obj: Json) -> None:
        """An operator adds something: not more than the surge."""
        place, attempts = (k8s.namespace(obj), str(obj["spec"]["deployment"])), self.attempts
        live = [
            job
            for job in self._api.all(SLURM_JOBS)
            if (k8s.namespace(job), job["spec"]["deployment"]) == place
            and not k8s.deletion_timestamp(job)
            and not over(job)
            and not (attempts[str(job["spec"]["jobName"])].wiped and not job.get("status"))
            and any(map(self._api.exists, k8s.owner_uids(job)))  # a restored one is collected
        ]
        waiting = sum(k8s.dig(job, "status", "phase") in WAITING for job in live)
        owned = [
            d
            for d in self._api.all(DEPLOYMENTS)
            if k8s.namespace(d) == place[0]
            and of_a_worker(d, place[1])
            and not k8s.deletion_timestamp(d)
        ]
        pods = sum(int(d["spec"]["replicas"]) for d in owned)
        # As jobs that end, pods that drain have a successor already.
        pods -= sum(
            of_a_worker(pod, place[1])
            and names.ANNOTATION_DRAINING_SINCE in k8s.annotations(pod)
            and names.ANNOTATION_DRAINED_AT not in k8s.annotations(pod)
            and not k8s.deletion_timestamp(pod)
            for pod in self._api.all(PODS)
        )
        waiting += sum(
            of_a_worker(pod, place[1]) and k8s.dig(pod, "spec", "nodeName") is None
            for pod in self._api.all(PODS)
        )
        wanted = self._wanted(place, low=False)
        total = len(live) + pods
        if not self.caches_late:
            said = f"{place}: {total} workers ({waiting} of them waiting) for {wanted}"
            lead = startup_timeout(self._api, place) + drain_timeout(self._api, place)
            hurried = _hurried(live, lead=lead + CLOCKS, now=EPOCH + self.now)
            surge = max(self.shape.surge, hurried)
            self.require(total - max(0, waiting - 1) <= wanted + surge, said)
            kinds = {tuple(k8s.labels(obj).get(key) for key in _KIND) for obj in (*live, *owned)}
            # Successors that wait for a place are not counted, as in a rollout.
            alike = len(kinds) == 1 and not _replaced(live)
            most = wanted + surge if alike else 2 * wanted + surge
            self.require(total <= most, said)

    def wanted(self, place: tuple[str, str]) -> int:
        """The most replicas that somebody may believe to be wanted."""
        return self._wanted(place, low=False)

    def _wanted(self, place: tuple[str, str], *, low: bool) -> int:
        """Replicas wanted now, or lately by somebody who has not heard of a change."""
        known = self._replicas.get(place, [(0.0, 0)])
        recent = [known[-1][1]]
        for (_, before), (changed, _) in itertools.pairwise(known):
            if self.now - changed < 10:
                recent.append(before)
        return min(recent) if low else max(recent)
