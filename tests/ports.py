"""Ports for single processes of tests, which no other process of the tests is given meanwhile.

A port that the kernel picks is let go before its server binds it, and another lane may be given it
in between. Here each process holds a block of its own, locked as long as it lives, below the ports
that the kernel gives to clients and beside those of playgrounds (16400 to 18000, 22222, 30022).
"""

import fcntl
import itertools
import os
import socket
import tempfile
from functools import cache
from pathlib import Path

FIRST, LAST, SIZE = 24_000, 29_999, 100


@cache
def _block() -> "itertools.cycle[int]":
    """The ports of this process; the lock ends with it.

    Raises:
        RuntimeError: every block is taken.
    """
    folder = Path(tempfile.gettempdir()) / f"isthmus-test-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for first in range(FIRST, LAST, SIZE):
        handle = os.open(folder / str(first), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            continue
        return itertools.cycle(range(first, first + SIZE))
    raise RuntimeError(f"every block of ports from {FIRST} to {LAST} is taken by another process")


def free_port() -> int:
    """A TCP port that nothing listens at, on no interface; the next call gives another one."""
    for port in itertools.islice(_block(), SIZE):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port
    raise RuntimeError("every port of this process is taken")
