"""The processes of one worker, found without asking the engine or the operator.

A real engine renames its children and writes over their environment, so neither tells whose they
are. Those of a job keep the folder that the batch script chose for it; those of a pod have its
control group.
"""

import os
from pathlib import Path

from playground.processes import PROC, Process, all_processes, command_line, read_stat


def of_job(folder: Path) -> set[Process]:
    """Every process whose working directory is the job's own folder, or below it."""
    return {_process(pid) for pid in all_processes() if _below(_cwd(pid), folder)} - {_GONE}


def of_pod(uid: str) -> set[Process]:
    """Every process in a control group of the pod."""
    marks = (f"pod{uid}", f"pod{uid.replace('-', '_')}")
    return {
        _process(pid) for pid in all_processes() if any(mark in _groups(pid) for mark in marks)
    } - {_GONE}


def main_process(found: set[Process]) -> Process | None:
    """The engine's main process: of those that run `… serve …` the innermost.

    What starts an engine (a shell, a small process 1) may have its command line too.
    """
    serving = {p.pid: p for p in found if "serve" in command_line(p.pid)}
    parents = {stat.parent for pid in serving if (stat := read_stat(pid)) is not None}
    inner = [process for pid, process in sorted(serving.items()) if pid not in parents]
    return inner[-1] if inner else None


def descendants(process: Process) -> list[Process]:
    """Children and their children, oldest first."""
    everything = all_processes()
    wanted, found = {process.pid}, []
    for pid, stat in sorted(everything.items(), key=lambda item: item[1].started):
        if stat.parent in wanted:
            wanted.add(pid)
            found.append(Process(pid=pid, started=stat.started))
    return found


def title(process: Process) -> str:
    """What it calls itself."""
    return " ".join(command_line(process.pid))[:100]


_GONE = Process(pid=0, started=0)


def _process(pid: int) -> Process:
    stat = read_stat(pid)
    return _GONE if stat is None else Process(pid=pid, started=stat.started)


def _cwd(pid: int) -> str:
    try:
        return os.readlink(PROC / str(pid) / "cwd")
    except OSError:
        return ""


def _below(path: str, folder: Path) -> bool:
    return path == str(folder) or path.startswith(f"{folder}/")


def _groups(pid: int) -> str:
    try:
        return (PROC / str(pid) / "cgroup").read_text(encoding="utf-8")
    except OSError:
        return ""
