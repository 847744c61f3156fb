"""The load client as a test uses it: start it, wait for progress, end it, look at the report."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parents[2]


class Traffic:
    """Requests to one address for as long as the block lasts.

    Args:
        url: address of the service, without /v1.
        options: options of `python -m tests.traffic` by name, e.g. `connections="new"`.
    """

    def __init__(self, url: str, **options: object) -> None:
        self._command = [sys.executable, "-m", "tests.traffic", "--url", url]
        for name, value in options.items():
            self._command += [f"--{name}", str(value)]
        self._process: subprocess.Popen[str] | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._latest: dict[str, int] = {"answered": 0, "failed": 0}
        self.report: dict[str, Any] = {}

    def __enter__(self) -> Self:
        path = os.pathsep.join([str(REPOSITORY / "operator"), str(REPOSITORY)])
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._reader.start()
        self.wait_answered(1)
        return self

    def __exit__(self, *error: object) -> None:
        process = self._process
        assert process is not None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=330)
        except subprocess.TimeoutExpired:
            process.kill()
        self._reader.join(timeout=10)
        assert process.stdout is not None
        process.stdout.close()

    @property
    def answered(self) -> int:
        """Requests answered completely so far."""
        return self._latest["answered"]

    @property
    def failed(self) -> int:
        """Requests that were not."""
        return self._latest["failed"]

    def wait_answered(self, more: int, *, timeout: float = 60.0) -> None:
        """Wait until so many more requests have been answered."""
        wanted, end = self.answered + more, time.monotonic() + timeout
        while self.answered < wanted:
            assert self._process is not None
            assert self._process.poll() is None, "the load client ended"
            assert time.monotonic() < end, (
                f"{self.answered} requests answered and {self.failed} failed, {wanted} wanted"
            )
            time.sleep(0.05)

    def assert_no_failure(self, *, at_least: int = 1) -> None:
        """After the block: every request was answered to its end, and there were enough."""
        assert self.report, "the load client ended without a report"
        assert not self.report["failures"], self.report["failures"][:5]
        assert self.report["failed"] == 0
        assert self.report["answered"] >= at_least, self.report

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if "report" in said:
                self.report = said["report"]
            else:
                self._latest = said
