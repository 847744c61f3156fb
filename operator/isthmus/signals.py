"""How a process of ours ends: SIGTERM and SIGINT ask it to, and no end may hang.

Apart from both applications, which differ in what their work is.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Coroutine

_log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def take_signals(asked: asyncio.Event, *, kill_after: float | None = None) -> None:
    """Have both signals set `asked`, in place of whatever they did until now.

    Args:
        asked: set by the first of them.
        kill_after: seconds until a process that hangs at its end is killed, None for never.
    """
    loop = asyncio.get_running_loop()

    def told() -> None:
        if kill_after is not None and not asked.is_set():
            EndLimit(kill_after).begin()
        asked.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, told)


class EndLimit:
    """Kills this process where its end hangs; says what it waits for after half of the time.

    What has lost its lease and hangs is replaced by nobody, for it still runs.
    """

    def __init__(self, seconds: float) -> None:
        """`seconds` count from `begin`."""
        self._seconds = seconds
        self._timers: list[asyncio.TimerHandle] = []

    def begin(self) -> None:
        """The end has begun, whatever its cause."""
        if not self._timers:
            later = asyncio.get_running_loop().call_later
            half = self._seconds / 2
            self._timers = [
                later(half, _tell_what_is_left, half),
                later(self._seconds, os.kill, os.getpid(), signal.SIGKILL),
            ]

    def over(self) -> None:
        """It did not hang."""
        for timer in self._timers:
            timer.cancel()


def _tell_what_is_left(seconds: float) -> None:
    for task in asyncio.all_tasks():
        stack = task.get_stack(limit=1)
        where = f"{stack[0].f_code.co_filename}:{stack[0].f_lineno}" if stack else "?"
        _log.warning("Still not ended after %.0f s: %s at %s", seconds, task.get_name(), where)


async def unless_asked(asked: asyncio.Event, work: Coroutine[object, object, None]) -> None:
    """Do some work, or leave it where it is once `asked` is set.

    Raises:
        BaseException: of the work.
    """
    doing = asyncio.create_task(work)
    waiting = asyncio.create_task(asked.wait())
    try:
        await asyncio.wait({doing, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            doing.result()
    finally:
        for task in (doing, waiting):
            task.cancel()
        await asyncio.gather(doing, waiting, return_exceptions=True)
