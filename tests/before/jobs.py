"""The batch script, rendered and run by a real bash beside commands that are told what to say."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from isthmus.backends.slurm.executor import LocalExecutor
from isthmus.backends.slurm.records import JobTemplate, SiteFacts
from isthmus.backends.slurm.script import render_script
from tests.before.findings import any_of, built, finding

_NAME: Final = "llama-isthmus0-0123456789-0-abcdef"
_KEY: Final = "isthmus-S3cr3t"
_SECONDS: Final = 20.0
"""For what is waited for."""


class _Node:
    """A node with a job on it.

    Attributes:
        log: of the job.
        told: what scontrol was asked.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.work = folder / "work"
        self.work.mkdir()
        self.log, self.told = folder / "log", folder / "told"
        self.says("scontrol", f"printf '%s\\n' \"$*\" >>{shlex.quote(str(self.told))}")
        self.says("squeue", "echo 9999999999")
        self._process: subprocess.Popen[bytes] | None = None

    def says(self, command: str, line: str) -> None:
        path = self._folder / command
        path.write_text(f"#!/bin/bash\n{line}\n", encoding="utf-8")
        path.chmod(0o755)

    def start(self, template: JobTemplate, *, port: int) -> None:
        """Begin the job of one attempt."""
        site = SiteFacts(
            work_directory=str(self.work),
            ports_from=port,
            ports_to=port,
            default_partition=None,
            default_account=None,
            default_qos=None,
            default_time_limit_minutes=60,
        )
        script = render_script(
            template=template, site=site, attempt="abcdef", job_name=_NAME, comment="isthmus:v1"
        )
        (self._folder / "script").write_text(script, encoding="utf-8")
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", str(self._folder / "script")],
                env={"PATH": f"{self._folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def sees(self, path: Path, text: str, *, seconds: float = _SECONDS) -> bool:
        """Whether a text comes into a file in time, and before the end of the job."""
        deadline = time.monotonic() + seconds
        while True:
            over = self.ended() or time.monotonic() > deadline
            if path.exists() and text in path.read_text(encoding="utf-8", errors="replace"):
                return True
            if over:
                return False
            time.sleep(0.05)

    def close(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)


@contextmanager
def _node() -> Iterator[_Node]:
    with tempfile.TemporaryDirectory(prefix="isthmus-before-") as folder:
        node = _Node(Path(folder))
        try:
            yield node
        finally:
            node.close()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _engine(*words: str) -> JobTemplate:
    return JobTemplate(argv=words)


_SILENT: Final = _engine("sleep", "60")
_SERVING: Final = _engine(sys.executable, "-m", "http.server", "@PORT@")


@finding("H1", "the port of a job is told before its engine listens there")
def port_is_told_early() -> bool:
    with _node() as node:
        node.start(_SILENT, port=_free_port())
        assert node.sees(node.log, "starting the engine")
        return node.sees(node.told, ":port=", seconds=4)


@finding("F6", "a job that may not change its comment says nothing, and its port is nowhere")
def refused_comment_says_nothing() -> bool:
    with _node() as node:
        node.says("scontrol", "echo 'slurm_update error: Invalid user id' >&2; exit 1")
        node.start(_SERVING, port=_free_port())
        told = node.sees(node.log, "Invalid user id")
        return not (told and list(node.work.rglob("port")))


def _place(node: _Node, name: str) -> Path:
    """Where a key of the job waits."""
    path = any_of(
        f"isthmus.backends.slurm.work_paths:{name}", f"isthmus.backends.slurm.options:{name}"
    )
    place = Path(path(work_directory=str(node.work), job_name=_NAME))
    assert place.is_relative_to(node.work)
    return place


def _private(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)


@finding("M6", "a name of the engine's environment is one of the script's: the key goes elsewhere")
def environment_takes_a_variable() -> bool:
    with _node() as node:
        _private(_place(node, "key_path"), _KEY)
        template = JobTemplate(
            argv=("/bin/bash", "-c", "env; sleep 60"),
            env=(("key_variable", "LEAK"),),
            key="0123456789",
            key_variable="ENGINE_API_KEY",
        )
        node.start(template, port=_free_port())
        assert node.sees(node.log, _KEY)
        return node.sees(node.log, f"LEAK={_KEY}", seconds=1)


@finding("L3", "the key for the bastion of a job that never started stays in the work directory")
async def bastions_key_stays() -> bool:
    with _node() as node:
        place = _place(node, "tunnel_key_path")
        _private(place, "a key")
        remover = built(
            "isthmus.backends.slurm.work_folder:ShellWorkFolder",
            "isthmus.backends.slurm.commands:CommandClient",
            executor=LocalExecutor(),
        )
        named = ("remove_secrets", "remove_secret")
        remove = next(getattr(remover, name) for name in named if hasattr(remover, name))
        await remove(work_directory=str(node.work), job_name=_NAME)
        return place.exists()
