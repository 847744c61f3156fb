"""The supervisor's loop: wanted forwards in, links and checks set, slices published.

Level-based, as the operator: each round looks at everything anew, and a second round with the same
view writes nothing. It goes on without the API server: what is held stays held.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from isthmus.api.ip_family import host_port
from isthmus.apiserver.objects import dig, namespace, owner_uids, uid
from isthmus.apiserver.resources import SLURM_CLUSTERS, SLURM_JOBS
from isthmus.apiserver.store import Store
from isthmus.errors import ApiError
from isthmus.guarded import where
from isthmus.routing.tunnel_slice import TunnelSlice
from isthmus.routing.tunnel_slices import Published
from isthmus.ssh.options import Forward
from isthmus.tunnels import messages, rules
from isthmus.tunnels.admission import Admission
from isthmus.tunnels.checks import Checks
from isthmus.tunnels.connections import open_connections
from isthmus.tunnels.desired import Wanted, over, parsed, recalled, wanted_forwards
from isthmus.tunnels.heartbeat import Heartbeat
from isthmus.tunnels.held import Held
from isthmus.tunnels.leftovers import Leftovers
from isthmus.tunnels.links import LinkKey, Links
from isthmus.tunnels.publisher import Publisher
from isthmus.tunnels.rules import Health, Outcome, View, half_dead, may_leave, ready_forwards

_log = logging.getLogger(__name__)

_GAP = 0.05
"""Seconds between two rounds at least, so that a burst of changes makes few."""
_RETRY = 1.0
_IDLE = 5.0
_FORBIDDEN_RETRY = 60.0
"""Seconds after which a connection that lets nothing through is made anew: a server reads its rules
when a client logs in."""


class Bastion(Protocol):
    """The sshd that jobs of mode Reverse call."""

    async def admit(self, wanted: Mapping[str, Wanted]) -> None:
        """Let exactly these listen, each with its key on its port."""
        ...

    async def close(self) -> None:
        """End it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How a supervisor ends, in seconds; see `TunnelSettings`."""

    successor_wait: float
    leave_floor: float
    drain_budget: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this supervisor is: the id that its slices bear, and the address its forwards have."""

    host: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a supervisor works with.

    Attributes:
        publisher: writes our slices.
        heartbeat: our Lease and the others'.
        links: connections to login hosts and nodes.
        checks: makes the requests through forwards, given who is told their outcomes.
        bastion: for mode Reverse, None where there is none.
        admission: says which forwards may be held.
    """

    publisher: Publisher
    heartbeat: Heartbeat
    links: Links
    checks: Callable[[Callable[[str, Outcome], None]], Checks]
    bastion: Bastion | None
    admission: Admission


class Supervisor:
    """Holds the forwards of one tunnel host."""

    def __init__(
        self,
        *,
        store: Store,
        parts: Parts,
        identity: Identity,
        times: Times,
        clock: Callable[[], float],
        connections: Callable[[str, frozenset[int]], int] = open_connections,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Prepare; `run` begins.

        Args:
            store: SlurmJobs, SlurmClusters and EndpointSlices.
            parts: what it works with.
            identity: who it is.
            times: of the end.
            clock: seconds, monotonic.
            connections: counts the connections to some ports of an address.
            sleep: waits for some seconds.
        """
        self._store, self._publisher, self._heartbeat = store, parts.publisher, parts.heartbeat
        self._links, self._bastion, self._admission = parts.links, parts.bastion, parts.admission
        self._checks = parts.checks(self._outcome)
        self._host, self._address = identity.host, identity.address
        self._leftovers = Leftovers(
            publisher=parts.publisher, heartbeat=parts.heartbeat, host=identity.host
        )
        self._times, self._clock = times, clock
        self._connections, self._sleep = connections, sleep
        self._held: dict[str, Held] = {}
        self._wake = asyncio.Event()
        self._leaving = False
        self._accepting = True
        self._complaint = ""
        self.last_round = clock()
        """When the last round ended, for the liveness."""

    def wake(self) -> None:
        """Have a round soon: something changed."""
        self._wake.set()

    async def run(self) -> None:
        """Round after round, for ever."""
        while True:
            self._wake.clear()
            pause = _IDLE
            try:
                await self.round()
            except ApiError as error:
                _log.warning("The API server: %s; what is held stays", error)
                pause = _RETRY
            except Exception as error:
                # Ending would cut every tenant's streams, and the next start would find the same.
                self._unexpected(error)
                pause = _RETRY
            else:
                self._complaint = ""
            self.last_round = self._clock()
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue
            await self._sleep(_GAP)

    def _unexpected(self, error: Exception) -> None:
        """Tell once what breaks the rounds, for as long as it is the same."""
        found = where(error)
        if found != self._complaint:
            self._complaint = found
            _log.error("A round failed unexpectedly; what is held stays: %s", found)

    async def round(self) -> None:
        """Look at everything once, and make it so.

        Raises:
            ApiError: a write failed; what could be done without it is done.
        """
        self._take_wanted()
        self._set_links()
        if self._bastion is not None:
            reverse = {key: held.wanted for key, held in self._held.items() if held.reverse}
            await self._bastion.admit(reverse)
        self._checks.watch(
            {
                key: self._url(held.wanted)
                for key, held in self._held.items()
                if held.established and not self._leaving
            }
        )
        await self._publisher.publish(self._published())
        self._leftovers.listen()
        # Not while we go: what we hold is out of rotation then, and a Service would be left without
        # any endpoint.
        if not self._leaving:
            up = {view.key for view in self._views() if view.up}
            await self._leftovers.remove(frozenset(up | over(self._store.list(SLURM_JOBS))))

    async def leave(self) -> None:
        """End without cutting anything, as far as that can be had.

        First wait until another supervisor holds the same forwards, then go out of rotation, then
        wait for open connections to end.
        """
        self._accepting = False
        begun = self._clock()
        while not may_leave(
            ours=self._publisher.in_rotation(),
            elsewhere=self._publisher.elsewhere(),
            waited=self._clock() - begun,
            patience=self._times.successor_wait,
        ):
            await self._sleep(0.2)
        self._leaving = True
        if not self._held:
            return  # nobody was told of anything that goes now
        self.wake()
        await self._sleep(self._times.leave_floor)
        ports = frozenset(held.wanted.port for held in self._held.values())
        begun = self._clock()
        while (left := self._connections(self._address, ports)) and self._in_time(begun):
            await self._sleep(0.5)
        if left:
            _log.warning("%d connections are cut: tunnel budget over", left)

    async def close(self) -> None:
        """Take our slices and Lease away, and end every connection."""
        await self._checks.close()
        try:
            await self._publisher.publish(())
            await self._heartbeat.bury(self._host)
        except ApiError as error:
            _log.warning("Slices are left for a successor to remove: %s", error)
        await self._links.close()
        if self._bastion is not None:
            await self._bastion.close()

    def counts(self) -> dict[str, int]:
        """Forwards by state, for the metrics."""
        views = self._views()
        up = sum(view.up for view in views)
        return {
            "up": up,
            "down": len(views) - up,
            "connections": self._connections(
                self._address, frozenset(h.wanted.port for h in self._held.values())
            ),
            "links": self._links.connected(),
        }

    # ---- one round

    def _take_wanted(self) -> None:
        jobs = self._store.list(SLURM_JOBS)
        new = [s for s in self._publisher.slices() if not set(owner_uids(s)) & self._held.keys()]
        known = {key: one.wanted for key, one in self._held.items()}
        if new:
            known |= recalled(new, jobs=jobs, clusters=self._store.list(SLURM_CLUSTERS))
        meant = (self._store.derived.of(raw, parsed) for raw in jobs)
        self._admission.keep(map(uid, jobs))
        forwards = wanted_forwards(meant, held=known, admits=self._admission.admits)
        found = {one.uid: one for one in forwards}
        if not self._accepting:
            found = {key: one for key, one in found.items() if key in self._held}
        for key in self._held.keys() - found.keys():
            del self._held[key]
        for key, one in found.items():
            held = self._held.get(key)
            if held is None:
                self._held[key] = Held(one)
            else:
                held.want(one)

    def _set_links(self) -> None:
        by_link: dict[LinkKey, dict[str, Forward]] = {}
        for key, held in self._held.items():
            if not held.reverse:
                by_link.setdefault(held.link, {})[key] = held.forward(self._address)
        clusters = {
            (namespace(obj), str(dig(obj, "metadata", "name"))): obj
            for obj in self._store.list(SLURM_CLUSTERS)
        }
        self._links.set(by_link, clusters=clusters)
        for link_key in by_link:
            self._renew_if_half_dead(link_key, by_link[link_key])

    def _renew_if_half_dead(self, link_key: LinkKey, forwards: Mapping[str, Forward]) -> None:
        link = self._links.get(link_key)
        healths = []
        for key, forward in forwards.items():
            held = self._held[key]
            # Not one to where it led before: that is still open for a moment.
            there = link is not None and link.established.get(key) == forward
            held.connected((link.connections, forward) if link is not None and there else None)
            if held.connection is not None:
                healths.append(held.health)
        if link is not None and half_dead(healths):
            for key in forwards:
                self._held[key].health = Health()
            link.restart()
        shut = [self._forbidden(self._held[key]) for key in forwards]
        if link is not None and all(shut) and self._clock() - link.connected_at > _FORBIDDEN_RETRY:
            link.restart()

    def _published(self) -> list[Published]:
        views = self._views()
        ready = ready_forwards(views, others=self._publisher.others(), leaving=self._leaving)
        for view in views:
            held = self._held[view.key]
            lost = not view.in_traffic or (view.up and not view.health.serves)
            held.proven = view.key in ready or (held.proven and not lost)
            held.moved = held.moved and not held.proven
        return [
            Published(
                namespace=held.wanted.namespace,
                slurm_job=held.wanted.slurm_job,
                uid=key,
                deployment=held.wanted.deployment,
                service=held.wanted.service,
                key=held.wanted.api_key,
                tunnel=TunnelSlice(
                    host=self._host,
                    address=self._address,
                    port=held.wanted.port,
                    ready=key in ready,
                    up=view.up,
                    message=self._message(key, held, up=view.up),
                    target=(held.wanted.host, held.wanted.engine_port),
                ),
            )
            for view in views
            for key, held in [(view.key, self._held[view.key])]
        ]

    # ---- what is seen

    def _outcome(self, key: str, outcome: Outcome) -> None:
        held = self._held.get(key)
        if held is None:
            return
        before = held.health
        held.health = before.after(outcome)
        same = (before.way_works, before.serves) == (held.health.way_works, held.health.serves)
        if not same or held.health.silences == 2:
            self.wake()

    def _views(self) -> list[View]:
        ready = self._publisher.in_rotation()
        return [
            View(
                key=key,
                service=(held.wanted.namespace, held.wanted.service),
                in_traffic=held.wanted.in_traffic,
                established=held.established,
                health=held.health,
                was_ready=held.proven or (not held.moved and ready.get(key, False)),
                forbidden=self._forbidden(held),
            )
            for key, held in self._held.items()
        ]

    def _forbidden(self, held: Held) -> bool:
        link = None if held.reverse else self._links.get(held.link)
        return link is not None and rules.forbidden(held.health, forbids=link.forbids)

    def _message(self, key: str, held: Held, *, up: bool) -> str:
        if held.reverse:
            return messages.of_call(held.health, up=up)
        link = self._links.get(held.link)
        if link is None:
            return self._links.problem(held.link)
        if link.through is None or key in link.problems:
            return link.problems.get(key, link.problem)
        return messages.of_forward(
            held.health, through=link.through, forbidden=self._forbidden(held)
        )

    def _url(self, wanted: Wanted) -> str:
        return f"http://{host_port(self._address, wanted.port)}"

    def _in_time(self, begun: float) -> bool:
        return self._clock() - begun < self._times.drain_budget
