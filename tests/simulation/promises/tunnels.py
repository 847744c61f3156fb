"""The judge of tunnels: what must never happen on the way to workers that pods cannot reach.

As the oracle it reads etcd, the nodes and the network, never what an operator or a supervisor
thinks. Apart from it because all of it is about forwards and their slices.
"""

from typing import TYPE_CHECKING

from isthmus.api import names
from isthmus.api.conditions import Phase
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import DEPLOYMENTS, ENDPOINT_SLICES, SLURM_JOBS, Resource
from tests.simulation.apiserver import ApiSimulator, Json
from tests.simulation.engines import Address, Engine
from tests.simulation.promises.ledger import INTRUDERS, Attempt
from tests.simulation.slurm_jobs import Job

if TYPE_CHECKING:
    from tests.simulation.promises.ledger import Attempt
    from tests.simulation.ways import Master
    from tests.simulation.world import World

_LAG = 4.0
"""Seconds for a supervisor to hear and to write."""
_WITHDRAWN = 60.0
"""A worker that is deleted leaves the rotation in this time, though no supervisor lives."""
_FOREIGN = 200.0
"""Longest time of probes that find another engine: three in a row, backed off, and the round."""
_STEADY = 60.0
_KIND = (names.LABEL_POOL, names.LABEL_REVISION)


def is_tunnel(obj: Json) -> bool:
    """Whether a slice is that of a forward."""
    return names.LABEL_TUNNEL_HOST in k8s.labels(obj)


def is_ready(obj: Json) -> bool:
    return k8s.dig(obj, "endpoints", 0, "conditions", "ready") is True


def place_of(obj: Json) -> Address:
    return str(obj["endpoints"][0]["addresses"][0]), int(obj["ports"][0]["port"])


def in_tunnels(api: ApiSimulator, uid: str) -> bool:
    """Whether any supervisor's slice lets requests through to a SlurmJob's worker."""
    found = (o for o in api.all(ENDPOINT_SLICES) if is_tunnel(o) and uid in k8s.owner_uids(o))
    return any(is_ready(obj) for obj in found)


class TunnelOracle:
    """Tells the oracle of violations."""

    def __init__(self, world: "World") -> None:
        self._world, self._oracle = world, world.oracle
        self._ready: set[tuple[str, str]] = set()
        self._proven: set[str] = set()  # names of slices through which somebody has answered
        self._ports: dict[str, int] = {}
        self.conflict = False  # somebody has written a port into a status
        self._rewritten: set[str] = set()  # names of the jobs to whose status that was done
        self.closed: dict[Address, tuple[float, bool]] = {}  # when, and whether it had answered
        self.requests = 0
        world.api.listeners.append(self.changed)
        world.oracle.wanted_is_cancelled = self.cancelled
        world.oracle.readable = self.readable

    # ---- the API server

    def changed(self, resource: Resource, event: str, obj: Json, by: str) -> None:
        if resource is ENDPOINT_SLICES and is_tunnel(obj):
            self._slice(event, obj, by=by)
        elif k8s.namespace(obj) == INTRUDERS:
            return
        elif resource is SLURM_JOBS and self._world.tunnels is not None:
            if event == "ADDED" and by.startswith("op"):
                self._needed(obj)
            self._port(event, obj, by=by)

    def _slice(self, event: str, obj: Json, *, by: str) -> None:
        place = k8s.namespace(obj), k8s.name(obj)
        before, ready = place in self._ready, event != "DELETED" and is_ready(obj)
        if ready and not before:
            self._ready.add(place)
            self._begins(obj)
        elif before and not ready:
            self._ready.discard(place)
            if by.startswith("tun-"):
                self._ends(obj, by=by)

    def _begins(self, obj: Json) -> None:
        """A forward comes into rotation."""
        oracle, machines, place = self._oracle, self._world.machines, place_of(obj)
        name, attempt = self._attempt(obj)
        if attempt is None:
            oracle.require(oracle.caches_late, f"{k8s.name(obj)} is ready without a SlurmJob")
            return
        door = machines.doors.get(place)
        closed_at, answered = self.closed.get(place, (-1e9, False))
        lately = self._world.now - closed_at < _LAG or oracle.caches_late
        proven = (answered and lately) or (door is not None and door.answered_at is not None)
        if proven:
            self._proven.add(k8s.name(obj))
        elif k8s.name(obj) in self._proven:
            # The last ones of a Service are let in again while our own side is broken. One that
            # goes out in the same round may be written a moment later.
            self._world.slurm.later(_LAG, self._let_in_again, obj)
        else:
            oracle.require(False, f"{k8s.name(obj)} is ready, and nothing answered there")
        if door is not None:
            its = [e for e in machines.ledger if (e.address, e.port) == door.target]
            good = any(e.job_name == name and e.checked for e in its)
            oracle.require(good, f"{k8s.name(obj)} is ready: {name} never answered there")
        for other in self._world.api.all(ENDPOINT_SLICES):
            shared = is_tunnel(other) and is_ready(other) and place_of(other) == place
            same = k8s.owner_uids(other) == k8s.owner_uids(obj)
            oracle.require(
                same or not shared, f"{k8s.name(obj)} and {k8s.name(other)} share a port"
            )
        if attempt.deleted_at is not None and not oracle.caches_late:
            late = self._world.now - attempt.deleted_at
            oracle.require(late < _LAG, f"{k8s.name(obj)} is ready, deleted {late:.0f} s ago")

    def _let_in_again(self, obj: Json) -> None:
        door = self._world.machines.doors.get(place_of(obj))
        answered = door is not None and door.answered_at is not None
        stays = (k8s.namespace(obj), k8s.name(obj)) in self._ready and not answered
        if stays and self._works(_service(obj)) and not self._world.over:
            said = f"{k8s.name(obj)} is let in again, and others of its Service work"
            self._oracle.require(self._oracle.caches_late, said)

    def _ends(self, obj: Json, *, by: str) -> None:
        """A supervisor takes a forward out: it never empties a set because its own side failed."""
        service = _service(obj)
        if self._forced(by) or not self._empty(service):
            return
        # Two that lose the same login host at once hear of each other a moment later.
        self._world.slurm.later(_LAG, self._still_empty, service, by)

    def _works(self, service: tuple[str, str]) -> bool:
        """Whether any endpoint of a Service is ready and is not told to be cut off."""
        return any(
            k8s.dig(endpoint, "conditions", "ready")
            and k8s.annotations(obj).get(names.ANNOTATION_TUNNEL) != names.TUNNEL_DOWN
            for obj in self._world.api.all(ENDPOINT_SLICES)
            if _service(obj) == service
            for endpoint in obj.get("endpoints", ())
        )

    def _empty(self, service: tuple[str, str]) -> bool:
        oracle = self._oracle
        if oracle.caches_late or oracle.clocks_jumped:
            return False
        return not any(
            k8s.dig(endpoint, "conditions", "ready")
            for obj in self._world.api.all(ENDPOINT_SLICES)
            if _service(obj) == service
            for endpoint in obj.get("endpoints", ())
        )

    def _still_empty(self, service: tuple[str, str], by: str) -> None:
        if self._world.over or not self._empty(service):
            return
        for job in self._world.api.all(SLURM_JOBS):
            wanted = k8s.dig(job, "status", "forward", "inTraffic") is True
            if not wanted or k8s.deletion_timestamp(job) or not self._steady(job):
                continue
            if (k8s.namespace(job), k8s.dig(job, "status", "forward", "service")) == service:
                self._oracle.require(
                    False, f"{by} empties {service[1]}, and {k8s.name(job)} serves"
                )

    def _forced(self, by: str) -> bool:
        """Whether a supervisor ends in good order and nobody has taken over in its time."""
        lives = [life for host in self._world.hosts() for life in host.lives if life.name == by]
        asked = lives[0].asked_at if lives else None
        return asked is not None and self._world.now - asked > 55

    def _port(self, event: str, obj: Json, *, by: str) -> None:
        """A port is kept for life, and no two workers in traffic have the same."""
        uid, port = k8s.uid(obj), k8s.number(k8s.dig(obj, "status", "forward", "port"))
        if event == "DELETED" or port is None:
            return
        attempt = self._oracle.attempts.get(str(obj["spec"]["jobName"]))
        lost = attempt is None or attempt.wiped or attempt.lost or self.conflict
        if by.startswith("op") and not lost:
            before = self._ports.get(uid, port)
            self._oracle.require(
                before == port, f"the port of {k8s.name(obj)} changes, {before} to {port}"
            )
            if k8s.dig(obj, "status", "forward", "inTraffic"):
                self._alone(obj, port)
        if by == "user" and self._ports.get(uid, port) != port:
            self._rewritten.add(str(obj["spec"]["jobName"]))
        self._ports[uid] = port

    def _alone(self, obj: Json, port: int) -> None:
        for other in self._world.api.all(SLURM_JOBS):
            forward = k8s.dig(other, "status", "forward", default={})
            same = isinstance(forward, dict) and forward.get("port") == port
            if same and k8s.uid(other) != k8s.uid(obj) and forward.get("inTraffic"):
                known = self._oracle.attempts[str(other["spec"]["jobName"])]
                said = f"{k8s.name(obj)} and {k8s.name(other)} are in traffic at port {port}"
                self._oracle.require(known.wiped or known.lost, said)

    def _needed(self, obj: Json) -> None:
        """A submission while every worker that is wanted serves: its cause can only be the way."""
        place = k8s.namespace(obj), str(obj["spec"]["deployment"])
        live = [
            job
            for job in self._world.api.all(SLURM_JOBS)
            if (k8s.namespace(job), job["spec"]["deployment"]) == place
            and k8s.uid(job) != k8s.uid(obj)
            and not k8s.deletion_timestamp(job)
            and not _over(job)
        ]
        kinds = {tuple(k8s.labels(job).get(key) for key in _KIND) for job in (*live, obj)}
        pods = any(
            k8s.labels(one).get(names.LABEL_DEPLOYMENT) == place[1]
            for one in self._world.api.all(DEPLOYMENTS)
        )
        if pods or len(kinds) > 1 or self._oracle.caches_late:
            return
        if k8s.annotations(obj).get(names.ANNOTATION_REPLACES) in map(k8s.name, live):
            return  # it is made for one whose node is drained, or whose time ends
        wanted = self._oracle.wanted(place)
        if live and len(live) >= wanted and all(map(self._steady, live)):
            said = f"{k8s.name(obj)} is made, and all {len(live)} workers of {wanted} serve"
            self._oracle.require(False, said)

    # ---- requests

    def through(self, obj: Json) -> Engine | None:
        """A client's request goes through a forward: who gets it."""
        world, oracle = self._world, self._oracle
        self.requests += 1
        door = world.machines.doors.get(place_of(obj))
        name, attempt = self._attempt(obj)
        if attempt is not None and attempt.deleted_at is not None and not oracle.clocks_jumped:
            since = max(attempt.deleted_at, oracle.caches_late_until)
            late = world.now - since
            oracle.require(late < _WITHDRAWN, f"traffic to {name}, deleted {late:.0f} s ago")
        if door is None or door.way.silent:
            return None
        engine = world.machines.listening.get(door.target)
        if engine is None or not world.machines.serves(engine, now=world.now):
            return None
        if engine.job_name != name:
            begun = max(
                engine.started_at,
                world.machines.good_since(engine),
                door.opened_at,
                oracle.caches_late_until,
            )
            late = world.now - begun
            oracle.require(late < _FOREIGN, f"a foreign engine gets requests for {name}")
        return engine

    def look(self) -> None:
        """What may last only so long."""
        oracle = self._oracle
        if oracle.clocks_jumped:
            return
        for job in self._world.api.all(SLURM_JOBS):
            if not k8s.deletion_timestamp(job) or not in_tunnels(self._world.api, k8s.uid(job)):
                continue
            attempt = oracle.attempts[str(job["spec"]["jobName"])]
            since = max(attempt.deleted_at or 0.0, oracle.caches_late_until)
            late = self._world.now - since
            said = f"{k8s.name(job)}, deleted {late:.0f} s ago, is in rotation through a tunnel"
            oracle.require(late < _WITHDRAWN, said)

    # ---- commands and connections

    def cancelled(self, name: str, job: Job) -> None:
        """A job that is wanted is cancelled: not because the way to it is broken."""
        engine, world = job.engine, self._world
        if world.tunnels is None or engine is None or self._oracle.clocks_jumped:
            return
        good = world.machines.serves(engine, now=world.now)
        steady = world.now - world.machines.good_since(engine) > _STEADY
        obj = next((o for o in world.api.all(SLURM_JOBS) if o["spec"]["jobName"] == name), None)
        known = obj is not None and k8s.dig(obj, "status", "port") == engine.port
        doors = [d for d in world.machines.doors.values() if d.target == _at(engine)]
        broken = all(door.way.silent or world.now - door.opened_at < _LAG for door in doors)
        self._oracle.require(
            not (good and steady and known and broken), f"scancel of {name}: only its way is broken"
        )

    def readable(self, engine: Engine) -> bool:
        """Whether an operator can have asked an engine for a while what it holds."""
        if engine.job_name in self._rewritten:
            return False  # asked through a port at which nobody listens yet
        if self._world.tunnels is None or not self._world.is_node(engine.address):
            return True
        return any(
            not door.way.silent and self._world.now - door.opened_at > _STEADY
            for door in self._world.machines.doors.values()
            if door.target == _at(engine)
        )

    def _let_go(self, engine: Engine) -> bool:
        """Whether the SlurmJob of an engine is gone or another one: nobody holds its way."""
        attempt = self._oracle.attempts.get(engine.job_name)
        return attempt is None or attempt.gone or attempt.lost

    def closes(self, master: "Master") -> None:
        """A connection is closed on purpose: not under requests, where its supervisor ends."""
        host = next(h for h in self._world.hosts() if h.id == master.owner)
        process = host.process
        if process is None or process.asked_at is None or master.silent or self.conflict:
            return
        now = self._world.now
        doors = [*master.doors.values(), *(door for _, door in master.cancelled)]
        held = sum(
            not self._let_go(engine)
            for door in doors
            if door.held(now)
            for engine, _ in door.requests
        )
        over = now - process.asked_at >= 300.0
        self._oracle.require(not held or over, f"{process.name} ends and cuts {held} requests")

    # ---- what is known

    def _attempt(self, obj: Json) -> "tuple[str, Attempt | None]":
        owner = k8s.owner_uids(obj)[0]
        found = ((n, a) for n, a in self._oracle.attempts.items() if a.uid == owner)
        return next(found, ("", None))

    def _steady(self, job: Json) -> bool:
        """Whether a SlurmJob's engine has served for a while, as its node sees it."""
        machines, now = self._world.machines, self._world.now
        return any(
            machines.serves(engine, now=now)
            and engine.checked
            and not engine.lost_by_slurm
            and now - machines.good_since(engine) > _STEADY
            for engine in machines.running(str(job["spec"]["jobName"]))
        )


def _at(engine: Engine) -> Address:
    return engine.address, engine.port


def _service(obj: Json) -> tuple[str, str]:
    return k8s.namespace(obj), k8s.labels(obj).get("kubernetes.io/service-name", "")


def _over(job: Json) -> bool:
    phase = k8s.dig(job, "status", "phase")
    return phase is not None and Phase(str(phase)).terminal
