"""Finding and ending processes by what /proc says of them, never by a broad pattern.

A process belongs to a playground when its environment holds `ISTHMUS_PLAYGROUND=<state>` exactly.
What runs inside a node (a pid namespace) needs no such mark: it ends with the node's first process.
"""

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from playground.commands import MARKER

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """One process; the start time (clock ticks since boot) tells a reused pid apart."""

    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class Stat:
    """What /proc/PID/stat says.

    Attributes:
        parent: its parent's pid.
        state: one letter.
        started: clock ticks since boot.
        ended: whether all of it has ended. A process whose first thread is a zombie and whose
            others still end has its ports and files until the last one has.
    """

    parent: int
    state: str
    started: int
    ended: bool


def read_stat(pid: int) -> Stat | None:
    """None when there is no such process (any more)."""
    try:
        fields = (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    if len(fields) < 20:
        return None
    state = fields[0].decode()
    ended = state in "ZX" and int(fields[17]) <= 1
    return Stat(parent=int(fields[1]), state=state, started=int(fields[19]), ended=ended)


def all_processes() -> dict[int, Stat]:
    """Every process of the machine that is not a zombie, by pid."""
    found = {}
    for entry in os.listdir(PROC):
        stat = read_stat(int(entry)) if entry.isdigit() else None
        if stat is not None and not stat.ended:
            found[int(entry)] = stat
    return found


def environment_of(pid: int) -> frozenset[bytes]:
    """`NAME=value` of each variable; empty when it cannot be read."""
    try:
        return frozenset((PROC / str(pid) / "environ").read_bytes().split(b"\0"))
    except OSError:
        return frozenset()


def command_line(pid: int) -> tuple[str, ...]:
    """The arguments of a process; empty when it is gone."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(raw.decode(errors="replace").rstrip("\0").split("\0"))


def marked(state: Path) -> set[Process]:
    """Every process of the playground of this state folder, this process excepted."""
    mark = f"{MARKER}={state}".encode()
    own = os.getpid()
    return {
        Process(pid=pid, started=stat.started)
        for pid, stat in all_processes().items()
        if pid != own and mark in environment_of(pid)
    }


def children(pid: int) -> list[int]:
    """Direct children, oldest first."""
    found = [(s.started, p) for p, s in all_processes().items() if s.parent == pid]
    return [child for _, child in sorted(found)]


def identify(pid: int) -> Process | None:
    """The process with this pid, or None when there is none."""
    stat = read_stat(pid)
    return None if stat is None or stat.ended else Process(pid=pid, started=stat.started)


def alive(process: Process) -> bool:
    """Whether it still runs (a zombie does not)."""
    return identify(process.pid) == process


def send(process: Process, number: signal.Signals) -> None:
    """Send a signal if it is still the same process."""
    if alive(process):
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return


def collect(pid: int) -> None:
    """Collect an ended child of this process, so that it does not stay as a zombie."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return  # another process started it


def wait_for_end(processes: Iterable[Process], *, timeout: float) -> set[Process]:
    """Wait until they have ended; returns those that have not."""
    left = set(processes)
    end = time.monotonic() + timeout
    while left := {process for process in left if alive(process)}:
        if time.monotonic() > end:
            break
        time.sleep(0.01)
    return left


def end(processes: Iterable[Process], *, grace: float) -> set[Process]:
    """TERM, and after `grace` seconds KILL; returns those that even survive that for 5 s."""
    wanted = set(processes)
    if grace > 0:
        for process in wanted:
            send(process, signal.SIGTERM)
            send(process, signal.SIGCONT)  # a stopped process does not see TERM
        wanted = wait_for_end(wanted, timeout=grace)
    for process in wanted:
        send(process, signal.SIGKILL)
    return wait_for_end(wanted, timeout=5.0)
