"""Starts an installed engine simulator as a process of its own, for tests and benchmarks.

Apart from the simulators, which do not know it; it is not installed with them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

INHERITED = ("PATH", "LANG", "LC_ALL", "TMPDIR")
POLL_SECONDS = 0.02


class EngineNotReadyError(Exception):
    """The engine ended or took too long; the message has the end of its log."""


@dataclass(slots=True)
class EngineProcess:
    """One running simulator in its own process group; ends with the `with` block."""

    process: subprocess.Popen[bytes]
    url: str
    log_path: Path

    @property
    def pid(self) -> int:
        """Process id of the main process, which is the id of the group too."""
        return self.process.pid

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def children(self) -> dict[str, int]:
        """Return the child processes of the engine, pid by name."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        pids = [int(word) for word in path.read_text(encoding="ascii").split()]
        return {Path(f"/proc/{p}/comm").read_text(encoding="ascii").strip(): p for p in pids}

    def status(self, path: str = "/health", *, timeout: float = 5.0) -> int | None:
        """Return the status of a GET, None if the connection is refused or cut."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=timeout) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return int(error.code)
        except OSError:
            return None

    def wait_ready(self, *, path: str = "/ping", timeout: float = 20.0) -> None:
        """Wait until a path answers 200.

        Raises:
            EngineNotReadyError: it ended first, or did not come up in time.
        """
        until = time.monotonic() + timeout
        while self.status(path) != 200:
            code = self.process.poll()
            if code is not None or time.monotonic() > until:
                state = "is still not ready" if code is None else f"ended with {code}"
                raise EngineNotReadyError(f"{self.process.args!r} {state}: {self.log[-2000:]}")
            time.sleep(POLL_SECONDS)

    def terminate(self, *, group: bool = False) -> None:
        """Send SIGTERM to the main process, or to the whole group."""
        (os.killpg if group else os.kill)(self.pid, signal.SIGTERM)

    def wait(self, *, timeout: float = 20.0) -> int:
        """Wait for the end; return the exit code, negative for a signal."""
        return self.process.wait(timeout)

    def __enter__(self) -> EngineProcess:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill the whole group and reap it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(10)


def start(
    command: Sequence[str | Path],
    *,
    log_path: Path,
    port: int,
    environment: Mapping[str, str] | None = None,
) -> EngineProcess:
    """Start a command such as `DEST/bin/vllm serve MODEL --port PORT`."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [str(word) for word in command],
            env=inherited | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return EngineProcess(process, f"http://127.0.0.1:{port}", log_path)


def free_port() -> int:
    """Return a TCP port that is free on the loopback interface now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
