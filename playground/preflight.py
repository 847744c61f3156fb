"""Everything that has to be there before the first change, said plainly when it is not."""

import os
import platform

from playground import gotool, packages
from playground.config import FORBIDDEN_STATE, Config
from playground.errors import PlaygroundError

NOT_TRIED = (
    "control groups of version 2, and systemd as process 1 (the options are chosen by detection; "
    "tried on version 1 without systemd)",
    "Debian releases other than 12, and other processors than x86_64 (the latter is refused)",
    "a machine whose firewall drops forwarded packets in another chain than the filter table's "
    "FORWARD, such as one of nftables alone",
)
"""What the playground was written for but never run on."""


def check_root() -> None:
    """Raise PlaygroundError for everybody but root."""
    if os.geteuid() != 0:
        raise PlaygroundError("the playground must be run as root: put sudo before the command")


def check(config: Config) -> None:
    """Raise PlaygroundError naming everything that is missing and what to do about it."""
    problems = []
    if os.geteuid() != 0:
        problems.append("it must run as root, for namespaces and bridges: put sudo before make")
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        machine = f"{platform.system()} on {platform.machine()}"
        problems.append(f"it needs Linux on x86_64, not {machine}")
    if not packages.has_apt():
        absent = ", ".join(packages.needed(config))
        problems.append(f"there is no apt-get: use Debian 12, or a machine with {absent}")
    if config.parts & {"kubernetes", "apiserver"}:
        problems += gotool.problems(config.cache)
    if any(str(config.cache).startswith(f"{folder}/") for folder in FORBIDDEN_STATE):
        problems.append(
            f"the cache {config.cache} lies where nodes have file systems of their own; "
            "set XDG_CACHE_HOME to another folder"
        )
    for name, path in (("STATE", config.state), ("SLURM_PREFIX", config.slurm_prefix)):
        if path is None:
            continue
        closed = [str(p) for p in path.parents if p.exists() and not p.stat().st_mode & 0o001]
        if closed:
            problems.append(
                f"the account {config.user} cannot reach {name}={path}: {closed[0]} is closed "
                "to others; choose a folder below /var/tmp"
            )
        if "slurm" in config.parts and path.is_relative_to("/tmp"):
            problems.append(
                f"{name}={path}: SLURM nodes have a /tmp of their own; choose a folder below "
                "/var/tmp"
            )
    if config.slurm_prefix:
        for program in ("bin/sbatch", "sbin/slurmctld", "sbin/slurmd", "lib/slurm"):
            if not (config.slurm_prefix / program).exists():
                problems.append(f"SLURM_PREFIX={config.slurm_prefix} has no {program}")
    if problems:
        raise PlaygroundError("the playground cannot start:\n  - " + "\n  - ".join(problems))
