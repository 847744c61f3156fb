"""What a run tells at its end, and what stays of it: report.json and report.md beside the logs."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from tests import budgets
from tests.outcomes import Failure, Module, Ran, Result

SLOWEST = 40
LINES = 40  # of each failure that are printed; the log has all


def remove(folder: Path) -> None:
    """Remove an old report."""
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Report:
    """The results of a run.

    Attributes:
        workers: one for each lane.
        wall: seconds.
        calibration: seconds, as `tests/calibration.py`; None when it was not measured.
        stopped: why not all was run; "" when it was.
        budgeted: what a module takes is compared with its budget.
        trouble: why there is no calibration.
    """

    workers: list[Result]
    wall: float
    calibration: float | None
    stopped: str
    budgeted: bool
    trouble: str = ""

    @cached_property
    def allowed(self) -> budgets.Budgets:
        return budgets.read()

    @property
    def factor(self) -> float:
        """How many times slower the machine was than when the budgets were taken."""
        return self.calibration / self.allowed.calibration if self.calibration else 1.0

    def modules(self) -> Iterator[tuple[str, Module]]:
        """Each with its lane."""
        for worker in self.workers:
            for module in worker.modules.values():
                yield worker.lane, module

    def used(self) -> float:
        """Processor seconds of everything, the starts of the lanes included."""
        starts = sum(worker.start for worker in self.workers)
        return starts + sum(module.cpu for _, module in self.modules())

    @cached_property
    def over(self) -> list[str]:
        """What is over its budget; not judged where only this process's own time is known."""
        if self.stopped or not self.budgeted or not all(w.counted for w in self.workers):
            return []
        measured = {module.name: module.cpu for _, module in self.modules() if module.expected}
        return budgets.judge(measured, self.allowed, factor=self.factor)

    def tests(self) -> list[Ran]:
        """Of all lanes."""
        return [test for worker in self.workers for test in worker.tests]

    def failures(self) -> list[Failure]:
        """Of all lanes."""
        return [failure for worker in self.workers for failure in worker.failures]

    def counts(self) -> tuple[int, int, int]:
        """Passed, failed, skipped; what is over a budget or not run counts as failed."""
        modules = [module for _, module in self.modules()]
        failed = len(self.failures()) + len(self.over) + bool(self.stopped)
        return sum(m.passed for m in modules), failed, sum(m.skipped for m in modules)

    def status(self) -> int:
        """Exit status."""
        return bool(self.counts()[1])

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The table: lane, module, tests, wall, cpu, budget, ratio."""
        yield "lane", "module", "tests", "wall s", "cpu s", "budget", "ratio"
        for lane, module in self.modules():
            budget = self.allowed.modules.get(module.name)
            ratio = f"{module.cpu / budget / self.factor:.2f}" if budget else ""
            tests = f"{module.done}" + (
                "" if module.done >= module.expected else f"/{module.expected}"
            )
            shown = f"{budget:.0f}" if budget else self.allowed.key(module.name) or "none"
            yield lane, module.name, tests, f"{module.wall:.0f}", f"{module.cpu:.1f}", shown, ratio
        for folder, budget in self.allowed.modules.items():
            parts = [
                m
                for _, m in self.modules()
                if m.name != folder and self.allowed.key(m.name) == folder
            ]
            if parts:
                wall, cpu = sum(m.wall for m in parts), sum(m.cpu for m in parts)
                tests, ratio = str(sum(m.done for m in parts)), f"{cpu / budget / self.factor:.2f}"
                yield (
                    "",
                    f"{folder}/ (all)",
                    tests,
                    f"{wall:.0f}",
                    f"{cpu:.1f}",
                    f"{budget:.0f}",
                    ratio,
                )

    def table(self) -> str:
        """As text; one line for each module."""
        rows = list(self.rows())
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = []
        for row in rows:
            left = f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}"
            lines.append(
                left + "".join(f"  {c:>{w}}" for c, w in zip(row[2:], widths[2:], strict=True))
            )
        return "\n".join(lines)

    def _summary(self) -> list[str]:
        starts = ", ".join(f"{w.lane} {w.start:.0f}" for w in self.workers)
        lines = [
            f"wall {self.wall:.0f} s, processor time {self.used():.0f} s "
            f"(collection included: {starts})",
            f"calibration: {self.calibration:.2f} s of fixed work, {self.factor:.2f} times the "
            f"{self.allowed.calibration:.2f} s of the budgets"
            if self.calibration
            else f"calibration: not measured {self.trouble}".strip(),
        ]
        if not all(worker.counted for worker in self.workers):
            lines.append("budgets are not judged: no control group counts what daemons use here")
        return lines

    def text(self, folder: Path) -> str:
        """What is printed at the end; the closing line is alone on its line."""
        parts = ["", self.table(), "", *self._summary()]
        for failure in self.failures():
            said = failure.text.splitlines()
            cut = [f"[... {len(said) - LINES} lines more in the log]"] if len(said) > LINES else []
            parts += ["", f"FAILED {failure.id}", *cut, *said[-LINES:], f"log: {failure.log}"]
        parts += ["", *(f"SKIPPED {t.id}: {t.reason}" for t in self.tests() if t.reason)]
        parts += [f"BUDGET {line}" for line in self.over]
        parts += [f"FAILED {failure.id}" for failure in self.failures()]
        parts += [f"NOT ALL WAS RUN: {self.stopped}"] if self.stopped else []
        parts.append(f"report: {folder / 'report.md'}")
        passed, failed, skipped = self.counts()
        parts.append(
            f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "")
        )
        return "\n".join(parts)

    def write(self, folder: Path) -> None:
        """Write report.json (for `--write-budgets`) and report.md."""
        modules = [asdict(module) | {"lane": lane} for lane, module in self.modules()]
        plain = {
            "wall": round(self.wall, 1),
            "cpu": round(self.used(), 1),
            "calibration": self.calibration or self.allowed.calibration,
            "factor": round(self.factor, 3),
            "stopped": self.stopped,
            "modules": modules,
            "failures": [failure.id for failure in self.failures()],
            "over": self.over,
        }
        (folder / "report.json").write_text(json.dumps(plain, indent=1), encoding="utf-8")
        (folder / "report.md").write_text("\n".join(self.markdown()) + "\n", encoding="utf-8")

    def markdown(self) -> Iterator[str]:
        """The lines of report.md."""
        yield from ("# Tests", "", *(f"* {line}" for line in self._summary()), "")
        head, *rows = self.rows()
        yield "| " + " | ".join(head) + " |"
        yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
        yield from ("| " + " | ".join(row) + " |" for row in rows)
        yield ""
        yield from (f"* failed: {failure.id}" for failure in self.failures())
        yield from (f"* budget: {line}" for line in self.over)
        yield from [f"* not all was run: {self.stopped}"] if self.stopped else []
        yield from ("", "The slowest tests, seconds:", "", "| test | wall | cpu |")
        yield "| --- | ---: | ---: |"
        for test in sorted(self.tests(), key=lambda test: -test.wall)[:SLOWEST]:
            yield f"| {test.id} | {test.wall:.1f} | {test.cpu:.1f} |"
