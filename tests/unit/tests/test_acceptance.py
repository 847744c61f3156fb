"""The report of `make acceptance`: date, commit, and the figures that tests record."""

from tests import acceptance
from tests.outcomes import Module, Ran, Result
from tests.report import Report


def test_a_report_names_the_commit_and_the_figures() -> None:
    seeds = Ran("tests/simulation/test_x.py::test_seeds", "passed", 400.0, 700.0, "seeds 2000")
    broken = Ran("tests/simulation/test_x.py::test_rule", "failed", 5.0, 4.0, "")
    module = Module("simulation/test_x.py", expected=2, passed=1, failed=1, cpu=704.0)
    result = Result("acceptance", modules={module.name: module}, tests=[seeds, broken])
    report = Report([result], wall=405.0, calibration=None, stopped="", budgeted=False)
    text = "\n".join(acceptance.text(report, date="2026-11-30 18:00 UTC", commit="0123456789"))
    assert text.startswith("# Acceptance of 0123456789\n\n2026-11-30 18:00 UTC, ")
    assert "| simulation/test_x.py::test_seeds | passed | 400.0 | 700.0 | seeds 2000 |" in text
    assert "| simulation/test_x.py::test_rule | failed | 5.0 | 4.0 |  |" in text
