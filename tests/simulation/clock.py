"""Virtual time, and processes that can be stopped and killed as the kernel does it.

One event loop runs the whole world. What an operator started belongs to its `Process`: a paused
process (SIGSTOP) does nothing until it is continued, a killed one (SIGKILL) never does anything
again: no exception, no `finally`, no last word. What a process asked of others goes on.
"""

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

from tests.virtualtime import VirtualTimeLoop

EPOCH = 1_800_000_000.0
"""Wall clock of the API server at loop time 0."""

_PROCESS: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("process", default=None)


class Process:
    """One process: everything that runs in `context` belongs to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stopped = False
        self.held: list[_Entry] = []
        self.clock_skew = 0.0  # of its wall clock, seconds
        self.context = contextvars.copy_context()
        self.context.run(_PROCESS.set, self)

    def wall_clock(self) -> float:
        return EPOCH + asyncio.get_running_loop().time() + self.clock_skew

    def pause(self) -> None:
        self.stopped = True

    def resume(self) -> None:
        """Go on with what was due meanwhile, in its order."""
        self.stopped = False
        held, self.held = self.held, []
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulationLoop)
        for entry in held:
            loop.enqueue(entry)


def current_process() -> Process:
    process = _PROCESS.get()
    assert process is not None, "called from outside of any simulated process"
    return process


def outside() -> contextvars.Context:
    """A context that belongs to no process: the machines around the operators."""
    context = contextvars.copy_context()
    context.run(_PROCESS.set, None)
    return context


class _Entry:
    """A callback of a process, run unless its process is stopped then."""

    __slots__ = ("args", "callback", "context", "handle", "process")

    handle: asyncio.Handle

    def __init__(
        self,
        process: Process,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context,
    ) -> None:
        self.process, self.callback, self.args, self.context = process, callback, args, context

    def __call__(self) -> None:
        if self.handle.cancelled():
            return
        if self.process.stopped:
            self.process.held.append(self)
            return
        self.callback(*self.args)


class SimulationLoop(VirtualTimeLoop):
    """Virtual time; asks of every callback whose it is."""

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        if context is None:
            context = contextvars.copy_context()
        process = context.get(_PROCESS)
        if process is None:
            return super().call_soon(callback, *args, context=context)
        entry = _Entry(process, callback, args, context)
        entry.handle = super().call_soon(entry, context=context)
        return entry.handle

    def call_at(
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        if context is None:
            context = contextvars.copy_context()
        process = context.get(_PROCESS)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        entry = _Entry(process, callback, args, context)
        handle = super().call_at(when, entry, context=context)
        entry.handle = handle
        return handle

    def enqueue(self, entry: _Entry) -> None:
        """Run a held entry soon; its first handle still tells whether it was cancelled."""
        super().call_soon(entry, context=entry.context)
