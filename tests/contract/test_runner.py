"""The runner of `make test` on small lanes: what it tells, and that nothing it started stays."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import account
from tests.workers import REPOSITORY

CODE = """
import sys
from pathlib import Path
from tests import lanes, run, workers
folder, entries = Path(sys.argv[1]), sys.argv[2:]
wanted = tuple(lanes.Lane(str(n), "", (entry,)) for n, entry in enumerate(entries))
sys.exit(run.run(wanted, folder=folder).status())
"""
SLOW_CALIBRATION = """
run.CALIBRATION_PATIENCE = 3600.0
workers.CALIBRATE[:] = ["sleep", "3600"]
"""
DAEMON = """
import os, subprocess
from pathlib import Path
HERE, KEPT = Path(__file__).parent, []
def daemon():
    made = subprocess.Popen(["sleep", "3600"], start_new_session=True)
    KEPT.append(made)
    (HERE / "daemon.new").write_text(str(made.pid))
    os.rename(HERE / "daemon.new", HERE / "daemon")
    return made
"""

pytestmark = pytest.mark.skipif(
    account.hierarchy() is None, reason="control groups cannot be made here"
)


def start(folder: Path, *, before: str = "", **modules: str) -> "subprocess.Popen[str]":
    """The runner with one lane for each module; `before` it begins, some code is run."""
    paths = []
    for name, text in modules.items():
        path = folder / f"test_{name}.py"
        path.write_text(DAEMON + text)
        paths.append(os.path.relpath(path, REPOSITORY / "tests"))
    return subprocess.Popen(
        [sys.executable, "-c", CODE.replace("sys.exit", f"{before}sys.exit"), folder, *paths],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": f"{REPOSITORY / 'operator'}:{REPOSITORY}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def eventually(look: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 60
    while not look():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def runs(pid: int) -> bool:
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False


def test_lanes_are_told_and_what_they_leave_is_ended(tmp_path: Path) -> None:
    process = start(
        tmp_path,
        good="def test_one(): pass\ndef test_daemon(): daemon()\n",
        bad="import pytest\ndef test_no(): assert 6 * 7 == 41\n"
        "@pytest.mark.skip\ndef test_skipped(): pass\n",
        broken="import nothing_of_that_name\n",
    )
    said, _ = process.communicate(timeout=110)
    assert process.returncode == 1
    assert "2 passed" in next(line for line in said.splitlines() if "test_good.py:" in line)
    assert "assert (6 * 7) == 41" in said
    assert "No module named 'nothing_of_that_name'" in said
    assert "left sleep" in said
    assert not runs(int((tmp_path / "daemon").read_text()))
    # beside the two failures: no budget for the two modules that ran
    assert said.splitlines()[-1] == "2 passed, 4 failed, 1 skipped"
    assert "\x1b" not in said
    report = json.loads((tmp_path / "report.json").read_text())
    assert {m["lane"]: m["passed"] for m in report["modules"] if m["passed"]} == {"0": 2}
    assert (tmp_path / "1.xml").exists()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_runner_that_is_ended_takes_its_lanes_along(tmp_path: Path, how: signal.Signals) -> None:
    """Nor does it wait for a figure about the machine: 60 s, where it got no processor time."""
    process = start(
        tmp_path,
        before=SLOW_CALIBRATION,
        slow="import pytest, time\n"
        "@pytest.fixture\n"
        "def held():\n"
        "    made = daemon()\n"
        "    yield\n"
        "    made.kill()\n"
        "    made.wait()\n"
        "    (HERE / 'torn-down').touch()\n"
        "def test_slow(held): time.sleep(3600)\n",
    )
    eventually((tmp_path / "daemon").exists, "the test has begun")
    process.send_signal(how)
    said, _ = process.communicate(timeout=110)
    eventually((tmp_path / "torn-down").exists, "its fixture is taken down")
    eventually(lambda: not runs(int((tmp_path / "daemon").read_text())), "no process is left")
    if how == signal.SIGKILL:
        top = account.hierarchy()
        assert top is not None

        def removed() -> bool:  # by the next run; its last process may not be gone yet
            account.remove_empty()
            return not list(top.glob(f"{account.PREFIX}{process.pid}-*"))

        eventually(removed, "its control group is removed")
    else:
        assert process.returncode == 1
        assert f"interrupted by {how.name}" in said
        assert said.splitlines()[-1] == "0 passed, 2 failed"


def test_the_hard_stop_counts_what_make_did_before(tmp_path: Path) -> None:
    """Expanded anew for each recipe, it was the time of the tests' own and never of the first."""
    probe = tmp_path / "probe.mk"
    probe.write_text(
        "include Makefile\n"
        f"first:\n\t@echo $$ISTHMUS_MAKE_BEGAN >{tmp_path}/first; sleep 1.1\n"
        f"probe: first\n\t@echo $$ISTHMUS_MAKE_BEGAN >{tmp_path}/second\n"
    )
    ours = ("ISTHMUS", "MAKE", "MFLAGS")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    command = ["make", "--no-print-directory", "-f", str(probe), "probe"]
    subprocess.run(command, cwd=REPOSITORY, env=clean, check=True, timeout=60)
    assert (tmp_path / "first").read_text() == (tmp_path / "second").read_text()
