"""The Python and the programs that the job user runs: Debian's python3 and a folder of packages.

The development environment may lie in /root, which the job user cannot traverse, so the project's
runtime dependencies are installed once into the cache (for Debian's Python, at the versions of
constraints.txt), and linked into the state folder. The operator's own code is copied at each start.
"""

import fcntl
import hashlib
import os
import shutil
import stat
import sys
import tempfile
import tomllib
from pathlib import Path

from playground import build
from playground.commands import run
from playground.config import Config
from playground.errors import PlaygroundError
from playground.progress import Progress

PYTHON = Path("/usr/bin/python3")
MINIMUM = (3, 11)
REPOSITORY = Path(__file__).resolve().parent.parent
FORMAT = "1"

ISTHMUS = """#!/bin/sh
# {comment}
PYTHONPATH={packages} exec {python} -P -m isthmus "$@"
"""


def python_environment(config: Config, progress: Progress) -> Path:
    """Make `<state>/python` and `<state>/bin/isthmus`, `kubectl`; returns the command isthmus.

    Raises:
        PlaygroundError: Python is too old, or pip cannot fetch a dependency.
    """
    packages = config.state / "python"
    cached = ensure_packages(config.cache, progress)
    if not packages.exists():
        link_tree(cached, packages)
    _copy_operator(packages)
    return _write_commands(config, packages)


def debian_python() -> tuple[int, int]:
    """Version of Debian's python3, such as (3, 11); raises PlaygroundError when it is too old."""
    said = run([PYTHON, "-c", "import sys; print(*sys.version_info[:2])"]).stdout.split()
    version = (int(said[0]), int(said[1]))
    if version < MINIMUM:
        raise PlaygroundError(f"{PYTHON} is {said[0]}.{said[1]}; the operator needs 3.11 or newer")
    return version


def dependencies() -> list[str]:
    """The runtime dependencies of pyproject.toml."""
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    listed = tomllib.loads(text)["project"]["dependencies"]
    return [str(line) for line in listed]


def ensure_packages(cache: Path, progress: Progress) -> Path:
    """The folder of the packages in the cache, filled if its key is new.

    Raises:
        PlaygroundError: Python is too old, or pip cannot fetch a dependency.
    """
    version, wanted = debian_python(), dependencies()
    constraints = REPOSITORY / "constraints.txt"
    fixed = constraints.read_bytes() if constraints.exists() else b""
    key = hashlib.sha256(repr((FORMAT, version, sorted(wanted))).encode() + fixed).hexdigest()
    target = cache / f"python-{version[0]}.{version[1]}-{key[:12]}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "python.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return target
        with (
            progress.step("Python packages of the operator fetched (once)"),
            tempfile.TemporaryDirectory(dir=cache, prefix=".python-") as scratch,
        ):
            fresh = Path(scratch) / "packages"
            _pip_install(wanted, fresh, version=version, constraints=constraints)
            fresh.chmod(0o755)
            fresh.rename(target)
    return target


def _pip_install(
    wanted: list[str], target: Path, *, version: tuple[int, int], constraints: Path
) -> None:
    fixed = [f"--constraint={constraints}"] if constraints.exists() else []
    # Wheels for Debian's Python, which need not be the version that runs this.
    options = ["--only-binary=:all:", f"--python-version={version[0]}.{version[1]}"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run(
        [*pip, *options, f"--target={target}", *fixed, *wanted],
        timeout=600,
        environment=os.environ,
    )
    run([PYTHON, "-m", "compileall", "-q", "-j0", target], timeout=300, check=False)
    for path in [target, *target.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | stat.S_IRGRP | stat.S_IROTH | _traverse(path))


def _traverse(path: Path) -> int:
    return stat.S_IXGRP | stat.S_IXOTH if path.is_dir() else 0


def link_tree(source: Path, target: Path) -> None:
    """Hard links where the file system allows, else copies; all or nothing."""
    fresh = target.with_name(f".new-{target.name}")
    shutil.rmtree(fresh, ignore_errors=True)

    def link(one: str, other: str) -> str:
        try:
            os.link(one, other)
        except OSError:
            shutil.copy2(one, other)
        return other

    shutil.copytree(source, fresh, copy_function=link)
    fresh.rename(target)


def _copy_operator(packages: Path) -> None:
    """The operator as it is in the working tree now; untouched when nothing changed."""
    source = REPOSITORY / "operator" / "isthmus"
    target, fresh = packages / "isthmus", packages / ".new-isthmus"
    files = [p for p in sorted(source.rglob("*")) if p.is_file() and "__pycache__" not in p.parts]
    digest = hashlib.sha256()
    for path in files:
        digest.update(str(path.relative_to(source)).encode() + b"\0" + path.read_bytes())
    record = packages / ".isthmus-digest"
    known = record.read_text(encoding="utf-8") if record.exists() else ""
    if target.exists() and known == digest.hexdigest():
        return  # another operator may be running from it
    shutil.rmtree(fresh, ignore_errors=True)
    for path in files:
        copy = fresh / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copy.chmod(0o644)
    for folder in [fresh, *(p for p in fresh.rglob("*") if p.is_dir())]:
        folder.chmod(0o755)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    run([PYTHON, "-m", "compileall", "-q", target], timeout=120, check=False)
    record.write_text(digest.hexdigest(), encoding="utf-8")


def _write_commands(config: Config, packages: Path) -> Path:
    folder = config.state / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    command = folder / "isthmus"
    comment = "The operator of this working tree, with Debian's Python."
    text = ISTHMUS.format(comment=comment, packages=packages, python=PYTHON)
    if not command.exists() or command.read_text(encoding="utf-8") != text:
        command.write_text(text, encoding="utf-8")
        command.chmod(0o755)
    share_kubectl(config)
    return command


def share_kubectl(config: Config) -> None:
    """Put kubectl where the job user can run it: the cache may lie in /root."""
    target = config.state / "bin" / "kubectl"
    source = build.folder(config.cache) / "kubectl"
    if target.exists() or not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copy2(source, target)
