"""Takes snapshots of one cluster, again and again, and says when it cannot.

One task per (cluster, user), whatever the number of deployments. Apart from the client, which knows
how to ask once; this module knows when.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from isthmus.api.reasons import Reason
from isthmus.backends.slurm.client import SlurmClient
from isthmus.backends.slurm.records import Snapshot
from isthmus.errors import SlurmUnavailableError
from isthmus.guarded import where

_log = logging.getLogger(__name__)

JITTER = 0.1
"""Share of the interval by which polls of several clusters drift apart."""

_UNREACHABLE = frozenset(
    {Reason.CONTROLLER_UNREACHABLE, Reason.CONTROLLER_TIMEOUT, Reason.SSH_UNREACHABLE}
)
"""Reasons of failures after which a probe that is answered means that all is well again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PollTimes:
    """How often a cluster is looked at, in seconds.

    Attributes:
        interval: between two polls that succeed.
        backoff_cap: longest wait after failures, if above `interval`.
        probe_interval: between two cheap probes while polls fail; the first probe that is answered
            after one that was not brings the next poll forward.
        poke_gap: least between two polls, however often `poke` is called.
    """

    interval: float = 30.0
    backoff_cap: float = 300.0
    probe_interval: float = 15.0
    poke_gap: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PollListener:
    """Who takes what polls bring.

    Attributes:
        on_snapshot: called with every complete snapshot, in the event loop.
        on_failure: called with every failed attempt.
        prepare: awaited before each poll until it returns True for the first time; the poll is
            made in any case.
    """

    on_snapshot: Callable[[Snapshot], None]
    on_failure: Callable[[SlurmUnavailableError], None]
    prepare: Callable[[], Awaitable[bool]] | None = None


class Poller:
    """Polls while the cluster answers; backs off and probes cheaply while it does not."""

    def __init__(
        self,
        client: SlurmClient,
        *,
        listener: PollListener,
        times: PollTimes,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Prepare; `run` does the work.

        Args:
            client: the cluster.
            listener: takes what polls bring.
            times: how often it is looked at.
            clock: monotonic seconds; by default the clock of the running loop.
            sleep: waits that long.
            uniform: a random number between two.
        """
        self._client = client
        self._listener = listener
        self._prepare = listener.prepare
        self._times = times
        self._backoff_cap = max(times.interval, times.backoff_cap)
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._sleep = sleep
        self._uniform = uniform
        self._poked = asyncio.Event()
        self._failures = 0
        self._reachable = True

    def poke(self) -> None:
        """Ask for a poll soon: a submission is unresolved, a cancel is under way."""
        self._poked.set()

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await self._poll()
            if self._failures == 0:
                await self._pause(self._jittered(self._times.interval))
            else:
                await self._wait_for_recovery()

    async def _poll(self) -> None:
        self._poked.clear()
        try:
            if self._prepare is not None and await self._prepare():
                self._prepare = None
            snapshot = await self._client.snapshot()
            self._listener.on_snapshot(snapshot)
        except SlurmUnavailableError as error:
            self._failed(error)
        except Exception as error:  # what one site prints must not end the operator for all
            text = f"SLURM's answer cannot be understood: unexpected {type(error).__name__}"
            if not self._failures:
                _log.error("A poll of SLURM failed unexpectedly: %s", where(error))
            self._failed(SlurmUnavailableError(text, reason=Reason.INCOMPLETE_OUTPUT))
        else:
            self._failures = 0
            self._reachable = True

    def _failed(self, error: SlurmUnavailableError) -> None:
        self._failures += 1
        self._reachable = error.reason not in _UNREACHABLE
        self._listener.on_failure(error)

    async def _ping(self) -> bool:
        try:
            return await self._client.ping()
        except Exception as error:
            _log.error("A question to SLURM failed unexpectedly: %s", where(error))
            return False

    async def _wait_for_recovery(self) -> None:
        """Wait out the back-off, or less if slurmctld begins to answer again meanwhile."""
        step = min(self._times.interval, self._times.probe_interval)
        backoff = min(self._backoff_cap, step * 2.0 ** min(self._failures - 1, 16))
        until = self._clock() + self._jittered(backoff)
        while (left := until - self._clock()) > 0:
            await self._pause(min(left, self._jittered(self._times.probe_interval)))
            if self._poked.is_set():
                return
            was_reachable, self._reachable = self._reachable, await self._ping()
            if self._reachable and not was_reachable:
                return

    async def _pause(self, seconds: float) -> None:
        """Sleep, less if poked, but never less than the gap."""
        gap = min(self._times.poke_gap, seconds)
        await self._sleep(gap)
        rest = seconds - gap
        if rest <= 0 or self._poked.is_set():
            return
        sleeping = asyncio.ensure_future(self._sleep(rest))
        poked = asyncio.ensure_future(self._poked.wait())
        try:
            await asyncio.wait({sleeping, poked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sleeping, poked):
                task.cancel()
            await asyncio.gather(sleeping, poked, return_exceptions=True)

    def _jittered(self, seconds: float) -> float:
        return seconds * self._uniform(1 - JITTER, 1 + JITTER)
