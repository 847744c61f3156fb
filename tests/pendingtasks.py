"""Notices tasks that nobody holds any more although they have not ended.

Python tells of them in the log only ("Task was destroyed but it is pending!"), once the garbage
collector comes by: a task that was made for the length of a call and not cancelled with it.
"""

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "Task was destroyed" in text:
            self.heard.append(text)


@contextmanager
def no_task_is_lost() -> Iterator[None]:
    """Fail at the end of the context if a task was lost in it."""
    logger, listener = logging.getLogger("asyncio"), _Listener()
    logger.addHandler(listener)
    try:
        yield
        gc.collect(0)  # what was just made and dropped
    finally:
        logger.removeHandler(listener)
    assert not listener.heard, "\n".join(listener.heard)
