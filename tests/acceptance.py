"""`make acceptance`: what is run before a release, and its report under docs/acceptance/.

All of it is marked `acceptance`; a test records its figures with pytest's `record_property`.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from tests import lanes, run
from tests.report import Report
from tests.workers import REPOSITORY

FOLDER = REPOSITORY / "docs" / "acceptance"
HARD_STOP = 6 * 3600.0


def git(*arguments: str) -> str:
    """What git says of the working tree; "" where there is none."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout.strip()


def text(report: Report, *, date: str, commit: str) -> Iterator[str]:
    """The lines of a report."""
    passed, failed, skipped = report.counts()
    yield f"# Acceptance of {commit or 'an unknown commit'}"
    yield ""
    yield f"{date}, {os.cpu_count()} cores: {passed} passed, {failed} failed, {skipped} skipped; "
    yield f"{report.wall:.0f} s, {report.used():.0f} s of processor time, of a machine that was "
    yield f"{report.factor:.2f} times as slow as the one of the budgets."
    yield from ("", report.stopped) if report.stopped else []
    yield ""
    yield "| test | outcome | wall s | cpu s | figures |"
    yield "| --- | --- | ---: | ---: | --- |"
    for test in report.tests():
        name = test.id.removeprefix("tests/")
        yield f"| {name} | {test.outcome} | {test.wall:.1f} | {test.cpu:.1f} | {test.figures} |"


def main() -> int:
    os.chdir(REPOSITORY)
    report = run.run((lanes.ACCEPTANCE,), folder=run.report_folder(), hard_stop=HARD_STOP)
    commit = git("rev-parse", "--short=10", "HEAD")
    if git("status", "--porcelain"):
        commit += " with changes"
    now = datetime.now(tz=UTC)
    FOLDER.mkdir(exist_ok=True)
    path: Path = FOLDER / f"{now:%Y-%m-%d}-{commit.replace(' ', '-') or 'unknown'}.md"
    lines = text(report, date=f"{now:%Y-%m-%d %H:%M} UTC", commit=commit)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"written: {path.relative_to(REPOSITORY)}")
    return report.status()


if __name__ == "__main__":
    sys.exit(main())
