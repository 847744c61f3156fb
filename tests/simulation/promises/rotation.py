"""Who gets requests: engines that have answered, and none that is well is taken out."""

from isthmus.api import names
from isthmus.apiserver import objects as k8s
from tests.simulation.apiserver import Json
from tests.simulation.engines import Engine
from tests.simulation.promises.ledger import Attempt, Ledger
from tests.simulation.promises.tunnels import in_tunnels, is_tunnel


class RotationRules(Ledger):
    """Judges what is written of slices."""

    def _slice(self, event: str, obj: Json, *, ours: bool) -> None:
        service = f"{k8s.namespace(obj)}/{k8s.labels(obj).get('kubernetes.io/service-name')}"
        members = self._members.setdefault(service, {})
        if is_tunnel(obj):
            self._tunnel_slice(obj, members)
            return
        if k8s.labels(obj).get("endpointslice.kubernetes.io/managed-by") == names.GROUP:
            if not ours and not k8s.owner_uids(obj):
                return  # a stranger's that wears our labels: no worker is behind it
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
        for job in self._clusters[attempt.cluster].jobs.values():
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
