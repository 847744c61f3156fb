"""Everything that has to be there before the first change, said plainly when it is not."""

import os
import platform

from playground import gotool, packages
from playground.config import Config
from playground.errors import PlaygroundError


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
        problems += gotool.problems()
    if config.slurm_prefix:
        for program in ("bin/sbatch", "sbin/slurmctld", "sbin/slurmd", "lib/slurm"):
            if not (config.slurm_prefix / program).exists():
                problems.append(f"SLURM_PREFIX={config.slurm_prefix} has no {program}")
    if problems:
        raise PlaygroundError("the playground cannot start:\n  - " + "\n  - ".join(problems))
