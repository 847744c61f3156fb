"""How a worker is to be reached, and the ports of forwards.

A port is handed out once, kept as long as the attempt lives, and then left to cool. Passes run
side by side, so a port that one pass was offered is reserved before its status is
written. What was assigned before a restart stands in the SlurmJobs themselves.
"""

import zlib
from collections.abc import Callable, Iterable, Sequence

from isthmus.api.conditions import TERMINAL
from isthmus.api.slurmcluster import SlurmCluster, network_mode
from isthmus.api.slurmjob import SlurmJob, SlurmJobStatus
from isthmus.apiserver.key import Key
from isthmus.apiserver.objects import Object, dig, name, namespace, number, uid
from isthmus.apiserver.resources import ENDPOINT_SLICES, SLURM_JOBS
from isthmus.apiserver.store import Store
from isthmus.routing.tunnel_slice import TunnelSlice
from isthmus.routing.tunnel_slices import tunnel_of
from isthmus.slurmjob.observation import Network
from isthmus.slurmjob.policy.forwarding import choose_port


class ForwardPorts:
    """The ports of one installation, over all clusters and namespaces."""

    def __init__(
        self,
        *,
        store: Store,
        first: int,
        last: int,
        hold: float,
        clock: Callable[[], float],
    ) -> None:
        """Prepare.

        Args:
            store: where the SlurmJobs are.
            first: first port of the range.
            last: last port of the range.
            hold: seconds for which the port of an attempt that is gone is not used again.
            clock: seconds.
        """
        self._store = store
        self._first, self._last, self._hold = first, last, hold
        self._clock = clock
        self._offered: dict[Key, int] = {}
        self._holders: dict[int, dict[Key, None]] = {}  # the first one to have it stands first
        self._released: dict[int, float] = {}

    def offer(
        self, key: Key, *, attempt: str, used: Iterable[int] = (), had: Iterable[int] = ()
    ) -> int | None:
        """A port for an attempt, the same each time; None where all are taken.

        Args:
            key: of the SlurmJob.
            attempt: its attempt.
            used: further ports that stand in slices.
            had: ports that it had; the first free one of them is its port again.
        """
        if key in self._offered:
            return self._offered[key]
        now = self._clock()
        self._released = {p: at for p, at in self._released.items() if now - at < self._hold}
        taken = {*self._offered.values(), *self._released, *self._assigned(), *used}
        again = next((port for port in had if port not in taken), None)
        port = again or choose_port(
            seed=zlib.crc32(attempt.encode()), taken=taken, first=self._first, last=self._last
        )
        if port is not None:
            self._take(key, port)
        return port

    def keep(self, key: Key, port: int) -> tuple[Key, ...]:
        """Take notice of a port that is assigned.

        Returns:
            Who has it, in the order in which that was seen: more than one where a status was
            restored or written by somebody.
        """
        if self._offered.get(key) != port:
            self.forget(key)
            self._take(key, port)
        return tuple(self._holders[port])

    def release(self, key: Key) -> None:
        """The attempt is over: its port cools, and is free after a while."""
        port = self.forget(key)
        if port is not None:
            self._released[port] = self._clock()

    def forget(self, key: Key) -> int | None:
        """Whatever port the attempt has is no longer its own; returns it."""
        port = self._offered.pop(key, None)
        if port is not None:
            self._holders[port].pop(key, None)
        return port

    def _take(self, key: Key, port: int) -> None:
        self._offered[key] = port
        self._holders.setdefault(port, {})[key] = None

    def _assigned(self) -> set[int]:
        ports = (
            number(dig(obj, "status", "forward", "port")) for obj in self._store.list(SLURM_JOBS)
        )
        return {port for port in ports if port is not None}


def observe_network(
    raw: Object,
    *,
    job: SlurmJob,
    cluster: SlurmCluster | None,
    service: str,
    store: Store,
    ports: ForwardPorts,
) -> Network:
    """How one worker is to be reached, with a port reserved where it may need one.

    Args:
        raw: the SlurmJob as stored.
        job: the same, read.
        cluster: its SlurmCluster.
        service: whose membership it belongs to.
        store: where the slices of its forward are.
        ports: of forwards.
    """
    key = Key("SlurmJob", namespace(raw), name(raw))
    status = job.status or SlurmJobStatus()
    mode = "Direct" if cluster is None else network_mode(cluster.spec)
    tunnels = _tunnels(raw, store)
    offered, lost = None, False
    if status.phase in TERMINAL:
        ports.release(key)
    elif status.forward is not None and status.forward.port is not None:
        port = status.forward.port
        claimants = ports.keep(key, port)
        # A job of mode Reverse was told its port, and calls with it.
        movable = status.forward.mode != "Reverse"
        shared = movable and len(claimants) > 1
        if shared and not _keeps(raw, port, claimants=claimants, store=store):
            ports.forget(key)
            had = [tunnel.port for tunnel in tunnels]
            offered = ports.offer(key, attempt=job.spec.attempt, used=(port,), had=had)
            lost = True
    elif mode != "Direct":
        used = [tunnel.port for tunnel in tunnels]
        offered = ports.offer(key, attempt=job.spec.attempt, used=used)
    return Network(mode=mode, service=service, free_port=offered, port_lost=lost, tunnels=tunnels)


def _tunnels(raw: Object, store: Store) -> tuple[TunnelSlice, ...]:
    found = (tunnel_of(obj) for obj in store.owned(ENDPOINT_SLICES, uid(raw)))
    return tuple(tunnel for tunnel in found if tunnel is not None)


def _keeps(raw: Object, port: int, *, claimants: Sequence[Key], store: Store) -> bool:
    """Whether a worker keeps a port that others claim too: the one that had it does.

    Asked of what supervisors have published, since a status is what somebody may have written. A
    slice of the port tells who had it also while no way works: its worker may be the last one that
    stays in rotation until the way is back.
    """

    def rank(place: int, obj: Object) -> tuple[bool, bool, bool, bool, bool, int]:
        its = _tunnels(obj, store)
        here = [tunnel for tunnel in its if tunnel.port == port]
        return (
            dig(obj, "status", "forward", "mode") != "Reverse",
            not any(tunnel.ready for tunnel in here),
            not any(tunnel.up for tunnel in here),
            not here,
            bool(its),  # its slices are at another port: it had that one
            place,
        )

    found = (store.get(SLURM_JOBS, key.namespace, key.name) for key in claimants)
    claiming = [
        obj
        for obj in found
        if obj is not None and number(dig(obj, "status", "forward", "port")) == port
    ]
    first = min(enumerate(claiming), key=lambda one: rank(*one), default=None)
    return first is None or uid(first[1]) == uid(raw)
