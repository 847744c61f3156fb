"""Which test modules run side by side, and in which order: every module is in exactly one lane.

A lane is one `pytest` with a playground of its own, so what a module finds is the same in every
run. Modules that start, kill and cut are spread so that the lanes take about the same time.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Lane:
    """Some modules that run one after the other.

    Attributes:
        name: one letter, for the lines of progress.
        about: what is in it.
        entries: modules and folders below tests/, in the order of the run.
        background: it gets the processor time that the others leave.
        lint: check style and types before its tests.
        select: an expression of pytest's -m; "" takes what is run by default.
    """

    name: str
    about: str
    entries: tuple[str, ...]
    background: bool = False
    lint: bool = False
    select: str = ""

    def modules(self) -> tuple[str, ...]:
        """Paths below tests/; a folder stands for all of its modules in the order of names."""
        found: list[str] = []
        for entry in self.entries:
            path = TESTS / entry
            parts = sorted(path.rglob("test_*.py")) if path.is_dir() else [path]
            found += [str(part.relative_to(TESTS)) for part in parts]
        return tuple(found)


LANES = (
    Lane(
        "A",
        "operators that are killed",
        (
            "real/test_kill.py",
            "real/test_crash.py",
            "real/test_in_cluster.py",
            "real/test_leader_election.py",
            "real/test_isolation.py",
            "real/test_kill_long.py",
            "real/test_soak.py",
        ),
    ),
    Lane(
        "B",
        "what a user does",
        (
            "real/test_data_path.py",
            "real/test_drain.py",
            "real/test_keys.py",
            "real/test_lifecycle.py",
            "real/test_broken_references.py",
            "real/test_watch.py",
        ),
    ),
    Lane(
        "C",
        "ways to SLURM, and the playground itself",
        (
            "real/test_tunnels.py",
            "real/test_slurm_ssh.py",
            "real/test_slurm_commands.py",
            "real/test_playground.py",
            "real/test_wrong_input.py",
        ),
    ),
    # Both need an API server alone, and share it.
    Lane(
        "D",
        "releases of SLURM, single processes",
        ("contract", "real/test_slurm_matrix.py"),
    ),
    Lane("E", "lint, units, simulation", ("unit", "simulation"), background=True, lint=True),
)

ACCEPTANCE = Lane(
    "acceptance",
    "what is shown before a release",
    ("simulation", "unit/tests/test_before.py"),
    select="acceptance",
)
"""Run alone, by `make acceptance`."""


def problems(lanes: Sequence[Lane] = LANES, *, tests: Path = TESTS) -> list[str]:
    """What is wrong with the lanes: a module in none or in two, or one that does not exist.

    Also two modules of one name in folders that are no packages: pytest could import only one.
    """
    listed = Counter(module for lane in lanes for module in lane.modules())
    there = {str(path.relative_to(tests)) for path in tests.rglob("test_*.py")}
    bare = [Path(m) for m in there if not (tests / m).with_name("__init__.py").exists()]
    called = Counter(path.name for path in bare)
    return [
        *(f"tests/{m} is in no lane: put it into one in tests/lanes.py" for m in there - {*listed}),
        *(f"tests/{m} does not exist, but tests/lanes.py names it" for m in {*listed} - there),
        *(f"tests/{m} is in {n} lanes: leave it in one" for m, n in listed.items() if n > 1),
        *(f"{n} modules are called {m}: rename one" for m, n in called.items() if n > 1),
    ]
