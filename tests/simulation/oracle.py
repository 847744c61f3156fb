"""The judge: what must never happen, told from the simulators' own ledgers.

It reads what etcd holds, what slurmctld and the nodes did and which commands were called, and never
what an operator thinks. What depends on something that an operator can only learn later (a watch
event under way) is judged with the delay that the world has just then.

What comes with what is not built yet stands in docs/reliability.md.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from isthmus.api import names
from isthmus.api.conditions import Phase
from isthmus.api.times import epoch
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    LEASES,
    MODEL_DEPLOYMENTS,
    PODS,
    SLURM_CLUSTERS,
    SLURM_JOBS,
    Resource,
)
from isthmus.backends.slurm.records import SubmitRequest
from tests.simulation.apiserver import ApiSimulator, Json
from tests.simulation.clock import EPOCH, Process
from tests.simulation.engines import Engine, Machines
from tests.simulation.secrecy import Secrecy
from tests.simulation.slurm import Job, Slurm

GRACE = 60.0
"""Seconds between TERM and scancel: `termination-grace` in this world."""

FLOOR, BUDGET = 5.0, 300.0
"""Of a drain: settings and defaults."""
UNKNOWN_WAIT = 115.0
"""Least seconds between two submissions of one attempt: 60 + 5 + 2 * 10 + 30, and jitter."""

_WAITING = frozenset({None, Phase.WAITING, Phase.SUBMITTING, Phase.SUBMIT_UNKNOWN, Phase.PENDING})


@dataclass(slots=True)
class _View:
    """When one operator's process last saw the cluster."""

    complete: float | None = None
    failed: float | None = None


@dataclass(slots=True)
class _Attempt:
    """One SlurmJob object, from its creation on."""

    namespace: str
    name: str
    uid: str
    deployment: str
    intents: int = 0  # writes that made the phase Submitting
    phase: str | None = None
    submissions: list[float] = field(default_factory=list)
    refused: bool = False
    wiped: bool = False
    deleted_at: float | None = None  # deletionTimestamp was set
    over_at: float | None = None  # its phase became a terminal one
    gone: bool = False
    forsaken: bool = False  # let go because two snapshots lied about it
    lost: bool = False  # its object vanished with its API server's state
    slice_left: float | None = None


_KIND = (names.LABEL_POOL, names.LABEL_REVISION)


class Oracle:
    """Collects violations; the first one ends a run."""

    def __init__(self, *, api: ApiSimulator, slurm: Slurm, machines: Machines) -> None:
        self._api, self._slurm, self._machines = api, slurm, machines
        self.violations: list[str] = []
        self.off = False
        self.attempts: dict[str, _Attempt] = {}  # job name → attempt
        self.views: dict[str, _View] = {}
        self.clocks_jumped = False
        self.stale_after = 120.0
        self.caches_late_until = 0.0
        self.lag = 3.0
        self._replicas: dict[tuple[str, str], list[tuple[float, int]]] = {}
        self._members: dict[str, dict[str, float | None]] = {}  # Service → member → left at
        self.engine_of_pod: Callable[[Json], Engine | None] = lambda _: None
        self._drained_pods: set[str] = set()
        self._lost_uids: set[str] = set()  # of SlurmJobs that vanished and came back as others
        self.secrecy = Secrecy(api=api, machines=machines, require=self.require)
        api.listeners.append(self.changed)
        slurm.on_claim.append(self.claimed)

    def require(self, good: bool, what: str) -> None:
        if not good and not self.off:
            self.violations.append(f"{self._slurm.now:9.2f}  VIOLATION: {what}")

    @property
    def now(self) -> float:
        return self._slurm.now

    @property
    def caches_late(self) -> bool:
        """Whether operators may not know for long what is written in the API server."""
        return self.now < self.caches_late_until

    # ---- commands of operators

    def looked(self, process: Process, *, complete: bool) -> None:
        view = self.views.setdefault(process.name, _View())
        if complete:
            view.complete = self.now
        else:
            view.failed = self.now

    def lost(self, job_name: str) -> None:
        """The object of an attempt vanishes from etcd without anybody having deleted it."""
        self.attempts[job_name].lost = True

    def submits(self, process: Process, request: SubmitRequest) -> None:
        job_name = request.job_name
        self.secrecy.shows_in(f"sbatch of {job_name}", request)
        self._slurm.tell(f"{process.name}: sbatch {job_name}")
        self._leads(process, "sbatch")
        self._sees(process, "sbatch", slack=30.0)
        attempt = self.attempts.get(job_name)
        if attempt is None:
            self.require(False, f"sbatch of {job_name} without any SlurmJob")
            return
        self.require(not attempt.gone, f"sbatch of {job_name}, whose SlurmJob is gone")
        if attempt.deleted_at is not None and not self.caches_late:
            late = self.now - attempt.deleted_at
            self.require(late < self.lag, f"sbatch of {job_name}, deleted {late:.0f} s ago")
        attempt.submissions.append(self.now)
        self.require(
            len(attempt.submissions) <= attempt.intents,
            f"sbatch of {job_name} without an acknowledged intent",
        )
        if len(attempt.submissions) > 1 and not attempt.wiped and not self.clocks_jumped:
            since = self.now - attempt.submissions[-2]
            self.require(
                since >= UNKNOWN_WAIT - 2, f"{job_name} was submitted again after {since:.0f} s"
            )

    def terminates(self, process: Process, job_id: int, job_name: str) -> None:
        self._slurm.tell(f"{process.name}: TERM to job {job_id} {job_name}")
        attempt = self._stops(process, "TERM", job_id, job_name)
        if attempt is None:
            return
        self.require(attempt.deleted_at is not None, f"TERM to {job_name}, which is wanted")
        slice_ = self._api.get(ENDPOINT_SLICES, attempt.namespace, attempt.name)
        self.require(slice_ is None, f"TERM to {job_name} while it is in the membership")
        if attempt.slice_left is not None and not self.clocks_jumped:
            since = self.now - attempt.slice_left
            self.require(since > 4.0, f"TERM to {job_name} {since:.1f} s after it left")
        for engine in self._machines.running(job_name):
            self._not_cut("TERM to", job_name, engine, since=attempt.slice_left, attempt=attempt)

    def _not_cut(
        self,
        what: str,
        name: str,
        engine: Engine,
        *,
        since: float | None,
        attempt: _Attempt | None = None,
    ) -> None:
        """No request that has begun is cut before its budget, where the engine could tell of it."""
        held = engine.held(self.now)
        silent = self.now - self._machines.good_since(engine) < 60 or engine.terminated_at
        if not held or silent or self.clocks_jumped or (attempt is not None and attempt.wiped):
            return
        waited = self.now - (engine.started_at if since is None else since)
        over = waited >= FLOOR + BUDGET - 2
        self.require(over, f"{what} {name}: {held} requests cut after {waited:.0f} s")

    def cancels(self, process: Process, job_id: int, job_name: str) -> None:
        self._slurm.tell(f"{process.name}: scancel job {job_id} {job_name}")
        attempt = self._stops(process, "scancel", job_id, job_name)
        job = self._slurm.jobs.get(job_id)
        if attempt is None or job is None or job.name != job_name or job.engine is None:
            return
        slice_ = self._api.get(ENDPOINT_SLICES, attempt.namespace, attempt.name)
        self.require(slice_ is None, f"scancel of {job_name} while it is in the membership")
        if attempt.gone or attempt.lost:
            return  # an orphan
        told_waiting = attempt.phase in _WAITING  # by an old copy of SLURM's answer
        if attempt.deleted_at is not None and job.state == "RUNNING" and not told_waiting:
            self._not_cut(
                "scancel of", job_name, job.engine, since=attempt.slice_left, attempt=attempt
            )
        if attempt.deleted_at is None and job.state == "RUNNING" and attempt.over_at is None:
            unknown = attempt.wiped and not self._tells(job)
            good = unknown or not job.engine.checked or self._unwell(job.engine)
            self.require(good, f"scancel of {job_name}, which serves")
        elif attempt.deleted_at is not None and not self.clocks_jumped:
            since = job.engine.terminated_at
            early = since is not None and self.now - since < GRACE - 2
            self.require(not early, f"scancel of {job_name} within its grace")

    def _unwell(self, engine: Engine) -> bool:
        """Whether an engine that once served has not done so for the shortest startupTimeout."""
        machines, now = self._machines, self.now
        alone = any(
            machines.unreachable_until.get(a, 0.0) <= now for a in self._slurm.nodes.values()
        )
        long = now - engine.bad_since > 180 - 2 or self.clocks_jumped
        return alone and long and not machines.serves(engine, now=now)

    def _tells(self, job: Job) -> bool:
        """Whether an operator that knows nothing could find out that a job's engine serves."""
        engine = job.engine
        if engine is None or not job.comment.endswith(f"{engine.attempt}:port={engine.port}"):
            return False
        found = self._api.all(SLURM_CLUSTERS)
        ports = k8s.dig(found[0], "spec", "network", "ports", default={}) if found else {}
        allowed = isinstance(ports, dict) and ports["from"] <= engine.port <= ports["to"]
        long_enough = self.now - self._machines.good_since(engine) > 100  # three probes
        return allowed and long_enough and self._machines.serves(engine, now=self.now)

    def _stops(self, process: Process, what: str, job_id: int, job_name: str) -> _Attempt | None:
        self._leads(process, what)
        self._sees(process, what, slack=40.0)
        attempt = self.attempts.get(job_name)
        self.require(attempt is not None, f"{what} to job {job_id} {job_name}, which is not ours")
        return attempt

    def _leads(self, process: Process, what: str) -> None:
        leases = self._api.all(LEASES)
        holder = k8s.dig(leases[0], "spec", "holderIdentity") if leases else None
        self.require(holder == process.name, f"{what} by {process.name}, but {holder} leads")

    def _sees(self, process: Process, what: str, *, slack: float) -> None:
        view = self.views.get(process.name, _View())
        if view.complete is None:
            self.require(False, f"{what} before {process.name} has seen the cluster")
            return
        age = self.now - view.complete
        limit = self.stale_after + slack
        if not self.clocks_jumped:
            self.require(age <= limit, f"{what} on a cluster last seen {age:.0f} s ago")
        if view.failed is not None and view.failed > view.complete:
            blind = self.now - view.failed
            self.require(blind <= slack, f"{what} on a cluster not seen for {blind:.0f} s")

    # ---- the nodes

    def claimed(self, job: Job) -> None:
        """A job passed the start gate: an engine starts."""
        attempt = self.attempts.get(job.name)
        # A job that was over and that slurmctld has forgotten to be; a ghost of an attempt whose
        # status, with the count of its submissions, was wiped. Its engine is the only one of the
        # attempt all the same, and the orphan policy ends it: see `ending`.
        risen = attempt is not None and (
            job.rolled_back or attempt.wiped or attempt.forsaken or attempt.lost
        )
        self.require(
            risen or (attempt is not None and not attempt.gone),
            f"engine of {job.name} starts, whose SlurmJob is gone",
        )
        engines = [engine for engine in self._machines.ledger if engine.job_name == job.name]
        self.require(not engines, f"a second engine of attempt {job.name} starts")

    # ---- the API server

    def changed(self, resource: Resource, event: str, obj: Json, by: str) -> None:
        ours = by.startswith("op")
        if resource is MODEL_DEPLOYMENTS:
            place = k8s.namespace(obj), k8s.name(obj)
            wanted = 0 if k8s.deletion_timestamp(obj) else int(obj["spec"].get("replicas", 1))
            known = self._replicas.setdefault(place, [])
            if not known or known[-1][1] != wanted:
                known.append((self.now, wanted))
            if ours and event == "MODIFIED":
                self._counts(obj, place)
        elif resource is SLURM_JOBS:
            self._slurm_job(event, obj, by=by)
        elif resource is ENDPOINT_SLICES:
            self._slice(event, obj, ours=ours)
        elif resource is DEPLOYMENTS and ours and event != "ADDED":
            self._not_below(obj, removed=frozenset())
        elif resource is PODS and event == "MODIFIED":
            self._pod(obj, by=by)

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
            self._not_cut("release of", k8s.name(obj), engine, since=since)
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
        if not self.caches_late:
            self.require(said <= jobs + pods, f"{place}: {said} replicas of {jobs + pods} are told")

    def _ends(self, since: float | None) -> bool:
        return since is not None and self.now - since > 12

    def _slurm_job(self, event: str, obj: Json, *, by: str) -> None:
        ours = by.startswith("op")
        job_name = str(obj["spec"]["jobName"])
        attempt = self.attempts.get(job_name)
        if event == "ADDED":
            again = attempt is not None and attempt.lost  # restored
            self.require(attempt is None or again, f"two SlurmJobs of the name {job_name}")
            self.attempts[job_name] = _Attempt(
                k8s.namespace(obj), k8s.name(obj), k8s.uid(obj), str(obj["spec"]["deployment"])
            )
            if attempt is not None:
                self._restored(self.attempts[job_name], attempt)
            if ours:
                self._not_above(obj)
            return
        assert attempt is not None
        if event == "DELETED":
            attempt.gone = True
            if attempt.lost and by == "backup":
                return
            running = [e for e in self._machines.running(job_name) if not e.lost_by_slurm]
            # Two complete snapshots that both lie, and a job that nobody has ever seen.
            lied = self.now - self._slurm.lied_at < 150
            attempt.forsaken = lied and k8s.dig(obj, "status", "state") is None
            good = attempt.forsaken or attempt.lost or not running
            self.require(good, f"SlurmJob of {job_name} let go while its engine runs")
            return
        if k8s.deletion_timestamp(obj) and attempt.deleted_at is None:
            attempt.deleted_at = self.now
            if ours:
                self._not_below(obj, removed=frozenset({attempt.uid}))
        status = obj.get("status", {})
        phase = status.get("phase")
        if ours and phase == Phase.SUBMITTING and attempt.phase != phase:
            attempt.intents += 1
        attempt.phase = phase
        attempt.over_at = (attempt.over_at or self.now) if _over(obj) else None

    def _restored(self, new: _Attempt, old: _Attempt) -> None:
        """An object that came back without its status is the same attempt still."""
        new.intents, new.submissions = old.intents, old.submissions
        new.wiped = new.lost = True
        self._lost_uids.add(old.uid)

    # ---- the membership

    def _slice(self, event: str, obj: Json, *, ours: bool) -> None:
        service = f"{k8s.namespace(obj)}/{k8s.labels(obj).get('kubernetes.io/service-name')}"
        members = self._members.setdefault(service, {})
        if k8s.labels(obj).get("endpointslice.kubernetes.io/managed-by") == names.GROUP:
            owner = k8s.owner_uids(obj)[0]
            members[owner] = self.now if event == "DELETED" else None
            attempt = next((a for a in self.attempts.values() if a.uid == owner), None)
            if attempt is not None and event == "DELETED":
                attempt.slice_left = self.now
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

    def _is_pod(self, uid: str) -> bool:
        return all(attempt.uid != uid for attempt in self.attempts.values())

    def _traffic(self, obj: Json, attempt: _Attempt | None) -> None:
        address = str(obj["endpoints"][0]["addresses"][0])
        port = int(obj["ports"][0]["port"])
        if attempt is None:
            # An operator that has not heard that the object is gone with its API server's state.
            unheard = self.caches_late and k8s.owner_uids(obj)[0] in self._lost_uids
            self.require(unheard, f"{address}:{port} in the membership without a SlurmJob")
            return
        job_name = next(n for n, a in self.attempts.items() if a is attempt)
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
            and not _over(job)
            and not (attempts[str(job["spec"]["jobName"])].wiped and not job.get("status"))
            and any(map(self._api.exists, k8s.owner_uids(job)))  # a restored one is collected
        ]
        waiting = sum(k8s.dig(job, "status", "phase") in _WAITING for job in live)
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
            self.require(total - max(0, waiting - 1) <= wanted + 1, said)
            kinds = {tuple(k8s.labels(obj).get(key) for key in _KIND) for obj in (*live, *owned)}
            most = wanted + 1 if len(kinds) == 1 else 2 * wanted + 1
            self.require(total <= most, said)

    def _wanted(self, place: tuple[str, str], *, low: bool) -> int:
        """Replicas wanted now, or lately by somebody who has not heard of a change."""
        known = self._replicas.get(place, [(0.0, 0)])
        recent = [known[-1][1]]
        for (_, before), (changed, _) in itertools.pairwise(known):
            if self.now - changed < 10:
                recent.append(before)
        return min(recent) if low else max(recent)


def _grace(pod: Json) -> int:
    return k8s.number(pod["metadata"].get("deletionGracePeriodSeconds")) or 0


def _ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _over(job: Json) -> bool:
    phase = k8s.dig(job, "status", "phase")
    return phase is not None and Phase(str(phase)).terminal
