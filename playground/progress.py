"""Lines that tell the user what is being done and how long it took.

Apart because clusters start in parallel threads and tests want silence.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HEARTBEAT = 15.0
"""Seconds after which a step that is not done is told about, again and again."""


class Progress:
    """Prints one line per finished step: seconds since the start, what, how long it took.

    A step that takes long is also told about while it lasts, so that nobody has to guess whether
    it hangs.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self._silent = silent
        self._start = time.monotonic()
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        """Print one line with the seconds since the start."""
        if not self._silent:
            with self._lock:
                print(f"{time.monotonic() - self._start:6.1f} s  {text}", flush=True)

    def note(self, text: str) -> None:
        """Print text without a time."""
        if not self._silent:
            with self._lock:
                print(text, flush=True)

    @contextmanager
    def heartbeat(self, text: Callable[[], str], *, every: float = HEARTBEAT) -> Iterator[None]:
        """While the context lasts, say every few seconds what is not done yet."""
        begin, done = time.monotonic(), threading.Event()

        def tell() -> None:
            while not done.wait(every):
                self.say(f"  ... {text()}: {time.monotonic() - begin:.0f} s so far")

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield
        finally:
            done.set()
            teller.join()

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Print the line when the step is done, or that it failed; meanwhile that it goes on."""
        begin = time.monotonic()
        try:
            with self.heartbeat(lambda: text):
                yield
        except BaseException:
            self.say(f"{text}: FAILED after {time.monotonic() - begin:.1f} s")
            raise
        self.say(f"{text} ({time.monotonic() - begin:.1f} s)")


def warn(text: str) -> None:
    """Print a warning where it does not disturb the output of a command."""
    print(text, file=sys.stderr, flush=True)
