"""The processor seconds that each module of tests may take: tests/budgets.toml.

Not wall time, which a busy neighbour or another order of lanes changes. What is measured is
compared in proportion to how fast the machine is in the same run (`tests/calibration.py`).
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parent / "budgets.toml"
LIMIT = 2.0
"""A module that takes so many times its budget fails the run."""
LINT = "lint"
"""Counts as a module."""
SLACK = 3.0
"""Seconds that a module may take beyond it: short modules vary more."""
HEADER = """\
# Processor seconds of each test module with all that it starts: daemons, pods, jobs, engines.
# A lane's first module pays for starting the lane's playground. A folder stands for its modules.
# `python -m tests.run --write-budgets REPORT.json` writes this file from a run's report.
"""


@dataclass(frozen=True, slots=True)
class Budgets:
    """What is allowed.

    Attributes:
        calibration: seconds of `tests/calibration.py` when the figures were taken.
        total: seconds of all modules together.
        modules: module or folder below tests/ → seconds.
    """

    calibration: float
    total: float
    modules: Mapping[str, float]

    def key(self, module: str) -> str | None:
        """The entry that a module counts into: its own, or that of a folder above it."""
        above = (str(folder) for folder in Path(module).parents)
        return next((key for key in (module, *above) if key in self.modules), None)


def read(path: Path = FILE) -> Budgets:
    """Raises KeyError, ValueError for a damaged file."""
    plain = tomllib.loads(path.read_text(encoding="utf-8"))
    modules = {str(name): float(seconds) for name, seconds in plain["modules"].items()}
    return Budgets(float(plain["calibration"]), float(plain["total"]), modules)


def judge(measured: Mapping[str, float], budgets: Budgets, *, factor: float) -> list[str]:
    """What is over its budget or has none.

    Args:
        measured: module below tests/ → processor seconds.
        budgets: what is allowed.
        factor: how many times slower than at the time of the budgets the machine is.
    """
    found, sums = [], dict.fromkeys(budgets.modules, 0.0)
    for module, seconds in measured.items():
        key = budgets.key(module)
        if key is None:
            found.append(
                f"{module} has no budget: write its processor seconds ({seconds:.0f}) "
                "into tests/budgets.toml"
            )
        else:
            sums[key] += seconds
    for key, seconds in sums.items():
        allowed = LIMIT * budgets.modules[key] * factor + SLACK
        if seconds > allowed:
            found.append(
                f"{key} took {seconds:.0f} processor seconds, its budget is "
                f"{budgets.modules[key]:.0f} (at most {allowed:.0f} on this machine now)"
            )
    total, allowed = sum(measured.values()), budgets.total * factor
    if total > allowed:
        found.append(
            f"all modules together took {total:.0f} processor seconds, "
            f"their budget is {budgets.total:.0f} ({allowed:.0f} on this machine now)"
        )
    return found


def write(report: Path, *, former: Budgets, path: Path = FILE) -> None:
    """Write the budgets anew from the report of a run; what was not run keeps its own."""
    plain = json.loads(report.read_text(encoding="utf-8"))
    folders = {key for key in former.modules if (FILE.parent / key).is_dir()}
    measured: dict[str, float] = {}
    for module in plain["modules"]:
        above = (str(folder) for folder in Path(module["name"]).parents)
        key = next((folder for folder in above if folder in folders), module["name"])
        measured[key] = measured.get(key, 0.0) + module["cpu"]
    there = {key for key in former.modules if key == LINT or (FILE.parent / key).exists()}
    sums = {key: former.modules[key] for key in there} | measured
    lines = [HEADER, f"calibration = {plain['calibration']:.2f}", f"total = {former.total:.0f}", ""]
    lines += ["[modules]", *(f'"{key}" = {max(1, round(sums[key]))}' for key in sorted(sums)), ""]
    path.write_text("\n".join(lines), encoding="utf-8")
