"""`python -m tests.engines`: what `make engines` calls.

Runs every row that has not passed with the code and the engines as they are, one engine at a time
and jobs before pods, and writes docs/engines.md after each. A row that fails says why and where its
logs are, and the next one begins with nothing of it left.
"""

import argparse
import contextlib
import dataclasses
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path

import httpx

from playground.cluster import Config
from playground.config import default_cache
from playground.errors import PlaygroundError
from playground.progress import Progress
from tests.engines.record import Record, Result, commit, key
from tests.engines.rows import ROWS, SITES, Row
from tests.engines.site import Site
from tests.engines.world import engine_world

FAILURES = (AssertionError, PlaygroundError, httpx.HTTPError, OSError, KeyError, ValueError)


def main() -> int:
    options = _arguments()
    for number in (signal.SIGTERM, signal.SIGINT):  # the playground goes with it
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    cache, progress = default_cache(), Progress()
    record = Record(cache)
    wanted = [
        (site, row)
        for site in SITES
        for row in ROWS
        if site in row.sites
        and site in (options.sites or SITES)
        and row.name in (options.rows or [r.name for r in ROWS])
        and (options.fresh or not record.passed(site, row))
    ]
    progress.say(f"{len(wanted)} rows to run; the others have passed with all as it is now")
    # What is run is what stands there now, whatever is edited meanwhile.
    keys, of = {row.name: key(row) for row in ROWS}, commit()
    if wanted:
        config = Config(
            state=_state_folder(), instance=options.instance, nodes=1, slurm_nodes=2, cache=cache
        )
        with engine_world(config, progress) as sites:
            for name, row in wanted:
                result = _run(sites[name], row, progress)
                result = dataclasses.replace(result, state=keys[row.name], commit=of)
                record.put(name, row.name, result)
                record.write()
    record.write()
    return _report(record, progress)


def _run(site: Site, row: Row, progress: Progress) -> Result:
    """One row to its end, whatever that is."""
    began, note, problem, logs = time.monotonic(), "", "", ""
    date = f"{datetime.now(tz=UTC):%Y-%m-%d %H:%M}"
    title = f"{site.name}: {row.name.replace('_', ' ')}"
    try:
        site.world.supervise()
        note = row.check(site)
    except FAILURES as error:
        problem = str(error) or type(error).__name__
        logs = str(_keep(site, row))
        (Path(logs) / "failure.txt").write_text(traceback.format_exc(), encoding="utf-8")
    seconds = time.monotonic() - began
    if problem:
        progress.say(f"{title}: FAILED after {seconds:.0f} s: {problem}\n          logs: {logs}")
        with contextlib.suppress(*FAILURES):
            site.reset()
    else:
        progress.say(f"{title}: ok, {seconds:.0f} s {note}")
    return Result(problem=problem, seconds=round(seconds, 1), note=note, date=date, logs=logs)


def _keep(site: Site, row: Row) -> Path:
    """Copy the logs of operator, daemons, jobs and pods, before anything is taken away."""
    root = Path(os.environ.get("TEST_LOGS", tempfile.gettempdir())) / "isthmus-engine-logs"
    folder = root / f"{site.name}-{row.name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with contextlib.suppress(*FAILURES):
        site.world.playground.save_logs(folder / "daemons")
    for log in (site.world.playground.state / "jobs").glob("*.log"):
        shutil.copy2(log, folder)
    for pod in site.world.objects("pods"):
        name = pod["metadata"]["name"]
        for previous in ("false", "true"):
            with contextlib.suppress(PlaygroundError):
                text = site.world.kubectl(
                    "logs", name, "--all-containers", f"--previous={previous}"
                )
                (folder / f"{name}-previous-{previous}.log").write_text(text, encoding="utf-8")
    with contextlib.suppress(PlaygroundError):
        text = site.world.kubectl("get", "mdep,sj,pods,events", "-o", "yaml")
        (folder / "objects.yaml").write_text(text, encoding="utf-8")
    return folder


def _report(record: Record, progress: Progress) -> int:
    """Say what has failed or was not run; returns the exit code."""
    failed = [
        f"{site} {row.name}"
        for site in SITES
        for row in ROWS
        if site in row.sites and not record.passed(site, row)
    ]
    if failed:
        progress.say(f"{len(failed)} rows have not passed: {', '.join(failed)}")
        return 1
    progress.say("every row has passed; the table is in docs/engines.md")
    return 0


def _state_folder() -> Path:
    state = Path(tempfile.mkdtemp(prefix="isthmus-engines-", dir="/var/tmp"))
    state.chmod(0o755)
    return state


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.engines", description=__doc__)
    parser.add_argument("--sites", nargs="*", choices=SITES, help="only these")
    parser.add_argument("--rows", nargs="*", choices=[row.name for row in ROWS], help="only these")
    parser.add_argument("--fresh", action="store_true", help="also those that have passed")
    parser.add_argument("--instance", type=int, help="of the playground [default: a free one]")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
