"""What SIGTERM and SIGINT mean to a process of ours: to end as soon as its own work is done.

Apart from both applications, which differ in what that work is.
"""

import asyncio
import os
import signal
from collections.abc import Coroutine

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
            loop.call_later(kill_after, os.kill, os.getpid(), signal.SIGKILL)
        asked.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, told)


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
