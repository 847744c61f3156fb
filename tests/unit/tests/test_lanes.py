"""Every module of tests is in exactly one lane, and what is over its budget fails the run."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import budgets, calibration, lanes
from tests.budgets import Budgets, judge
from tests.lanes import Lane, problems
from tests.outcomes import Failure, Module, Result
from tests.report import Report
from tests.workers import REPOSITORY

BUDGETS = Budgets(calibration=2.0, total=100.0, modules={"unit": 10.0, "real/test_a.py": 20.0})


def test_every_module_is_in_one_lane() -> None:
    assert problems() == []


def test_every_module_has_a_budget() -> None:
    """One without fails a whole run, at its end."""
    known, soak = budgets.read(), {"real/test_kill_long.py", "real/test_soak.py"}
    modules = {module for lane in lanes.LANES for module in lane.modules()}
    assert {module for module in modules if known.key(module) is None} == soak


def test_a_folder_stands_for_its_modules() -> None:
    modules = next(lane for lane in lanes.LANES if "unit" in lane.entries).modules()
    assert "unit/tests/test_lanes.py" in modules
    assert len(set(modules)) == len(modules)


def test_what_is_wrong_with_lanes_is_told(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "real" / f"test_{name}.py").touch()
    one = Lane("A", "", ("real/test_a.py", "real/test_b.py", "real/test_gone.py"))
    two = Lane("B", "", ("real/test_b.py",))
    assert problems([one, two], tests=tmp_path) == [
        "tests/real/test_c.py is in no lane: put it into one in tests/lanes.py",
        "tests/real/test_gone.py does not exist, but tests/lanes.py names it",
        "tests/real/test_b.py is in 2 lanes: leave it in one",
    ]


def test_two_modules_of_one_name_are_told(tmp_path: Path) -> None:
    """`pytest tests` imports each under its bare name (seen with two called test_ending.py)."""
    for folder in ("unit", "contract"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "test_a.py").touch()
    lane = Lane("A", "", ("unit/test_a.py", "contract/test_a.py"))
    assert problems([lane], tests=tmp_path) == ["2 modules are called test_a.py: rename one"]


def test_within_the_budgets() -> None:
    measured = {"unit/test_x.py": 5.0, "unit/test_y.py": 6.0, "real/test_a.py": 39.0}
    assert judge(measured, BUDGETS, factor=1.0) == []


@pytest.mark.parametrize(
    ("measured", "factor", "said"),
    [
        ({"real/test_new.py": 1.0}, 1.0, "real/test_new.py has no budget"),
        ({"real/test_a.py": 44.0}, 1.0, "real/test_a.py took 44"),
        ({"unit/test_x.py": 12.0, "unit/test_y.py": 12.0}, 1.0, "unit took 24"),
        ({"real/test_a.py": 39.0}, 0.5, "real/test_a.py took 39"),
    ],
)
def test_over_a_budget(measured: dict[str, float], factor: float, said: str) -> None:
    (found,) = judge(measured, BUDGETS, factor=factor)
    assert said in found


def test_a_slow_machine_has_more_of_it() -> None:
    assert judge({"real/test_a.py": 70.0}, BUDGETS, factor=2.0) == []


def test_all_together_have_a_budget() -> None:
    few = Budgets(calibration=2.0, total=30.0, modules=BUDGETS.modules)
    (found,) = judge({"unit/test_x.py": 10.0, "real/test_a.py": 21.0}, few, factor=1.0)
    assert "all modules together took 31" in found


def report(**changed: object) -> Report:
    module = Module("real/test_a.py", expected=3, passed=2, skipped=1, wall=9.0, cpu=5.0)
    result = Result("A", modules={module.name: module})
    fields = {"workers": [result], "wall": 9.0, "calibration": 2.0, "stopped": ""}
    made = Report(**fields | {"budgeted": True} | changed)  # type: ignore[arg-type]
    made.__dict__["allowed"] = BUDGETS
    return made


def test_the_closing_line_is_alone_and_last(tmp_path: Path) -> None:
    good = report()
    assert good.text(tmp_path).splitlines()[-1] == "2 passed, 0 failed, 1 skipped"
    assert good.status() == 0


def test_what_fails_and_what_is_over_a_budget_fails_the_run(tmp_path: Path) -> None:
    module = Module("real/test_a.py", expected=2, passed=1, failed=1, cpu=90.0)
    failure = Failure("tests/real/test_a.py::test_x", "call:\nassert 1 == 2", tmp_path / "A.log")
    bad = report(workers=[Result("A", modules={module.name: module}, failures=[failure])])
    text = bad.text(tmp_path)
    assert "FAILED tests/real/test_a.py::test_x" in text
    assert "assert 1 == 2" in text
    assert str(failure.log) in text
    assert "BUDGET real/test_a.py took 90" in text
    assert text.splitlines()[-1] == "1 passed, 2 failed"
    assert bad.status() == 1


def test_a_run_that_was_stopped_is_no_success(tmp_path: Path) -> None:
    stopped = report(stopped="hard stop after 80 minutes")
    assert stopped.status() == 1
    assert "NOT ALL WAS RUN: hard stop" in stopped.text(tmp_path)


def test_where_daemons_cannot_be_counted_no_budget_is_judged() -> None:
    module = Module("real/test_a.py", expected=1, passed=1, cpu=900.0)
    blind = report(workers=[Result("A", modules={module.name: module}, counted=False)])
    assert blind.status() == 0


def test_budgets_are_written_from_a_report(tmp_path: Path) -> None:
    modules = [Module("unit/test_x.py", cpu=3.3), Module("unit/test_y.py", cpu=0.3)]
    modules.append(Module("contract/test_wheel.py", cpu=5.4))
    former = Budgets(calibration=2.0, total=100.0, modules={"unit": 9.0, "lint": 30.0})
    made = report(workers=[Result("A", modules={one.name: one for one in modules})], calibration=3)
    made.__dict__["allowed"] = former
    made.write(tmp_path)
    path = tmp_path / "budgets.toml"
    budgets.write(tmp_path / "report.json", former=former, path=path)
    wanted = {"unit": 4.0, "lint": 30.0, "contract/test_wheel.py": 5.0}
    assert budgets.read(path) == Budgets(calibration=3.0, total=100.0, modules=wanted)


def test_the_calibration_is_the_same_work_everywhere() -> None:
    """Ten seeds of the simulation became slower with it, and all budgets 2.6 times wider."""
    assert calibration.work(200) == calibration.work(200)
    code = "import sys, tests.calibration; print(*sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    ours = {name for name in said.stdout.split() if name.partition(".")[0] in {"isthmus", "tests"}}
    assert ours == {"tests", "tests.calibration"}
