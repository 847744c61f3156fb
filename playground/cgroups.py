"""Control groups of the nodes' pods: made before a kubelet starts, removed by `down`."""

import time
from pathlib import Path

from playground.commands import run
from playground.config import Names

ROOT = Path("/sys/fs/cgroup")


def unified() -> bool:
    """Whether the machine has control groups of version 2 only."""
    said = run(["stat", "--file-system", "--format=%T", ROOT], check=False).stdout.strip()
    return said == "cgroup2fs"


def hierarchies() -> list[Path]:
    """The folders in which a group has to be made: one, or one per controller in version 1."""
    if unified():
        return [ROOT]
    return [path for path in sorted(ROOT.iterdir()) if path.is_dir() and not path.is_symlink()]


def make(name: str) -> None:
    """Make a group in every hierarchy; in version 1 a cpuset starts empty and must be filled."""
    for hierarchy in hierarchies():
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):
            parent = hierarchy / file
            if parent.exists() and (group / file).exists():
                (group / file).write_text(parent.read_text(encoding="utf-8"), encoding="utf-8")
    if unified():
        # the kubelet needs the controllers in its root; the machine's root has no such limit
        controllers = (ROOT / "cgroup.controllers").read_text(encoding="utf-8").split()
        for group in (ROOT, ROOT / name):
            for controller in controllers:
                run(
                    ["sh", "-c", f"echo +{controller} >{group}/cgroup.subtree_control"],
                    check=False,
                )


def remains(names: Names) -> list[Path]:
    """The instance's groups that exist, children first."""
    try:
        tops = [
            group
            for hierarchy in hierarchies()
            for group in hierarchy.iterdir()
            if group.name.startswith(names.prefix) and group.is_dir()
        ]
    except FileNotFoundError:
        return []
    found = []
    for top in tops:
        below = [path for path in top.rglob("*") if path.is_dir()]
        found += [*sorted(below, key=lambda path: -len(path.parts)), top]
    return found


def remove(names: Names, *, timeout: float = 3.0) -> None:
    """Remove the instance's groups; a group is busy for a moment after its last process ended."""
    end = time.monotonic() + timeout
    while groups := remains(names):
        for group in groups:
            try:
                group.rmdir()
            except OSError:
                continue
        if time.monotonic() > end:
            return
        time.sleep(0.02)
