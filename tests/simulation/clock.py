"""Virtual time, and processes that can be stopped and killed as the kernel does it.

One event loop runs the whole world. What an operator started belongs to its `Process`: a paused
process (SIGSTOP) does nothing until it is continued, a killed one (SIGKILL) never does anything
again: no exception, no `finally`, no last word. What a process asked of others goes on.
"""

import asyncio
import contextvars
import heapq
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

EPOCH = 1_800_000_000.0
"""Wall clock of the API server at loop time 0."""

_PROCESS: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("process", default=None)


class Process:
    """One process: everything that runs in `context` belongs to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stopped = False
        self.steps = 0  # callbacks run, each of which ends at an await
        self.dies_after: int | None = None  # steps
        self.on_death: Callable[[], None] = lambda: None
        self.held: list[asyncio.Handle] = []
        self.clock_skew = 0.0  # of its wall clock, seconds
        self.cut_off_until = 0.0  # from the API server, loop time
        self._time = asyncio.get_running_loop().time
        self.context = contextvars.copy_context()
        self.context.run(_PROCESS.set, self)

    def wall_clock(self) -> float:
        return EPOCH + self._time() + self.clock_skew

    def pause(self) -> None:
        self.stopped = True

    def resume(self) -> None:
        """Go on with what was due meanwhile, in its order."""
        self.stopped = False
        held, self.held = self.held, []
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulationLoop)
        loop.ready.extend(held)

    def may_step(self, handle: asyncio.Handle) -> bool:
        """Whether a callback of this process runs now; one that may not is held."""
        self.steps += 1
        if self.dies_after is not None and self.steps > self.dies_after:
            self.dies_after = None
            self.on_death()
        if self.stopped:
            self.held.append(handle)
        return not self.stopped


def current_process() -> Process:
    process = _PROCESS.get()
    assert process is not None, "called from outside of any simulated process"
    return process


def outside() -> contextvars.Context:
    """A context that belongs to no process: the machines around the operators."""
    context = contextvars.copy_context()
    context.run(_PROCESS.set, None)
    return context


class _Handle(asyncio.Handle):
    """As asyncio's, without asking for each whether the loop debugs: that took a tenth of a run."""

    __slots__ = ()

    def __init__(self, callback: Any, args: Any, loop: Any, context: Any) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop, self._callback, self._args = loop, callback, args
        self._cancelled, self._repr, self._source_traceback = False, None, None

    def cancel(self) -> None:
        self._cancelled = True
        self._callback = self._args = None


class _Timer(asyncio.TimerHandle):
    """The same for a timer; a cancelled one is dropped when its time comes."""

    __slots__ = ()

    def __init__(self, when: float, callback: Any, args: Any, loop: Any, context: Any) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop, self._callback, self._args = loop, callback, args
        self._cancelled, self._repr, self._source_traceback = False, None, None
        self._when, self._scheduled = when, True

    def cancel(self) -> None:
        self._cancelled = True
        self._callback = self._args = None


class SimulationLoop(asyncio.SelectorEventLoop):
    """Virtual time; asks of every callback whose it is.

    It never looks at a file descriptor, and keeps its timers in a heap of tuples: half of the time
    of a run would be spent in the loop otherwise.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = itertools.count()
        super().__init__()

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self.ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        handle = _Timer(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._order), handle))
        return handle

    def _run_once(self) -> None:
        ready, timers = self.ready, self._timers
        if not ready:
            while timers and timers[0][2]._cancelled:
                heapq.heappop(timers)
            if not timers:
                raise AssertionError("everything waits for something that can never happen")
            self.now = max(self.now, timers[0][0])
        while timers and timers[0][0] <= self.now:
            ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(_PROCESS)
            if process is None or process.may_step(handle):
                try:
                    handle._context.run(handle._callback, *handle._args)
                except Exception as error:
                    self.call_exception_handler({"message": "in a callback", "exception": error})
