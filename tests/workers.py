"""A lane as processes: started, followed by its events, and ended with all that it started."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playground import owners
from playground.config import Config
from playground.errors import PlaygroundError
from playground.processes import Process, end, identify
from tests import account
from tests.budgets import LINT
from tests.lanes import Lane
from tests.measure import EVENTS, GROUP
from tests.outcomes import Failure, Module, Ran, Result

REPOSITORY = Path(__file__).resolve().parent.parent
MAXFAIL = 5
PATIENCE = 60.0
"""Seconds that an interrupted pytest has for its teardown."""
CALIBRATE_EVERY = 180.0
CALIBRATE = [sys.executable, "-m", "tests.calibration"]
WITH_PARENT = ["setpriv", "--pdeathsig", "INT"]
"""Also a runner that is ended by KILL takes its lanes along."""


class Worker:
    """One lane while it runs."""

    def __init__(self, lane: Lane, *, folder: Path, say: Callable[[str], None]) -> None:
        self.lane = lane
        self.log = folder / f"{lane.name}.log"
        self.lint_failed = False
        self._folder = folder
        self._events = folder / f"{lane.name}.events"
        for old in (self.log, self._events):  # of another run with the same REPORT=
            old.unlink(missing_ok=True)
        self._say = say
        self._result = Result(lane.name)
        self._group = account.make(lane.name)
        self._result.counted = self._group is not None
        self._process: subprocess.Popen[bytes] | None = None
        self._pids: set[int] = set()
        self._linting = False
        self._asked = False
        self._read = 0
        self._current = ""
        self._test = ""
        self._since = 0.0

    # -- start

    def start(self) -> None:
        """Begin with the first of its processes."""
        if self.lane.lint:
            self._linting, self._since = True, time.monotonic()
            self._spawn(["make", "--no-print-directory", LINT], background=False)
        else:
            self._start_tests()

    def _start_tests(self) -> None:
        options = ["-p", "tests.measure", "-p", "no:cacheprovider", "--color=no", "-v"]
        options += ["--continue-on-collection-errors"]
        options += [f"--maxfail={MAXFAIL}", f"--junitxml={self._folder / self.lane.name}.xml"]
        options += ["-o", "junit_family=xunit1"]  # the other one has no place for a test's figures
        options += [f"--rootdir={REPOSITORY}", f"--config-file={REPOSITORY / 'pyproject.toml'}"]
        if self.lane.select:
            options += ["-m", self.lane.select]
        if self.lane.background:
            options.append("--timeout=1200")  # it may get next to no processor time for a while
        files = [f"tests/{module}" for module in self.lane.modules()]
        self._spawn([sys.executable, "-m", "pytest", *options, *files], self.lane.background)

    def _spawn(self, argv: list[str], background: bool) -> None:
        environment = os.environ | {
            EVENTS: str(self._events),
            GROUP: str(self._group or ""),
            "TEST_LOGS": str(self._folder / self.lane.name),
            "ISTHMUS_PREPARED": "1",
            "PYTHONUNBUFFERED": "1",
        }
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [*WITH_PARENT, *argv],
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._pids.add(self._process.pid)
        if self._group is not None:
            with contextlib.suppress(ProcessLookupError):
                (self._group / "cgroup.procs").write_text(str(self._process.pid))
        if background:
            _lower(self._process.pid, group=self._group)

    # -- look

    def running(self) -> bool:
        """Whether it is not done; reads what happened since the last look."""
        if self._process is None:
            return False
        ended = self._process.poll() is not None
        self._follow()
        if not ended:
            return True
        code = self._process.returncode
        self._process = None
        if self._linting:
            return self._linted(code)
        self._finish_module()
        told = code in (1, 2) and self._result.failures
        lost = sum(max(0, m.expected - m.done) for m in self._result.modules.values())
        if self._asked:
            return False
        if code != 0 and not told:
            self._broken(f"pytest of lane {self.lane.name} ended with {code}")
        elif code == 0 and lost:
            self._broken(f"pytest of lane {self.lane.name} ended well without {lost} of its tests")
        return False

    def status(self) -> str:
        """Such as `A real/test_kill.py 2/5`."""
        if self._linting:
            return f"{self.lane.name} {LINT}"
        module = self._result.modules.get(self._current)
        if module is None:
            return f"{self.lane.name} starts"
        failed = f" ({module.failed} failed)" if module.failed else ""
        return f"{self.lane.name} {module.name} {module.done}/{module.expected}{failed}"

    def _linted(self, code: int) -> bool:
        self._linting = False
        if self._asked:
            return False
        wall, used = time.monotonic() - self._since, account.used(self._group) if self._group else 0
        module = Module(LINT, expected=1, wall=wall, cpu=used or 0.0)
        self._result.modules[LINT] = module
        if code == 0:
            module.passed = 1
            self._tell(module)
            self._start_tests()
            return True
        module.failed, self.lint_failed = 1, True
        self._tell(module)
        self._fail(LINT, text=_tail(self.log, lines=60))
        return False

    def _broken(self, what: str) -> None:
        where = f" in {self._test}" if self._test else ""
        self._fail(f"lane {self.lane.name}", text=f"{what}{where}\n{_tail(self.log, lines=30)}")

    def _follow(self) -> None:
        try:
            with self._events.open("rb") as file:
                file.seek(self._read)
                text = file.read()
        except OSError:
            return
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            event = json.loads(line)
            getattr(self, f"_on_{event.pop('event')}")(**event)

    def _on_collected(self, *, modules: dict[str, int], cpu: float) -> None:
        # linting was before that
        linted = self._result.modules.get(LINT)
        self._result.start = cpu - (linted.cpu if linted else 0.0)
        for name, count in modules.items():
            self._result.modules.setdefault(name, Module(name)).expected = count

    def _on_start(self, *, id: str, module: str) -> None:
        if module != self._current:
            self._finish_module()
            self._current = module
        self._test = id

    def _on_test(self, *, module: str, text: str, **fields: Any) -> None:
        reason = text if fields["outcome"] == "skipped" else ""
        test, one = Ran(**fields, reason=reason), self._result.modules[module]
        self._result.tests.append(test)
        setattr(one, test.outcome, getattr(one, test.outcome) + 1)
        one.wall += test.wall
        one.cpu += test.cpu
        self._test = ""
        if test.outcome == "failed":
            self._fail(test.id, text=text)

    def _on_broken(self, *, id: str, module: str, text: str) -> None:
        self._result.modules.setdefault(module, Module(module)).failed += 1
        self._fail(id, text=text)

    def _fail(self, id: str, *, text: str) -> None:
        self._result.failures.append(Failure(id, text, self.log))
        self._say(f"{self.lane.name}  FAILED {id} (see {self.log})")

    def _finish_module(self) -> None:
        if module := self._result.modules.get(self._current):
            self._tell(module)
        self._current = ""

    def _tell(self, module: Module) -> None:
        counts = f"{module.passed} passed" + (f", {module.failed} failed" if module.failed else "")
        counts += f", {module.skipped} skipped" if module.skipped else ""
        missing = module.expected - module.done
        counts += f", {missing} NOT RUN" if missing > 0 else ""
        self._say(
            f"{self.lane.name}  {module.name}: {counts} "
            f"({module.wall:.0f} s, {module.cpu:.0f} s of processor time)"
        )

    # -- end

    def interrupt(self) -> None:
        """Ask it to end: pytest then takes its fixtures down."""
        if self._process is None:
            return
        self._asked = True
        if self._linting:
            _signal_group(self._process.pid, signal.SIGTERM)
        else:  # not the group: what a test has started is ended by its fixture
            self._process.send_signal(signal.SIGINT)

    def end(self) -> None:
        """Wait for its end, then end everything that it started and did not take away."""
        process = self._process
        if process is not None:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                _signal_group(process.pid, signal.SIGKILL)
                process.wait(10)
            self.running()
        self._remove_playgrounds()
        if self._group is None:
            return
        left = {p for pid in account.processes(self._group) if (p := identify(pid)) is not None}
        if left:
            self._say(f"{self.lane.name}  left {_names(left)}: ended")
            end(left, grace=2.0)
        for _ in range(20):  # a group is busy for a moment after its last process ended
            try:
                self._group.rmdir()
                return
            except OSError:
                time.sleep(0.05)

    def _remove_playgrounds(self) -> None:
        """Of a pytest that ended without its fixtures, however it ended."""
        for state in owners.owned_by(self._pids):
            try:
                owners.remove(state, config=Config())
            except PlaygroundError as error:
                self._broken(f"its playground {state}: {error}")

    def result(self) -> Result:
        """After the end."""
        return self._result


class Calibration:
    """Measures now and then how fast the machine is while the lanes run."""

    def __init__(self) -> None:
        self.trouble = ""
        self._found: list[float] = []
        self._process: subprocess.Popen[str] | None = None
        self._next = 0.0

    def look(self) -> None:
        """Start a measurement when it is time, and take the result of one that is done."""
        if self._process is not None:
            if self._process.poll() is None:
                return
            said, trouble = self._process.communicate()
            if self._process.returncode == 0:
                self._found.append(float(said))
            else:
                self.trouble = trouble.strip()[-200:]
            self._process = None
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + CALIBRATE_EVERY
            self._process = subprocess.Popen(
                [*WITH_PARENT, *CALIBRATE],
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )

    def end(self, *, patience: float) -> None:
        """Wait for the one that is under way, at most `patience` seconds, if there is none yet."""
        if self._process is not None:
            try:
                self._process.wait(0.1 if self._found else patience)
            except subprocess.TimeoutExpired:
                _signal_group(self._process.pid, signal.SIGKILL)
                self._process.wait(10)
            self._next = float("inf")
            self.look()

    def seconds(self) -> float | None:
        """The mean of what was measured; None when nothing was."""
        return sum(self._found) / len(self._found) if self._found else None


def _lower(pid: int, *, group: Path | None) -> None:
    """Give a session the processor time that others leave.

    The kernel shares among sessions (autogroups) first, so nice alone does nothing between them;
    where the group also has a weight, it is that which counts.
    """
    os.setpriority(os.PRIO_PROCESS, pid, 19)
    files = [Path(f"/proc/{pid}/autogroup")]
    files += [group / "cpu.shares", group / "cpu.weight"] if group else []
    for file, lowest in zip(files, ("19", "2", "1"), strict=False):
        if file.exists():
            file.write_text(lowest)


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def _names(left: set[Process]) -> str:
    def name(pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            return "?"

    return ", ".join(f"{name(one.pid)} ({one.pid})" for one in left)


def _tail(path: Path, *, lines: int) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
