"""Processor time of everything that a lane of tests starts, daemons and pods included.

A control group counts it: whatever a process starts is in its group, also after it has made a
session of its own. Pods are the exception, for a kubelet puts them into groups of its playground,
which are counted with those of the process that owns the playground.
"""

import contextlib
import os
import resource
from dataclasses import dataclass, field
from pathlib import Path

from playground import cgroups, instances, owners
from playground.config import Names

PREFIX = "isthmus-tests-"


def hierarchy() -> Path | None:
    """Where groups that count processor time are made; None where this process cannot."""
    version_1 = (cgroups.ROOT / "cpuacct", cgroups.ROOT / "cpu,cpuacct")
    places = [cgroups.ROOT] if cgroups.unified() else [p for p in version_1 if p.is_dir()]
    return places[0] if places and os.access(places[0], os.W_OK) else None


def used(group: Path) -> float | None:
    """Seconds of processor time of a group and of those below it; None when it is gone."""
    try:
        if (group / "cpuacct.usage").exists():
            return int((group / "cpuacct.usage").read_text()) / 1e9
        fields = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
        return int(fields["usage_usec"]) / 1e6
    except (OSError, KeyError, ValueError):
        return None


def make(lane: str) -> Path | None:
    """A group of this process for a lane; None where it cannot make one."""
    top = hierarchy()
    if top is None:
        return None
    group = top / f"{PREFIX}{os.getpid()}-{lane}"
    try:
        group.mkdir(exist_ok=True)
    except OSError:
        return None
    return group


def remove_empty() -> None:
    """Remove the groups that killed runners have left; one with processes stays."""
    top = hierarchy()
    for group in top.glob(f"{PREFIX}*") if top is not None else ():
        if not Path(f"/proc/{group.name.removeprefix(PREFIX).partition('-')[0]}").exists():
            with contextlib.suppress(OSError):
                group.rmdir()


def processes(group: Path) -> list[int]:
    """The pids of the group, as they are now."""
    try:
        return [int(word) for word in (group / "cgroup.procs").read_text().split()]
    except OSError:
        return []


@dataclass(slots=True)
class Account:
    """The seconds of a lane so far, as its own process sees them.

    Attributes:
        group: the lane's; None counts this process and its ended children alone.
    """

    group: Path | None
    _last: dict[Path, float] = field(default_factory=dict)
    _gone: float = 0.0

    def seconds(self) -> float:
        """Processor time since the lane began; what a pod used just before its end may lack."""
        if self.group is None or (own := used(self.group)) is None:
            usages = (
                resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
            )
            return sum(usage.ru_utime + usage.ru_stime for usage in usages)
        now = {group: seconds for group in _pods() if (seconds := used(group)) is not None}
        for group, seconds in self._last.items():
            if now.get(group, 0.0) < seconds:
                self._gone += seconds  # it went, and may have been made anew
        self._last = now
        return own + self._gone + sum(now.values())


def _pods() -> list[Path]:
    """The groups of the nodes of all playgrounds that this process owns."""
    top = hierarchy()
    if top is None:
        return []
    numbers = [n for s in owners.owned_by({os.getpid()}) for n in instances.owned_by(s)]
    return [group for n in numbers for group in top.glob(f"{Names(n).prefix}*") if group.is_dir()]
