"""`python -m tests.run`: all tests in lanes side by side, with a report. `make test` calls it.

Each lane (`tests/lanes.py`) is a plain pytest in a session of its own with a log file; its plug-in
(`tests/measure.py`) writes what happens to a file that is read here. Whatever ends the run, also a
signal or the hard stop, everything that was started is ended and the report is written.
"""

import argparse
import os
import signal
import sys
import time
from datetime import datetime
from pathlib import Path

from playground.config import default_cache
from tests import account, budgets, lanes, report
from tests.workers import REPOSITORY, Calibration, Worker

HARD_STOP = 80 * 60.0
"""Counted from the beginning of `make`, which prepares: CI ends all after 90 minutes, mutely."""
STARTED = time.time()
STATUS_EVERY = 30.0
REPORTS_KEPT = 10
CALIBRATION_PATIENCE = 60.0
"""Seconds that a run of short lanes waits for its only measurement of the machine."""


class Interrupted(Exception):
    """The run was asked to end."""


class Run:
    """One run: starts the lanes, tells what happens, ends them."""

    def __init__(self, wanted: tuple[lanes.Lane, ...], *, folder: Path, hard_stop: float) -> None:
        self.hard_stop = hard_stop
        self.begin = time.monotonic()
        self.folder = folder
        self.workers = [Worker(lane, folder=folder, say=self.say) for lane in wanted]
        self.calibration = Calibration()
        self.stopped = ""
        self._said_at = 0.0

    def say(self, text: str) -> None:
        self._said_at = time.monotonic()
        print(f"{self._said_at - self.begin:6.0f} s  {text}", flush=True)

    def until_done(self) -> None:
        """Raises Interrupted when told so by a signal."""
        for worker in self.workers:
            worker.start()
        while running := [worker for worker in self.workers if worker.running()]:
            self.calibration.look()
            if any(worker.lint_failed for worker in self.workers):
                self.stopped = "lint failed: the rest was not waited for"
                return
            if time.monotonic() - self.begin > self.hard_stop - made_for():
                self.stopped = f"hard stop after {self.hard_stop / 60:.0f} minutes"
                return
            if time.monotonic() - self._said_at > STATUS_EVERY:
                self.say("at work: " + ", ".join(worker.status() for worker in running))
            time.sleep(0.5)

    def end(self) -> None:
        """End what still runs, all lanes at once."""
        left = [worker for worker in self.workers if worker.running()]
        if self.stopped:
            self.say(self.stopped)
        if left:
            self.say("ending " + ", ".join(worker.lane.name for worker in left))
        for worker in left:
            worker.interrupt()
        for worker in self.workers:
            worker.end()
        # whoever interrupts a run does not wait for a figure about the machine
        self.calibration.end(patience=0.1 if self.stopped else CALIBRATION_PATIENCE)


def run(
    wanted: tuple[lanes.Lane, ...], *, folder: Path, hard_stop: float = HARD_STOP
) -> report.Report:
    """Run lanes, and print and write their report."""

    def stop(number: int, _: object) -> None:
        raise Interrupted(signal.Signals(number).name)

    # SIGINT too: a shell's background jobs ignore it, and so would what is started here
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    account.remove_empty()
    this = Run(wanted, folder=folder, hard_stop=hard_stop)
    for worker in this.workers:
        this.say(f"lane {worker.lane.name} ({worker.lane.about}): {worker.log}")
    try:
        this.until_done()
    except Interrupted as error:
        this.stopped = f"interrupted by {error}"
    except Exception as error:  # what was started must be ended, whatever it is
        this.stopped = f"the runner failed: {error!r}"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end is under way and has time limits
    this.end()
    made = report.Report(
        workers=[worker.result() for worker in this.workers],
        wall=time.monotonic() - this.begin,
        calibration=this.calibration.seconds(),
        trouble=this.calibration.trouble,
        stopped=this.stopped,
        budgeted=lanes.ACCEPTANCE not in wanted,
    )
    made.write(folder)
    print(made.text(folder), flush=True)
    return made


def made_for() -> float:
    """Seconds that `make` had worked when this process began: the environment, the prepare step."""
    began = float(os.environ.get("ISTHMUS_MAKE_BEGAN", STARTED))
    return max(0.0, STARTED - began)


def report_folder() -> Path:
    """REPORT= names it; else one for each run in the cache, of which the last ones are kept."""
    if named := os.environ.get("REPORT"):
        folder = Path(named).absolute()
    else:
        above = default_cache() / "test-reports"
        above.mkdir(parents=True, exist_ok=True)
        for old in sorted(above.iterdir())[: -REPORTS_KEPT + 1]:
            report.remove(old)
        folder = above / f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.run", description=__doc__)
    parser.add_argument("lanes", nargs="*", help="names of lanes, such as A D [default: all]")
    parser.add_argument("--write-budgets", type=Path, metavar="REPORT.json")
    options = parser.parse_args()
    if options.write_budgets:
        budgets.write(options.write_budgets, former=budgets.read())
        return 0
    wrong = lanes.problems()
    unknown = set(options.lanes) - {lane.name for lane in lanes.LANES}
    if unknown:
        wrong.append(
            f"no lane {', '.join(sorted(unknown))}: write some of "
            + ", ".join(lane.name for lane in lanes.LANES)
        )
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 2
    os.chdir(REPOSITORY)
    wanted = tuple(lane for lane in lanes.LANES if lane.name in options.lanes or not options.lanes)
    return run(wanted, folder=report_folder()).status()


if __name__ == "__main__":
    sys.exit(main())
