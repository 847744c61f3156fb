"""Writes the lock files of the images: every package that is installed there, with its hashes.

Apart from dockerfile.py, which only reads them. Run by `make lock`; versions are those of
constraints.txt, hashes are of all files of a version, so that every platform finds its own.
"""

import os
import re
import subprocess
import tempfile
from pathlib import Path

from playground.python_environment import REPOSITORY, dependencies

REQUIREMENTS = "requirements.lock"
BUILD_REQUIREMENTS = "build-requirements.lock"
BUILD = ("hatchling", "pip")
"""What builds the package, and what installs."""

_HEADS = {
    REQUIREMENTS: "What the images install: what Isthmus depends on, and what that depends on.",
    BUILD_REQUIREMENTS: "What builds the package in the Dockerfile; it is in neither image.",
}
_ELSEWHERE = "colorama"  # for Windows only
_REQUIREMENT = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", re.MULTILINE)


def locked(text: str) -> dict[str, str]:
    """Version by name, of a lock file or of constraints.txt."""
    return {name.lower().replace("_", "-"): version for name, version in _REQUIREMENT.findall(text)}


def unhashed(text: str) -> list[str]:
    """Requirements of a lock file that have no hash."""
    entries = re.split(r"\n(?=\S)", "\n".join(x for x in text.splitlines() if x[:1] != "#"))
    return [
        entry.split()[0] for entry in entries if entry.strip() and "--hash=sha256:" not in entry
    ]


def write(uv: str) -> None:
    """Write both with `uv`, the program."""
    for name, wanted in ((REQUIREMENTS, dependencies()), (BUILD_REQUIREMENTS, [*BUILD])):
        with tempfile.NamedTemporaryFile("w", suffix=".in") as asked:
            asked.write("\n".join(wanted) + "\n")
            asked.flush()
            done = subprocess.run(
                [
                    *(uv, "pip", "compile", "--quiet", "--universal", "--python-version=3.11"),
                    *("--generate-hashes", "--no-header", "--no-annotate"),
                    *("--only-binary=:all:", f"--no-emit-package={_ELSEWHERE}"),
                    f"--constraint={REPOSITORY / 'constraints.txt'}",
                    asked.name,
                ],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
                timeout=300,
            )
        origin = "Written by `make lock` from pyproject.toml and constraints.txt; pip checks all."
        kept = [x for x in done.stdout.splitlines() if x[:1] != "#"]
        Path(REPOSITORY / name).write_text(
            "\n".join([f"# {_HEADS[name]}", f"# {origin}", *kept]) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    write(os.environ["UV"])
