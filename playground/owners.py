"""Which process has to take a playground down, so that one whose process is dead can be removed.

A test run that is ended by KILL leaves its playgrounds: their daemons are sessions of their own,
take a tenth of a core and keep an instance number. A playground that a person started has no owner.
"""

import os
import shutil
import time
from pathlib import Path

from playground import cleanup, instances
from playground.config import DEFAULT_STATE, INSTANCES, Config
from playground.files import locked, write_whole
from playground.processes import Process, alive, identify
from playground.progress import Progress

RECORD = "owner"
EMPTY_FOR = 3600.0  # seconds; a younger empty folder may be that of a start
PATIENCE = 180.0  # seconds; an interrupted run takes its playgrounds down by itself, if slowly


def record(state: Path, *, owned: bool) -> None:
    """Note that this process is the owner of the playground in a folder, or that none is."""
    path, own = state / RECORD, identify(os.getpid())
    if owned and own is not None:
        write_whole(path, f"{own.pid} {own.started}\n")
    else:
        path.unlink(missing_ok=True)


def owner(state: Path) -> Process | None:
    """The process that has to take it down, dead or alive; None when there is none."""
    try:
        pid, started = (state / RECORD).read_text(encoding="utf-8").split()
        return Process(pid=int(pid), started=int(started))
    except (OSError, ValueError):
        return None


def states() -> list[Path]:
    """The folders of all playgrounds that have a number or lie where those of tests do."""
    claimed = {state for number in INSTANCES if (state := instances.owner(number)) is not None}
    return sorted(claimed | set(DEFAULT_STATE.parent.glob("isthmus-*/")))


def owned_by(pids: set[int]) -> list[Path]:
    """The folders of playgrounds that one of these processes has to take down."""
    return [s for s in states() if (found := owner(s)) is not None and found.pid in pids]


def remove_dead(config: Config, progress: Progress) -> int:
    """Take down every playground whose owner is dead; returns how many there were.

    Raises:
        PlaygroundError: something of one could not be removed.
    """
    removed = 0
    with locked(config.cache / "dead-playgrounds.lock"):  # two runs at once find the same
        for state in states():
            found = owner(state)
            if found is None:
                _remove_if_empty(state)
            elif not alive(found):
                with progress.step(f"a dead test run (pid {found.pid}) left {state}: removed"):
                    remove(state, config=config)
                removed += 1
    return removed


def remove(state: Path, *, config: Config) -> None:
    """Take a playground down whose settings need not be known."""
    cleanup.down(
        Config(state=state, instance=None, cache=config.cache, user=config.user),
        Progress(silent=True),
        patience=PATIENCE,
    )


def _remove_if_empty(state: Path) -> None:
    """A run that was killed before its playground had begun leaves an empty folder."""
    try:
        if time.time() - state.stat().st_mtime > EMPTY_FOR and not any(state.iterdir()):
            shutil.rmtree(state, ignore_errors=True)
    except OSError:
        return
