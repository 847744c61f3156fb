"""Taking a playground away: every process, mount, namespace, device, route, rule, group and file.

It must also work after a failed or killed start and when the state folder is partly gone, so it
relies on names derived from the instance number and on the mark in the processes' environment,
never on records alone.
"""

import pwd
import shutil
import time
from contextlib import nullcontext
from pathlib import Path

from playground import cgroups, instances, network, packages, slurm_releases
from playground.commands import run, succeeds
from playground.config import INSTANCES, Config, Names
from playground.errors import PlaygroundError
from playground.files import state_lock
from playground.processes import end, marked
from playground.progress import Progress

GRACE = 0.0  # what a playground holds is thrown away: nothing needs to be saved


def down(config: Config, progress: Progress, *, patience: float = 5.0) -> None:
    """Remove the playground of `config.state`; nothing happens when there is none.

    Args:
        config: which one.
        progress: told what is removed.
        patience: seconds to wait for another start or stop of it.

    Raises:
        PlaygroundError: something could not be removed; it is named.
    """
    begin = time.monotonic()
    state, instance = config.state, config.instance
    there = state.exists()
    # a folder that is gone cannot be locked, and must not come back
    with state_lock(state, patience=patience) if there else nullcontext():
        numbers = _instances(state, instance=instance)
        ended = _end_processes(state)
        for number in numbers:
            network.remove(Names(number))
            cgroups.remove(Names(number))
        _unmount_below(state)
        shutil.rmtree(state, ignore_errors=True)
        for number in numbers:
            instances.release(number)
    packages.remove_policy()
    left = remains(state, numbers=numbers)
    if left:
        raise PlaygroundError("could not be removed:\n  " + "\n  ".join(left))
    if there or ended or numbers:
        progress.note(
            f"stopped the playground in {state} ({ended} processes, "
            f"{time.monotonic() - begin:.1f} s)\nthese stay: {_what_stays(config)}"
        )
    else:
        progress.note(f"there is no playground in {state}")


def _what_stays(config: Config) -> str:
    stays = [f"the cache {config.cache}"]
    if slurm_releases.PUBLIC.exists():
        stays.append(f"other releases of SLURM in {slurm_releases.PUBLIC}")
    try:
        pwd.getpwnam(config.user)
        stays.append(f"the account {config.user}")
    except KeyError:
        pass
    if names := packages.installed_by_us(config.cache):
        stays.append("the Debian packages " + " ".join(names))
    return ", ".join(stays)


def _instances(state: Path, *, instance: int | None) -> list[int]:
    """The numbers that belong to this folder by claim, by its record, or by being nobody's."""
    numbers = set(instances.owned_by(state))
    try:
        recorded = int((state / "instance").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        recorded = None
    for number in (recorded, instance):
        if number in INSTANCES and number is not None and instances.owner(number) is None:
            numbers.add(number)
    return sorted(n for n in numbers if instances.owner(n) == state or _traces(n))


def _traces(number: int) -> bool:
    return bool(network.remains(Names(number)) or cgroups.remains(Names(number)))


def _end_processes(state: Path) -> int:
    """KILL everything that is marked, until nothing is; returns how many there were.

    A node's first process has no mark of its own need: its parent ends it, and the kernel ends
    what is inside.
    """
    count = 0
    limit = time.monotonic() + 15
    while found := marked(state):
        count += len(found)
        end(found, grace=GRACE)
        if time.monotonic() > limit:
            break
    return count


def _unmount_below(state: Path) -> None:
    for _ in range(3):
        points = [m for m in _mounts() if m == str(state) or m.startswith(f"{state}/")]
        if not points:
            return
        for point in sorted(points, reverse=True):
            run(["umount", "--lazy", point], check=False)


def _mounts() -> list[str]:
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    return [line.split()[1].replace("\\040", " ") for line in lines]


def remains(state: Path, *, numbers: list[int]) -> list[str]:
    """Everything that is left of a playground, in words; empty after a clean `down`."""
    left = [f"process {p.pid}" for p in sorted(marked(state), key=lambda p: p.pid)]
    left += [f"mount {m}" for m in _mounts() if m.startswith(f"{state}/")]
    for number in numbers:
        left += network.remains(Names(number))
        left += [str(path) for path in cgroups.remains(Names(number))]
        routed = Names(number).service_network, Names(number).pod_network
        for target in routed:
            if succeeds(["ip", "route", "show", "root", target]):
                left += run(["ip", "route", "show", "root", target]).stdout.splitlines()
    if state.exists():
        left.append(str(state))
    return left
