"""The loop: workers that take keys from the queue and run the reconciler of their kind.

It holds the policy for errors, so that no reconciler has one of its own: what is transient is
tried again with a growing delay, one broken object never stops the others, and a lost lease ends
the process.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from isthmus.apiserver.key import Key
from isthmus.errors import (
    ApiAlreadyExistsError,
    ApiConflictError,
    ApiNotFoundError,
    IsthmusError,
    NotLeaderError,
)
from isthmus.guarded import where
from isthmus.loop.queue import WorkQueue

_log = logging.getLogger(__name__)


class Reconciler(Protocol):
    """Brings one object closer to what is wanted, once."""

    async def reconcile(self, key: Key) -> float | None:
        """Make one pass.

        Returns:
            Seconds after which the object wants to be looked at again even if nothing changes,
            None for only on a change.
        """


@dataclass(slots=True)
class PassCounts:
    """Passes since the start by their end, for the metrics."""

    done: int = 0
    conflict: int = 0
    transient: int = 0
    timed_out: int = 0
    unexpected: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class _Complaint:
    text: str
    times: int = field(default=1)


class Loop:
    """A number of workers over one queue."""

    def __init__(
        self,
        *,
        queue: WorkQueue,
        reconcilers: Mapping[str, Reconciler],
        workers: int,
        time_limit: float,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Prepare the loop; `run` starts it.

        Args:
            queue: where the keys come from.
            reconcilers: one for each `Key.kind`.
            workers: how many keys are worked on at a time.
            time_limit: seconds for one pass; one that takes longer is cancelled and tried again.
            clock: seconds, monotonic; by default the clock of the running loop.
        """
        self._queue = queue
        self._reconcilers = reconcilers
        self._workers = workers
        self._time_limit = time_limit
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._complaints: dict[Key, _Complaint] = {}
        self.counts = PassCounts()
        """Ends of passes since the start."""
        self.last_pass_at: float | None = None
        """Clock time of the end of the latest pass, None before the first; for the liveness."""

    async def run(self) -> None:
        """Work until the queue is shut down; passes under way are finished first.

        Raises:
            NotLeaderError: a mutation was refused because the lease is lost.
            BaseException: whatever ended a worker.
        """
        tasks = [
            asyncio.create_task(self._work(), name=f"worker {number}")
            for number in range(self._workers)
        ]
        try:
            pending = set(tasks)
            while pending:  # not FIRST_EXCEPTION, to which a cancelled worker is none
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if task.cancelled():
                        raise RuntimeError(f"{task.get_name()} was cancelled by its own pass")
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def run_once(self) -> bool:
        """Work on one key if one is ready, without waiting for one.

        Returns:
            Whether there was a key.

        Raises:
            NotLeaderError: as for `run`.
        """
        key = self._queue.try_get()
        if key is None:
            return False
        await self._pass(key)
        return True

    def check_progress(self) -> str:
        """Tell how the loop does; for a liveness probe.

        Raises:
            RuntimeError: objects wait, and no pass has ended for twice its time limit.
        """
        waiting, limit = self._queue.depth(), 2 * self._time_limit
        idle = 0.0 if self.last_pass_at is None else self._clock() - self.last_pass_at
        if self._queue.oldest_age() > limit and (self.last_pass_at is None or idle > limit):
            raise RuntimeError(f"{waiting} objects wait, and no pass ends")
        return f"{waiting} objects wait"

    async def _work(self) -> None:
        while (key := await self._queue.get()) is not None:
            await self._pass(key)

    async def _pass(self, key: Key) -> None:
        started = self._clock()
        try:
            await self._reconcile(key)
        finally:
            self.last_pass_at = self._clock()
            self.counts.seconds += self.last_pass_at - started
            self._queue.done(key)

    async def _reconcile(self, key: Key) -> None:
        limit = asyncio.timeout(self._time_limit)
        try:
            async with limit:
                again = await self._reconcilers[key.kind].reconcile(key)
        except NotLeaderError:
            raise
        except (ApiConflictError, ApiAlreadyExistsError, ApiNotFoundError) as error:
            # The store is behind the API server; the watch is about to catch up.
            self.counts.conflict += 1
            delay = self._queue.retry(key)
            _log.debug("%s: %s; looking again in %.1f s", key, error, delay)
        except IsthmusError as error:
            self.counts.transient += 1
            self._complain(key, str(error), delay=self._queue.retry(key))
        except Exception as error:
            if limit.expired():
                self.counts.timed_out += 1
                text = f"the pass took longer than {self._time_limit:g} s and was cancelled"
                self._complain(key, text, delay=self._queue.retry(key))
                return
            self.counts.unexpected += 1
            delay = self._queue.retry(key)
            # By kinds and places: the text of an exception may quote what an object holds.
            self._complain(key, f"unexpected {type(error).__name__}", delay, where(error))
        else:
            self._finish(key, again)

    def _finish(self, key: Key, again: float | None) -> None:
        self.counts.done += 1
        self._queue.forget(key)
        if again is not None:
            self._queue.add_after(key, again)
        complaint = self._complaints.pop(key, None)
        if complaint is not None:
            _log.info("%s: works again after %d failed passes", key, complaint.times)

    def _complain(self, key: Key, text: str, delay: float, trace: str = "") -> None:
        """Log a failure once for as long as its text stays the same."""
        known = self._complaints.get(key)
        if known is not None and known.text == text:
            known.times += 1
            _log.debug("%s: %s (%d times); next try in %.1f s", key, text, known.times, delay)
            return
        times = 1 if known is None else known.times + 1
        self._complaints[key] = _Complaint(text, times)
        level = logging.ERROR if trace else logging.WARNING
        _log.log(level, "%s: %s; next try in %.1f s%s", key, text, delay, trace and f"\n{trace}")
