"""The scheduler inside an engine: which requests run, which wait, and how tokens come.

Independent of the engine and of HTTP. A request that gives up (its task is cancelled) leaves the
queue or its place at once, as an aborted request does.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from .knobs import Knobs
from .metrics import Statistics

_FILLER = (
    "This answer comes from a simulated engine : no weights were loaded and no GPU was used . "
    "Requests are scheduled , counted and streamed as the real engine does it ."
)
_THROUGHPUT_SECONDS = 5.0


class EngineStoppedError(Exception):
    """The engine can no longer generate; `aborted` if it stopped on purpose."""

    def __init__(self, message: str, *, aborted: bool = False) -> None:
        """Keep whether the requests count as aborted."""
        super().__init__(message)
        self.aborted = aborted


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be generated for one request."""

    greeting: str
    prompt_tokens: int
    output_tokens: int
    finish_reason: str


def words(greeting: str, count: int) -> list[str]:
    """Return exactly `count` tokens (words); the greeting first, then filler."""
    source = itertools.chain(greeting.split(), itertools.cycle(_FILLER.split(" ")))
    taken = list(itertools.islice(source, count))
    return taken[:1] + [f" {word}" for word in taken[1:]]


class Scheduler:
    """Runs at most `limit` jobs at once, first come first served.

    `idle` is set while none runs or waits; `stalled` after `stall`.
    """

    def __init__(
        self, *, limit: int, context_length: int, knobs: Knobs, decode_log_interval: int = 40
    ) -> None:
        """Prepare.

        Args:
            limit: number of running requests.
            context_length: in tokens.
            knobs: how fast it is.
            decode_log_interval: decode steps after which the gauges of SGLang are written.
        """
        self._decode_log_interval = max(1, decode_log_interval)
        self._decode_steps = 0.0
        self.statistics = Statistics(token_capacity=max(1, limit * context_length))
        self.stalled = False
        self._knobs = knobs
        self._places = asyncio.Semaphore(limit)
        self._interrupted = asyncio.Event()
        self._failed = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self._reason: EngineStoppedError | None = None
        self._recent: collections.deque[float] = collections.deque(maxlen=100_000)
        self._taken = 0

    @property
    def busy(self) -> int:
        """Requests running or waiting."""
        return self.statistics.running + self.statistics.waiting

    @property
    def taken(self) -> int:
        """Requests taken since the start."""
        return self._taken

    def stop(self, reason: EngineStoppedError) -> None:
        """End every request with an error and refuse further ones."""
        self._reason = reason
        self._interrupted.set()
        self._failed.set()

    def stall(self) -> None:
        """Stop generating without a word: requests neither end nor fail."""
        self.stalled = True
        self._interrupted.set()

    def measure(self) -> Statistics:
        """Return the statistics with the throughput of the last seconds."""
        since = time.monotonic() - _THROUGHPUT_SECONDS
        while self._recent and self._recent[0] < since:
            self._recent.popleft()
        self.statistics.throughput = len(self._recent) / _THROUGHPUT_SECONDS
        return self.statistics

    async def generate(self, job: Job) -> AsyncGenerator[str, None]:
        """Yield the tokens of a job as they come.

        Raises:
            EngineStoppedError: the engine went away meanwhile.
        """
        arrival = time.monotonic()
        statistics = self.statistics
        reason = "abort"
        self._taken += 1
        await self._take_place()
        held = job.prompt_tokens
        statistics.tokens_held += held
        try:
            last = time.monotonic()
            statistics.queue_time.observe(last - arrival)
            statistics.prompt_tokens += job.prompt_tokens
            for index, word in enumerate(words(job.greeting, job.output_tokens)):
                await self._pause(self._delay(index, job))
                self._note_step(first=index == 0)
                now = time.monotonic()
                if index == 0:
                    statistics.first_token.observe(now - arrival)
                else:
                    statistics.between_tokens.observe(now - last)
                last = now
                held += 1
                statistics.tokens_held += 1
                statistics.generation_tokens += 1
                self._recent.append(now)
                yield word
            reason = job.finish_reason
        except EngineStoppedError as error:
            reason = "abort" if error.aborted else "error"
            raise
        finally:
            statistics.running -= 1
            statistics.tokens_held -= held
            self._places.release()
            statistics.finished[reason] += 1
            self._note_idle()
            statistics.request_latency.observe(time.monotonic() - arrival)

    def _delay(self, index: int, job: Job) -> float:
        knobs = self._knobs
        if index:
            return 1.0 / knobs.tokens_per_second
        return knobs.first_token_seconds + knobs.prefill_token_seconds * job.prompt_tokens

    def _note_step(self, *, first: bool) -> None:
        """A decode step makes a token for each request that runs; the gauges follow now and then.

        The first token of a request is that of its prefill.
        """
        if first:
            return
        before = self._decode_steps
        self._decode_steps += 1.0 / max(1, self.statistics.running)
        every = self._decode_log_interval
        if int(before / every) != int(self._decode_steps / every):
            self.statistics.show(running=self.statistics.running)

    async def _take_place(self) -> None:
        # Stopping needs no wake-up here: running jobs fail, give their places back, and whoever
        # takes one fails at its first token.
        self.statistics.waiting += 1
        self.idle.clear()
        try:
            await self._places.acquire()
            running = self.statistics.running
            self.statistics.running += 1
        except asyncio.CancelledError:
            self.statistics.waiting -= 1
            self._note_idle()
            raise
        self.statistics.waiting -= 1
        self.statistics.show(running=running)  # a prefill is scheduled: who ran before it

    def _note_idle(self) -> None:
        if not self.busy:
            self.statistics.show(running=0)
            self.idle.set()

    async def _pause(self, seconds: float) -> None:
        """Wait for a token; for ever if stalled, with an error if stopped."""
        try:
            async with asyncio.timeout(seconds):
                await self._interrupted.wait()
        except TimeoutError:
            return
        await self._failed.wait()
        assert self._reason is not None
        raise EngineStoppedError(str(self._reason), aborted=self._reason.aborted)
