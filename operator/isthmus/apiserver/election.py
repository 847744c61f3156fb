"""Leader election on a Lease, and the answer to "may I write now?".

Own code, because the elector of `kubernetes.aio` cannot create its Lease, never gives up when the
API server hangs and never releases (seen in 37.0.2). The rules are those of client-go, tightened:

* every change of the Lease is a compare-and-swap on its resourceVersion;
* the lease of another is judged by how long *we* have seen it unchanged, never by its clock;
* our own validity counts from the moment a successful renewal was *sent*, on a clock that goes on
  while the process is stopped, and ends before anybody else may take the Lease;
* each request is limited to less than the renewal interval.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from isthmus.apiserver import objects as k8s
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.objects import Object
from isthmus.apiserver.resources import LEASES
from isthmus.errors import (
    ApiAlreadyExistsError,
    ApiConflictError,
    ApiError,
    ApiNotFoundError,
    NotLeaderError,
    SettingsError,
)

_log = logging.getLogger(__name__)


def uptime() -> float:
    """Return seconds on a clock that also counts while the machine sleeps or its VM is paused."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a Lease said, and since when by our clock."""

    holder: str
    version: str
    duration: float
    transitions: int
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Who wants which Lease.

    Attributes:
        namespace: namespace of the Lease.
        name: its name; it is created if absent.
        identity: unique among all processes that ever ran, e.g. host name and a random part.
    """

    namespace: str
    name: str
    identity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ElectionTimes:
    """Times of an election, in seconds.

    Attributes:
        lease_duration: for which an unrenewed Lease keeps others away.
        renew_interval: between renewals, and between attempts to acquire.
        request_timeout: for one request; less than `renew_interval`.
        renew_deadline: after the last renewal, when writing ends; less than `lease_duration`, so
            that requests under way end before another leads. client-go has two thirds of it.

    Raises:
        SettingsError: the times contradict each other.
    """

    lease_duration: float = 15.0
    renew_interval: float = 2.0
    request_timeout: float = 1.5
    renew_deadline: float = 10.0

    def __post_init__(self) -> None:
        if not (
            0
            < self.request_timeout
            < self.renew_interval
            < self.renew_deadline
            < self.lease_duration
        ):
            raise SettingsError(
                "Leader election needs 0 < request timeout < renew interval < renew deadline < "
                f"lease duration, but they are {self.request_timeout:g}, "
                f"{self.renew_interval:g}, {self.renew_deadline:g} and "
                f"{self.lease_duration:g} seconds."
            )


class LeaderElector:
    """One candidate for one Lease. Also the `Gate` of all writes."""

    def __init__(
        self,
        api: ApiServer,
        *,
        candidate: Candidate,
        times: ElectionTimes,
        clock: Callable[[], float] = uptime,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        random: Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Prepare a candidate; no request is made.

        Args:
            api: the API server, not gated.
            candidate: who we are, and the Lease.
            times: how long and how often.
            clock: seconds; must go on while the process or the machine is stopped.
            wall_clock: only for the timestamps that people read in the Lease.
            random: source of the jitter.
            sleep: waits for some seconds.
        """
        self._api, self._candidate, self._times = api, candidate, times
        self._clock, self._wall_clock = clock, wall_clock
        self._random, self._sleep = random or Random(), sleep
        self._seen: _Seen | None = None
        self._valid_until = -math.inf
        self._lost: str | None = None
        self._acquire_time = ""
        self._complaint = ""
        self._waits_for = ""
        self._lease = f"{candidate.namespace}/{candidate.name}"

    @property
    def identity(self) -> str:
        """The name under which this candidate holds the Lease."""
        return self._candidate.identity

    @property
    def holder(self) -> str:
        """The holder seen last, "" if none."""
        return self._seen.holder if self._seen else ""

    def is_leader(self) -> bool:
        """Tell whether `check` would pass now."""
        return self._lost is None and self._clock() < self._valid_until

    def check(self) -> None:
        """Return if writing is allowed now; makes no request.

        Raises:
            NotLeaderError: the Lease is not ours, or was not renewed in time.
        """
        if self._lost is not None:
            raise NotLeaderError(self._lost)
        if self._valid_until == -math.inf:
            raise NotLeaderError(f"The lease {self._lease} is not held yet.")
        if self._clock() >= self._valid_until:
            raise NotLeaderError(
                f"The lease {self._lease} was not renewed for "
                f"{self._times.renew_deadline:g} s; another instance may lead now."
            )

    async def acquire(self) -> None:
        """Wait until the Lease is ours.

        Raises:
            NotLeaderError: it was held before and is lost.
        """
        if self._lost is not None:
            raise NotLeaderError(self._lost)
        while not await self._attempt(self._try_acquire):
            await self._sleep(self._times.renew_interval * (1 + 0.2 * self._random.random()))
        self.check()
        _log.info("Lease %s is ours (%s)", self._lease, self._candidate.identity)

    async def keep(self) -> None:
        """Renew the Lease for as long as it is ours; never returns.

        Raises:
            NotLeaderError: the Lease is lost. Nothing must be written after that.
        """
        try:
            while True:
                await self._sleep(self._times.renew_interval * (1 - 0.1 * self._random.random()))
                self.check()
                await self._attempt(self._try_renew)
                self.check()
        except NotLeaderError as error:
            self._lost = self._lost or str(error)
            raise

    async def release(self) -> None:
        """Stop being the leader and give the Lease back, so that the next need not wait.

        Never raises an `ApiError`: a Lease that cannot be given back runs out.
        """
        held = self.is_leader()
        self._lost = self._lost or "The lease was given back."
        if not held:
            return
        try:
            async with asyncio.timeout(self._times.request_timeout):
                seen = self._seen or await self._look()
                if seen is not None and seen.holder == self._candidate.identity:
                    await self._write(seen, holder="", duration=1)
        except (ApiError, TimeoutError) as error:
            _log.warning("The lease could not be given back and has to run out: %s", error)

    async def _attempt(self, step: Callable[[], Awaitable[bool]]) -> bool:
        """Run one step within its time limit; a failure of the API server is "not yet"."""
        try:
            async with asyncio.timeout(self._times.request_timeout):
                succeeded = await step()
        except (ApiConflictError, ApiAlreadyExistsError, ApiNotFoundError) as error:
            _log.debug("Lease: %s", error)  # somebody else was faster; the next step looks
            return False
        except (ApiError, TimeoutError) as error:
            text = str(error) or f"no answer within {self._times.request_timeout:g} s"
            level = logging.DEBUG if text == self._complaint else logging.WARNING
            self._complaint = text
            _log.log(level, "Lease %s: %s", self._lease, text)
            return False
        self._complaint = ""
        return succeeded

    async def _try_acquire(self) -> bool:
        seen = await self._look()
        if seen is None:
            await self._create()
            return True
        if seen.holder and seen.holder != self._candidate.identity:
            wait = seen.since + seen.duration - self._clock()
            if wait > 0:
                if seen.holder != self._waits_for:
                    self._waits_for = seen.holder
                    _log.info("Waiting: %s holds the lease %s", seen.holder, self._lease)
                return False
        await self._hold(seen)
        return True

    async def _try_renew(self) -> bool:
        """Renew by the version written last; after a failure look first whether it is still so."""
        seen = self._seen
        if seen is None or seen.holder != self._candidate.identity:
            seen = await self._look()
        if seen is None:
            raise NotLeaderError(f"The lease {self._lease} was deleted.")
        if seen.holder != self._candidate.identity:
            raise NotLeaderError(f"The lease {self._lease} is held by {seen.holder or 'nobody'}.")
        try:
            await self._hold(seen)
        except BaseException:
            self._seen = None  # the write may have been committed: the version is not known
            raise
        return True

    async def _look(self) -> _Seen | None:
        lease = await self._api.get(
            LEASES, namespace=self._candidate.namespace, name=self._candidate.name
        )
        return None if lease is None else self._take_in(lease)

    def _take_in(self, lease: Object) -> _Seen:
        version = str(k8s.metadata(lease).get("resourceVersion", ""))
        if self._seen is not None and self._seen.version == version:
            return self._seen
        stated = k8s.number(k8s.dig(lease, "spec", "leaseDurationSeconds")) or 0
        self._seen = _Seen(
            holder=str(k8s.dig(lease, "spec", "holderIdentity", default="")),
            version=version,
            # A holder with a longer lease than ours counts on having it.
            duration=max(float(stated), self._times.lease_duration),
            transitions=k8s.number(k8s.dig(lease, "spec", "leaseTransitions")) or 0,
            since=self._clock(),
        )
        return self._seen

    async def _create(self) -> None:
        sent = self._clock()
        now = self._stamp()
        spec = self._spec(self._candidate.identity, self._times.lease_duration, now)
        lease = await self._api.create(
            LEASES,
            {
                "metadata": {"namespace": self._candidate.namespace, "name": self._candidate.name},
                "spec": spec | {"acquireTime": now, "leaseTransitions": 0},
            },
        )
        self._take_in(lease)
        self._valid_until = sent + self._times.renew_deadline

    async def _hold(self, seen: _Seen) -> None:
        await self._write(
            seen, holder=self._candidate.identity, duration=self._times.lease_duration
        )

    async def _write(self, seen: _Seen, *, holder: str, duration: float) -> None:
        sent = self._clock()
        now = self._stamp()
        spec = self._spec(holder, duration, now)
        if holder != seen.holder:
            spec |= {"acquireTime": now, "leaseTransitions": seen.transitions + 1}
        lease = await self._api.patch(
            LEASES,
            namespace=self._candidate.namespace,
            name=self._candidate.name,
            patch={"metadata": {"resourceVersion": seen.version}, "spec": spec},
        )
        self._take_in(lease)
        if holder == self._candidate.identity:
            self._valid_until = sent + self._times.renew_deadline

    def _spec(self, holder: str, duration: float, now: str) -> dict[str, object]:
        # Whole seconds are all a Lease can say; rounded up, so that others wait long enough.
        return {
            "holderIdentity": holder,
            "leaseDurationSeconds": max(1, math.ceil(duration)),
            "renewTime": now,
        }

    def _stamp(self) -> str:
        now = self._wall_clock().isoformat(timespec="microseconds")
        return now.replace("+00:00", "Z")
