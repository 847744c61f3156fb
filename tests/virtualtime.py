"""An event loop whose clock jumps: sleeping costs nothing, and every timing is exact."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """Where a loop would wait, its time moves on instead."""

    loop: "VirtualTimeLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or timeout == 0:
            return events
        if timeout is None:
            raise AssertionError("everything waits for something that can never happen")
        self.loop.now += timeout
        self.loop.turns += 1
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Starts at time 0. For code that waits for timers and other tasks only, not for sockets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turns = 0  # how often its time moved
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def run_virtual(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `main()` in a fresh loop with virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main())


class FakeClock:
    """A clock that stands still until it is told to move."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
