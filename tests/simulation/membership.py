"""The part of the judge that looks at the membership and at numbers: who serves, and how many."""

import itertools

from isthmus.api import names
from isthmus.api.times import epoch
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import DEPLOYMENTS, MODEL_DEPLOYMENTS, PODS, SLURM_JOBS
from tests.simulation.apiserver import Json
from tests.simulation.clock import EPOCH
from tests.simulation.engines import Engine
from tests.simulation.ledger import WAITING, Attempt, Ledger, over
from tests.simulation.tunnel_oracle import in_tunnels, is_tunnel

_KIND = (names.LABEL_POOL, names.LABEL_REVISION)


PASS = 1.0
"""Most seconds of one pass in good weather: what came during it is seen by the next one."""


LEAD = 3600.0
"""More seconds than a successor comes before the end of a job, whatever is in a specification."""


def _hurried(live: list[Json], *, now: float) -> int:
    """Jobs near their end of which a successor lives: those come beyond the surge."""
    ends = (epoch(k8s.dig(job, "status", "endTime")) for job in _replaced(live))
    return sum(end is not None and end - now < LEAD for end in ends)


def _replaced(live: list[Json]) -> list[Json]:
    """Jobs of which a successor lives."""
    named = {k8s.annotations(job).get(names.ANNOTATION_REPLACES) for job in live}
    return [job for job in live if k8s.name(job) in named]


class MembershipRules(Ledger):
    """Judges what is written of slices, pods, replicas and counts."""

    def _slice(self, event: str, obj: Json, *, ours: bool) -> None:
        service = f"{k8s.namespace(obj)}/{k8s.labels(obj).get('kubernetes.io/service-name')}"
        members = self._members.setdefault(service, {})
        if is_tunnel(obj):
            self._tunnel_slice(obj, members)
            return
        if k8s.labels(obj).get("endpointslice.kubernetes.io/managed-by") == names.GROUP:
            owner = k8s.owner_uids(obj)[0]
            members[owner] = self.now if event == "DELETED" else None
            if event == "ADDED":
                self._joined[owner] = self.now
            attempt = next((a for a in self.attempts.values() if a.uid == owner), None)
            if attempt is not None and event == "DELETED":
                attempt.slice_left = self.now
                if ours:
                    self._not_dropped(attempt)
            if ours and event != "DELETED":
                self._traffic(obj, attempt)
            return
        ready = {
            str(k8s.dig(endpoint, "targetRef", "uid"))
            for endpoint in obj.get("endpoints", ())
            if k8s.dig(endpoint, "conditions", "ready") and event != "DELETED"
        }
        for uid in ready:
            members[uid] = None
        for uid, left in members.items():
            if left is None and uid not in ready and uid.startswith("uid-") and self._is_pod(uid):
                members[uid] = self.now

    def _not_dropped(self, attempt: Attempt) -> None:
        """A worker that is well, and wanted, leaves the membership by no view of ours."""
        ends = attempt.deleted_at is not None or attempt.over_at is not None
        if ends or attempt.wiped or attempt.lost or self.caches_late or self.clocks_jumped:
            return
        for job in self._slurm.jobs.values():
            steady = job.state == "RUNNING" and self.now - job.woken_at > 100
            if job.name == attempt.job_name and steady and self.tells(job):
                self.require(False, f"{job.name} is well and leaves the membership")

    def _tunnel_slice(self, obj: Json, members: dict[str, float | None]) -> None:
        """A worker is a member while any supervisor lets requests through to it."""
        owner = k8s.owner_uids(obj)[0]
        attempt = next((a for a in self.attempts.values() if a.uid == owner), None)
        opened = in_tunnels(self._api, owner)
        stays = opened and not (attempt is not None and attempt.withdrawn)
        if stays and members.get(owner, 0.0) is not None:
            self._joined[owner] = self.now
        if stays or members.get(owner, 0.0) is None:
            members[owner] = None if stays else self.now
        if attempt is not None and opened:
            if attempt.slice_left is not None:
                attempt.slice_left_before, attempt.let_in_at = attempt.slice_left, self.now
            attempt.slice_left = None
        elif attempt is not None and attempt.slice_left is None and owner in members:
            # A supervisor that could not reach the API server may let it in for a moment.
            moment = self.now - attempt.let_in_at < 1.0
            attempt.slice_left = attempt.slice_left_before if moment else self.now

    def _forward(self, attempt: Attempt, forward: Json | None) -> None:
        """A worker leaves the membership when its supervisors are told, as far as we do it."""
        told = forward is not None and not forward.get("inTraffic")
        before, attempt.withdrawn = attempt.withdrawn, told or attempt.over_at is not None
        if before and not attempt.withdrawn and in_tunnels(self._api, attempt.uid):
            # Let in again before a supervisor had taken it out: no slice will say so.
            for members in self._members.values():
                if attempt.uid in members:
                    members[attempt.uid] = None
        for members in self._members.values() if attempt.withdrawn else ():
            if members.get(attempt.uid, 0.0) is None:
                members[attempt.uid] = self.now

    def _is_pod(self, uid: str) -> bool:
        return all(attempt.uid != uid for attempt in self.attempts.values())

    def _traffic(self, obj: Json, attempt: Attempt | None) -> None:
        address = str(obj["endpoints"][0]["addresses"][0])
        port = int(obj["ports"][0]["port"])
        if attempt is None:
            # An operator that has not heard that the object is gone with its API server's state.
            unheard = self.caches_late and k8s.owner_uids(obj)[0] in self._lost_uids
            self.require(unheard, f"{address}:{port} in the membership without a SlurmJob")
            return
        job_name = attempt.job_name
        found: list[Engine] = [
            engine
            for engine in self._machines.ledger
            if (engine.address, engine.port) == (address, port) and engine.job_name == job_name
        ]
        self.require(
            any(engine.checked for engine in found),
            f"traffic for {job_name} to {address}:{port}, where it never answered",
        )
        if attempt.deleted_at is not None and not self.caches_late:
            late = self.now - attempt.deleted_at
            self.require(late < self.lag, f"traffic to {job_name}, deleted {late:.0f} s ago")

    def _available(self, place: tuple[str, str]) -> set[str]:
        """Members now, or so lately that an operator may not know better."""
        members = self._members.get("/".join(place), {})
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
        if not removed & self._members.get("/".join(place), {}).keys():
            return
        if any(self._members["/".join(place)].get(uid) is not None for uid in removed):
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
            and k8s.labels(d).get(names.LABEL_DEPLOYMENT) == place[1]
            and not k8s.deletion_timestamp(d)
        ]
        pods = sum(int(d["spec"]["replicas"]) for d in owned)
        # As jobs that end, pods that drain have a successor already.
        pods -= sum(
            k8s.labels(pod).get(names.LABEL_DEPLOYMENT) == place[1]
            and names.ANNOTATION_DRAINING_SINCE in k8s.annotations(pod)
            and names.ANNOTATION_DRAINED_AT not in k8s.annotations(pod)
            and not k8s.deletion_timestamp(pod)
            for pod in self._api.all(PODS)
        )
        waiting += sum(
            k8s.labels(pod).get(names.LABEL_DEPLOYMENT) == place[1]
            and k8s.dig(pod, "spec", "nodeName") is None
            for pod in self._api.all(PODS)
        )
        wanted = self._wanted(place, low=False)
        total = len(live) + pods
        if not self.caches_late:
            said = f"{place}: {total} workers ({waiting} of them waiting) for {wanted}"
            surge = max(1, _hurried(live, now=EPOCH + self.now))
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
            self.not_cut("release of", k8s.name(obj), engine, since=since)
        if by == "controller" and k8s.deletion_timestamp(obj) and not self.caches_late:
            lately = self.now - engine.started_at < 15
            served = names.LABEL_TRAFFIC in k8s.labels(obj) and _ready(obj)
            self.require(not served or lately, f"{k8s.name(obj)} is scaled away in rotation")

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
            if k8s.labels(pod).get(names.LABEL_DEPLOYMENT) == place[1]
        )
        said = obj.get("status", {}).get("replicas", 0)
        if not self.caches_late and self.now >= self.deletions_untold_until:
            self.require(said <= jobs + pods, f"{place}: {said} replicas of {jobs + pods} are told")

    def _ends(self, since: float | None) -> bool:
        return since is not None and self.now - since > 12


def _grace(pod: Json) -> int:
    return k8s.number(pod["metadata"].get("deletionGracePeriodSeconds")) or 0


def _ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
