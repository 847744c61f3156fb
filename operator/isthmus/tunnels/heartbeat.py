"""A Lease per supervisor: the sign that its slices are looked after, and who cleans up when not.

Others are judged by how long *we* have read the same in their Lease, never by their clock, and
only over reads that succeeded: while the API server is away nobody is found dead.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from isthmus.api import names
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.objects import Object, dig, labels, name, uid
from isthmus.apiserver.resources import LEASES
from isthmus.errors import ApiError, ApiNotFoundError
from isthmus.tunnels.rules import Beat

_log = logging.getLogger(__name__)


def lease_name(host: str) -> str:
    """Name of the Lease of a supervisor."""
    return f"isthmus-tunnels-{host}"


class Heartbeat:
    """Our own Lease, and what we know of the others'."""

    def __init__(
        self,
        *,
        api: ApiServer,
        namespace: str,
        host: str,
        duration: float,
        clock: Callable[[], float],
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Prepare.

        Args:
            api: the API server.
            namespace: where the Leases are.
            host: id of this supervisor.
            duration: seconds of silence after which a supervisor is taken for dead.
            clock: seconds, monotonic.
            wall_clock: for what stands in the Lease.
            sleep: waits for some seconds.
        """
        self._api, self._namespace, self._host = api, namespace, host
        self._duration, self._clock = duration, clock
        self._wall_clock, self._sleep = wall_clock, sleep
        self._beats: dict[str, Beat] = {}
        self._absent: dict[str, Beat] = {}
        self._leases: dict[str, Object] = {}

    async def run(self, *, on_beat: Callable[[], None]) -> None:
        """Renew and read for ever; failures are logged."""
        while True:
            try:
                await self.beat()
                on_beat()
            except ApiError as error:
                self.forget()
                _log.warning("The heartbeat could not be written or read: %s", error)
            await self._sleep(self._duration / 3)

    async def beat(self) -> None:
        """Renew our Lease and read the others once.

        Raises:
            ApiError: a request failed.
        """
        self._leases[self._host] = await self._api.apply(LEASES, self._lease())
        listed = await self._api.list(
            LEASES,
            label_selector=names.LABEL_TUNNEL_HOST,
            namespaces=[self._namespace],
        )
        now = self._clock()
        found: dict[str, Beat] = {}
        self._leases = {}
        for obj in listed.items:
            host = labels(obj).get(names.LABEL_TUNNEL_HOST, "")
            self._leases[host] = obj
            value = str(dig(obj, "spec", "renewTime", default=""))
            before = self._beats.get(host)
            found[host] = Beat(value, now) if before is None else before.after(value, now=now)
        self._beats = found

    def forget(self) -> None:
        """A read failed: judge nobody by what was seen before it."""
        self._beats.clear()
        self._absent.clear()

    def heard(self, host: str) -> None:
        """A supervisor has written a slice: it lives, whatever its Lease said when we read it."""
        self._absent.pop(host, None)
        before = self._beats.get(host)
        if before is not None:
            self._beats[host] = Beat(before.value, self._clock())

    def dead(self, hosts: frozenset[str]) -> frozenset[str]:
        """Which of these supervisors have surely stopped, or have had no Lease for long."""
        now = self._clock()
        if self._host not in self._beats:
            return frozenset()  # we have read nothing lately
        gone = set()
        absent: dict[str, Beat] = {}
        for host in hosts - {self._host}:
            beat = self._beats.get(host)
            if beat is None:
                before = self._absent.get(host)
                beat = Beat("", now) if before is None else before.after("", now=now)
                absent[host] = beat
            if beat.dead(now=now, duration=self._duration):
                gone.add(host)
        self._absent = absent
        return frozenset(gone)

    def known(self) -> frozenset[str]:
        """Supervisors that have a Lease."""
        return frozenset(self._leases)

    async def bury(self, host: str) -> None:
        """Delete the Lease of a supervisor that has no slices any more."""
        obj = self._leases.get(host)
        if obj is None:
            return
        try:
            await self._api.delete(LEASES, namespace=self._namespace, name=name(obj), uid=uid(obj))
        except ApiNotFoundError:
            return

    def _lease(self) -> Object:
        renewed = self._wall_clock().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "metadata": {
                "name": lease_name(self._host),
                "namespace": self._namespace,
                "labels": {
                    names.LABEL_MANAGED_BY: names.MANAGED_BY,
                    names.LABEL_TUNNEL_HOST: self._host,
                },
            },
            "spec": {
                "holderIdentity": self._host,
                "leaseDurationSeconds": max(1, round(self._duration)),
                "renewTime": renewed,
            },
        }
