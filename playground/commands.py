"""Running short commands and waiting for conditions, each with a time limit."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from playground.errors import PlaygroundError

MARKER = "ISTHMUS_PLAYGROUND"  # in the environment of every process of a playground: its state
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SECRET_OPTIONS = ("--token",)


def clean_environment(
    state: Path | None = None, *, path: str = SYSTEM_PATH, extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of the playground's processes: nothing of the caller's but the language."""
    environment = {"PATH": path, "LANG": "C.UTF-8", "HOME": os.environ.get("HOME", "/")}
    if state is not None:
        environment[MARKER] = str(state)
    return environment | dict(extra or {})


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float = 30.0,
    environment: Mapping[str, str] | None = None,
    stdin: str | None = None,
    check: bool = True,
    folder: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return its output.

    Raises:
        PlaygroundError: it is missing, did not end in time, or (with `check`) failed.
    """
    command = [str(word) for word in argv]
    shown = " ".join(command)[:300]
    try:
        done = subprocess.run(
            command,
            env=dict(environment) if environment is not None else clean_environment(),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            cwd=folder or "/",
        )
    except FileNotFoundError as error:
        raise PlaygroundError(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise PlaygroundError(f"`{shown}` did not end within {timeout:.0f} s") from error
    if check and done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-1500:]
        raise PlaygroundError(f"`{shown}` failed ({done.returncode}): {said}")
    return done


def succeeds(argv: Sequence[str | Path], *, timeout: float = 10.0) -> bool:
    """Whether a command ends with 0; False also when it is missing or too slow."""
    try:
        return run(argv, timeout=timeout, check=False).returncode == 0
    except PlaygroundError:
        return False


def wait_until(
    condition: Callable[[], object],
    *,
    what: str,
    timeout: float = 30.0,
    interval: float = 0.05,
    hint: str = "",
) -> None:
    """Wait until a condition is true; raises PlaygroundError naming what did not come about."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            tail = f"; {hint}" if hint else ""
            raise PlaygroundError(f"{what}: not within {timeout:.0f} s{tail}")
        time.sleep(interval)
