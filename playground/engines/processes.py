"""The child processes of an engine (vLLM's EngineCore, SGLang's scheduler) and how they die.

They do no work here, but signals reach them as they reach the real ones: they are in the engine's
process group, die of SIGTERM, and end with the main process: SGLang's however that ends, vLLM's not
if it is killed (measured). They are forked before any thread or event loop exists.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Children:
    """The children of this process by pid, each under its name.

    With `orphans_live` they do not notice that this process was killed.
    """

    orphans_live: bool = False
    names: dict[int, str] = field(default_factory=dict)
    _life_line: tuple[int, int] | None = None

    def start(self, name: str) -> int:
        """Fork a child that lives until it is signalled or the main process is gone."""
        if self._life_line is None:
            self._life_line = os.pipe()
        pid = os.fork()
        if pid == 0:
            _child_life(name, self._life_line, orphan_lives=self.orphans_live)
        self.names[pid] = name
        return pid

    def watch(self, lost: Callable[[str, int, int], None]) -> None:
        """Call `lost(name, pid, returncode)` in the running loop for each child that ends."""

        def reap() -> None:
            for pid in tuple(self.names):
                with contextlib.suppress(ChildProcessError):
                    done, status = os.waitpid(pid, os.WNOHANG)
                    if done:
                        lost(self.names.pop(pid), pid, os.waitstatus_to_exitcode(status))

        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, reap)
        reap()

    def kill(self) -> None:
        """Send SIGKILL to all of them."""
        for pid in tuple(self.names):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _child_life(name: str, life_line: tuple[int, int], *, orphan_lives: bool) -> None:
    """Wait for a signal, or for the end of the main process: the pipe then reads as closed."""
    reading, writing = life_line
    os.close(writing)
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as comm:
        comm.write(name[:15])
    while os.read(reading, 1) or orphan_lives:
        signal.pause()
    os._exit(0)


def kill_self() -> None:
    """End as by SIGKILL (137), also as process 1 of a container, which cannot kill itself."""
    os.kill(os.getpid(), signal.SIGKILL)
    os._exit(137)
