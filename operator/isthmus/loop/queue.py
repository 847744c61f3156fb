"""The work queue: which object to look at next.

It deduplicates, hands a key to at most one worker at a time, and runs a key once more if it was
added while being worked on. Keys that have had a turn already, and those whose time has come
without a change, wait behind fresh changes, so that neither a resync of thousands of objects nor
the second steps of a burst delay the first step of anybody. Apart from the loop, because its
promises are proven by properties.
"""

import asyncio
import contextlib
import heapq
from collections import OrderedDict, deque
from collections.abc import Callable
from random import Random

from isthmus.apiserver.key import Key

REPEAT_GAP = 0.2
"""Seconds between a pass and the next one over the same key where what asked for it came during
the pass: mostly its own writes, and what they cause is then seen in one look."""

LATER_EVERY = 8
"""One turn in so many goes to a key that can wait, however many fresh ones there are."""


class WorkQueue:
    """A queue of keys for one event loop. Only `get` waits; nothing here is thread-safe."""

    def __init__(
        self,
        *,
        retry_base: float,
        retry_cap: float,
        random: Random,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Make an empty queue.

        Args:
            retry_base: seconds before the first retry, doubled with each failure in a row.
            retry_cap: most seconds before a retry.
            random: source of the jitter.
            clock: seconds, monotonic; by default the clock of the running loop.
        """
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._random = random
        self._retry_base = retry_base
        self._retry_cap = retry_cap
        self._ready: OrderedDict[Key, float] = OrderedDict()  # → when it became ready
        self._later: OrderedDict[Key, float] = OrderedDict()  # the same, for those that can wait
        self._turn = 0
        self._active: set[Key] = set()
        self._again: dict[Key, float] = {}  # added while active → seconds until its next pass
        self._due: dict[Key, float] = {}
        self._changed: set[Key] = set()  # of those, who are fresh when their time comes
        self._timers: list[tuple[float, Key]] = []  # heap; stale entries differ from _due
        self._failures: dict[Key, int] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._wakeup: asyncio.TimerHandle | None = None
        self._wakes_at = 0.0
        self._closed = False
        self.added = 0
        """Keys that became ready since the start, for the metrics."""
        self.retried = 0
        """Retries since the start, for the metrics."""

    def add(self, key: Key, *, later: bool = False) -> None:
        """Make `key` ready now, or soon after the pass that is working on it.

        Args:
            key: the object.
            later: nothing has happened to it, so it can wait until fresh changes have had a turn.
        """
        if self._closed or key in self._ready:
            return
        if key in self._active:
            self._repeat(key, REPEAT_GAP)
            return
        if key in self._later:
            if not later:
                self._later.pop(key)
                self._ready[key] = self._clock()
            return
        self.added += 1
        (self._later if later else self._ready)[key] = self._clock()
        self._wake_one()

    def _repeat(self, key: Key, gap: float) -> None:
        """Have another pass after the one that is working on `key`."""
        if key not in self._again:
            self.added += 1
        self._again[key] = min(gap, self._again.get(key, gap))

    def add_after(self, key: Key, seconds: float, *, later: bool = True) -> None:
        """Make `key` ready in `seconds`; of several such wishes the earliest counts.

        Args:
            key: the object.
            seconds: from now.
            later: as for `add`; False where something has happened, and more may follow until then
                (during a pass over it that is taken for its own doing: see `REPEAT_GAP`).
        """
        if self._closed:
            return
        if not later and key in self._active:
            self._repeat(key, max(seconds, REPEAT_GAP))
            return
        if seconds <= 0:
            self.add(key, later=later)
            return
        if not later:
            self._changed.add(key)
        due = self._clock() + seconds
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._timers, (due, key))
            self._set_wakeup()

    def retry(self, key: Key) -> float:
        """Make `key` ready after a delay that doubles with each failure in a row.

        Returns:
            The delay in seconds: half of it certain, half of it random.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.retried += 1
        # The exponent is bounded, so that a year of failures cannot overflow a float.
        delay = min(self._retry_cap, self._retry_base * 2.0 ** min(failures, 60))
        delay *= 0.5 + 0.5 * self._random.random()
        self.add_after(key, delay)
        return delay

    def forget(self, key: Key) -> None:
        """Let the next failure of `key` be the first in a row again."""
        self._failures.pop(key, None)

    def failures(self, key: Key) -> int:
        """Return how often `key` has failed in a row."""
        return self._failures.get(key, 0)

    async def get(self) -> Key | None:
        """Wait for a key and take it; the caller must call `done` with it.

        Returns:
            The fresh key that has been ready for longest, now and then one that could wait; None
            once the queue is shut down.
        """
        while True:
            key = self.try_get()
            if key is not None or self._closed:
                return key
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            self._set_wakeup()
            try:
                await waiter
            except asyncio.CancelledError:
                with contextlib.suppress(ValueError):
                    self._waiters.remove(waiter)
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()  # the wake-up was for a worker, and this one is leaving
                raise

    def try_get(self) -> Key | None:
        """Take a key if one is ready now; the caller must call `done` with it."""
        if self._closed:
            return None
        self._promote()
        lane = self._next_lane()
        if not lane:
            return None
        key, _ = lane.popitem(last=False)
        self._active.add(key)
        if self._ready or self._later:
            self._wake_one()
        return key

    def _next_lane(self) -> OrderedDict[Key, float]:
        if not (self._ready and self._later):
            return self._ready or self._later
        self._turn = (self._turn + 1) % LATER_EVERY
        return self._ready if self._turn else self._later

    def done(self, key: Key) -> None:
        """Give `key` back after a pass over it."""
        self._active.discard(key)
        gap = self._again.pop(key, None)
        if gap is not None:
            self.add_after(key, gap)

    def shut_down(self) -> None:
        """Hand out nothing more: every `get` returns None, every `add` does nothing."""
        self._closed = True
        self._ready.clear()
        self._later.clear()
        self._again.clear()
        self._due.clear()
        self._changed.clear()
        self._timers.clear()
        if self._wakeup is not None:
            self._wakeup.cancel()
            self._wakeup = None
        while self._waiters:
            self._wake_one()

    def depth(self) -> int:
        """Return how many keys are ready and wait for a worker."""
        self._promote()
        return len(self._ready) + len(self._later) + len(self._again)

    def active(self) -> int:
        """Return how many keys are being worked on."""
        return len(self._active)

    def oldest_age(self) -> float:
        """Return the seconds for which the oldest ready key has waited, 0.0 if none waits."""
        self._promote()
        oldest = [next(iter(lane.values())) for lane in (self._ready, self._later) if lane]
        return self._clock() - min(oldest) if oldest else 0.0

    def next_due(self) -> float | None:
        """Return the clock time at which the next delayed key becomes ready, None if none is."""
        while self._timers and self._due.get(self._timers[0][1]) != self._timers[0][0]:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def _promote(self) -> None:
        now = self._clock()
        while (due := self.next_due()) is not None and due <= now:
            _, key = heapq.heappop(self._timers)
            del self._due[key]
            self.add(key, later=key not in self._changed)
            self._changed.discard(key)

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _set_wakeup(self) -> None:
        """Keep one timer of the loop at the earliest due time, and only while a worker waits."""
        due = self.next_due()
        if self._wakeup is not None:
            if due == self._wakes_at and self._waiters:
                return
            self._wakeup.cancel()
            self._wakeup = None
        if due is not None and self._waiters:
            loop = asyncio.get_running_loop()
            self._wakes_at = due
            self._wakeup = loop.call_later(max(0.0, due - self._clock()), self._on_wakeup)

    def _on_wakeup(self) -> None:
        self._wakeup = None
        self._promote()
        self._set_wakeup()
